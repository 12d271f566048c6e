"""Errors against the number of measurements, drawn from the cells of a table."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from math import isfinite
from pathlib import Path
from statistics import fmean

from apps.common.cells import Cell, read_cells, split_stale
from apps.common.published import Published, published
from core_models.errors import UserError

from ..figures import Curve, Point, error_curves
from .rows import ROWS

APP = "compressed_sensing"
TITLES = {"mnist": "MNIST", "omniglot": "Omniglot"}


def draw_table(table: str, figures: Path, results: Path, methods: Sequence[str] | None = None) -> list[Path]:
    """Draws errors against measurements from the cells of a table; returns the figures.

    Columns are numbers of measurements; those with words after the number ("25, 300 images, a matrix per 50") are
    another protocol, with a figure of its own.

    Args:
        table: which.
        figures: the folder to draw into.
        results: where cells are filed.
        methods: rows, in the order of the legend; all when left out, in the order of the benchmark.

    Raises:
        UserError: when there is no cell, or none of a method.
    """
    cells, _ = split_stale(read_cells(results, APP, table))
    facts = [fact for fact in published(APP) if fact.table == table]
    protocols = dict.fromkeys(words for cell in cells if (words := _column(cell.column)[1]) is not None)
    if not protocols:
        raise UserError(f"expected cells of the table {table} in {results}, whose columns are numbers of measurements, "
                        f"found none: genapps compressed-sensing benchmark --data {table}")  # fmt: skip
    drawn = []
    for words in sorted(protocols, key=str):
        own = [cell for cell in cells if _column(cell.column)[1] == words]
        curves = [*curves_of(own), *_published_curves(fact for fact in facts if _column(fact.column)[1] == words)]
        curves = _ordered(curves, methods, strict=not words)
        if not curves:
            continue
        name = "_".join([table, *re.findall(r"[a-z0-9]+", str(words).lower())])
        title = TITLES.get(table, table.replace("_", " ")) + (f", {words}" if words else "")
        counted = "" if words else _counted(own)
        drawn.append(error_curves(curves, figures / f"{name}.png", unit=own[0].unit, title=f"{title}{counted}"))
    return drawn


def curves_of(cells: Sequence[Cell]) -> list[Curve]:
    """Returns a curve for each row: means over draws, with the 95 % interval over test images of one draw.

    Draws are of the same images, which differ more than matrices do: their intervals are averaged, not narrowed.
    """
    found: dict[str, dict[int, list[Cell]]] = {}
    for cell in cells:
        m, _ = _column(cell.column)
        found.setdefault(cell.row, {}).setdefault(m, []).append(cell)
    curves = []
    for row, columns in found.items():
        points = []
        for m, own in sorted(columns.items()):
            halves = [cell.extra.get("errors", {}).get("mse", {}).get("half_width") for cell in own]
            known = [
                float(half) for half in halves if half is not None and isfinite(half)
            ]  # of one image there is none
            points.append(Point(m, fmean(cell.value for cell in own), fmean(known) if known else None))
        curves.append(Curve(row, points))
    return curves


def _ordered(curves: Sequence[Curve], methods: Sequence[str] | None, *, strict: bool) -> list[Curve]:
    """Returns the curves of some rows, in their order, or all in the benchmark's.

    Raises:
        UserError: when a row has none and `strict` is set.
    """
    names = list(dict.fromkeys(curve.name for curve in curves))
    if methods is None:
        order = [*(name for name in ROWS if name in names), *(name for name in names if name not in ROWS)]
    else:
        order = list(methods)
        unknown = [name for name in order if name not in names]
        if strict and unknown:
            raise UserError(f"--methods: expected rows that have cells ({'; '.join(names)}), got {unknown[0]!r}")
    return [curve for name in order for curve in curves if curve.name == name]


def _published_curves(facts: Iterable[Published]) -> list[Curve]:
    found: dict[str, list[Point]] = {}
    for fact in facts:
        found.setdefault(fact.row, []).append(Point(_column(fact.column)[0], fact.value))
    return [Curve(row, points, published=True) for row, points in found.items()]


def _column(text: str) -> tuple[int, str | None]:
    """Returns the number of measurements and the words after it; 0 and None for a column that begins otherwise."""
    found = re.fullmatch(r"(\d+)(?:, (.+))?", text)
    return (int(found[1]), found[2] or "") if found else (0, None)


def _counted(cells: Sequence[Cell]) -> str:
    numbers = {int(cell.extra["n_test"]) for cell in cells if "n_test" in cell.extra}
    return f", {numbers.pop():,} test images" if len(numbers) == 1 else ""
