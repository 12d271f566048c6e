"""Where measurements come from, a batch at a time: the rows of a .npz, or signals that are measured here.

A .npz of measurements holds `y` (n, m); what made them, `A` (m, n) or the recipe of a named operator (`operator`, `m`,
`seed`, ...); and, where they are known, `signal_shape`, `noise`, the standard deviation of each measurement's noise,
and the true signals `x` (n, *signal_shape).
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from apps.common.streaming import Batch, ImageSource
from apps.common.streaming.npz import BROKEN, CHUNK, NpyMember
from core_models.errors import UserError
from core_models.training import seed_of

from .measuring import STACK, Measuring, channels_first, no_plain_arrays, operator_of, real_matrix, recipe_of
from .operators import LinearOperator
from .operators.base import Measurements, Signals
from .signals import RESCALE, floats_of
from .signals import Signals as SignalSource


@dataclass(frozen=True, eq=False)
class Measured(Batch):
    """Consecutive measurements; `x` is y, (n, m)."""

    truth: Signals | None = None
    """The signals (n, *signal_shape), where they are known."""

    def runs(self) -> Iterator[tuple[int, slice]]:
        """Yields unbroken runs of what could be read: the place of the first in the source, and its rows of `x`."""
        places = [place for place in range(len(self.names)) if place not in self.faults]
        begin = 0
        for row in range(1, len(places) + 1):
            if row == len(places) or places[row] != places[row - 1] + 1:
                yield self.start + places[begin], slice(begin, row)
                begin = row


class Simulated(ImageSource):
    """Signals, measured: y = A x + e.

    Args:
        signals: x.
        operator: A.
        noise: standard deviation of each measurement's noise.
        seed: of the noise; that of a signal follows from its place.
    """

    def __init__(self, signals: SignalSource, operator: LinearOperator, noise: float, seed: int) -> None:
        if not noise >= 0:
            raise UserError(f"--noise: expected 0 or more, got {noise}")
        self.path, self._signals, self._operator = signals.path, signals, operator
        self._noise, self._seed = noise, seed

    def __len__(self) -> int:
        """The number of signals."""
        return len(self._signals)

    def names(self, start: int, stop: int) -> tuple[str, ...]:
        """Returns the names of signals."""
        return self._signals.names(start, stop)

    def identity(self) -> dict[str, Any]:
        """Returns plain values that change when the measurements do."""
        return {**self._signals.identity(), "seed": self._seed}

    def batches(self, size: int, start: int = 0) -> Iterator[Measured]:
        """Measures the signals from `start` on, `size` at a time."""
        for batch in self._signals.batches(size, start):
            places = [batch.start + place for place in range(len(batch.names)) if place not in batch.faults]
            y = add_noise(self._operator(batch.x), self._noise, self._seed, places)
            yield Measured(batch.start, batch.names, y, batch.faults, truth=batch.x)


class Stored(ImageSource):
    """The rows of a .npz of measurements.

    Args:
        path: the .npz.
        number: only the first so many; all when None.
        outside: what to do with true signals outside [0, 1]; None takes them, too.

    Raises:
        UserError: when the file can't be read, y is no real matrix or not finite, or what stands beside it doesn't fit.
    """

    def __init__(self, path: Path, number: int | None = None, outside: str | None = RESCALE) -> None:
        self.path, self._y, self._outside = path, NpyMember(path, "y"), outside
        if self._y.dtype.kind == "c":
            raise UserError(f"{path}: expected real measurements y, got {self._y.dtype}: {STACK}; of operator "
                            "fourier store operator.from_spectrum(y)")  # fmt: skip
        if len(self._y.shape) != 2 or self._y.dtype.kind not in "fui" or not prod(self._y.shape):
            raise UserError(f"{path}: expected measurements y of shape (signals, m), got {self._y.dtype} of shape "
                            f"{self._y.shape}")  # fmt: skip
        if number is not None and not 1 <= number <= self._y.shape[0]:
            raise UserError(f"--number: expected 1 to {self._y.shape[0]:,}, the rows of y in {path}, got {number}")
        self._count, self.m = number or self._y.shape[0], self._y.shape[1]
        names = ("A", "operator", "m", "seed", "scaling", "width", "factor", "mask", "kernel", "noise", "signal_shape")
        self._arrays = read_arrays(path, names)
        self._truth = NpyMember(path, "x") if "x" in self._y.members else None
        if self._truth is not None:
            self._truth.check_levels()
        self.signal_shape: tuple[int, ...] | None = self._told_shape()
        self.noise: float | None = self._told_noise()
        for rows, start in self._chunks(max(1, CHUNK // self.m)):  # to refuse the last row before the first is used
            if not np.isfinite(rows).all():
                row = start + int(np.argmin(np.isfinite(rows).all(1)))
                raise UserError(f"{path}: expected finite measurements, got NaN or infinity in row {row} of y: take "
                                "that row out")  # fmt: skip

    @property
    def measuring(self) -> Measuring | None:
        """The recipe of the operator that made them; None where there is none."""
        return recipe_of(self._arrays, self.path) if "operator" in self._arrays else None

    @property
    def matrix(self) -> Tensor | None:
        """A, (m, n); None where there is none."""
        return real_matrix(self._arrays["A"], self.path) if "A" in self._arrays else None

    def operator(self, given: Measuring, signal_shape: Sequence[int] | None) -> LinearOperator:
        """Returns what made the measurements.

        Args:
            given: what the command line says.
            signal_shape: of one signal, where it is known; vectors as long as A is wide when not.

        Raises:
            UserError: when nobody says, both do, or it makes another number of measurements.
        """
        weight, recipe = self.matrix, self.measuring
        if given.given and (weight is not None or recipe is not None):
            what = "A" if weight is not None else "the recipe of an operator"
            raise UserError(f"{self.path} holds {what}: expected no other operator, leave out --operator, --matrix and "
                            "--learned")  # fmt: skip
        if weight is None and recipe is None and not given.given:
            raise UserError(
                f"{self.path}: expected what made y, an array A or the name of an operator, found neither: give "
                "--matrix FILE or --operator NAME"
            )
        made = operator_of(weight, signal_shape) if weight is not None else (recipe or given).build(signal_shape)
        self.check_measured_by(made)
        return made

    def check_measured_by(self, operator: LinearOperator) -> None:
        """Refuses an operator that makes another number of measurements, or measures other signals.

        Raises:
            UserError: in either case.
        """
        if operator.m != self.m:
            raise UserError(f"{self.path}: expected y with {operator.m} measurements a row, as many as A has rows, got "
                            f"{self.m}")  # fmt: skip
        if self._truth is not None and (
            prod(self._truth.shape[1:]) != operator.n or self._truth.shape[0] != self._y.shape[0]
        ):
            raise UserError(f"{self.path}: expected true signals x of shape ({self._y.shape[0]}, "
                            f"{', '.join(map(str, operator.signal_shape))}), got {self._truth.shape}")  # fmt: skip
        self.signal_shape = tuple(operator.signal_shape)

    def __len__(self) -> int:
        """The number of rows."""
        return self._count

    def names(self, start: int, stop: int) -> tuple[str, ...]:
        """Returns the numbers of rows."""
        return tuple(map(str, range(start, min(stop, len(self)))))

    def identity(self) -> dict[str, Any]:
        """Returns checksums of the measurements and of the signals."""
        return {"images": len(self), "crc": self._y.crc, "truth": self._truth.crc if self._truth else None}

    def batches(self, size: int, start: int = 0) -> Iterator[Measured]:
        """Reads the rows from `start` on, `size` at a time."""
        signals = self._truth.chunks(size, start) if self._truth else None
        for rows, begin in self._chunks(size, start):
            y = torch.from_numpy(rows.astype(np.float32))
            truth = None
            if signals is not None:
                assert self.signal_shape is not None
                true = floats_of(next(signals)[: len(rows)], f"{self.path}: x", begin, self._outside)
                truth = true.reshape(len(rows), *self.signal_shape)
            yield Measured(begin, self.names(begin, begin + len(rows)), y, truth=truth)

    def has_truth(self) -> bool:
        """Whether the true signals are there."""
        return self._truth is not None

    def _chunks(self, size: int, start: int = 0) -> Iterator[tuple[np.ndarray, int]]:
        for rows in self._y.chunks(size, start):
            rows = rows[: max(0, len(self) - start)]
            if not len(rows):
                return
            yield rows, start
            start += len(rows)

    def _told_shape(self) -> tuple[int, ...] | None:
        if "signal_shape" in self._arrays:
            told = self._arrays["signal_shape"]
            if told.ndim != 1 or told.dtype.kind not in "ui" or not len(told) or told.min() < 1:
                raise UserError(f"{self.path}: expected whole numbers above 0 in signal_shape, got {told.tolist()}")
            return channels_first(tuple(map(int, told)), f"{self.path}: signal_shape")
        if self._truth is not None:
            shape = self._truth.shape[1:]
            if len(shape) == 3 and shape[0] not in (1, 3) and shape[2] in (1, 3) and shape[1:] != (1, 1):
                # one channel orders values alike wherever it stands
                plain = f"[1,{shape[0]},{shape[1]}]" if shape[2] == 1 else f"[{prod(shape)}] if they are no images"
                raise UserError(
                    f"{self.path}: x of shape {self._truth.shape} looks like (n, height, width, channels): store it as "
                    f"(n, channels, height, width), with the columns of A in that order, or add signal_shape {plain}"
                )
            return (1, *shape) if len(shape) == 2 else shape if len(shape) == 3 else None
        return None

    def _told_noise(self) -> float | None:
        if "noise" not in self._arrays:
            return None
        told = self._arrays["noise"]
        if told.ndim != 0 or told.dtype.kind not in "fui" or not told >= 0:
            raise UserError(f"{self.path}: expected one number of 0 or more as noise, got {told.tolist()}")
        return float(told)


def add_noise(y: Measurements, noise: float, seed: int, places: Sequence[int]) -> Measurements:
    """Returns y + e; the noise of each row follows from the seed and from its signal's place."""
    if not noise:
        return y
    rows = []
    for place in places:
        generator = Generator().manual_seed(seed_of(seed, "noise", place))
        rows.append(torch.randn(y.shape[1], generator=generator))
    return y + noise * torch.stack(rows).to(y) if rows else y


def holds_measurements(path: Path) -> bool:
    """Says whether a file is a .npz with measurements y; labels, one for each image, are none.

    Raises:
        UserError: when it is a .npz that is damaged, or holds neither measurements y nor signals x.
    """
    if not path.is_file() or path.suffix.lower() != ".npz":
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.removesuffix(".npy") for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile) as error:
        raise no_plain_arrays(path, error) from error
    if not names & {"x", "y"}:
        found = ", ".join(sorted(names)) or "none"
        raise UserError(f"{path}: expected measurements y or signals x, found the arrays {found}: rename them")
    return "y" in names and ("x" not in names or len(NpyMember(path, "y").shape) != 1)


def read_arrays(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Reads those of some arrays that a .npz holds.

    Raises:
        UserError: when the file is damaged, or an array is one of Python objects.
    """
    try:
        # opened here, since numpy leaves a damaged file open
        with path.open("rb") as file, np.load(file, allow_pickle=False) as loaded:
            return {name: loaded[name] for name in names if name in loaded.files}
    except BROKEN as error:
        raise no_plain_arrays(path, error) from error
