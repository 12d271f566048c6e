"""What a pass of recoveries writes: PNG files, one .npz of all signals, and the columns of a row."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from math import prod
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from apps.common.streaming import Batch, ImageSource, ImagesOut
from apps.common.streaming.npz import NpyMember
from apps.common.streaming.npz_writing import add_names, add_rows
from core_models.data import quantise
from core_models.errors import UserError
from core_models.files import atomic
from core_models.training.run_folder import cannot_write

from .diagnosis import LEVELS
from .metrics import METRICS, errors
from .operators.base import Signals
from .recovery import Recovered

SSIM_SIDE = 11
"""The least side of an image that has a structural similarity [pixels]."""
WHITE = 0.5
"""The standard deviation that is white in its maps: as much as a value in [0, 1] can have."""


class RecoveredOut(ImagesOut):
    """`recovered.npz` with `x`, and `std` where there is one, a row per signal; PNG files where signals are images.

    Until the end the rows lie in files beside it, each at its signal's place; those of an image that can't be read are
    NaN.

    Args:
        out: the folder.
        source: of the measurements.
        signal_shape: of a signal.
        std: whether there are standard deviations.
    """

    def __init__(self, out: Path, source: ImageSource, signal_shape: Sequence[int], *, std: bool) -> None:
        self.path, self._source, self._shape = out / "recovered.npz", source, tuple(signal_shape)
        self._folders = {"x": out / "recovered"} | ({"std": out / "std"} if std else {})
        self._parts = {name: out / f".{name}.part" for name in self._folders}
        self._row = 4 * prod(self._shape)  # bytes
        self._pictures = len(self._shape) == 3 and self._shape[0] in (1, 3)
        self._numbered = source.names(0, 1) == ("0",)
        self._places = {} if self._numbered else {name: i for i, name in enumerate(source.names(0, len(source)))}
        self._digits = max(6, len(str(len(source))))
        self._finished = False

    def write(self, batch: Batch, x: Tensor) -> None:
        """Writes the rows of a batch: `x` is (1 or 2, n, *signal_shape), signals and standard deviations."""
        places = [batch.start + i for i in range(len(batch.names)) if i not in batch.faults]
        for name, rows in zip(self._folders, x, strict=True):
            if self._pictures:
                for place, levels in zip(places, quantise(_visible(name, rows)).numpy(), strict=True):
                    self._write_picture(self._folders[name] / self._file(place), levels)
            if not self._finished:
                whole = np.full((len(batch.names), *self._shape), np.nan, np.float32)
                whole[[place - batch.start for place in places]] = rows.numpy()
                self._write_rows(self._parts[name], batch.start, whole)

    def rewind(self, images: int) -> None:
        """Looks at what a kill left; rows are written over at their places."""
        self._finished = self._is_whole()
        for folder in self._folders.values():
            for path in folder.glob(".*.png.*.png"):  # the temporary names of `core_models.files.atomic`
                path.unlink()

    def holds(self, name: str) -> bool:
        """Tells whether a signal's rows and PNG files are there."""
        place = int(name) if self._numbered else self._places[name]
        if not self._finished:
            ends = self._row * (place + 1)
            if not all(part.exists() and part.stat().st_size >= ends for part in self._parts.values()):
                return False
        return not self._pictures or all(_is_picture(own / self._file(place)) for own in self._folders.values())

    def finish(self, names: Iterable[str]) -> None:
        """Writes the .npz, whole or not at all, from the rows on the disk."""
        if self._finished:
            return
        shape = (len(self._source), *self._shape)
        for part in self._parts.values():
            if not part.exists() or part.stat().st_size < shape[0] * self._row:  # the last signals couldn't be read
                self._write_rows(part, shape[0], np.empty((0, *self._shape), np.float32))
                os.truncate(part, shape[0] * self._row)
        with atomic(self.path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            for name, part in self._parts.items():
                add_rows(archive, name, part, shape, np.float32)
            if not self._numbered:
                add_names(archive, list(self._places))
        for part in self._parts.values():
            part.unlink()

    def all_zero(self) -> bool:
        """Tells whether every signal of the .npz that could be read is 0."""
        return not any(np.nan_to_num(chunk).any() for chunk in NpyMember(self.path, "x").chunks(256))

    def _is_whole(self) -> bool:
        """Tells whether the .npz can be opened, which one cut short can't, and holds all signals."""
        try:
            return all(NpyMember(self.path, name).shape == (len(self._source), *self._shape) for name in self._folders)
        except UserError:
            return False

    def _write_rows(self, part: Path, start: int, rows: np.ndarray) -> None:
        try:
            part.parent.mkdir(parents=True, exist_ok=True)
            with part.open("r+b" if part.exists() else "w+b") as file:
                file.seek(start * self._row)
                file.write(rows.tobytes())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise cannot_write(part, error) from error

    def _write_picture(self, path: Path, levels: np.ndarray) -> None:
        picture = levels[0] if len(levels) == 1 else np.ascontiguousarray(levels.transpose(1, 2, 0))
        with atomic(path) as temporary:
            Image.fromarray(picture).save(temporary, "PNG")

    def _file(self, place: int) -> str:
        return f"{place:0{self._digits}}.png"


def error_columns(signal_shape: Sequence[int], *, std: bool) -> tuple[str, ...]:
    """Returns the names of what is known of a signal whose truth is known."""
    small = len(signal_shape) != 3 or min(signal_shape[-2:]) < SSIM_SIDE
    names = [name for name in METRICS if not (small and name == "ssim")]
    return (*names, *(f"inside_{round(100 * level)}" for level in LEVELS if std))


def errors_of(found: Recovered, truth: Signals) -> dict[str, Tensor]:
    """Returns the errors of each signal by name, and the share of its values inside the intervals of the posterior."""
    small = found.x.ndim != 4 or min(found.x.shape[-2:]) < SSIM_SIDE
    told = errors(found.x.flatten(1), truth.flatten(1)) if small else errors(found.x, truth)
    if found.std is not None:
        away = (found.x - truth).abs()
        for level in LEVELS:
            reach = NormalDist().inv_cdf(0.5 + level / 2)
            told[f"inside_{round(100 * level)}"] = (away <= reach * found.std).flatten(1).double().mean(1)
    return told


def coverage_of(means: Mapping[str, Mapping[str, Any]]) -> dict[str, float] | None:
    """Returns the share of values inside the intervals, by their level, from the means of a pass's columns."""
    found = {f"{level}": means[f"inside_{round(100 * level)}"]["mean"] for level in LEVELS
             if f"inside_{round(100 * level)}" in means}  # fmt: skip
    return found or None


def join(parts: Sequence[Recovered]) -> Recovered:
    """Puts the recoveries of consecutive signals together."""
    std = None if parts[0].std is None else torch.cat([part.std for part in parts if part.std is not None])
    details = {name: torch.cat([part.details[name] for part in parts]) for name in parts[0].details}
    return Recovered(torch.cat([part.x for part in parts]), std, details)


def _visible(name: str, rows: Tensor) -> Tensor:
    return (rows if name == "x" else rows / WHITE).clamp(0, 1)


def _is_picture(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            image.verify()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False
    return True
