"""The LASSO engine against each solver of cvxpy, at equal objective.

cvxpy solves one signal after another, y being a parameter of a problem that is compiled once, which isn't timed. Each
solver has the loosest settings of its ladder by which it comes within 1e-6 of the least objective on every image that
is timed, found before and checked again after; one without such settings doesn't count. What leaves the box is clipped
to it first.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np
import torch
from cvxpy.error import SolverError
from torch import Generator, Tensor

from apps.compressed_sensing.operators import gaussian, measure
from apps.compressed_sensing.solvers.cvxpy_reference import TIGHT, Reference
from apps.compressed_sensing.solvers.lasso import solve_lasso
from apps.compressed_sensing.solvers.problem import Lasso
from core_models.errors import UserError

from .ratios import Measure, Stopwatch, interleaved, quotients

EQUAL = 1e-6
"""How far above the least an objective may be, as a share of it."""
TARGET = 30.0
_EPS = (1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
LADDERS: dict[str, list[dict[str, Any]]] = {
    "CLARABEL": [*({"tol_gap_abs": e, "tol_gap_rel": e, "tol_feas": e} for e in (1e-6, 1e-7, 1e-8)), TIGHT["CLARABEL"]],
    "OSQP": [*({**TIGHT["OSQP"], "eps_abs": e, "eps_rel": e} for e in _EPS), TIGHT["OSQP"]],
    "SCS": [*({**TIGHT["SCS"], "eps_abs": e, "eps_rel": e} for e in _EPS), TIGHT["SCS"]],
}
"""Settings of the solvers, loosest first."""


def lasso_problem(x: Tensor, m: int, *, box: bool, alpha: float = 0.1, noise: float = 0.1) -> Lasso:
    """Returns the LASSO in pixels of images (batch, channels, height, width) measured by a Gaussian matrix."""
    operator = gaussian(tuple(x.shape[1:]), m, seed=m, dtype=torch.float64)
    y = measure(operator, x.double(), noise, Generator().manual_seed(0))
    return Lasso(operator.matrix(), y, None, box, alpha=alpha)


class Contestant:
    """A solver of cvxpy that solves another image at every turn."""

    def __init__(self, problem: Lasso, solver: str, settings: dict[str, Any], stopwatch: Stopwatch) -> None:
        self.problem, self.settings, self.stopwatch = problem, settings, stopwatch
        self.reference = Reference(problem, solver, settings)
        self.found: dict[int, Tensor] = {}
        """Coefficients (n,) by the image's place."""
        self.turn = 0

    def solve(self, image: int) -> float:
        """Solves one image; returns the time that it took [s]."""
        y = self.problem.y[image].numpy()
        self.stopwatch.start()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that a solution may be inaccurate: it is checked
                w = self.reference.solve(y)
        except (SolverError, UserError):
            w = np.full(self.problem.A.shape[1], np.nan)
        took = self.stopwatch.stop()
        self.found[image] = torch.from_numpy(w)
        return took

    def __call__(self) -> float:
        """Takes a turn."""
        image, self.turn = self.turn, self.turn + 1
        return self.solve(image)

    def excess(self, least: Tensor) -> float:
        """Returns how far the worst objective is above the least, (batch,), as a share; NaN where none was found."""
        return excess(self.problem, torch.stack(list(self.found.values())), list(self.found), least)


def excess(problem: Lasso, w: Tensor, images: list[int], least: Tensor) -> float:
    """Returns how far the worst objective of coefficients (images, n) is above the least, as a share of it."""
    own = replace(problem, y=problem.y[images])
    found = own.objective(w.clamp(0, 1) if problem.box else w)
    return float((found / least[images] - 1).max())


def reaching(
    problem: Lasso, solver: str, ladder: list[dict[str, Any]], images: int, least: Tensor, stopwatch: Stopwatch
) -> tuple[Contestant | None, float]:
    """Returns a solver with the loosest settings that come near enough on the first images, and how near they came.

    None where no settings do; then the nearness is that of the tightest.
    """
    near = float("nan")
    for settings in ladder:
        contestant = Contestant(problem, solver, settings, stopwatch)
        for image in [*range(images)] * 2:  # cvxpy starts from the image before: the second time as when it is timed
            contestant.solve(image)
            near = contestant.excess(least)
            if not near <= EQUAL:
                break
        else:
            contestant.found.clear()
            return contestant, near
    return None, near


