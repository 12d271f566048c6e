"""Errors against the number of measurements, drawn from the cells of a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
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

    Columns are numbers of measurements; others are passed over.

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
    own = [cell for cell in cells if cell.column.isdecimal()]
    if not own:
        raise UserError(f"expected cells of the table {table} in {results}, whose columns are numbers of "
                        "measurements, found none: genapps compressed-sensing benchmark --data "
                        f"{table.partition('_')[0]}")  # fmt: skip
    curves = [*curves_of(own), *_published_curves(fact for fact in facts if fact.column.isdecimal())]
    curves = _ordered(curves, methods)
    data, _, rest = table.partition("_")
    title = TITLES.get(data, data) + (f", {rest.replace('_', ' ')}" if rest else "") + _counted(own)
    return [error_curves(curves, figures / f"{table}.png", unit=own[0].unit, title=title)]


def curves_of(cells: Sequence[Cell]) -> list[Curve]:
    """Returns a curve for each row: means over draws, with the 95 % interval over test images of one draw.

    Draws are of the same images, which differ more than matrices do: their intervals are averaged, not narrowed.
    """
    found: dict[str, dict[int, list[Cell]]] = {}
    for cell in cells:
        found.setdefault(cell.row, {}).setdefault(int(cell.column), []).append(cell)
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


def _ordered(curves: Sequence[Curve], methods: Sequence[str] | None) -> list[Curve]:
    """Returns the curves of some rows, in their order, or all in the benchmark's; each looks the same in all figures.

    Raises:
        UserError: when a row has none.
    """
    names = list(dict.fromkeys(curve.name for curve in curves))
    if methods is None:
        order = [*(name for name in ROWS if name in names), *(name for name in names if name not in ROWS)]
    else:
        order = list(methods)
        unknown = [name for name in order if name not in names]
        if unknown:
            raise UserError(f"--methods: expected rows that have cells ({'; '.join(names)}), got {unknown[0]!r}")
    looks = {name: number for number, name in enumerate([*ROWS, *(name for name in names if name not in ROWS)])}
    return [replace(curve, look=looks[name]) for name in order for curve in curves if curve.name == name]


def _published_curves(facts: Iterable[Published]) -> list[Curve]:
    found: dict[str, list[Point]] = {}
    for fact in facts:
        found.setdefault(fact.row, []).append(Point(int(fact.column), fact.value))
    return [Curve(row, points, published=True) for row, points in found.items()]


def _counted(cells: Sequence[Cell]) -> str:
    numbers = {int(cell.extra["n_test"]) for cell in cells if "n_test" in cell.extra}
    return f", {numbers.pop():,} test images" if len(numbers) == 1 else ""
