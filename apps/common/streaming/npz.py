"""An array inside a .npz, read a few rows at a time and written back in its own layout and type.

numpy reads a member of a .npz whole, and maps none: a .npz is a ZIP file. The ZIP file can be streamed instead, stored
or compressed, since rows lie one after another. Format: numpy.lib.format, the .npy format of version 1 and 2.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import UInt8
from numpy.lib import format as npy

from core_models.data.advice import range_advice, shape_advice
from core_models.errors import UserError

Levels = UInt8[np.ndarray, "n c h w"]
CHUNK = 1 << 17
"""Values checked at a time."""
BROKEN = (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error)


class NpyMember:
    """An array of a .npz, known by its header only.

    Args:
        path: the .npz.
        name: the array.

    Raises:
        UserError: when the file is no .npz, lacks the array, or holds it in a form that can't be streamed.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path, self._file = path, f"{name}.npy"
        try:
            with zipfile.ZipFile(path) as archive:
                self.members = tuple(sorted(entry.removesuffix(".npy") for entry in archive.namelist()))
                if self._file not in archive.namelist():
                    raise UserError(
                        f"{path}: expected an array {name}, found {', '.join(self.members) or 'none'}: rename it"
                    )
                self.crc = archive.getinfo(self._file).CRC
                with archive.open(self._file) as stream:
                    self.shape, fortran, self.dtype = _read_header(stream)
                    self._offset = stream.tell()
        except UserError:
            raise
        except BROKEN as error:
            raise _damaged(path, error) from error
        if self.dtype.hasobject:
            raise UserError(f"{path}: expected numbers in {name}, got Python objects: store a plain array")
        if fortran and len(self.shape) > 1:
            raise UserError(
                f"{path}: expected {name} row by row (C order), got it column by column (Fortran order): "
                "save numpy.ascontiguousarray of it"
            )

    def chunks(self, rows: int, start: int = 0) -> Iterator[np.ndarray]:
        """Reads the rows from `start` on, a few at a time.

        Raises:
            UserError: when the file is cut short or damaged.
        """
        width = self.dtype.itemsize * int(np.prod(self.shape[1:], dtype=np.int64))
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(self._file) as stream:
                stream.seek(self._offset + start * width)
                for begin in range(start, self.shape[0], rows):
                    count = min(rows, self.shape[0] - begin)
                    data = stream.read(count * width)
                    if len(data) != count * width:
                        raise EOFError(f"it ends in row {begin + len(data) // max(width, 1)} of {self.shape[0]}")
                    yield np.frombuffer(data, self.dtype).reshape(count, *self.shape[1:])
        except UserError:  # from whoever reads, passed in by the generator
            raise
        except BROKEN as error:
            raise _damaged(self.path, error) from error

    def check_levels(self) -> None:
        """Refuses whole numbers that are all 0 or 1: as levels of 255 they would be nearly black.

        Raises:
            UserError: for those.
        """
        if self.dtype.kind not in "ui":
            return
        width, highest = max(1, int(np.prod(self.shape[1:], dtype=np.int64))), 0
        for rows in self.chunks(max(1, CHUNK // width)):  # most files are told by the first
            highest = max(highest, int(rows.max(initial=0)))
            if highest > 1:
                return
        if highest == 1:
            raise UserError(
                f"{self.path}: {self._file.removesuffix('.npy')}: expected integers 0..255, got only 0 and 1: store "
                "them as booleans or as floats"
            )

    def text(self, name: str) -> str | None:
        """Returns a string that stands beside the array, None where there is none."""
        if name not in self.members:
            return None
        try:
            with self.path.open("rb") as file, np.load(file, allow_pickle=False) as loaded:
                return str(loaded[name])
        except BROKEN as error:
            raise _damaged(self.path, error) from error


def layout_of(member: NpyMember, event_shape: Sequence[int]) -> str:
    """Returns `nhw`, `nchw` or `nhwc`: how images of a shape (c, h, w) lie in an array.

    Raises:
        UserError: when they don't, or could in two ways.
    """
    channels, height, width = event_shape
    shapes: dict[str, tuple[int, ...]] = {"nchw": (channels, height, width), "nhwc": (height, width, channels)}
    if channels == 1:
        shapes["nhw"] = (height, width)
    fits = [name for name, shape in shapes.items() if member.shape[1:] == shape]
    if len(fits) == 2:
        said = member.text("layout")
        if said not in fits:
            raise UserError(
                f"{member.path}: {member.shape} can be read as nchw and as nhwc: add a string layout to the .npz"
            )
        return said
    if not fits:
        wanted = " or ".join(f"(n, {', '.join(map(str, shape))})" for shape in shapes.values())
        raise UserError(
            f"{member.path}: expected x of shape {wanted}, as the model was trained on, got {member.shape}: "
            f"{shape_advice(event_shape, member.shape)}"
        )
    if member.dtype.kind not in "uifb":
        raise UserError(f"{member.path}: expected integers 0..255 or floats in [0, 1] in x, got {member.dtype}")
    return fits[0]


def levels_of(rows: np.ndarray, layout: str, where: str, start: int = 0) -> Levels:
    """Returns rows of an array as 8-bit levels (n, c, h, w).

    Args:
        rows: 8-bit integers, booleans, or floats that are multiples of 1/255.
        layout: how they lie, as `layout_of` gives it.
        where: what the message of a fault begins with.
        start: the number of the first row.

    Raises:
        UserError: when a value lies outside of its range, is NaN, or is not on the 8-bit grid.
    """
    rows = rows[:, None] if layout == "nhw" else rows.transpose(0, 3, 1, 2) if layout == "nhwc" else rows
    if rows.dtype.kind == "b":
        return np.ascontiguousarray(rows).astype(np.uint8) * np.uint8(255)
    if rows.dtype.kind in "ui":
        bad = (rows < 0) | (rows > 255)
        if bad.any():
            _refuse(rows, bad, where, start, "integers from 0 to 255", "rescale them")
        return rows.astype(np.uint8, order="C")  # a copy: what was read may not be written to
    bad = ~((rows >= 0) & (rows <= 1))  # of NaN too
    if bad.any():
        hint = "take those images out" if np.isnan(rows).any() else range_advice(float(rows.min()), float(rows.max()))
        _refuse(rows, bad, where, start, "floats in [0, 1]", hint)
    scaled = rows.astype(np.float64) * 255
    nearest = np.rint(scaled)
    # half a unit in the last place of 1, in levels; never so little that a product's rounding counts
    tolerance = max(1e-4, 128 * float(np.finfo(rows.dtype).eps))
    bad = np.abs(scaled - nearest) > tolerance
    if bad.any():
        _refuse(rows, bad, where, start, "8-bit images, multiples of 1/255", "round them: (255 * x).round() / 255")
    return np.ascontiguousarray(nearest, dtype=np.uint8)


def as_stored(levels: Levels, layout: str, dtype: np.dtype[Any]) -> np.ndarray:
    """Returns 8-bit levels (n, c, h, w) in the layout and type of an array that `levels_of` read."""
    rows = levels[:, 0] if layout == "nhw" else levels.transpose(0, 2, 3, 1) if layout == "nhwc" else levels
    if dtype.kind == "f":
        return np.ascontiguousarray((rows.astype(np.float64) / 255).astype(dtype))
    if dtype.kind == "u" or dtype.itemsize > 1:
        return np.ascontiguousarray(rows.astype(dtype))
    return np.ascontiguousarray(rows)  # neither bool nor int8 holds 256 levels


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy.read_magic(stream)
    if version == (1, 0):
        return npy.read_array_header_1_0(stream)
    if version == (2, 0):
        return npy.read_array_header_2_0(stream)
    raise ValueError(f".npy format {version}")


def _refuse(rows: np.ndarray, bad: np.ndarray, where: str, start: int, wanted: str, hint: str) -> None:
    place = np.unravel_index(int(bad.argmax()), bad.shape)
    raise UserError(f"{where}: expected {wanted}, got {rows[place]} in image {start + int(place[0])}: {hint}")


def _damaged(path: Path, error: BaseException) -> UserError:
    return UserError(f"{path}: expected a whole .npz file ({error}): save it again with numpy.savez")
