r"""The sparse recovery problems that the solvers solve, with objective and duality gap, for a whole batch at once.

LASSO, its coefficients w those of an orthonormal basis B, with or without a box:

.. math:: \min_w P(w) = \frac{1}{2m} \|y - A B w\|^2 + \alpha \|w\|_1 \quad (0 \le B w \le 1)

For any \theta, \mu with \|B^T (A^T \theta - \mu)\|_\infty \le \alpha, weak duality gives

.. math:: P(w) \ge y^T \theta - \frac{m}{2} \|\theta\|^2 - \sum_i \max(0, \mu_i),

\mu = 0 where there is no box; with weights, \alpha is one of each coefficient. Basis pursuit denoising:

.. math:: \min_w \|w\|_1 \quad \|y - A B w\| \le \epsilon \quad (0 \le B w \le 1), \qquad
   P(w) \ge y^T \theta - \epsilon \|\theta\| - \sum_i \max(0, \mu_i)

with \alpha = 1 in the constraint. A gap that is small proves a solution, whatever solver it came from.

Source: Tibshirani, 1996; Chen, Donoho and Saunders, "Atomic decomposition by basis pursuit", 1998; Kim, Koh, Lustig,
Boyd and Gorinevsky, "An interior-point method for large-scale l1-regularized least squares", 2007, section III.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from core_models.errors import UserError

Coefficients = Float[Tensor, "batch n"]
PerSignal = Float[Tensor, " batch"]


@dataclass(frozen=True, eq=False)
class Sparse:
    """A batch of problems that share A and B. Everything is in one precision and on one device."""

    A: Float[Tensor, "m n"]
    y: Float[Tensor, "batch m"]
    basis: Float[Tensor, "n n"] | None = None
    """B^T, its rows the basis vectors; None for B = I."""
    box: bool = False
    """Whether 0 <= B w <= 1."""

    def __post_init__(self) -> None:
        """Refuses measurements that don't fit the operator, or aren't finite."""
        if self.y.ndim != 2 or self.y.shape[1] != len(self.A):
            raise UserError(
                f"expected {len(self.A)} measurements a signal, as the operator makes, got {tuple(self.y.shape)}"
            )
        if not bool(torch.isfinite(self.y).all()):
            raise UserError("expected finite measurements, got NaN or infinity")

    @property
    def m(self) -> int:
        """Measurements of a signal."""
        return len(self.A)

    @property
    def design(self) -> Float[Tensor, "m n"]:
        """A B."""
        return self.A if self.basis is None else self.A @ self.basis.T

    def signals(self, w: Coefficients) -> Coefficients:
        """Returns B w."""
        return w if self.basis is None else w @ self.basis

    def coefficients(self, x: Coefficients) -> Coefficients:
        """Returns B^T x."""
        return x if self.basis is None else x @ self.basis.T

    def back(self, theta: Float[Tensor, "batch m"]) -> Coefficients:
        """Returns B^T A^T theta."""
        return self.coefficients(theta @ self.A)

    def residuals(self, w: Coefficients) -> Float[Tensor, "batch m"]:
        """Returns y - A B w."""
        return self.y - self.signals(w) @ self.A.T

    def outside(self, w: Coefficients) -> PerSignal:
        """Returns how far B w leaves the box, at most; 0 without a box."""
        if not self.box:
            return w.new_zeros(len(w))
        x = self.signals(w)
        return torch.maximum((-x).amax(1), (x - 1).amax(1)).clamp(min=0)

    def feasible(
        self, theta: Tensor, bound: float | Tensor, subgradient: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Returns multipliers of the measurements that bound the problem from below, and what their box costs.

        Without a box they are scaled down until |B^T A^T theta| <= bound, a number or one for each coefficient. With
        one, mu = A^T theta - B nu takes what is too much, for any nu with |nu| <= bound: the nearest to B^T A^T theta
        where no better one is known.
        """
        back = theta @ self.A
        if self.box:
            own = self.coefficients(back) if subgradient is None else subgradient
            limit = torch.as_tensor(bound, dtype=own.dtype, device=own.device)
            return theta, (back - self.signals(own.clamp(-limit, limit))).clamp(min=0).sum(1)
        sizes = self.coefficients(back).abs()
        tiny = torch.finfo(theta.dtype).tiny
        # one division a signal where one bound holds for all: division is what takes long here
        largest = (sizes / bound.clamp(min=tiny) if isinstance(bound, Tensor) else sizes).amax(1)
        share = (1.0 if isinstance(bound, Tensor) else bound) / largest.clamp(min=tiny)
        return theta * share.clamp(max=1.0)[:, None], theta.new_zeros(len(theta))


