"""Omniglot: 1,623 handwritten characters of 50 alphabets, each drawn by 20 people, resized to 28 x 28 [pixels].

Source: Lake, Salakhutdinov and Tenenbaum, "Human-level concept learning through probabilistic program induction",
Science 2015. A drawing is 105 x 105 [pixels] of ink (1) on paper (0); resizing averages the area of 3.75 x 3.75 pixels
that each new pixel covers and rounds to 256 levels. This is not the file of Burda et al. (IWAE, 2016), though the sizes
are nearly theirs: 15 drawings of each character for training (24,345) and 5 for test (8,115; theirs is 8,070).

Read from the two official archives of PNGs, or from one .npz that holds the same bits packed. The 20 drawings of a
character are put in the order of their bits and then shuffled by a fixed seed, so that the split does not depend on
which of the two was read.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import PurePosixPath

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from ..errors import UserError
from .checksums import check
from .dataset import DataSet
from .sources import File, FileSet, Places, locate, read_bytes

SIDE, RESIZED = 105, 28
DRAWINGS, TRAINING = 20, 15
SEED = 0
PACKED = File("omniglot_105_packed.npz", "1417b95836a8f02e6fc06a4cb8e1bb6786372042c272dabf8d63e0eb05c1fe73")
ARCHIVES = FileSet(
    "omniglot",
    (
        File("images_background.zip", "68d2efa1b9178cc56df9314c21c6e718"),
        File("images_evaluation.zip", "6b91aef0f799c5bb55b94e3f2daec811"),
    ),
    ("https://raw.githubusercontent.com/brendenlake/omniglot/master/python/",),
)


def load_omniglot(places: Places) -> DataSet:
    """Loads Omniglot at 28 x 28, ink bright; a class is a character, named `alphabet/character`."""
    packed, names, source = _from_packed(places) or _from_archives(places)
    order = np.argsort(names, kind="stable")
    x, y = {"train": [], "test": []}, {"train": [], "test": []}  # type: dict[str, list], dict[str, list]
    for label, character in enumerate(order):
        rows = packed[character]
        rows = np.array(sorted(rows, key=bytes))
        rows = rows[np.random.RandomState([SEED, label]).permutation(len(rows))]
        small = resize(np.unpackbits(rows, axis=1, count=SIDE * SIDE).reshape(-1, SIDE, SIDE))
        for split, part in (("train", small[:TRAINING]), ("test", small[TRAINING:])):
            x[split].append(part)
            y[split].append(np.full(len(part), label))
    train_x, test_x = (torch.from_numpy(np.concatenate(x[split])[:, None]) for split in ("train", "test"))
    train_y, test_y = (torch.from_numpy(np.concatenate(y[split])).long() for split in ("train", "test"))
    return DataSet("omniglot", train_x, train_y, test_x, test_y, tuple(str(names[i]) for i in order), source)


def resize(ink: UInt8[np.ndarray, "n side side"], size: int = RESIZED) -> UInt8[np.ndarray, "n small small"]:
    """Shrinks drawings of zeros and ones by the average over the area of each new pixel, to levels 0..255."""
    side = ink.shape[-1]
    edges = np.arange(size + 1) * (side / size)
    overlap = np.minimum(edges[1:, None], np.arange(1, side + 1)) - np.maximum(edges[:-1, None], np.arange(side))
    weights = (np.clip(overlap, 0, None) * (size / side)).astype(np.float32)
    return np.rint(255 * (weights @ ink.astype(np.float32) @ weights.T)).astype(np.uint8)


def _from_packed(places: Places) -> tuple[np.ndarray, np.ndarray, str] | None:
    for said, folder in places.folders(ARCHIVES.folder):
        path = folder / PACKED.name
        if path.is_file():
            content = read_bytes(path)
            check(path, content, PACKED.digest)
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                rows = np.concatenate([arrays["background"], arrays["evaluation"]])
                names = np.concatenate([arrays["background_names"], arrays["evaluation_names"]])
            return rows, names, f"{said} (bits packed)"
    return None


def _from_archives(places: Places) -> tuple[np.ndarray, np.ndarray, str]:
    found = locate(ARCHIVES, places)
    drawings: dict[str, list[np.ndarray]] = {}
    for file, content in found.content.items():
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for member in sorted(name for name in archive.namelist() if name.endswith(".png")):
                parts = PurePosixPath(member).parts  # images_background/alphabet/character01/0001_01.png
                with Image.open(io.BytesIO(archive.read(member))) as image:
                    paper = np.asarray(image.convert("L")) > 127
                if len(parts) < 3 or paper.shape != (SIDE, SIDE):
                    raise UserError(
                        f"omniglot/{file}: expected alphabet/character/drawing.png of 105 x 105, got {member}"
                    )
                drawings.setdefault("/".join(parts[-3:-1]), []).append(np.packbits(~paper.reshape(-1)))
    for name, own in drawings.items():
        if len(own) != DRAWINGS:
            raise UserError(f"omniglot: expected {DRAWINGS} drawings of {name}, found {len(own)}")
    return np.array(list(drawings.values())), np.array(list(drawings)), found.source
