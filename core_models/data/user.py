"""The user's own data: a .npz of arrays or a folder of images.

A .npz holds `x` and, where there are labels, `y`; or `train_x`, `train_y`, `test_x` and `test_y`. Images are (n, h, w),
(n, h, w, c) or (n, c, h, w) with 1 or 3 channels; a string `layout`, `nhwc` or `nchw`, decides where both fit. Pixels
are integers from 0 to 255, booleans, or floats in [0, 1], which are rounded to 256 levels. Labels are integers or
strings; -1 and "" mean that there is none, and so does "-1", which is what numpy makes of a -1 among strings.

A folder holds one sub-folder of images per class, and possibly `unlabelled/`; or `train/` and `test/`, each laid out
so.

Where there is no test split, a share of each class, by default a fifth, is held out by a fixed seed (`splits.holdout`).
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from ..errors import UserError
from .advice import range_advice
from .dataset import UNLABELLED, DataSet, UnitImages
from .images import image_files, read_images
from .pixels import quantise
from .splits import holdout

NO_CLASS = "unlabelled"
NO_CLASS_NAMES = (NO_CLASS, "unlabeled")
SEED = 0


@dataclass(frozen=True, eq=False)
class Examples:
    """Images to be labelled, in the order of their names."""

    x: UInt8[Tensor, "n c h w"]
    names: tuple[str, ...]
    """The path of each image's file inside the folder, or its row in the .npz."""
    source: str

    def images(self) -> UnitImages:
        """Returns the images as float32 in [0, 1]."""
        return self.x.to(torch.float32).div_(255)


@dataclass(frozen=True, eq=False)
class _Part:
    x: Tensor
    y: np.ndarray  # integers or strings, as the user wrote them
    paths: tuple[str, ...] = ()

    def at(self, indices: np.ndarray) -> _Part:
        return _Part(
            self.x[torch.from_numpy(indices)], self.y[indices], tuple(self.paths[i] for i in indices if self.paths)
        )


def load_npz(path: Path | str, *, test_fraction: float | None = None) -> DataSet:
    """Loads the user's .npz for training; see the module for its keys, and `catalogue.load` for `test_fraction`.

    Raises:
        UserError: when the file can't be read, or its arrays are not images and labels as described.
    """
    path = Path(path)
    arrays = _open(path)
    train = _part(path, arrays, "train_x" if "train_x" in arrays else "x")
    test = _part(path, arrays, "test_x") if "test_x" in arrays else None
    return _data_set(path, train, test, test_fraction)


def load_folder(
    path: Path | str, *, image_size: int | tuple[int, int] | None = None, test_fraction: float | None = None
) -> DataSet:
    """Loads the user's folder of images for training; the paths of the files are kept. See `catalogue.load`.

    Raises:
        UserError: when the folder is empty or has no class folders, or an image can't be read or is of another size.
    """
    path = Path(path)
    splits = [path / "train", path / "test"] if (path / "train").is_dir() and (path / "test").is_dir() else [path]
    found = [_class_folders(split) for split in splits]
    # read together, so that one grey split beside a coloured one becomes coloured too
    x = read_images([file for files, _ in found for file in files], image_size)
    parts, start = [], 0
    for files, labels in found:
        names = tuple(file.relative_to(path).as_posix() for file in files)
        parts.append(_Part(x[start : start + len(files)], np.array(labels), names))
        start += len(files)
    return _data_set(path, parts[0], parts[1] if len(parts) == 2 else None, test_fraction)


