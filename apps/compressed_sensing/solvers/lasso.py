"""The LASSO's engine: FISTA until the support shows, Newton steps on it, and a duality gap that proves the end.

Signals that are done leave the batch. The first steps of FISTA, which only have to find the support, are taken in
single precision; Newton steps and gaps are in that of the problem. With a box in a basis other than pixels ADMM takes
over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from core_models.errors import UserError

from .fista import Fista, Momentum
from .newton import Newton
from .problem import Coefficients, Lasso, PerSignal

if TYPE_CHECKING:
    from .matrix_free import LargeLasso

FIRST_STEPS = 100
"""Of FISTA before the first Newton steps; each round takes half as many again."""
NEWTON_STEPS = 8
SINGLE_STEPS = 1000
"""Of FISTA in single precision at most; who isn't done by then may need more digits than it has."""


@dataclass(frozen=True, eq=False)
class Solution:
    """What a solver found, signal by signal."""

    w: Coefficients
    """(batch, n)."""
    objective: PerSignal
    gap: PerSignal
    """How far the objective is above the least, at most."""
    converged: Bool[Tensor, " batch"]
    """Whether the gap is within the tolerance."""
    steps: int
    """Of the first-order method, by the slowest signal."""

    @property
    def details(self) -> dict[str, PerSignal]:
        """What a method says of each signal."""
        return {"objective": self.objective, "gap": self.gap, "converged": self.converged.double()}


def solve_lasso(
    problem: Lasso, *, tolerance: float = 1e-6, max_steps: int = 20_000, start: Float[Tensor, "batch n"] | None = None
) -> Solution:
    """Solves a batch of LASSO problems to a relative duality gap.

    Args:
        problem: measurements, operator, basis, box and penalty.
        tolerance: largest gap as a share of the objective at 0, ||y||^2 / 2m, or of the objective itself where that
            is larger than a thousandth of it.
        max_steps: of the first-order method.
        start: coefficients to start from.

    Raises:
        UserError: when the tolerance isn't positive.
    """
    if not tolerance > 0:
        raise UserError(f"expected a tolerance above 0, got {tolerance}")
    if problem.box and problem.basis is not None:
        from .admm import solve_lasso_by_admm

        return solve_lasso_by_admm(problem, tolerance=tolerance, max_steps=max_steps, start=start)
    return _solve(problem, tolerance, max_steps, start)


def allowed_gap(problem: Lasso | LargeLasso, objective: PerSignal, tolerance: float) -> PerSignal:
    """Returns the gap at which a signal is done: a share of its objective, or of a thousandth of that at 0."""
    zero = problem.y.square().sum(1) / (2 * problem.m)
    return tolerance * torch.maximum(objective, 1e-3 * zero).clamp(min=torch.finfo(zero.dtype).tiny)


def _solve(problem: Lasso, tolerance: float, max_steps: int, start: Tensor | None) -> Solution:
    fista = Fista(problem)
    newton, fast = Newton(fista), fista.single()
    batch, n = len(problem.y), problem.A.shape[1]
    best = problem.y.new_zeros(batch, n) if start is None else start.to(problem.y)
    if problem.box:
        best = best.clamp(0, 1)
    objective, gap = problem.objective(best), problem.gap(best)
    rows = (gap > allowed_gap(problem, objective, tolerance)).nonzero().squeeze(1)
    state = Momentum.at(best[rows]).to(torch.float32)
    taken, steps = 0, FIRST_STEPS
    while len(rows) and taken < max_steps:
        steps = min(steps, max_steps - taken)
        if taken >= SINGLE_STEPS:
            state, fast = state.to(problem.y.dtype), fista
        state = fast.run(state, rows, steps)
        taken += steps
        steps += steps // 2
        w, live = state.w.to(problem.y.dtype), torch.arange(len(rows), device=rows.device)
        _keep_better(problem, rows, w, best, objective, gap)
        for _ in range(NEWTON_STEPS):
            w = newton.step(w, rows[live])
            if problem.box:
                w = w.clamp(0, 1)
            finite = torch.isfinite(w).all(1)
            w, live = w[finite], live[finite]
            if len(live) == 0:
                break
            _keep_better(problem, rows[live], w, best, objective, gap)
            open_ = gap[rows[live]] > allowed_gap(problem.of(rows[live]), objective[rows[live]], tolerance)
            w, live = w[open_], live[open_]
            if len(live) == 0:
                break
        left = gap[rows] > allowed_gap(problem.of(rows), objective[rows], tolerance)
        rows, state = rows[left], state.of(left)
    done = gap <= allowed_gap(problem, objective, tolerance)
    return Solution(best, objective, gap, done, taken)


def _keep_better(problem: Lasso, rows: Tensor, w: Tensor, best: Tensor, objective: Tensor, gap: Tensor) -> None:
    """Takes over, in place, what brings the gap of a signal down."""
    own = problem.of(rows)
    found = own.gap(w)
    better = found < gap[rows]
    chosen = rows[better]
    best[chosen], gap[chosen] = w[better], found[better]
    objective[chosen] = own.objective(w)[better]
