r"""Basis pursuit denoising by ADMM, a whole batch at once.

.. math:: \min_w \|w\|_1 \quad \|y - A B w\| \le \epsilon \quad (0 \le B w \le 1)

The signal x is split from its coefficients u = B^T x, its measurements s = A x, projected on the ball round y, and,
with a box, from v = x; see `admm` for the steps. A is scaled to singular values of mean square 1. The multipliers give
the lower bound that proves the end.

Source: Chen, Donoho and Saunders, "Atomic decomposition by basis pursuit", 1998, section 5; Boyd et al. 2011,
section 6.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from core_models.errors import UserError

from .admm import CHECK_EVERY, RELAXATION, Inverse, adapted
from .fista import shrink
from .problem import BasisPursuit, Coefficients, PerSignal


@dataclass(frozen=True, eq=False)
class PursuitSolution:
    """What basis pursuit found, signal by signal."""

    w: Coefficients
    objective: PerSignal
    bound: PerSignal
    """No feasible w has an objective below this."""
    violation: PerSignal
    """How far ||y - A B w|| is above epsilon [units of y]."""
    converged: Bool[Tensor, " batch"]
    steps: int


def solve_basis_pursuit(problem: BasisPursuit, *, tolerance: float = 1e-6, max_steps: int = 20_000) -> PursuitSolution:
    """Solves a batch of problems.

    Args:
        problem: measurements, operator, basis, box and epsilon.
        tolerance: largest gap as a share of the objective, and largest violation as a share of ||y||.
        max_steps: of ADMM.

    Raises:
        UserError: when the tolerance isn't positive.
    """
    if not tolerance > 0:
        raise UserError(f"expected a tolerance above 0, got {tolerance}")
    scale = float(torch.linalg.matrix_norm(problem.A)) / min(problem.A.shape) ** 0.5
    A, centre, radius = problem.A / scale, problem.y / scale, problem.epsilon / scale
    inverse = Inverse(A, 1.0)
    batch, n = len(problem.y), A.shape[1]
    terms = torch.full((batch, 1), 2.0 if problem.box else 1.0).to(A)
    u = p = v = q = A.new_zeros(batch, n)
    s, a = centre, torch.zeros_like(centre)
    rho = (1 / (centre @ A).abs().amax(1, keepdim=True).clamp(min=1e-12)).clone()
    rows = torch.arange(batch, device=A.device)
    best = A.new_zeros(batch, n)
    objective, bound, violation = (A.new_full((batch,), value) for value in (torch.inf, 0.0, torch.inf))
    limit = tolerance * problem.y.norm(dim=1).clamp(min=torch.finfo(A.dtype).tiny)
    taken, adapt_at = 0, CHECK_EVERY
    while len(rows) and taken < max_steps:
        own = BasisPursuit(problem.A, problem.y[rows], problem.basis, problem.box, epsilon=problem.epsilon)
        for _ in range(CHECK_EVERY):
            old_s, old_u, old_v = s, u, v
            right = (s - a) @ A + own.signals(u - p)
            if own.box:
                right = right + (v - q)
            x = inverse.apply(right, terms[rows])
            measured, w = x @ A.T, own.coefficients(x)
            relaxed = RELAXATION * measured + (1 - RELAXATION) * old_s
            s = _into_ball(relaxed + a, centre[rows], radius)
            a = a + relaxed - s
            relaxed = RELAXATION * w + (1 - RELAXATION) * old_u
            u = shrink(relaxed + p, 1 / rho)
            p = p + relaxed - u
            if own.box:
                relaxed = RELAXATION * x + (1 - RELAXATION) * old_v
                v = (relaxed + q).clamp(0, 1)
                q = q + relaxed - v
        taken += CHECK_EVERY
        candidate = own.coefficients(v) if own.box else u
        best[rows], objective[rows] = candidate, own.objective(candidate)
        violation[rows] = (own.residuals(candidate).norm(dim=1) - own.epsilon).clamp(min=0)
        bound[rows] = torch.maximum(bound[rows], own.bound(-rho * a / scale, rho * p if own.box else None))
        if taken >= adapt_at:
            adapt_at = taken + max(taken // 2, CHECK_EVERY)
            apart = [measured - s, w - u] + ([x - v] if own.box else [])
            moved = [s - old_s, u - old_u] + ([v - old_v] if own.box else [])
            factor = adapted(apart, moved)
            rho, a, p, q = rho * factor, a / factor, p / factor, q / factor
        open_ = objective[rows] - bound[rows] > tolerance * objective[rows].clamp(min=torch.finfo(A.dtype).tiny)
        open_ |= (objective[rows] - bound[rows] < -tolerance * objective[rows]) | (violation[rows] > limit[rows])
        rows, u, p, v, q, s, a, rho = (part[open_] for part in (rows, u, p, v, q, s, a, rho))
    done = ((objective - bound).abs() <= tolerance * objective) & (violation <= limit)
    return PursuitSolution(best, objective, bound, violation, done, taken)


def _into_ball(s: Tensor, centre: Tensor, radius: float) -> Tensor:
    """Returns the points nearest to s in the balls of a radius."""
    away = s - centre
    length = away.norm(dim=1, keepdim=True)
    return centre + away * (radius / length.clamp(min=1e-300)).clamp(max=1.0)