def read_examples(
    path: Path | str, *, image_size: int | tuple[int, int] | None = None, channels: int | None = None
) -> Examples:
    """Reads the images of a .npz (key `x`) or of a folder, however deep they lie in it, to be labelled.

    Args:
        path: the .npz or folder.
        image_size: height and width [pixels] that a folder's images are cut and resized to.
        channels: 1 (grey) or 3 (colour), what a folder's images are turned into.

    Raises:
        UserError: when there is no image, or one can't be read.
    """
    path = Path(path)
    if not path.is_dir():
        x = _part(path, _open(path), "x").x
        return Examples(x, tuple(map(str, range(len(x)))), path.name)
    files = image_files(path, recursive=True)
    if not files:
        raise UserError(f"{path}: expected PNG, JPEG or WebP images, found none: put the images there")
    names = tuple(file.relative_to(path).as_posix() for file in files)
    return Examples(read_images(files, image_size, channels), names, path.name)


def to_bytes(x: np.ndarray, layout: str | None, where: str) -> UInt8[Tensor, "n c h w"]:
    """Turns an array of images into (n, c, h, w) with levels 0..255; `where` begins the message of a fault."""
    if x.ndim == 3:
        x = x[:, None]
    elif x.ndim == 4:
        fits = [name for name, c in (("nchw", x.shape[1]), ("nhwc", x.shape[3])) if c in (1, 3)]
        if layout is not None and layout not in fits:
            raise UserError(
                f"{where}: expected a layout of nchw or nhwc with 1 or 3 channels, got {layout!r} for {x.shape}"
            )
        if len(fits) == 2 and layout is None:
            raise UserError(f"{where}: {x.shape} can be read as nchw and as nhwc: add a string layout to the .npz")
        x = x.transpose(0, 3, 1, 2) if (layout or (fits or ["none"])[0]) == "nhwc" else x
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        raise UserError(
            f"{where}: expected images (n, h, w), (n, h, w, c) or (n, c, h, w) with c = 1 or 3, got shape {x.shape}"
        )
    if x.size == 0:
        raise UserError(f"{where}: expected images, got shape {x.shape}: add some")
    if x.dtype == bool:
        return torch.from_numpy(np.ascontiguousarray(x)).to(torch.uint8) * 255
    if x.dtype.kind not in "uif":
        raise UserError(f"{where}: expected integers 0..255 or floats in [0, 1], got {x.dtype}")
    low, high = x.min(), x.max()  # nan wherever there is one
    top = 1 if x.dtype.kind == "f" else 255
    if not np.isfinite([low, high]).all():
        raise UserError(f"{where}: expected floats in [0, 1], got {low} to {high}: take those images out")
    if not (low >= 0 and high <= top):
        hint = range_advice(float(low), float(high)) if top == 1 else "rescale them"
        raise UserError(
            f"{where}: expected {'floats in [0, 1]' if top == 1 else 'integers 0..255'}, got {low} to {high}: {hint}"
        )
    if top == 255 and high == 1:
        raise UserError(f"{where}: expected integers 0..255, got only 0 and 1: store them as booleans or as floats")
    if top == 255:
        return torch.from_numpy(np.ascontiguousarray(x.astype(np.uint8)))
    return quantise(torch.from_numpy(np.ascontiguousarray(x.astype(np.float32))))


def _open(path: Path) -> dict[str, np.ndarray]:
    try:
        # opened here, since numpy leaves a damaged file open
        with path.open("rb") as file, np.load(file, allow_pickle=False) as loaded:
            return {key: loaded[key] for key in loaded.files}
    except FileNotFoundError as error:
        raise UserError(f"expected a .npz file or a folder of images, found nothing at {path}") from error
    except ValueError as error:
        if "pickle" in str(error):
            raise UserError(
                f"{path}: expected plain arrays in a .npz, got Python objects: store labels as strings or integers"
            ) from error
        raise UserError(f"{path}: expected a .npz file ({error})") from error
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, TypeError) as error:  # TypeError: a single .npy array
        raise UserError(f"{path}: expected a whole .npz file ({error}): save it again with numpy.savez") from error


