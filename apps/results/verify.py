"""`genapps results verify`: cells drawn at random, made again by the commands that they record, and compared.

A cell is made again in an empty folder of its own, with an empty folder of results, so that nothing that stands is
found again. On the same kind of machine, threads and seed its value should be the same to the last digit; on another,
rounding sends training elsewhere, and it should lie within 3 sqrt(2) standard errors of one value: both are drawn.
"""

from __future__ import annotations

import math
import os
import random
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import stdev
from typing import Any

from apps.common.cells import Cell, read_cells, split_stale
from apps.common.intervals import Z
from apps.common.options import at_least
from apps.common.provenance import ROOT, command_line, device_words
from core_models.errors import UserError
from core_models.files import write_json

WITHIN = 3 * 2**0.5
"""Standard errors of one value that two values may differ by."""
PATIENCE, SLACK = 4.0, 300.0
"""A command may take so many times the seconds recorded, and so many seconds more, before it is given up."""
EQUAL, NEAR, DIFFERS, UNKNOWN, FAILED = "equal", "within", "differs", "no interval", "failed"


@dataclass(frozen=True)
class Verdict:
    """What came of making a cell again."""

    cell: Cell
    verdict: str
    value: float | None = None
    standard_error: float | None = None
    """Of one value, and where it was found."""
    source: str = ""
    device: str = ""
    seconds: float = 0.0
    note: str = ""

    @property
    def away(self) -> float | None:
        """The difference in standard errors of a difference."""
        if self.value is None or not self.standard_error:
            return None
        return abs(self.value - self.cell.value) / (2**0.5 * self.standard_error)

    def plain(self) -> dict[str, Any]:
        """Returns plain values."""
        cell = self.cell
        return {
            "app": cell.app, "table": cell.table, "row": cell.row, "column": cell.column, "draw": cell.draw,
            "verdict": self.verdict, "recorded": cell.value, "again": self.value, "unit": cell.unit,
            "standard_error": self.standard_error, "standard_error_from": self.source,
            "device": {"recorded": cell.device, "again": self.device},
            "seconds": {"recorded": round(cell.seconds, 1), "again": round(self.seconds, 1)},
            "note": self.note, "command": cell.command,
        }  # fmt: skip


def verify(
    app: str | None = None,
    table: str | None = None,
    row: str | None = None,
    sample: int = 8,
    seed: int = 0,
    max_minutes: float = 20.0,
    folder: Path = Path("docs/results"),
    out: Path | None = None,
) -> int:
    """Makes cells again, drawn at random, by the commands that they record, and says whether the figures hold.

    Cells of speed are passed over, since a ratio has no seed; so are cells whose command needs what isn't here, such
    as a run folder, and another is drawn.

    Args:
        app: Only this app's cells, e.g. imitation.
        table: Only this table's.
        row: Only this method's.
        sample: How many cells are made again.
        seed: Of the draw of cells.
        max_minutes: Only cells whose command took less, by the record of all that it makes.
        folder: Where the cells lie; they stay as they are.
        out: A JSON file for the verdicts.

    Returns:
        The exit status: 1 when a cell differs or its command fails.
    """
    at_least(1, sample=sample)
    if not max_minutes > 0:
        raise UserError(f"--max_minutes: expected more than 0, got {max_minutes:g}")
    cells, _ = split_stale(read_cells(folder, app.replace("-", "_") if app else None, table))
    if not any(row is None or cell.row == row for cell in cells):
        asked = {"app": app, "table": table, "row": row}
        given = ", ".join(f"--{name} {value}" for name, value in asked.items() if value is not None)
        raise UserError(f"expected cells {f'of {given} ' if given else ''}in {folder}, found none")
    # what one measurement gave several cells took equally long by each of them, to the last digit: counted once
    took: dict[str, float] = {}
    for command, seconds in {(cell.command, cell.seconds) for cell in cells}:
        took[command] = took.get(command, 0.0) + seconds
    cells = [cell for cell in cells if row is None or cell.row == row]
    reasons: dict[str, int] = {}
    candidates = []
    for cell in cells:
        reason = _passed_over(cell, took[cell.command], max_minutes)
        if reason:
            reasons[reason] = reasons.get(reason, 0) + 1
        else:
            candidates.append(cell)
    random.Random(seed).shuffle(candidates)
    print(f"{len(cells):,} cells, {len(candidates):,} of them can be made again in {max_minutes:g} minutes each"
          + "".join(f"; {number:,} {reason}" for reason, number in reasons.items()), flush=True)  # fmt: skip
    found: list[Verdict] = []
    passed = 0
    try:
        for cell in candidates:
            if len(found) == sample:
                break
            place = f"{cell.app} {cell.table}: {cell.row}, {cell.column}, draw {cell.draw}"
            print(f"{place} ({took[cell.command]:.0f} s): {cell.command}", flush=True)
            verdict = make_again(cell, cells, took[cell.command])
            if verdict is None:
                passed += 1
                continue
            found.append(verdict)
            print(f"  {_words(verdict)}", flush=True)
    finally:
        if out is not None and found:
            write_json(out, {"command": command_line(), "device": device_words("cpu"), "verdicts": _plain(found)})
    counts = {name: sum(own.verdict == name for own in found) for name in (EQUAL, NEAR, UNKNOWN, DIFFERS, FAILED)}
    print(", ".join(f"{number} {name}" for name, number in counts.items() if number or name == EQUAL)
          + (f"; {passed} could not be made here" if passed else ""))  # fmt: skip
    return 1 if counts[DIFFERS] or counts[FAILED] else 0


