r"""Newton steps on the support: the LASSO to machine precision once its support is nearly known.

Those coefficients that a proximal step at w would leave free are taken for the support F, with signs s; there the
optimality conditions are linear,

.. math:: D_F^T (D_F w_F + D_1 1 - y) / m + \alpha s_F = 0

(D_1: the coefficients at the upper end of a box). It is the semismooth Newton method on w = prox(w - grad / L): it
ends in a few steps from near the solution and may wander from afar, so that its caller keeps what lowers the gap.

Source: Osborne, Presnell and Turlach, "A new approach to variable selection in least squares problems", 2000, section
3; Milzarek and Ulbrich, "A semismooth Newton method with multidimensional filter globalization for l1-optimization",
2014, section 3.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .fista import Fista
from .problem import Coefficients

BYTES = 1 << 28
"""Of memory that the systems of a part of the batch take [bytes]."""


class Newton:
    """Newton steps for the problems of a `Fista`, whose gradient and proximal step they share."""

    def __init__(self, fista: Fista) -> None:
        self.fista = fista
        self.gram = fista.gram if fista.gram is not None else fista.design.T @ fista.design / fista.m
        self.largest = min(fista.design.shape)

    def step(self, w: Coefficients, rows: Tensor) -> Coefficients:
        """Returns one Newton step for the signals `rows`; NaN where the support can't be solved for."""
        fista = self.fista
        back = fista.back[rows]
        v = w - fista.gradient(w, back) / fista.lipschitz
        threshold = fista.alpha / fista.lipschitz
        if fista.box:
            v = v - threshold
            free, upper = (v > 0) & (v < 1), v >= 1
            target = back - fista.alpha
            fixed = upper.to(w)
            target = target - fixed @ self.gram
        else:
            free = v.abs() > threshold
            target = back - fista.alpha * v.sign()
            fixed = torch.zeros_like(w)
        counts = free.sum(1)
        new = torch.full_like(w, torch.nan)
        solvable = (counts <= self.largest).nonzero().squeeze(1)
        if len(solvable) == 0:
            return new
        size = max(int(counts[solvable].max()), 1)
        part = max(1, BYTES // (size * size * w.element_size() * 3))
        for own in solvable.split(part):
            new[own] = self._solve(free[own], target[own], fixed[own])
        return new

    def _solve(self, free: Tensor, target: Tensor, fixed: Tensor) -> Tensor:
        """Solves the systems of free coefficients (batch, n), padded with the identity to the largest of them."""
        size = max(int(free.sum(1).max()), 1)
        # places of the free coefficients first, in order
        places = torch.argsort(free.logical_not().to(torch.uint8), dim=1, stable=True)[:, :size]
        own = torch.gather(free, 1, places)
        matrix = self.gram[places[:, :, None], places[:, None, :]]
        both = own[:, :, None] & own[:, None, :]
        matrix = torch.where(both, matrix, 0.0)
        matrix.diagonal(dim1=1, dim2=2).add_((~own).to(matrix))
        right = torch.where(own, torch.gather(target, 1, places), 0.0)
        factor, failed = torch.linalg.cholesky_ex(matrix)
        found = torch.cholesky_solve(right[..., None], factor).squeeze(-1)
        found = torch.where((failed > 0)[:, None], torch.nan, found)
        return fixed.scatter_add(1, places, torch.where(own, found, 0.0))
