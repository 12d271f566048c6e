"""Tables made from cells: means over draws, beside the published figures.

`records` is the one form that everything else is made from: a list of flat dicts with the keys of `KEYS`, one per
(app, table, row, column), published rows first and in their paper's order.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from statistics import fmean, stdev
from string import ascii_lowercase
from types import MappingProxyType
from typing import Any

from core_models.errors import UserError

from .cells import Cell, natural, split_stale
from .grid_commands import merged
from .markdown import escape, grid, number
from .not_run import NotRun, why_not
from .published import Published

KEYS = (
    "app",
    "table",
    "row",
    "column",
    "value",
    "unit",
    "standard_error",
    "n",
    "low",
    "high",
    "published",
    "better",
    "counts",
    "device",
    "command",
    "reason",
)
"""The keys of a record, in this order. `value` is None where nothing was run, and `reason` then says why, None where
nothing does; `counts` is False where a cell says in `extra["counts"]` that it can't be held against the published
figure. `command` has several lines where several commands made an entry's draws."""

Record = dict[str, Any]

SPEED = "speed"
"""The table of an app's speeds, whose cells have rounds."""
NOT_RUN = "— not run"
QUOTED = "as published"
VALUE_DIGITS = 3
"""Of a value below 0.1; its standard error has two."""
UNFOLDED = 6
"""Commands that a page still shows without folding them away."""


def records(
    cells: Iterable[Cell],
    published: Sequence[Published] = (),
    reasons: Mapping[str, Sequence[NotRun]] = MappingProxyType({}),
) -> list[Record]:
    """Returns one record for each entry of each table, stale cells left out (see `cells.split_stale`).

    `value` is the mean over draws and `standard_error` is std(ddof=1) / sqrt(n), None for a single draw; that has `low`
    and `high`, the ends of its cell's 95 % interval, or of a speed's rounds, where they are known. A row that
    is run has an entry for every column of its table, with value None where there is no cell yet; a row that is only
    quoted has those published. `command` is quoted for any shell.

    Args:
        cells: of any apps and tables.
        published: the figures that they stand beside.
        reasons: for each app, why entries are not run.

    Raises:
        UserError: when the draws of one entry disagree on what is measured (unit, or which way is better).
    """
    current, _ = split_stale(cells)
    draws: dict[tuple[str, str, str, str], list[Cell]] = {}
    for cell in sorted(current, key=lambda c: (c.app, c.table, natural(c.row), natural(c.column), c.draw)):
        draws.setdefault(cell.key, []).append(cell)
    facts = {(fact.app, fact.table, fact.row, fact.column): fact for fact in published}

    # dicts keep their order of insertion: published names first, then ours
    rows: dict[tuple[str, str], dict[str, bool]] = {}
    columns: dict[tuple[str, str], dict[str, None]] = {}
    for fact in published:
        row = rows.setdefault((fact.app, fact.table), {})
        row[fact.row] = row.get(fact.row, False) or fact.ours != "quoted"
        columns.setdefault((fact.app, fact.table), {})[fact.column] = None
    for app, table, name, column in draws:
        rows.setdefault((app, table), {})[name] = True
        columns.setdefault((app, table), {}).setdefault(column, None)

    found = []
    for (app, table), names in rows.items():
        for name, run in names.items():
            for column in _ordered(columns[app, table]):
                key = (app, table, name, column)
                if run or key in facts:
                    kin = [c for k, group in draws.items() if k[:2] == (app, table) for c in group]
                    record = _record(key, draws.get(key, []), facts.get(key), kin, published)
                    if run and record["value"] is None:
                        record["reason"] = why_not(reasons.get(app, ()), table, name, column)
                    found.append(record)
    return found


def _ordered(columns: Iterable[str]) -> list[str]:
    """Numbers come first and ascend; other columns stay in the order in which they came."""
    columns = list(columns)
    numbers = [column for column in columns if column.isdecimal()]
    return [*sorted(numbers, key=natural), *(column for column in columns if not column.isdecimal())]


