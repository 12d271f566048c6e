"""What codes do, as a picture: the paths of the demonstrations by mode, beside those of each method by code.

Paths are kept, thinned and rounded, in the result cells, so that the picture can be drawn again without training.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from apps.common.cells import cell_at
from apps.common.figures import OKABE_ITO, canvas
from core_models.errors import UserError

from ..environments.circles import CENTRES, RADII
from ..environments.road import HALF_WIDTH
from .mode_evaluation import ModeRollout, expert_rollouts

SHOWN = ("BC", "GAIL", "InfoGAIL")
KEPT, EVERY = 4, 2
"""Paths of each code that a cell keeps, and every how manieth place of them."""

Coloured = tuple[int, Float[np.ndarray, "places 2"]]
"""A code and a path."""


def paths_as_text(rollouts: Sequence[ModeRollout]) -> list[str]:
    """Returns the first paths of each code, a line each: the code, and places with a centimetre's precision.

    Example:
        >>> paths_as_text([ModeRollout(1, np.array([[0.0, 0.5], [9.0, 9.0], [1.0, 0.25]]), None, 0.0)])
        ['1: 0,0.5 1,0.25']
    """
    kept: dict[int, list[str]] = {}
    for rollout in rollouts:
        places = " ".join(f"{round(x, 2):g},{round(y, 2):g}" for x, y in rollout.path[::EVERY].tolist())
        kept.setdefault(rollout.code, []).append(f"{rollout.code}: {places}")
    return [line for code in sorted(kept) for line in kept[code][:KEPT]]


def paths_of_text(lines: Sequence[str]) -> list[Coloured]:
    """Returns what `paths_as_text` wrote."""
    found = []
    for line in lines:
        code, places = line.split(": ")
        found.append(
            (int(code), np.array([[float(number) for number in place.split(",")] for place in places.split()]))
        )
    return found


def draw_modes(
    path: Path, title: str, env_id: str, kwargs: dict[str, Any], codes: int, results: Path, column: str,
    seeds: Sequence[int],
) -> None:  # fmt: skip
    """Draws the demonstrations and, for each method that has cells, the paths of the first seed that stands.

    Args:
        path: the PNG file to write.
        title: of the environment.
        env_id: likewise.
        kwargs: likewise.
        codes: how many.
        results: where cells are filed.
        column: the one whose cells hold paths.
        seeds: of the cells.

    Raises:
        UserError: when no cell stands.
    """
    experts = expert_rollouts(env_id, kwargs, codes=codes, each=KEPT, seed=seeds[0])
    panels: list[tuple[str, list[Coloured]]] = [("experts, by mode", [(r.code, r.path) for r in experts])]
    for method in SHOWN:
        cells = (
            cell_at(results, app="imitation", table="infogail", row=method, column=column, draw=seed) for seed in seeds
        )
        cell = next((c for c in cells if c is not None and "paths" in c.extra), None)
        if cell is not None:
            panels.append((f"{method}, by code", paths_of_text(cell.extra["paths"])))
    if len(panels) == 1:
        raise UserError(
            f"{results}: expected cells of {' or '.join(SHOWN)} for {title}, found none: measure them first"
        )
    driving = env_id == "Driving-v0"
    with canvas(path, 2.6 * len(panels) if not driving else 7.0, 3.0 if not driving else 1.6 * len(panels)) as figure:
        shape = (len(panels), 1) if driving else (1, len(panels))
        grid = np.ravel(figure.subplots(*shape, sharex=True, sharey=True))
        for axes, (name, paths) in zip(grid, panels, strict=True):
            _background(axes, driving)
            for code, places in paths:
                x, y = places[:, 0] - (places[0, 0] if driving else 0.0), places[:, 1]
                axes.plot(x, y, color=OKABE_ITO[code], linewidth=1.0, alpha=0.8)
            axes.set_title(name)
            if not driving:
                axes.set_aspect("equal")
        if driving:
            grid[-1].set_xlabel(f"{title}: covered along the road [m]")
            for axes in grid:
                axes.set_ylabel("right [m]")
            grid[0].invert_yaxis()  # as seen from above, driving to the right; the axes are shared


def _background(axes: Any, driving: bool) -> None:
    """Draws the edges of the road, or the circles."""
    if driving:
        for edge in (-HALF_WIDTH, HALF_WIDTH):
            axes.axhline(edge, color="#8C8C8C")
        return
    angle = np.linspace(0, 2 * np.pi, 200)
    for centre, radius in zip(CENTRES, RADII, strict=True):
        axes.plot(centre[0] + radius * np.cos(angle), centre[1] + radius * np.sin(angle), color="#cccccc", linewidth=3)
