"""The pass over measurements: what `Job` does over images, with the running error said and a summary of the rows."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from apps.common.streaming import Batch, ImagesOut, Job
from core_models.training.progress import LINE_SECONDS

from .convergence import SOLVED, Unsolved
from .measurements import Measured

BatchWorker = Callable[[Measured], tuple[Sequence[Mapping[str, object]], Any]]
"""What is done to a batch, its place known: from it, a row for each signal, and what is written of them."""


class RecoveryJob(Job):
    """A pass over measurements; its worker is handed the batch, from which a signal's place follows."""

    unit = "signal"
    watched: str = "measurement_error"
    """The column whose mean is said on the way."""
    _sum: float = 0.0
    _seen: int = -1
    _said: float = 0.0
    _again: bool = False

    def means(self) -> dict[str, dict[str, float | None]]:
        """Returns mean, half width of its 95 % interval and number of signals of every column that holds figures."""
        found: dict[str, tuple[int, float, float]] = {}  # number, mean, sum of squares about it (Welford 1962)
        for row in self.records:
            for name, value in row.items():
                if name not in ("image", "status") and value:
                    n, mean, squares = found.get(name, (0, 0.0, 0.0))
                    away = float(value) - mean
                    mean += away / (n + 1)
                    found[name] = n + 1, mean, squares + away * (float(value) - mean)
        return {
            name: {"mean": mean, "half_width": 1.96 * (squares / (n - 1) / n) ** 0.5 if n > 1 else None, "n": n}
            for name, (n, mean, squares) in found.items()
        }

    def unsolved(self) -> Unsolved:
        """Returns how many signals of all a solver left unsolved, by what is written of them."""
        found = Unsolved()
        for row in self.records:
            found.add({name: [float(row[name])] for name in SOLVED if row.get(name)})
        return found

    def _make_again(self, lost: Mapping[int, int], work: Any, images: ImagesOut) -> None:
        self._again = True
        super()._make_again(lost, work, images)
        self._again = False

    def _work(self, batch: Batch, work: Any, images: ImagesOut | None) -> Sequence[Mapping[str, object]]:
        rows: Sequence[Mapping[str, object]] = super()._work(batch, lambda _: work(batch), images)
        if not self._again:
            self._say_running(rows, last=batch.start + len(batch.names) == len(self.source))
        return rows

    def _say_running(self, rows: Sequence[Mapping[str, object]], *, last: bool) -> None:
        """Says the mean error of the signals done, now and then."""
        if self._seen < 0:  # what an earlier part of the pass did
            self._seen = 0
            for row in self.records:
                if row.get(self.watched):
                    self._sum, self._seen = self._sum + float(row[self.watched]), self._seen + 1
        values = [float(str(row[self.watched])) for row in rows if row.get(self.watched)]
        self._sum, self._seen = self._sum + sum(values), self._seen + len(values)
        now = time.monotonic()
        if self._seen and (last or now - self._said >= LINE_SECONDS):
            self._said = now
            name = self.watched.replace("_", " ")
            print(f"mean {name} {self._sum / self._seen:.4g} over {self._seen:,} signals", file=sys.stderr, flush=True)