def _record(
    key: tuple[str, str, str, str],
    draws: Sequence[Cell],
    fact: Published | None,
    kin: Sequence[Cell],
    published: Sequence[Published],
) -> Record:
    measures = {(cell.unit, cell.better) for cell in draws} | ({(fact.unit, fact.better)} if fact else set())
    if len(measures) > 1:
        what = " and ".join(sorted(f"{unit} ({better} is better)" for unit, better in measures))
        raise UserError(f"{' / '.join(key)}: expected one unit for all draws and the published figure, got {what}")
    if not measures:  # neither run nor published: the table's other entries tell
        measures = {(c.unit, c.better) for c in kin} or {
            (f.unit, f.better) for f in published if (f.app, f.table) == key[:2]
        }
    unit, better = sorted(measures)[0]
    values = [cell.value for cell in draws]
    low, high = _ends(draws[0]) if len(draws) == 1 else (None, None)
    return {
        "app": key[0],
        "table": key[1],
        "row": key[2],
        "column": key[3],
        "value": fmean(values) if values else None,
        "unit": unit,
        "standard_error": stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None,
        "n": len(values),
        "low": low,
        "high": high,
        "published": fact.value if fact else None,
        "better": better,
        "counts": all(cell.extra.get("counts", True) for cell in draws),
        "device": "; ".join(sorted({cell.device for cell in draws})) or None,
        "command": "\n".join(merged(cell.command for cell in draws if cell.command)) or None,
        "reason": None,
    }


def _ends(cell: Cell) -> tuple[float, float] | tuple[None, None]:
    rounds = cell.extra.get("rounds", ())
    if cell.table == SPEED and len(rounds) > 1:
        return min(rounds), max(rounds)
    return cell.interval or (None, None)


def tables(found: Sequence[Record]) -> dict[tuple[str, str], list[Record]]:
    """Groups records by (app, table), in order."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in found:
        groups.setdefault((record["app"], record["table"]), []).append(record)
    return groups


def to_json(found: Sequence[Record]) -> str:
    """Renders records as a JSON list of objects with the keys of `KEYS`."""
    return json.dumps(list(found), indent=2, ensure_ascii=False) + "\n"


def to_csv(found: Sequence[Record]) -> str:
    """Renders records as CSV with a header line; None is an empty field."""
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=KEYS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    return out.getvalue()


def to_markdown(
    found: Sequence[Record], published: Sequence[Published] = (), stale: Sequence[Cell] = (), *, fold: bool = False
) -> str:
    """Renders the records of one table as Markdown: the table, then what it takes to read it and make it again.

    A reason why entries are not run is lettered, "— (a)", and told below the table.

    Args:
        found: the records of one (app, table).
        published: the facts behind them, for their ± and their sources.
        stale: cells of this table that the records leave out.
        fold: whether a long list of commands is folded away, as on a page.
    """
    if not found:
        return "Nothing run and nothing published yet.\n"
    key = (found[0]["app"], found[0]["table"])
    facts = {(f.row, f.column): f for f in published if (f.app, f.table) == key}
    entries = {(r["row"], r["column"]): r for r in found}
    columns = _ordered(dict.fromkeys(r["column"] for r in found))
    with_published = [c for c in columns if any(r["published"] is not None for r in found if r["column"] == c)]

    quoted = {f.row for f in facts.values() if f.ours == "quoted"}
    with_ours = [c for c in columns if any(r["row"] not in quoted for r in found if r["column"] == c)]

    header = ["method"]
    for column in columns:
        names = [column, "published"] if column in with_ours else [f"{column}, published"]
        header += names if column in with_published else names[:1]
    why = {(r["row"], r["column"]): r["reason"] for r in found if r["value"] is None and r["row"] not in quoted}
    letters = dict(zip(dict.fromkeys(filter(None, why.values())), _letters(), strict=False))
    lines = [header]
    for row in dict.fromkeys(r["row"] for r in found):
        line = [escape(row)]
        for column in columns:
            record, fact = entries.get((row, column)), facts.get((row, column))
            if column in with_ours:
                reason = why.get((row, column))
                line.append(f"— ({letters[reason]})" if reason else ours(record, fact))
            if column in with_published:
                line.append(_theirs(record, fact))
        lines.append(line)
    notes = _notes(found, [f for f in published if (f.app, f.table) == key], stale, fold)
    missing = _missing(why, letters, sum(r["row"] not in quoted for r in found))
    notes = [notes[0], *missing, *notes[1:]]
    return grid(lines) + "\n" + "\n\n".join(notes) + "\n"


def ours(record: Record | None, fact: Published | None = None, *, bold: bool = True) -> str:
    """Returns what a table shows for one entry: "3.25 ± 0.10 (n=10)", "— not run" or "as published".

    Of one draw it shows the interval instead: "3.25 [± 0.35]" or "0.00 [0.00, 0.38]".
    """
    quoted = (record is None) if fact is None else fact.ours == "quoted"
    if record is None or record["value"] is None:
        return ("" if record is None else QUOTED) if quoted else NOT_RUN
    text = number(record["value"], VALUE_DIGITS)
    if record["standard_error"] is not None:
        text += f" ± {number(record['standard_error'])}"
    sign = 1 if record["better"] == "lower" else -1
    reached = record["published"] is not None and sign * record["value"] <= sign * record["published"]
    if not record["counts"]:
        text += "†"
    elif bold and reached and (fact is None or fact.ours != "beside"):
        text = f"**{text}**"
    return f"{text} {_spread(record)}"


def _spread(record: Record) -> str:
    low, high, value = record["low"], record["high"], record["value"]
    if low is None:
        return f"(n={record['n']})"
    if math.isclose(high - value, value - low):
        return f"[± {number(high - value)}]"
    if abs(high) >= 10:  # hundredths tell nothing there
        return f"[{low:.1f}, {high:.1f}]"
    return f"[{number(low)}, {number(high)}]"


def spreads(found: Sequence[Record]) -> list[str]:
    """Returns what a reader has to know of the ± and the brackets in these records' entries."""
    run = [r for r in found if r["value"] is not None]
    bracketed, alone = any(r["low"] is not None for r in run), any(r["low"] is None for r in run)
    if bracketed and run[0]["table"] == SPEED:
        told = ["median of rounds, in brackets the least and the most"]
        return told + ["n=1: one measurement"] * alone
    told = ["mean ± standard error over n draws"] * alone
    return told + ["of one draw, in brackets, its 95 % interval over test cases"] * bracketed


