"""What lies behind the means of a table: its draws, and what else its cells measured."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from .cells import Cell, natural, split_stale
from .markdown import escape, grid, number


def draws_markdown(cells: Sequence[Cell]) -> str:
    """Renders what lies behind the means of one table: spread, error counts, time, protocol and configuration."""
    current, _ = split_stale(cells)
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in sorted(current, key=lambda c: (natural(c.row), natural(c.column), c.draw)):
        groups.setdefault((cell.row, cell.column), []).append(cell)
    if not groups:
        return "Nothing run yet.\n"
    head = "method column draws min max errors seconds protocol configuration commit notes"
    lines = [head.split()]
    for (row, column), group in groups.items():
        values = [cell.value for cell in group]
        counts = [str(cell.extra["error_count"]) for cell in group if "error_count" in cell.extra]
        extra = {key: value for cell in group for key, value in cell.extra.items() if key != "error_count"}
        flags = {key: value for key, value in extra.items() if isinstance(value, (bool, int, str))}
        lines.append(
            [
                escape(row),
                escape(column),
                " ".join(str(cell.draw) for cell in group),
                number(min(values)),
                number(max(values)),
                " ".join(counts),
                f"{fmean(cell.seconds for cell in group):.0f}",
                escape(group[0].protocol),
                group[0].config_hash,
                " ".join(sorted({cell.commit[:10] + ("+" if "+" in cell.commit else "") for cell in group})),
                escape(", ".join(k if v is True else f"{k} {v}" for k, v in flags.items() if v is not False)),
            ]
        )
    return grid(lines)


def measures_markdown(cells: Sequence[Cell]) -> str:
    """Renders what a table's cells measured besides their value, with 95 % intervals; "" where they tell nothing more.

    Of errors of recovery, `extra["errors"]`: each one's mean and half the interval over examples. Of a policy's
    episodes, `extra["return"]`: mean and interquartile mean, each with its interval, beside the expert's and a random
    policy's, and the steps that it learnt from.
    """
    current, _ = split_stale(cells)
    told = [(cell, _measures(cell)) for cell in sorted(current, key=_place)]
    told = [(cell, figures) for cell, figures in told if figures]
    if not told:
        return ""
    names = list(dict.fromkeys(name for _, figures in told for name in figures))
    lines = [["method", "column", "draw", *names, "seconds"]]
    for cell, figures in told:
        place = [escape(cell.row), escape(cell.column), str(cell.draw)]
        lines.append([*place, *(figures.get(name, "") for name in names), f"{cell.seconds:.0f}"])
    count = f"{len(told)} cell{'s' if len(told) > 1 else ''}"
    meaning = (
        "± is half the 95 % interval over examples" if "errors" in told[0][0].extra else "in brackets 95 % intervals"
    )
    return f"<details><summary>All measures of {count}; {meaning}</summary>\n\n{grid(lines)}\n</details>\n"


def _measures(cell: Cell) -> dict[str, str]:
    errors, returns = cell.extra.get("errors"), cell.extra.get("return")
    if isinstance(errors, dict):
        return {name: f"{number(one['mean'], 3)} ± {number(one['half_width'])}" for name, one in errors.items()}
    if not isinstance(returns, dict):
        return {}
    found = {}
    for name, key in (("return", "mean"), ("interquartile mean", "interquartile_mean")):
        interval = returns["interval" if key == "mean" else f"{key}_interval"]
        told = f" ({interval[0]:,.1f} to {interval[1]:,.1f})" if interval else ""
        found[name] = f"{returns[key]:,.1f}{told}"
    found |= {name: f"{cell.extra[name]:,.1f}" for name in ("expert", "random") if name in cell.extra}
    return found | ({"steps": f"{cell.extra['steps']:,}"} if "steps" in cell.extra else {})


def _place(cell: Cell) -> tuple[Any, ...]:
    return natural(cell.row), natural(cell.column), cell.draw
