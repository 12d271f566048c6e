"""Arrays written into a .npz a piece at a time: what lies on the disk goes there without being held in memory.

Format: numpy.lib.format, the .npy format of version 1.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

PIECE = 1 << 16
"""Bytes that are held at a time."""
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The time that members of a .npz carry, as numpy's own do: the same images are the same bytes."""
NAMES = 1024
"""Names that are held at a time."""


def add_rows(
    archive: zipfile.ZipFile, name: str, rows: Path, shape: tuple[int, ...], dtype: np.dtype | type[np.generic]
) -> None:
    """Adds an array whose values lie in a file, row by row; of no rows there need be no file."""
    with _member(archive, name) as stream:
        _write_header(stream, shape, np.dtype(dtype))
        if shape[0]:
            with rows.open("rb") as source:
                shutil.copyfileobj(source, stream, PIECE)


def add_names(archive: zipfile.ZipFile, names: Sequence[str]) -> None:
    """Adds the array `names`."""
    width = max(map(len, names), default=1)
    with _member(archive, "names") as stream:
        _write_header(stream, (len(names),), np.dtype(f"<U{width}"))
        for start in range(0, len(names), NAMES):
            stream.write(np.array(names[start : start + NAMES], f"<U{width}").tobytes())


def copy_array(source: zipfile.ZipFile, name: str, archive: zipfile.ZipFile) -> None:
    """Copies an array from one archive into another, as it is; where there is none, nothing."""
    if f"{name}.npy" in source.namelist():
        with source.open(f"{name}.npy") as found, _member(archive, name) as stream:
            shutil.copyfileobj(found, stream, PIECE)


def _member(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    # its size is not known beforehand, so it may be more than 4 GiB
    return archive.open(zipfile.ZipInfo(f"{name}.npy", EPOCH), "w", force_zip64=True)


def _write_header(stream: IO[bytes], shape: tuple[int, ...], dtype: np.dtype) -> None:
    npy.write_array_header_1_0(stream, {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape})