@dataclass(frozen=True, eq=False)
class Lasso(Sparse):
    """Least squares with an l1 penalty."""

    alpha: float = 0.1
    """Weight of the penalty under the mean loss 1/(2m) ||y - A B w||^2, for A's own scaling."""

    weights: Coefficients | None = None
    """What the penalty of each coefficient of each signal is multiplied by, above 0; None for 1."""

    def __post_init__(self) -> None:
        """Refuses a negative penalty, and weights that are none or of another shape."""
        super().__post_init__()
        if not self.alpha >= 0:
            raise UserError(f"expected a penalty alpha of 0 or more, got {self.alpha}")
        if self.weights is None:
            return
        if self.weights.shape != (len(self.y), self.A.shape[1]):
            raise UserError(f"expected weights {(len(self.y), self.A.shape[1])}, got {tuple(self.weights.shape)}")
        if not bool(((self.weights > 0) & torch.isfinite(self.weights)).all()):
            raise UserError("expected weights above 0 and finite, got others")

    @property
    def penalty(self) -> float | Coefficients:
        """The weight of |w|: a number, or one for each coefficient of each signal."""
        return self.alpha if self.weights is None else self.alpha * self.weights

    def of(self, rows: Tensor) -> Lasso:
        """Returns the problems of some signals (a mask or indices)."""
        return replace(self, y=self.y[rows], weights=None if self.weights is None else self.weights[rows])

    def objective(self, w: Coefficients) -> PerSignal:
        """Returns P(w), the box left aside."""
        sizes = w.abs() if self.weights is None else self.weights * w.abs()
        return self.residuals(w).square().sum(1) / (2 * self.m) + self.alpha * sizes.sum(1)

    def gap(self, w: Coefficients, subgradient: Coefficients | None = None) -> PerSignal:
        """Returns the duality gap at a w inside the box: P(w) is at most this far above the least.

        Args:
            w: coefficients (batch, n).
            subgradient: an element nu of the penalty's subdifferential, as ADMM finds it: with a box in a basis other
                than pixels the bound is loose without it.
        """
        theta, cost = self.feasible(self.residuals(w) / self.m, self.penalty, subgradient)
        dual = (self.y * theta).sum(1) - 0.5 * self.m * theta.square().sum(1) - cost
        return self.objective(w) - dual


@dataclass(frozen=True, eq=False)
class BasisPursuit(Sparse):
    """The least l1 norm among the signals that explain the measurements."""

    epsilon: float = 0.0
    """Largest ||y - A B w||: the noise's norm, sigma sqrt(m) [units of y]."""

    def __post_init__(self) -> None:
        """Refuses a negative tolerance."""
        super().__post_init__()
        if not self.epsilon >= 0:
            raise UserError(f"expected an epsilon of 0 or more, got {self.epsilon}")

    def objective(self, w: Coefficients) -> PerSignal:
        """Returns ||w||_1."""
        return w.abs().sum(1)

    def bound(self, theta: Float[Tensor, "batch m"], subgradient: Coefficients | None = None) -> PerSignal:
        """Returns the lower bound that a multiplier of the constraint proves; it need not be feasible."""
        theta, cost = self.feasible(theta, 1.0, subgradient)
        return (self.y * theta).sum(1) - self.epsilon * theta.norm(dim=1) - cost
