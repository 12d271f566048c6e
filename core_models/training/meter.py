"""Averages of what an objective reports, and the watch for a loss that is no number.

Reading a number from a GPU makes the CPU wait for it, so the values of a step stay on the device, in one row, until
some dozens of rows are read at once.
"""

import math
from collections.abc import Mapping
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

WATCHED = ("loss", "gradient_norm")


class NonFinite(NamedTuple):
    """A watched value that is no number."""

    step: int
    name: str
    value: float


class Meter:
    """Means over the steps of an epoch, each step of equal weight.

    Sums are taken in float64 in the order of the steps, so they do not depend on when the rows are read.

    Args:
        rows: how many steps may be held back before `full`.
    """

    def __init__(self, rows: int = 64) -> None:
        self.sums: dict[str, tuple[float, int]] = {}
        self._capacity = rows
        self._rows: list[tuple[int, tuple[str, ...], Tensor]] = []
        self._names: tuple[str, ...] = ()

    @property
    def full(self) -> bool:
        """Whether it is time to `read`."""
        return len(self._rows) >= self._capacity

    def add(self, step: int, values: Mapping[str, Tensor]) -> None:
        """Takes in the values of a step without waiting for them."""
        names = tuple(values)
        if names != self._names:
            _check_scalars(values)
            self._names = names
        with torch.no_grad():
            self._rows.append((step, names, torch.stack(tuple(values.values()))))

    def read(self) -> NonFinite | None:
        """Adds up what was held back; returns the first watched value that is NaN or infinite."""
        rows, self._rows = self._rows, []
        for names, group in groupby(rows, key=lambda row: row[1]):
            steps, _, tensors = zip(*group, strict=True)
            for step, values in zip(steps, torch.stack(tensors).tolist(), strict=True):
                for name, value in zip(names, values, strict=True):
                    if name in WATCHED and not math.isfinite(value):
                        return NonFinite(step, name, value)
                    total, count = self.sums.get(name, (0.0, 0))
                    self.sums[name] = (total + value, count + 1)
        return None

    def means(self) -> dict[str, float]:
        """Returns the means of what has been read."""
        return {name: total / count for name, (total, count) in self.sums.items()}

    def reset(self) -> None:
        """Begins a new epoch."""
        self.sums = {}


def _check_scalars(values: Mapping[str, Tensor]) -> None:
    device = next(iter(values.values())).device
    for name, value in values.items():
        if isinstance(value, Tensor) and value.device != device:
            raise TypeError(f"expected the metrics on the device of the loss, {device}, got {name!r} on {value.device}")
        if not isinstance(value, Tensor) or value.ndim != 0:
            got = f"one of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"{value!r}"
            raise TypeError(f"expected the loss and the metrics to be scalar tensors, got for {name!r} {got}")
