"""Signals a batch at a time: images of a data set or a folder, or the rows of a .npz; in [0, 1] but where said."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from apps.common.streaming import Batch, FolderSource, ImageSource
from apps.common.streaming.npz import CHUNK, NpyMember
from core_models import data
from core_models.data import Split
from core_models.data.images import SUFFIXES, image_files, read_images
from core_models.errors import UserError, suggestion

RESCALE = "rescale them, or take that signal out"
"""What to do with values outside [0, 1]."""


class Signals(ImageSource):
    """Signals in a fixed order; a batch's `x` is float32, (n, *signal_shape), in [0, 1]."""

    signal_shape: tuple[int, ...]
    _count: int

    def __len__(self) -> int:
        """The number of signals."""
        return self._count

    def names(self, start: int, stop: int) -> tuple[str, ...]:
        """Returns the places of signals."""
        return tuple(map(str, range(start, min(stop, len(self)))))

    def batches(self, size: int, start: int = 0) -> Iterator[Batch]:
        """Reads the signals from `start` on, `size` at a time."""
        for begin in range(start, len(self), size):
            end = min(begin + size, len(self))
            yield Batch(begin, self.names(begin, end), self._rows(begin, end))

    def first(self, number: int | None) -> Signals:
        """Returns itself, cut to the first so many signals.

        Raises:
            UserError: when that is none, or more than there are.
        """
        if number is not None and not 1 <= number <= self._count:
            raise UserError(f"--number: expected 1 to {self._count:,}, the signals in {self.path}, got {number}")
        self._count = self._count if number is None else number
        return self

    @abstractmethod
    def _rows(self, start: int, stop: int) -> Tensor:
        """Returns signals (stop - start, *signal_shape)."""


class DataSetSignals(Signals):
    """A split of a data set that is known by name.

    Args:
        name: of the data set.
        split: which part of it.
    """

    def __init__(self, name: str, split: Split) -> None:
        self._set, self._split = data.load(name), split
        levels = getattr(self._set, f"{split}_x")
        if levels is None:
            raise UserError(f"{name} has no {split} split: use train or test")
        self._levels: Tensor = levels
        self.path = Path(f"{name}:{split}")
        self.signal_shape, self._count = tuple(self._set.event_shape), len(levels)

    def identity(self) -> dict[str, Any]:
        """Returns the name of the set and a hash of its images."""
        digest = hashlib.sha256(self._levels.numpy().tobytes()).hexdigest()[:16]
        return {"images": len(self), "data": self._set.name, "split": self._split, "files": digest}

    def _rows(self, start: int, stop: int) -> Tensor:
        return self._levels[start:stop].to(torch.float32).div_(self._set.levels - 1)


class FolderSignals(Signals):
    """The images of a folder and its sub-folders, all of the size of the first that can be read.

    A few that can't be read, or are of another size, are passed over.

    Args:
        path: the folder.
        wanted: the shape that they must have, where a prior says so.
    """

    def __init__(self, path: Path, wanted: Sequence[int] | None = None) -> None:
        self.path = path
        self._like = ""
        self.signal_shape = tuple(wanted) if wanted is not None else self._found_shape()
        try:
            self._source = FolderSource(path, self.signal_shape)
        except UserError as error:
            raise UserError(self._in_words(str(error))) from error
        self._count = len(self._source)

    def names(self, start: int, stop: int) -> tuple[str, ...]:
        """Returns paths inside the folder."""
        return self._source.names(start, min(stop, len(self)))

    def batches(self, size: int, start: int = 0) -> Iterator[Batch]:
        """Reads the files from `start` on, `size` at a time."""
        for batch in self._source.batches(size, start):
            keep = len(self) - batch.start
            if keep <= 0:
                return
            faults = {place: self._in_words(why) for place, why in batch.faults.items() if place < keep}
            x = batch.x[: min(len(batch.names), keep) - len(faults)]
            yield replace(batch, names=batch.names[:keep], x=x.to(torch.float32).div_(255), faults=faults)

    def identity(self) -> dict[str, Any]:
        """Returns the number of files and a hash of their names and sizes."""
        return {**self._source.identity(), "images": len(self)}

    def _found_shape(self) -> tuple[int, ...]:
        files = image_files(self.path, recursive=True)
        for file in files:
            try:
                shape = tuple(read_images([file]).shape[1:])
            except UserError:
                continue
            self._like = file.relative_to(self.path).as_posix()
            return shape
        raise UserError(
            f"{self.path}: expected PNG, JPEG or WebP images, found {'none that can be read' if files else 'none'}: "
            "put the images there"
        )

    def _in_words(self, text: str) -> str:
        """Names the image that decided the size, where no model did."""
        if not self._like:
            return text
        return text.replace("as the model was trained on", f"as {self._like} is").replace("fit the model", "fit")

    def _rows(self, start: int, stop: int) -> Tensor:
        raise NotImplementedError  # `batches` doesn't ask


