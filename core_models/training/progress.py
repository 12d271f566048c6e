"""How a run is watched: one bar per stage on a terminal, a line now and then elsewhere."""

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.text import Text

REFRESH_SECONDS = 0.2
LINE_SECONDS = 10.0


class Progress:
    """Shows how far a run is, its rate [steps/s], the time left and the figure that matters, on stderr.

    Args:
        description: what is being done.
        total: steps in all.
        done: steps done before, in an earlier part of the run.
        enabled: whether to show anything.
        unit: what is counted, in the singular.
    """

    def __init__(self, description: str, total: int, done: int = 0, enabled: bool = True, unit: str = "step") -> None:
        self.description = description
        self.total = total
        self._first = self._tenth = done
        self._start = self._last = self._checked = time.monotonic()
        self._enabled = enabled
        self._unit = unit
        self._bars: Bars | None = None
        if enabled and (console := Console(stderr=True)).is_terminal:
            # refreshed from `update` only: a thread of its own would take turns with the training
            self._bars = Bars(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                _Rate(unit),
                TimeRemainingColumn(compact=True),
                TextColumn("{task.fields[figure]}"),
                console=console,
                auto_refresh=False,
            )
            self._task = self._bars.add_task(description, total=total, completed=done, figure="")

    def __enter__(self) -> "Progress":
        if self._bars:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars:
            self._bars.stop()

    def due(self, now: float) -> bool:
        """Says whether `update` would show something at this time of the monotonic clock; costs next to nothing."""
        return self._enabled and now - self._checked >= (REFRESH_SECONDS if self._bars else 1.0)

    def update(self, done: int, figure: str = "", *, last: bool = False) -> None:
        """Shows how many steps are done; on a terminal always, else every tenth of the way or every ten seconds."""
        if not self._enabled:
            return
        now = self._checked = time.monotonic()
        if self._bars:
            self._bars.update(self._task, completed=done, figure=figure, refresh=True)
        elif last or now - self._last >= LINE_SECONDS or 10 * done // self.total > 10 * self._tenth // self.total:
            self._last, self._tenth = now, done
            rate = (done - self._first) / max(now - self._start, 1e-9)
            left = f", {_duration((self.total - done) / rate)} left" if rate > 0 and not last else ""
            print(
                f"{self.description}: {self._unit} {done} of {self.total} ({100 * done // self.total} %), "
                f"{rate:.{0 if rate >= 10 else 2}f} {self._unit}s/s{left}{', ' if figure else ''}{figure}",
                file=sys.stderr,
                flush=True,
            )


class _Rate(ProgressColumn):
    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.{0 if speed >= 10 else 2}f} {self._unit}s/s")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
