"""Where the time of a loop goes: its functions are replaced by ones that time themselves."""

from __future__ import annotations

from typing import Any

import torch

from .ratios import Clock, Stopwatch

CPU = torch.device("cpu")


class Timed:
    """A function, or an object that is called, and the time that its calls took [s]."""

    def __init__(self, inner: Any, clock: Clock) -> None:
        self.inner, self.seconds = inner, 0.0
        self._stopwatch = Stopwatch(CPU, clock)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls it."""
        self._stopwatch.start()
        found = self.inner(*args, **kwargs)
        self.seconds += self._stopwatch.stop()
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)