class ArraySignals(Signals):
    """The array `x` of a .npz: images (n, h, w), (n, h, w, c) or (n, c, h, w), or signals (n, d).

    Args:
        path: the .npz.
        wanted: the shape that flat signals have, where a prior says so.
        outside: what to do with floats outside [0, 1]; None takes them, too.

    Raises:
        UserError: when values are outside [0, 1], or 0..255 for integers, or NaN; or are integers, all 0 or 1.
    """

    def __init__(self, path: Path, wanted: Sequence[int] | None = None, outside: str | None = RESCALE) -> None:
        self.path, self._member, self._outside = path, NpyMember(path, "x"), outside
        self._layout, self.signal_shape = _layout(self._member, wanted)
        self._count = self._member.shape[0]
        if not self._count:
            raise UserError(f"{path}: expected signals in x, got none: add some")
        self._member.check_levels()
        for _ in self.batches(max(1, CHUNK // prod(self.signal_shape))):  # to refuse the last before the first
            pass

    def batches(self, size: int, start: int = 0) -> Iterator[Batch]:
        """Reads the rows from `start` on, `size` at a time."""
        begin = start
        for rows in self._member.chunks(size, start):
            rows = rows[: max(0, len(self) - begin)]
            if not len(rows):
                return
            yield Batch(begin, self.names(begin, begin + len(rows)), self._floats(rows, begin))
            begin += len(rows)

    def identity(self) -> dict[str, Any]:
        """Returns the shape, type and checksum of the array."""
        return {"images": len(self), "dtype": str(self._member.dtype), "crc": self._member.crc}

    def _floats(self, rows: np.ndarray, start: int) -> Tensor:
        rows = rows.transpose(0, 3, 1, 2) if self._layout == "nhwc" else rows
        return floats_of(rows, f"{self.path}: x", start, self._outside).reshape(len(rows), *self.signal_shape)

    def _rows(self, start: int, stop: int) -> Tensor:
        raise NotImplementedError  # `batches` doesn't ask


def open_signals(
    name: str | Path, split: Split = "test", wanted: Sequence[int] | None = None, outside: str | None = RESCALE
) -> Signals:
    """Opens a data set by name, a folder of images or a .npz with an array x.

    Args:
        name: which.
        split: of a data set by name.
        wanted: the shape that signals must have, where a prior says so.
        outside: what to do with floats outside [0, 1]; None takes them, too.

    Raises:
        UserError: when it is none of these, or its images don't fit.
    """
    path = Path(name)
    if str(name) in data.names() or str(name).startswith("idx:"):
        return DataSetSignals(str(name), split)
    if path.is_dir():
        return FolderSignals(path, wanted)
    if path.is_file() and path.suffix.lower() in SUFFIXES:
        raise UserError(f"expected a folder of images or a .npz, got a single image {path}: give its folder")
    if path.is_file():
        return ArraySignals(path, wanted, outside)
    raise UserError(
        f"expected a .npz, a folder of images or a data set ({', '.join(data.names())}), got {str(name)!r}, which is "
        f"none{suggestion(str(name), data.names())}"
    )


def floats_of(rows: np.ndarray, where: str, start: int = 0, outside: str | None = RESCALE) -> Tensor:
    """Returns rows of an array as float32 in [0, 1]; integers are levels 0..255.

    Args:
        rows: of signals.
        where: they lie, as a message begins.
        start: the number of the first.
        outside: what to do with floats outside [0, 1], as a message ends; None takes them as they are.

    Raises:
        UserError: when a value is outside its range or NaN; it names the row.
    """
    if rows.dtype.kind not in "uifb":
        raise UserError(f"{where}: expected integers 0..255 or floats in [0, 1], got {rows.dtype}")
    top = 1 if rows.dtype.kind in "fb" else 255
    free = outside is None and rows.dtype.kind == "f"
    bad = ~(np.isfinite(rows) if free else (rows >= 0) & (rows <= top))  # of NaN, too
    if rows.dtype.kind != "b" and bad.any():
        place = np.unravel_index(int(bad.argmax()), bad.shape)
        kind = "finite floats" if free else "floats in [0, 1]" if top == 1 else "integers from 0 to 255"
        raise UserError(f"{where}: expected {kind}, got {rows[place]} in signal {start + int(place[0])}: "
                        f"{outside or RESCALE}")  # fmt: skip
    return torch.from_numpy(np.ascontiguousarray(rows.astype(np.float32))).div_(top)


def _layout(member: NpyMember, wanted: Sequence[int] | None) -> tuple[str, tuple[int, ...]]:
    """Returns how signals lie in an array, and the shape of one."""
    shape = member.shape[1:]
    if len(shape) == 1:
        return "flat", tuple(wanted) if wanted is not None and prod(wanted) == shape[0] else shape
    if len(shape) == 2:
        return "nhw", (1, *shape)
    fits = {}
    if len(shape) == 3 and shape[0] in (1, 3):
        fits["nchw"] = shape
    if len(shape) == 3 and shape[2] in (1, 3):
        fits["nhwc"] = (shape[2], *shape[:2])
    if len(fits) == 2:
        said = member.text("layout")
        if said not in fits:
            raise UserError(
                f"{member.path}: {member.shape} can be read as nchw and as nhwc: add a string layout to the .npz"
            )
        return said, fits[said]
    if not fits:
        raise UserError(
            f"{member.path}: expected x of shape (n, h, w), (n, h, w, c) or (n, c, h, w) with c = 1 or 3, or (n, d), "
            f"got {member.shape}"
        )
    return next(iter(fits.items()))
