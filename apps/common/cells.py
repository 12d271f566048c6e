"""Result cells: one small JSON file per table, row, column and draw.

A cell holds one raw measured value and everything needed to judge it: configuration, protocol, commit, device, time
and command. Means are made when shown (`tables.py`), never stored, so a stopped grid goes on where it stopped and the
cells of several machines add up by copying files.

A cell lies at `<results>/<app>/<table>/<row>__<column>__<draw>.json`. Characters that a file name can't hold, and the
underscore that separates the parts, are percent-encoded, so that every path stands for exactly one cell.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import quote

from core_models.errors import UserError
from core_models.files import read_json, write_json

from .provenance import command_line, commit

Better = Literal["lower", "higher"]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One measured value of one draw.

    Example:
        >>> cell = Cell(app="semi_supervised", table="mnist", row="M2", column="100", value=11.9, unit="%",
        ...             better="lower", draw=0, seed=0, config_hash="0123456789ab", protocol="1", device="a CPU",
        ...             seconds=60.0, commit="unknown", command="genapps semi-supervised benchmark")
        >>> cell_path("docs/results", cell).as_posix()
        'docs/results/semi_supervised/mnist/M2__100__0.json'
    """

    app: str
    """The app's package name, e.g. "semi_supervised"."""
    table: str
    row: str
    column: str
    value: float
    """The raw value, never a mean and never rounded."""
    unit: str
    """The value's unit, e.g. "%"."""
    better: Better
    draw: int
    """Which draw (of labels, of demonstrations, ...) this is, from 0."""
    seed: int
    """Seed of the initialisation, apart from the draw's."""
    config_hash: str
    """`core_models.files.hash_of` the configuration: cells of different hashes are never averaged together."""
    protocol: str
    """Version of the way of measuring, raised when numbers measured the old way no longer compare."""
    device: str
    """`device_words(...)`: the processor's name and the number of threads."""
    seconds: float
    """Wall-clock time that this value took [s]."""
    commit: str = field(default_factory=commit)
    command: str = field(default_factory=command_line)
    """The command that makes this cell again."""
    written: str = field(default_factory=_now)
    """When, in UTC (ISO 8601): decides which of two configurations is the newer."""
    extra: dict[str, Any] = field(default_factory=dict)
    """What a reader may want beside the value: error_count, n_test, pool, transductive, augmentation, ..."""

    def __post_init__(self) -> None:
        """Refuses what can't be averaged or filed.

        Raises:
            UserError: naming the field, what it must be and what came.
        """
        for name in ("app", "table", "row", "column", "unit", "config_hash", "protocol", "device", "commit"):
            text = getattr(self, name)
            self._require(name, isinstance(text, str) and text != "", "a non-empty string")
        for name in ("command", "written"):
            self._require(name, isinstance(getattr(self, name), str), "a string")
        for name in ("value", "seconds"):
            number = getattr(self, name)
            good = isinstance(number, (int, float)) and not isinstance(number, bool) and math.isfinite(number)
            self._require(name, good, "a finite number")
            object.__setattr__(self, name, float(number))
        for name in ("draw", "seed"):
            number = getattr(self, name)
            self._require(name, isinstance(number, int) and not isinstance(number, bool), "an integer")
        self._require("draw", self.draw >= 0, "0 or more")
        self._require("better", self.better in get_args(Better), "'lower' or 'higher'")
        self._require("extra", isinstance(self.extra, dict), "a mapping")

    def is_of(self, config_hash: str, protocol: str) -> bool:
        """Returns whether this is a cell of such settings, measured in such a way."""
        return (self.config_hash, self.protocol) == (config_hash, protocol)

    def _require(self, name: str, good: bool, expected: str) -> None:
        if not good:
            raise UserError(f"a cell's {name} must be {expected}, got {getattr(self, name)!r}")

    @property
    def interval(self) -> tuple[float, float] | None:
        """Ends of the value's 95 % interval over what it was measured on, where `extra["interval"]` has them."""
        ends = self.extra.get("interval")
        if not isinstance(ends, (list, tuple)) or len(ends) != 2:
            return None
        known = all(isinstance(end, (int, float)) and math.isfinite(end) for end in ends)
        return (float(ends[0]), float(ends[1])) if known else None

    @property
    def key(self) -> tuple[str, str, str, str]:
        """Which entry of which table this is a draw of: (app, table, row, column)."""
        return self.app, self.table, self.row, self.column


def cell_path(folder: Path | str, cell: Cell) -> Path:
    """Returns where a cell lies below the results folder."""
    return _path(folder, cell.app, cell.table, cell.row, cell.column, cell.draw)


