"""CIFAR-10: 50,000 + 10,000 colour photographs of 32 x 32 [pixels] in ten classes.

Source: Krizhevsky, "Learning multiple layers of features from tiny images", 2009. A record of the official binary files
is one label byte, then 1,024 red, 1,024 green and 1,024 blue bytes, row by row.

Read from the six official .bin files, from the official archive that holds them, or from lossless sheets: per batch one
WebP of 100 x 100 images and one .npy of labels, decoded in memory to the official bytes. Either way the md5 of the
official file decides.
"""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..errors import UserError
from .checksums import check
from .dataset import DataSet
from .sources import File, FileSet, Places, locate, read_bytes

FOLDER = "cifar-10"
BATCHES = {
    "data_batch_1": "5dd7e06a14cb22eb9f671a540d1b7c25",
    "data_batch_2": "5ea93a67294ea407fff1d09f752e9692",
    "data_batch_3": "942cd6a4bcdd0dd3c604fbe906cb4421",
    "data_batch_4": "ae636b3ba5c66a11e91e8cb52e771fcb",
    "data_batch_5": "53f37980c15c3d472c316c40844f3f0d",
    "test_batch": "803d5f7f4d78ea53de84dbe85f74fb6d",
}
ARCHIVE = FileSet(
    FOLDER,
    (File("cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"),),
    ("https://www.cs.toronto.edu/~kriz/",),
)
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SIDE = 32
RECORD = 1 + 3 * SIDE * SIDE


def load_cifar10(places: Places) -> DataSet:
    """Loads CIFAR-10 from .bin files, lossless sheets or the official archive, whichever is found first."""
    batches, source = _from_folders(places) or _from_archive(places)
    train = np.concatenate([_records(content) for name, content in batches.items() if name != "test_batch"])
    test = _records(batches["test_batch"])
    parts = (torch.from_numpy(part.copy()) for part in (train[:, 1:], train[:, 0], test[:, 1:], test[:, 0]))
    train_x, train_y, test_x, test_y = parts
    shape = (-1, 3, SIDE, SIDE)
    return DataSet("cifar10", train_x.view(shape), train_y.long(), test_x.view(shape), test_y.long(), CLASSES, source)


def decode_sheet(sheet: Path, labels: Path) -> bytes:
    """Returns the official bytes of a batch that is stored as a lossless sheet and a file of labels.

    Raises:
        UserError: when either file can't be read, or they don't fit each other.
    """
    try:
        with Image.open(io.BytesIO(read_bytes(sheet))) as image:
            pixels = np.asarray(image.convert("RGB"))
        y = np.load(io.BytesIO(read_bytes(labels)), allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        raise UserError(
            f"{sheet}: expected a sheet of images and its .labels.npy, got {error}: replace them"
        ) from error
    height, width = pixels.shape[:2]
    rows, columns = height // SIDE, width // SIDE
    if height % SIDE or width % SIDE or y.shape != (rows * columns,) or y.dtype != np.uint8:
        raise UserError(
            f"{sheet}: expected {rows * columns} labels (uint8) for a sheet of {pixels.shape}, got {y.dtype}{y.shape}"
        )
    tiles = pixels.reshape(rows, SIDE, columns, SIDE, 3).transpose(0, 2, 4, 1, 3)  # row, column, channel, y, x
    return np.column_stack([y, tiles.reshape(rows * columns, -1)]).tobytes()


def _from_folders(places: Places) -> tuple[dict[str, bytes], str] | None:
    for said, folder in places.folders(FOLDER):
        for place in (folder, folder / "cifar-10-batches-bin", folder.parent / "cifar-10-batches-bin"):
            found = {name: content for name in BATCHES if (content := _batch(place, name)) is not None}
            if len(found) == len(BATCHES):
                return found, said
            if found:
                lacking = ", ".join(f"{name}.bin" for name in BATCHES if name not in found)
                raise UserError(
                    f"cifar-10: expected six batches in {place}, found no {lacking} (nor its sheet): add them"
                )
    return None


def _batch(place: Path, name: str) -> bytes | None:
    plain, sheet, labels = place / f"{name}.bin", place / f"{name}.webp", place / f"{name}.labels.npy"
    if plain.is_file():
        where, content = plain, read_bytes(plain)
    elif sheet.is_file():
        where, content = sheet, decode_sheet(sheet, labels)
    else:
        return None
    check(where, content, BATCHES[name])
    return content


def _from_archive(places: Places) -> tuple[dict[str, bytes], str]:
    found = locate(ARCHIVE, places)
    (packed,) = found.content.values()
    batches = {}
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:  # read in memory: nothing is unpacked onto the disk
        for member in archive:
            name = Path(member.name).stem
            if name in BATCHES and (file := archive.extractfile(member)) is not None:
                batches[name] = file.read()
                check(f"{ARCHIVE.files[0].name}: {member.name}", batches[name], BATCHES[name])
    return {name: batches[name] for name in BATCHES}, found.source


def _records(content: bytes) -> np.ndarray:
    return np.frombuffer(content, np.uint8).reshape(-1, RECORD)
