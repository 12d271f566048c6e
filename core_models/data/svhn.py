"""SVHN: 73,257 + 26,032 digits cropped out of photographs of house numbers, 32 x 32 [pixels] in colour.

Source: Netzer et al., "Reading digits in natural images with unsupervised feature learning", 2011; format 2, two MATLAB
files with `X` (32, 32, 3, n) and `y` (n, 1). The digit 0 is labelled 10 there and 0 here.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from scipy.io import loadmat
from torch import Tensor

from ..errors import UserError
from .dataset import DataSet
from .sources import File, FileSet, Places, locate

FILES = FileSet(
    "svhn",
    (
        File("train_32x32.mat", "e26dedcc434d2e4c54c9b2d4a06d8373"),
        File("test_32x32.mat", "eb5a983be6a315427106f1b164d9cef3"),
    ),
    ("http://ufldl.stanford.edu/housenumbers/",),
)


def load_svhn(places: Places) -> DataSet:
    """Loads the cropped digits; the `extra` part of the set is left out."""
    found = locate(FILES, places)
    (train_x, train_y), (test_x, test_y) = (
        parse_mat(content, f"svhn/{name}") for name, content in found.content.items()
    )
    return DataSet("svhn", train_x, train_y, test_x, test_y, tuple("0123456789"), found.source)


def parse_mat(content: bytes, where: Path | str) -> tuple[UInt8[Tensor, "n 3 h w"], Int64[Tensor, " n"]]:
    """Reads images and labels from the content of a format-2 file.

    Raises:
        UserError: naming `where` and what is wrong with it.
    """
    try:
        arrays = loadmat(io.BytesIO(content), variable_names=["X", "y"])
        x, y = arrays["X"], arrays["y"].reshape(-1)
    except KeyError as error:
        raise UserError(f"{where}: expected the arrays X and y, found no {error}") from error
    except Exception as error:  # scipy raises many kinds on a damaged file
        raise UserError(
            f"{where}: expected a MATLAB 5 file, got one that can't be read ({error}): replace it"
        ) from error
    if x.ndim != 4 or x.shape[2] != 3 or x.dtype != np.uint8 or len(y) != x.shape[3]:
        raise UserError(
            f"{where}: expected X (32, 32, 3, n) of uint8 and y (n, 1), got {x.dtype}{x.shape} and ({len(y)},)"
        )
    if y.min(initial=1) < 1 or y.max(initial=1) > 10:
        raise UserError(f"{where}: expected labels from 1 to 10 (10 is the digit 0), got {y.min()} to {y.max()}")
    images = np.ascontiguousarray(x.transpose(3, 2, 0, 1))
    return torch.from_numpy(images), torch.from_numpy(y.astype(np.int64) % 10)
