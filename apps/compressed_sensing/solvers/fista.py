r"""FISTA: accelerated proximal gradient steps for the LASSO, a whole batch at once.

.. math:: w_{k+1} = \mathrm{prox}(z_k - \nabla f(z_k) / L), \qquad
   z_{k+1} = w_{k+1} + \frac{t_k - 1}{t_{k+1}} (w_{k+1} - w_k), \qquad t_{k+1} = (1 + \sqrt{1 + 4 t_k^2}) / 2

The momentum of a signal starts anew when it points uphill. The proximal map is soft thresholding, with a box (and then
B = I only) soft thresholding clipped to it: for B != I both at once have no closed form; see `admm`.

Source: Beck and Teboulle, "A fast iterative shrinkage-thresholding algorithm", 2009, equations 4.1 to 4.3; O'Donoghue
and Candes, "Adaptive restart for accelerated gradient schemes", 2015, section 3.2.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softshrink

from core_models.errors import UserError

from .problem import Coefficients, Lasso


def shrink(w: Tensor, threshold: Tensor | float) -> Tensor:
    """Returns sign(w) max(|w| - threshold, 0): the proximal map of threshold ||w||_1."""
    return w - w.clamp(-threshold, threshold) if isinstance(threshold, float) else (
        w.sign() * (w.abs() - threshold).clamp(min=0)
    )  # fmt: skip


@dataclass
class Momentum:
    """Where FISTA stands, so that it can go on."""

    w: Coefficients
    z: Coefficients
    t: Float[Tensor, "batch 1"]

    @classmethod
    def at(cls, w: Coefficients) -> Momentum:
        """Returns a start without momentum."""
        return cls(w, w, w.new_ones(len(w), 1))

    def of(self, rows: Tensor) -> Momentum:
        """Returns that of some rows (a mask or indices)."""
        return Momentum(self.w[rows], self.z[rows], self.t[rows])

    def to(self, dtype: torch.dtype) -> Momentum:
        """Returns the same in another precision."""
        return Momentum(self.w.to(dtype), self.z.to(dtype), self.t.to(dtype))


class Fista:
    """Steps of FISTA on problems that share a design matrix D = A B.

    Args:
        problem: the LASSO; with a box only where B = I.

    Raises:
        UserError: when there is a box and a basis.
    """

    def __init__(self, problem: Lasso) -> None:
        if problem.box and problem.basis is not None:
            raise UserError("FISTA: expected no box in a basis other than pixels: use ADMM")
        self.penalty, self.box, self.m = problem.penalty, problem.box, problem.m
        self.design = problem.design
        n = self.design.shape[1]
        self.gram: Tensor | None = self.design.T @ self.design / self.m if 2 * self.m >= n else None
        smaller = self.design @ self.design.T / self.m if self.m < n or self.gram is None else self.gram
        self.lipschitz = float(torch.linalg.eigvalsh(smaller.double())[-1])
        self.y, self.back = problem.y, problem.y @ self.design / self.m

    def single(self) -> Fista:
        """Returns the same steps in single precision, which take half the time and come as far as it goes."""
        other = copy(self)
        other.design, other.y, other.back = self.design.float(), self.y.float(), self.back.float()
        other.gram = None if self.gram is None else self.gram.float()
        other.penalty = self.penalty.float() if isinstance(self.penalty, Tensor) else self.penalty
        return other

    def penalty_of(self, rows: Tensor) -> float | Coefficients:
        """Returns the weight of |w| for the signals `rows`: a number, or one for each coefficient, (rows, n)."""
        return self.penalty[rows] if isinstance(self.penalty, Tensor) else self.penalty

    def curvature(self, w: Coefficients) -> Coefficients:
        """Returns D^T D w / m."""
        return w @ self.gram if self.gram is not None else (w @ self.design.T) @ self.design / self.m

    def gradient(self, w: Coefficients, back: Coefficients) -> Coefficients:
        """Returns the gradient of 1/(2m) ||y - D w||^2, `back` being y D / m."""
        if self.gram is not None:
            return torch.addmm(-1 * back, w, self.gram)
        return torch.addmm(-1 * back, w @ self.design.T, self.design, alpha=1 / self.m)

    def proximal(self, v: Coefficients, threshold: float | Coefficients) -> Coefficients:
        """Returns the proximal map of the penalty, over L, and of the box, in the place of v."""
        if self.box:
            return v.sub_(threshold).clamp_(0, 1)
        return shrink(v, threshold) if isinstance(threshold, Tensor) else softshrink(v, threshold)

    def run(self, state: Momentum, rows: Tensor, steps: int) -> Momentum:
        """Takes steps for the signals `rows` (indices into the batch), whose state is given."""
        w, z, t = state.w, state.z, state.t
        # the step is written for few passes over memory: they take as long as the products
        y, back, step = self.y[rows], self.back[rows], 1 / self.lipschitz
        threshold = self.penalty_of(rows) / self.lipschitz
        for _ in range(steps):
            if self.gram is not None:
                v = torch.addmm(z, z, self.gram, alpha=-step).add_(back, alpha=step)
            else:
                v = torch.addmm(z, torch.addmm(y, z, self.design.T, beta=-1), self.design, alpha=-step / self.m)
            new = self.proximal(v, threshold)
            moved = new - w
            uphill = torch.linalg.vecdot(z - new, moved)[:, None] > 0
            following = 0.5 * (1 + torch.sqrt(1 + 4 * t.square()))
            z = torch.addcmul(new, torch.where(uphill, 0.0, (t - 1) / following), moved)
            t = torch.where(uphill, 1.0, following)
            w = new
        return Momentum(w, z, t)