def write_cell(folder: Path | str, cell: Cell) -> Path:
    """Writes a cell whole or not at all, in place of an older one of the same draw; returns its path."""
    path = cell_path(folder, cell)
    write_json(path, asdict(cell))
    return path


def read_cell(path: Path | str) -> Cell:
    """Reads one cell.

    Raises:
        UserError: naming the file, when it is broken or isn't a cell.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a result cell: expected a JSON object, got {type(content).__name__}")
    names = {f.name for f in fields(Cell)}
    try:
        for what, odd in (("unknown", content.keys() - names), ("missing", names - content.keys())):
            if odd:
                raise UserError(f"{what} field {', '.join(map(repr, sorted(odd)))}")
        return Cell(**content)
    except UserError as error:
        raise UserError(f"{path} is not a result cell: {error}; delete or restore it") from error


def read_cells(folder: Path | str, app: str | None = None, table: str | None = None) -> list[Cell]:
    """Reads the cells below a results folder, ordered by path; none where the folder doesn't exist.

    Args:
        folder: the results folder, e.g. docs/results.
        app: only this app's.
        table: only this table's.

    Raises:
        UserError: naming the file, when one is broken, isn't a cell or lies where another cell belongs.
    """
    folder = Path(folder)
    cells = []
    for path in sorted(folder.glob("*/*/*__*__*.json")):
        if path.name.startswith("."):  # the temporary name of a write in progress
            continue
        if (app and path.parts[-3] != _part(app)) or (table and path.parts[-2] != _part(table)):
            continue
        cell = read_cell(path)
        if cell_path(folder, cell) != path:
            raise UserError(f"{path} holds the cell that belongs at {cell_path(folder, cell)}: move or delete it")
        cells.append(cell)
    return cells


def cell_at(folder: Path | str, *, app: str, table: str, row: str, column: str, draw: int) -> Cell | None:
    """Returns the cell that stands in a place, stale or not; None where there is none."""
    path = _path(folder, app, table, row, column, draw)
    return read_cell(path) if path.exists() else None


def told_to_stand(
    folder: Path | str, words: str, *, app: str, table: str, row: str, column: str, draw: int, config_hash: str,
    protocol: str,
) -> Cell | None:  # fmt: skip
    """Returns the cell that stands in a place, of these settings or others, after saying so; None where there is none.

    `words` name the place.
    """
    cell = cell_at(folder, app=app, table=table, row=row, column=column, draw=draw)
    if cell is None:
        return None
    if cell.is_of(config_hash, protocol):
        print(f"{words}: stands, {cell.value:.4g}", flush=True)
    else:
        print(f"{words}: one of other settings stands, {cell.value:.4g}, by {cell.command}: replace it by "
              "--again true, or file yours elsewhere by --results", flush=True)  # fmt: skip
    return cell


def split_stale(cells: Iterable[Cell]) -> tuple[list[Cell], list[Cell]]:
    """Splits the cells of any tables into current and stale ones.

    The draws of one (app, table, row, column) may come from several configurations or protocols, when a grid was run
    again and not finished. Only one such group is shown: that of the highest protocol and, within it, the one
    written to last. The others are stale: listed below the table, never averaged with it.
    """
    groups: dict[tuple[str, ...], dict[tuple[str, str], list[Cell]]] = {}
    for cell in cells:
        groups.setdefault(cell.key, {}).setdefault((cell.protocol, cell.config_hash), []).append(cell)
    current: list[Cell] = []
    stale: list[Cell] = []
    for candidates in groups.values():
        newest = max(candidates.values(), key=lambda group: (natural(group[0].protocol), max(c.written for c in group)))
        for group in candidates.values():
            (current if group is newest else stale).extend(group)
    return current, stale


def natural(text: str) -> tuple[tuple[int, float, str], ...]:
    """Returns a sorting key that puts "600" before "1000" and "1.9" before "1.10"."""
    parts = (part for part in re.split(r"(\d+)", text) if part)
    return tuple((0, float(part), "") if part.isdecimal() else (1, 0.0, part.lower()) for part in parts)


def _path(folder: Path | str, app: str, table: str, row: str, column: str, draw: int) -> Path:
    name = "__".join(_part(part).replace("_", "%5F") for part in (row, column))
    return Path(folder) / _part(app) / _part(table) / f"{name}__{draw}.json"


def _part(text: str) -> str:
    # A leading point would hide the file, or name the folder above.
    encoded = quote(text, safe="+=,()")
    return "%2E" + encoded[1:] if encoded.startswith(".") else encoded