def _theirs(record: Record | None, fact: Published | None) -> str:
    if record is None or record["published"] is None:
        return ""
    spread = f" ± {number(fact.standard_error)}" if fact and fact.standard_error is not None else ""
    return number(record["published"], VALUE_DIGITS) + spread


def _notes(found: Sequence[Record], facts: Sequence[Published], stale: Sequence[Cell], fold: bool) -> list[str]:
    units = ", ".join(dict.fromkeys(f"[{r['unit']}], {r['better']} is better" for r in found))
    units = "; ".join([units, *spreads(found)])
    legend = f"{units}."
    if any(r["published"] is not None for r in found):
        compared = any(f.ours == "run" for f in facts)
        bold = (
            "; **bold**: at least as good as published" if compared else "; published figures were measured otherwise"
        )
        legend = f"{units}{bold}. A published ± is as printed in its source."
    if not all(r["counts"] for r in found):
        legend += " †: measured under easier conditions than published, and no claim."
    notes = [legend]
    if facts:
        notes.append("Published: " + ". ".join(dict.fromkeys(escape(f.source) for f in facts)) + ".")
    devices = dict.fromkeys(r["device"] for r in found if r["device"])
    if devices:
        notes.append("Measured on: " + "; ".join(dict.fromkeys("; ".join(devices).split("; "))) + ".")
    commands = merged(line for r in found if r["command"] for line in r["command"].splitlines())
    if commands:
        listed = "```\n" + "\n".join(commands) + "\n```"
        if fold and len(commands) > UNFOLDED:
            listed = f"<details><summary>{len(commands)} commands</summary>\n\n{listed}\n\n</details>"
        notes.append(f"Made by:\n\n{listed}")
    if stale:
        names = (f"{escape(c.row)} at {c.column} (protocol {c.protocol}, {c.config_hash})" for c in stale)
        entries = dict.fromkeys(names)
        count = f"{len(stale)} draw{'s' if len(stale) > 1 else ''}"
        notes.append(f"Stale, left out: {count} of an older configuration or protocol: {', '.join(entries)}.")
    return notes


def _missing(why: Mapping[tuple[str, str], str | None], letters: Mapping[str, str], entries: int) -> list[str]:
    """Returns what to say of entries without a value: how many are to be run yet, and why the others are not."""
    unexplained = sum(reason is None for reason in why.values())
    lines = [f"Not run yet: {unexplained} of {entries} entries."] if unexplained else []
    if letters:
        reasons = "; ".join(f"({letter}) {escape(reason)}" for reason, letter in letters.items())
        lines.append(f"Not run: {len(why) - unexplained} of {entries} entries: {reasons}.")
    return lines


def _letters() -> Iterator[str]:
    """Yields a, b, …, z, aa, ab, …, zz."""
    return ("".join(letters) for length in (1, 2) for letters in product(ascii_lowercase, repeat=length))