def _part(path: Path, arrays: dict[str, np.ndarray], key: str) -> _Part:
    if key not in arrays:
        raise UserError(f"{path}: expected an array x (or train_x), found {', '.join(arrays) or 'none'}: rename it")
    layout = str(arrays["layout"]) if "layout" in arrays else None
    x = to_bytes(arrays[key], layout, f"{path}: {key}")
    labels = key[:-1] + "y"
    y = arrays.get(labels, np.full(len(x), UNLABELLED))
    if y.shape != (len(x),) or y.dtype.kind not in "iuUS":
        raise UserError(f"{path}: expected {labels} ({len(x)},) of integers or strings, got {y.dtype}{y.shape}")
    if y.dtype.kind in "iu" and len(y) and y.min() < UNLABELLED:
        raise UserError(f"{path}: expected labels from 0, or -1 for none, in {labels}, got {y.min()}")
    if y.dtype.kind in "US":
        try:
            y = y if y.dtype.kind == "U" else np.char.decode(y, "utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: expected bytes in {labels} to be UTF-8 ({error}): store strings") from error
        y = np.where(y == str(UNLABELLED), "", y)
    return _Part(x, y, tuple(map(str, range(len(x)))) if key == "x" else ())  # rows: some are held out for the test


def _class_folders(folder: Path) -> tuple[list[Path], list[str]]:
    """Returns the images in the sub-folders of a folder, and the class of each ("" in `unlabelled/`)."""
    classes = sorted(sub for sub in folder.iterdir() if sub.is_dir() and not sub.name.startswith("."))
    loose = image_files(folder)
    if loose or not classes:
        found = f"{len(loose)} images outside of any" if loose else "none"
        raise UserError(
            f"{folder}: expected one sub-folder of images per class (or {NO_CLASS}/), found {found}: make them"
        )
    files: list[Path] = []
    labels: list[str] = []
    for sub in classes:
        own = image_files(sub)
        if not own:
            raise UserError(f"{sub}: expected PNG, JPEG or WebP images, found none: add some or remove the folder")
        files += own
        labels += ["" if sub.name in NO_CLASS_NAMES else sub.name] * len(own)
    return files, labels


def _data_set(path: Path, train: _Part, test: _Part | None, test_fraction: float | None) -> DataSet:
    source = f"the user's {path.name}"
    none = "" if train.y.dtype.kind == "U" else UNLABELLED
    names = np.unique(train.y[train.y != none])
    if test is not None and test_fraction is not None:
        raise UserError(f"{path}: expected no test split to go with test_fraction, found one: leave test_fraction out")
    if test is None and test_fraction == 0:
        test = _Part(train.x, np.full(len(train.x), none), train.paths)
        source += ", none held out for a test"
    elif test is None:
        codes = np.where(train.y == none, UNLABELLED, np.searchsorted(names, train.y))
        kept, held = holdout(codes, 0.2 if test_fraction is None else test_fraction, seed=SEED)
        if not len(held):
            raise UserError(
                f"{path}: expected at least two images of a class, to hold one out for the test: add some, or hold "
                "none out (test_fraction 0, where that is an option)"
            )
        train, test = train.at(kept), train.at(held)
        source += f", {'a fifth' if test_fraction is None else test_fraction} held out for the test"
    elif len(names) and (train.y.dtype.kind == "U") != (test.y.dtype.kind == "U"):
        raise UserError(
            f"{path}: expected labels of one kind, got {train.y.dtype} for training and {test.y.dtype} for test"
        )
    elif len(names) and not np.isin(test.y, names).all():
        strange = sorted(map(str, set(test.y.tolist()) - set(names.tolist())))
        raise UserError(f"{path}: expected test labels among those of training, got {', '.join(map(repr, strange))}")

    def encode(y: np.ndarray) -> Tensor:
        codes = np.where(np.isin(y, names), np.searchsorted(names, y), UNLABELLED)
        return torch.from_numpy(codes.astype(np.int64))

    classes = tuple(map(str, names))
    return DataSet(
        path.stem, train.x, encode(train.y), test.x, encode(test.y), classes, source,
        train_paths=train.paths, test_paths=test.paths,
    )  # fmt: skip