def against_cvxpy(
    x: Tensor, m: int, *, box: bool, solvers: tuple[str, ...], repeats: int, stopwatch: Stopwatch,
) -> Iterator[Measure]:  # fmt: skip
    """Yields a measure for each solver that reaches the objective, and one against the fastest of them.

    Args:
        x: images (batch, channels, height, width).
        m: measurements of each.
        box: whether 0 <= x <= 1 is asked for.
        solvers: of cvxpy.
        repeats: rounds; in each the engine solves all images and a solver one.
        stopwatch: its clock.

    Raises:
        UserError: when there are fewer images than are solved.
        RuntimeError: when the engine doesn't reach the objective.
    """
    problem = lasso_problem(x, m, box=box)
    if len(x) < repeats + 1:
        raise UserError(f"--images: expected at least {repeats + 1}, one a round and one before, got {len(x)}")
    best = solve_lasso(problem, tolerance=1e-9)
    own = excess(problem, solve_lasso(problem).w, list(range(len(x))), best.objective)
    if not (bool(best.converged.all()) and own <= EQUAL):
        raise RuntimeError(f"the engine's objective is {own:.1e} above the least, which is not proven")
    words = f"LASSO in pixels{', boxed' if box else ''}, m = {m}"
    contestants: dict[str, Contestant] = {}
    failed: dict[str, float] = {}

    def engine() -> float:
        stopwatch.start()
        solve_lasso(problem)
        return stopwatch.stop() / len(x)

    ladders = {solver: LADDERS[solver] for solver in solvers}
    while True:
        for solver in [name for name in solvers if name not in contestants and name not in failed]:
            found, near = reaching(problem, solver, ladders[solver], repeats + 1, best.objective, stopwatch)
            if found is None:
                failed[solver] = near
            else:
                contestants[solver] = found
        for contestant in contestants.values():
            contestant.turn = 0
            contestant.found.clear()
        turns: dict[str, Callable[[], float]] = {"engine": engine, **contestants}
        times = interleaved(turns, repeats)
        short = [name for name, contestant in contestants.items() if not contestant.excess(best.objective) <= EQUAL]
        if not short:
            break
        for solver in short:  # where a solver starts from decides a little: a rung higher, and all once more
            reached = ladders[solver].index(contestants.pop(solver).settings)
            ladders[solver] = ladders[solver][reached + 1 :]
    told = {name: 1000 * median(times[name]) for name in ("engine", *contestants)}
    missed = "; ".join(f"{solver} stays {near:.1e} above the least: not counted" for solver, near in failed.items())
    settings = {"m": m, "box": box, "images": len(x), "alpha": 0.1, "noise": 0.1, "basis": "pixels"}
    for solver, contestant in contestants.items():
        with_ = ", ".join(f"{name} {value:g}" for name, value in contestant.settings.items())
        yield Measure(
            f"{words}: engine on {len(x)} images against {solver}, an image", quotients(times, solver, "engine"),
            "higher", None, note=f"{told[solver]:.1f} ms against {told['engine']:.2f}; {with_}",
            extra={"settings": {**settings, "solver": solver, **contestant.settings}, "ms an image": told},
        )  # fmt: skip
    if not contestants:
        print(f"{words}: no solver reaches the objective; {missed}", flush=True)
        return
    fastest = min(contestants, key=lambda solver: told[solver])
    yield Measure(
        f"{words}: engine on {len(x)} images against the fastest of cvxpy's solvers, an image",
        quotients(times, fastest, "engine"), "higher", TARGET, note="; ".join(filter(None, [fastest, missed])),
        extra={"settings": {**settings, "solvers": list(solvers)}, "ms an image": told, "not counted": failed,
               "engine's excess": own},
    )  # fmt: skip
