r"""Newton steps on the support: the LASSO to machine precision once its support is nearly known.

Those coefficients that a proximal step at w would leave free are taken for the support F, with signs s; there the
optimality conditions are linear,

.. math:: D_F^T (D_F w_F + D_1 1 - y) / m + \alpha s_F = 0

(D_1: the coefficients at the upper end of a box). It is the semismooth Newton method on w = prox(w - grad / L): it
ends in a few steps from near the solution and may wander from afar, so that its caller keeps what lowers the gap.

The systems, their diagonals raised by a millionth, are factored in single precision and their solutions refined by
residuals in the problem's own, which costs half as much. Where columns of D are equal, as in super-resolution, a system
is singular but has solutions, and comes to one of them. What doesn't is solved in the problem's own precision.

Source: Osborne, Presnell and Turlach, "A new approach to variable selection in least squares problems", 2000, section
3; Milzarek and Ulbrich, "A semismooth Newton method with multidimensional filter globalization for l1-optimization",
2014, section 3; Higham, "Accuracy and stability of numerical algorithms", 2002, section 12 (refinement).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .fista import Fista
from .problem import Coefficients

TOGETHER = 32
"""Systems solved at once: of about the same size, since all are padded to the largest, and few enough for a cache."""
BYTES = 1 << 28
"""Of memory that they may take [bytes]."""
RIDGE = 1e-6
"""What is added to the diagonal, as a share of its mean, before a system is factored in single precision."""
REFINEMENTS = 5
EXACT = 1e-11
"""Residual, as a share of the right side, at which a system is solved."""


class Newton:
    """Newton steps for the problems of a `Fista`, whose gradient and proximal step they share."""

    def __init__(self, fista: Fista) -> None:
        self.fista = fista
        design = fista.design.float()
        self.n = design.shape[1]
        gram = design.T @ design / fista.m if fista.gram is None else fista.gram.float()
        # a row and a column of zeros at the end stand for what pads a support
        self.gram = torch.nn.functional.pad(gram, (0, 1, 0, 1))
        self.largest = min(design.shape)

    def step(self, w: Coefficients, rows: Tensor) -> Coefficients:
        """Returns one Newton step for the signals `rows`; NaN where the support can't be solved for."""
        fista = self.fista
        back = fista.back[rows]
        v = w - fista.gradient(w, back) / fista.lipschitz
        penalty = fista.penalty_of(rows)
        threshold = penalty / fista.lipschitz
        if fista.box:
            v = v - threshold
            free, fixed = (v > 0) & (v < 1), (v >= 1).to(w)
            target = back - penalty - fista.curvature(fixed)
        else:
            free, fixed = v.abs() > threshold, torch.zeros_like(w)
            target = back - penalty * v.sign()
        counts = free.sum(1)
        new = torch.full_like(w, torch.nan)
        order = counts.argsort()
        order = order[counts[order] <= self.largest]
        if len(order) == 0:
            return new
        largest = max(int(counts[order[-1]]), 1)
        part = max(1, min(TOGETHER, BYTES // (largest * largest * 8)))
        for own in order.split(part):
            new[own] = self._solve(free[own], target[own], w[own]) + fixed[own]
        return new

    def _solve(self, free: Bool[Tensor, "batch n"], target: Coefficients, w: Coefficients) -> Coefficients:
        """Solves the systems of free coefficients, padded with the identity to the largest of them."""
        size = max(int(free.sum(1).max()), 1)
        # places of the free coefficients first, in order; n, where gram is 0, after them
        places = torch.argsort(free.logical_not().to(torch.uint8), dim=1, stable=True)[:, :size]
        own = torch.gather(free, 1, places)
        places = torch.where(own, places, self.n)
        right = torch.where(own, torch.gather(_padded(target), 1, places), 0.0)
        matrix = self.gram[places[:, :, None], places[:, None, :]]
        diagonal = matrix.diagonal(dim1=1, dim2=2)
        diagonal.add_(RIDGE * diagonal.sum(1, keepdim=True) / own.sum(1, keepdim=True).clamp(min=1))
        diagonal.add_((~own).to(matrix))
        factor, failed = torch.linalg.cholesky_ex(matrix)
        # from w on, so that what the equations leave open stays as it is
        found = torch.where(own, torch.gather(_padded(w), 1, places), 0.0)
        limit = max(EXACT, 100 * torch.finfo(right.dtype).eps) * right.norm(dim=1)
        for _ in range(REFINEMENTS):
            residual = right - self._product(found, places, own)
            wrong = ~(residual.norm(dim=1) <= limit)
            if not bool(wrong.any()):
                break
            found = found + _substituted(factor, residual.float()).to(right)
        wrong |= failed > 0
        if bool(wrong.any()):
            found[wrong] = self._in_full(places[wrong], own[wrong], right[wrong])
        return self._spread(found, places)

    def _spread(self, found: Float[Tensor, "batch size"], places: Int[Tensor, "batch size"]) -> Coefficients:
        return found.new_zeros(len(found), self.n + 1).scatter_add(1, places, found)[:, : self.n]

    def _product(self, found: Tensor, places: Tensor, own: Tensor) -> Float[Tensor, "batch size"]:
        """Returns the systems' left sides, in the precision of the problem."""
        whole = self.fista.curvature(self._spread(found, places))
        return torch.where(own, torch.gather(_padded(whole), 1, places), 0.0)

    def _in_full(self, places: Tensor, own: Tensor, right: Tensor) -> Float[Tensor, "batch size"]:
        """Solves systems in the precision of the problem, one after another; NaN where one is singular."""
        found = torch.full_like(right, torch.nan)
        for row in range(len(right)):
            columns = self.fista.design[:, places[row][own[row]]]
            matrix = columns.T @ columns / self.fista.m
            matrix.diagonal().add_(matrix.diagonal().mean(), alpha=10 * torch.finfo(matrix.dtype).eps)
            factor, failed = torch.linalg.cholesky_ex(matrix)
            if not int(failed):
                found[row] = 0.0
                found[row, : columns.shape[1]] = _substituted(factor[None], right[row, : columns.shape[1]][None])[0]
        return found


def _padded(w: Coefficients) -> Tensor:
    return torch.nn.functional.pad(w, (0, 1))


def _substituted(factor: Float[Tensor, "batch size size"], right: Float[Tensor, "batch size"]) -> Tensor:
    """Solves L L^T x = b by two substitutions: for one right side much faster than `cholesky_solve`."""
    half = torch.linalg.solve_triangular(factor, right[..., None], upper=False)
    return torch.linalg.solve_triangular(factor.mT, half, upper=True).squeeze(-1)