def make_again(cell: Cell, among: Sequence[Cell] = (), took: float | None = None) -> Verdict | None:
    """Makes a cell again in an empty folder; None where its command refuses, since something it needs isn't here.

    Args:
        cell: which.
        among: cells, those of whose draws that belong to the same entry tell how far draws lie apart.
        took: time that the cell's command took, which may make other cells too [s]; the cell's own when left out.
    """
    error, source = standard_error(cell, among)
    with tempfile.TemporaryDirectory(prefix="genapps-verify-") as name:
        place = Path(name)
        words = _arguments(cell, place / "results")
        for path in _inputs(cell):
            link = place / path
            link.parent.mkdir(parents=True, exist_ok=True)
            _link(Path(path).resolve(), link)
        started = time.monotonic()
        try:
            process = subprocess.run(
                [sys.executable, "-m", "apps", *words], cwd=place, env=_environment(), text=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                timeout=PATIENCE * (cell.seconds if took is None else took) + SLACK, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as late:
            # not FAILED: what its command finds on one machine, a trained model say, it may have to make on another
            return Verdict(cell, UNKNOWN, note=f"given up after {late.timeout:.0f} s", seconds=late.timeout)
        seconds = time.monotonic() - started
        last = next((line for line in reversed(process.stderr.splitlines()) if line.strip()), "")
        if process.returncode == 130:
            raise KeyboardInterrupt
        if process.returncode == 2:
            print(f"  can't be made here: {last}", flush=True)
            return None
        if process.returncode:
            return Verdict(cell, FAILED, note=f"exit status {process.returncode}: {last}", seconds=seconds)
        again = [own for own in read_cells(place / "results") if (own.key, own.draw) == (cell.key, cell.draw)]
    if not again:
        return Verdict(cell, FAILED, note="its command made no such cell", seconds=seconds)
    return _compared(cell, again[0], error, source, seconds)


def _link(there: Path, link: Path) -> None:
    """Makes a file or folder appear in another place, but for figures that it keeps of its own model."""
    if not there.is_dir():
        link.symlink_to(there)
        return
    link.mkdir(exist_ok=True)
    for own in there.iterdir():
        if own.name != "evaluations":
            (link / own.name).symlink_to(own)


def _compared(cell: Cell, again: Cell, error: float | None, source: str, seconds: float) -> Verdict:
    notes = []
    if (again.config_hash, again.protocol) != (cell.config_hash, cell.protocol):
        notes.append("its settings or protocol have changed since")
    same = (again.device, again.seed) == (cell.device, cell.seed)
    if again.value == cell.value:
        verdict = EQUAL
    elif error is None:
        verdict = UNKNOWN
    else:
        verdict = NEAR if abs(again.value - cell.value) <= WITHIN * error else DIFFERS
    if verdict != EQUAL:
        notes.append("not equal on the same kind of machine" if same else "another kind of machine")
    return Verdict(cell, verdict, again.value, error, source, again.device, seconds, "; ".join(notes))


def standard_error(cell: Cell, among: Sequence[Cell] = ()) -> tuple[float | None, str]:
    """Returns the standard error of one value and where it was found: in the cell, else among its draws."""
    low, high = cell.interval or (0.0, 0.0)
    if high > low:
        return (high - low) / (2 * Z), "its interval"
    draws = [own.value for own in among if own.key == cell.key]
    if len(draws) >= 3:
        return stdev(draws), f"{len(draws)} draws"
    return None, ""


def _passed_over(cell: Cell, seconds: float, max_minutes: float) -> str:
    """Says why a cell is not to be made again; nothing where it is."""
    words = cell.command.split()
    if cell.table == "speed" or words[:1] == ["python"]:
        return "of speed"
    if words[:1] != ["genapps"]:
        return "without a command"
    if seconds > 60 * max_minutes:
        return "take longer"
    if any(not Path(path).exists() for path in _inputs(cell)):
        return "need a run that isn't here"
    return ""


def _inputs(cell: Cell) -> list[str]:
    """Returns the relative paths that a cell's command reads: run folders and files, never its work and results."""
    words = shlex.split(cell.command)
    values = [value for name, value in pairwise(words) if name not in ("--work", "--results")]
    prior = cell.extra.get("prior")
    values += [prior] if isinstance(prior, str) else []
    return sorted({value for value in values if value.startswith(("runs/", "path/"))})


def _arguments(cell: Cell, results: Path) -> list[str]:
    """Returns the words of a command after `genapps`, its results in another folder and its work in a new one."""
    words = shlex.split(cell.command)[1:]
    kept = []
    for i, word in enumerate(words):
        if word in ("--results", "--work") or (i and words[i - 1] in ("--results", "--work")):
            continue
        kept.append(word)
    return [*kept, "--results", str(results)]


def _environment() -> dict[str, str]:
    own = dict(os.environ)
    own["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [own.get("PYTHONPATH")])])
    if own.get("GENAPPS_DATA"):
        own["GENAPPS_DATA"] = str(Path(own["GENAPPS_DATA"]).expanduser().resolve())
    return own


def _words(verdict: Verdict) -> str:
    if verdict.value is None:
        return f"{verdict.verdict}: {verdict.note}"
    told = f"{verdict.verdict}: {verdict.value:.6g}, recorded {verdict.cell.value:.6g} {verdict.cell.unit}"
    if verdict.verdict != EQUAL and verdict.away is not None:
        told += f", {verdict.away:.2f} standard errors of a difference apart (from {verdict.source})"
    return told + (f"; {verdict.note}" if verdict.note else "") + f"; {verdict.seconds:.0f} s"


def _plain(found: Sequence[Verdict]) -> list[dict[str, Any]]:
    return [
        {name: None if isinstance(value, float) and not math.isfinite(value) else value
         for name, value in own.plain().items()}
        for own in found
    ]  # fmt: skip
