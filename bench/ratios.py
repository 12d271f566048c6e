"""Ratios of times that survive a machine whose speed drifts.

Contestants take turns, A B A B ..., and a ratio is the median of the quotients of neighbours: what slows the machine
for a while slows both, and drops out.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Literal, TypeVar

import torch

from apps.common.cells import Cell, write_cell

Clock = Literal["wall", "cpu"]
"""wall: time that passes. cpu: time that this process computes, steadier on a machine shared with others; only for
one thread on a CPU."""

Better = Literal["lower", "higher"]
Times = Mapping[str, list[float]]
Part = TypeVar("Part", bound=str)


class Stopwatch:
    """Measures time on a device; a GPU is waited for at both ends."""

    def __init__(self, device: torch.device, clock: Clock = "wall") -> None:
        self.device = device
        self._now = time.process_time if clock == "cpu" else time.perf_counter
        self._started = 0.0

    def start(self) -> None:
        """Starts anew."""
        self._started = self._read()

    def stop(self) -> float:
        """Returns the time since the start [s]."""
        return self._read() - self._started

    def _read(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return self._now()


def interleaved(contestants: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Lets the contestants take turns.

    Args:
        contestants: by name, functions that do a fixed piece of work and return the time that it took [s].
        repeats: rounds that count, after one that doesn't.

    Returns:
        The times of every contestant, one a round [s].
    """
    for contestant in contestants.values():
        contestant()
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(repeats):
        for name, contestant in contestants.items():
            times[name].append(contestant())
    return times


def quotients(times: Times, above: str, below: str) -> list[float]:
    """Returns the quotients of two contestants' times, round by round."""
    return [a / b for a, b in zip(times[above], times[below], strict=True)]


@dataclass(frozen=True)
class Measure:
    """One measured figure, and what it has to reach."""

    what: str
    values: list[float]
    """One a round; the figure is their median."""
    better: Better
    target: float | None
    """The least (or most) that is good enough; None where nothing was asked for."""
    unit: str = "x"
    note: str = ""
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def value(self) -> float:
        """The median."""
        return median(self.values)

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None without one."""
        if self.target is None:
            return None
        return self.value >= self.target if self.better == "higher" else self.value <= self.target


def table(measures: Iterable[Measure]) -> str:
    """Returns the measures as lines of text: what, figure with its range over the rounds, target, whether it is met."""
    rows = [("what", "figure", "range", "target", "met", "")]
    for m in measures:
        sign = ">=" if m.better == "higher" else "<="
        rows.append(
            (
                m.what,
                f"{m.value:.2f} {m.unit}",
                f"{min(m.values):.2f} - {max(m.values):.2f}" if len(m.values) > 1 else "",
                "" if m.target is None else f"{sign} {m.target:g} {m.unit}",
                {True: "yes", False: "NO", None: ""}[m.met],
                m.note,
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(f"{text:<{w}}" for text, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def run_parts(
    parts: Iterable[Part],
    ways: Mapping[Part, Callable[[], Iterator[Measure]]],
    cell: Callable[[Measure, float], Cell],
    write: bool,
    out: Path,
) -> None:
    """Measures parts one after another and prints a table of each.

    A figure is filed as soon as it is there, since a later one may fail. Its time is that since the figure before it in
    its part: of several that come of the same rounds the first has the time of all.

    Args:
        parts: which.
        ways: by part, a function that measures it.
        cell: makes a cell of a figure and its time [s].
        write: whether to file cells.
        out: their folder.
    """
    for part in parts:
        print(f"measuring: {part} ...", flush=True)
        measures: list[Measure] = []
        start = time.monotonic()
        for measure in ways[part]():
            measures.append(measure)
            if write:
                write_cell(out, cell(measure, time.monotonic() - start))
            start = time.monotonic()
        print(f"\n{table(measures)}\n", flush=True)


def conditions(words: str, clock: Clock, repeats: int) -> str:
    """Returns what was measured on, in words, and how."""
    load = f", load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{words}, torch {torch.__version__}, {clock} clock, median of {repeats}{load}"


def speed_cell(app: str, measure: Measure, device: torch.device, words: str, **more: Any) -> Cell:
    """Returns a measure as a cell of an app's table `speed`; those of a CPU and a GPU lie side by side.

    Args:
        app: its package name.
        measure: the figure.
        device: what it was measured on.
        words: the device in words.
        **more: other fields of the cell: row where it isn't the measure's own words, config_hash, protocol, seconds.
    """
    extra = {
        "rounds": measure.values,
        "target": measure.target,
        "met": measure.met,
        "note": measure.note,
        "torch": torch.__version__,
        **measure.extra,
    }
    return Cell(
        app=app,
        table="speed",
        column="GPU" if device.type == "cuda" else "CPU",
        value=measure.value,
        unit=measure.unit,
        better=measure.better,
        draw=0,
        seed=0,
        device=words,
        extra=extra,
        **{"row": measure.what, **more},
    )
