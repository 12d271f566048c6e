r"""ADMM: the LASSO with a box in any orthonormal basis, and basis pursuit denoising, a whole batch at once.

The signal x is split from its coefficients u = B^T x, from what lies in the box v = x, and, in basis pursuit, from the
measurements s = A x; scaled multipliers p, q, r tie them together:

.. math:: x = \arg\min_x f(x) + \frac{\rho}{2} (\|B^T x - u + p\|^2 + \|x - v + q\|^2) , \quad
   u = \mathrm{shrink}(B^T x + p, \alpha / \rho), \quad v = \mathrm{clip}(x + q, 0, 1)

The step in x is one solve with A^T A + c I, from a singular value decomposition that is made once, so that every
signal may have a \rho of its own, adapted by its residuals.

Source: Boyd, Parikh, Chu, Peleato and Eckstein, "Distributed optimization and statistical learning via the alternating
direction method of multipliers", 2011, sections 3.1, 3.4.1 and 6.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from .fista import shrink
from .lasso import Solution, allowed_gap
from .problem import Lasso

CHECK_EVERY = 25
RELAXATION = 1.6
"""Over-relaxation (section 3.4.3)."""


class Inverse:
    """Solves (A^T A / scale + c I) x = b for a batch, with a c for every signal."""

    def __init__(self, A: Float[Tensor, "m n"], scale: float) -> None:
        _, singular, right = torch.linalg.svd(A, full_matrices=False)
        self.right, self.squares = right, singular.square() / scale

    def apply(self, b: Float[Tensor, "batch n"], c: Float[Tensor, "batch 1"]) -> Float[Tensor, "batch n"]:
        """Returns x, (batch, n)."""
        inside = b @ self.right.T
        return torch.addmm(b / c, inside * (1 / (self.squares + c) - 1 / c), self.right)


def solve_lasso_by_admm(
    problem: Lasso, *, tolerance: float = 1e-6, max_steps: int = 20_000, start: Float[Tensor, "batch n"] | None = None
) -> Solution:
    """Solves a batch of LASSO problems, with or without a box, in any orthonormal basis; see `solve_lasso`."""
    y, batch = problem.y, len(problem.y)
    n = problem.A.shape[1]
    inverse = Inverse(problem.A, problem.m)
    back = y @ problem.A / problem.m
    terms = 2 if problem.box else 1
    u = p = v = q = y.new_zeros(batch, n)
    if start is not None:
        u = start.to(y)
        v = problem.signals(u).clamp(0, 1) if problem.box else v
    rho = inverse.squares.mean().expand(batch, 1).clone()
    best, objective, gap = _start(problem, problem.coefficients(v) if problem.box else u)
    rows = torch.arange(batch, device=y.device)
    taken, adapt_at = 0, CHECK_EVERY
    while len(rows) and taken < max_steps:
        own = problem.of(rows)
        for _ in range(CHECK_EVERY):
            old_u, old_v = u, v
            right = back[rows] + rho * problem.signals(u - p)
            if problem.box:
                right = right + rho * (v - q)
            x = inverse.apply(right, terms * rho)
            w = problem.coefficients(x)
            relaxed = RELAXATION * w + (1 - RELAXATION) * old_u
            u = shrink(relaxed + p, own.penalty / rho)
            p = p + relaxed - u
            if problem.box:
                relaxed = RELAXATION * x + (1 - RELAXATION) * old_v
                v = (relaxed + q).clamp(0, 1)
                q = q + relaxed - v
        taken += CHECK_EVERY
        candidate = problem.coefficients(v) if problem.box else u
        _keep(own, rows, candidate, rho * p, best, objective, gap)
        if taken >= adapt_at:  # ever more rarely: a rho that changes for ever need not converge
            adapt_at = taken + max(taken // 2, CHECK_EVERY)
            apart, moved = [w - u] + [x - v] * problem.box, [u - old_u] + [v - old_v] * problem.box
            factor = adapted(apart, moved)
            rho, p, q = rho * factor, p / factor, q / factor
        left = gap[rows] > allowed_gap(own, objective[rows], tolerance)
        rows, u, p, v, q, rho = (part[left] for part in (rows, u, p, v, q, rho))
    done = gap <= allowed_gap(problem, objective, tolerance)
    return Solution(best, objective, gap, done, taken)


def adapted(apart: list[Tensor], moved: list[Tensor]) -> Float[Tensor, "batch 1"]:
    """Returns what rho is multiplied by, so that primal and dual residuals come near each other (section 3.4.1).

    Args:
        apart: how far the parts of the split are from each other, (batch, ...) each.
        moved: how far the last step moved each.
    """
    primal, dual = (torch.cat(parts, 1).norm(dim=1, keepdim=True) for parts in (apart, moved))
    factor = torch.sqrt(primal / dual.clamp(min=1e-300)).clamp(0.2, 5.0)
    return torch.where((factor > 1.5) | (factor < 1 / 1.5), factor, 1.0)


def _start(problem: Lasso, best: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    best = best.clone()  # taken over in place
    return best, problem.objective(best), problem.gap(best)


def _keep(
    own: Lasso, rows: Tensor, w: Tensor, subgradient: Tensor, best: Tensor, objective: Tensor, gap: Tensor
) -> None:
    found = own.gap(w, subgradient if own.box else None)
    better = found < gap[rows]
    chosen = rows[better]
    best[chosen], gap[chosen], objective[chosen] = w[better], found[better], own.objective(w)[better]
