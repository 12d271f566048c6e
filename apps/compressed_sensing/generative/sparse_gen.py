r"""Sparse-Gen: what a generative prior can't make is sparse in a basis, and is recovered too.

.. math:: \min_{z, \nu} \frac1m \|y - A x\|^2 + \lambda \|z\|^2 + w \|\nu\|_1, \quad x = G(z) + B \nu, \ 0 \le x \le 1

First z alone moves, then both, by Adam; the sum is held in the box, in pixels by moving \nu, in other bases by clipping
what is measured. In the end, z being found, \nu takes proximal gradient steps to its own optimum, so that its zeros are
zeros.

Source: Dhar, Grover and Ermon, "Modeling sparse deviations for compressed sensing using generative models", 2018,
equation 6 and section 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from core_models.errors import UserError
from core_models.modes import steady

from ..bases import build_basis
from ..operators import LinearOperator
from ..operators.base import Measurements
from ..recovery import Recovered, Recovery, require_matrices
from ..solvers.fista import shrink
from .csgm import checked_prior, starts
from .latent_search import LearningRate, Search, search

REFINE_STEPS = 500


class SparseGen(Recovery):
    """A generative prior with sparse deviations.

    Args:
        operator: what made the measurements.
        noise: standard deviation of each measurement's noise; only `acquire` asks for it.
        prior: a model with `decode`.
        basis: in which deviations are sparse: pixels, dct, wavelet.
        penalty: lambda, of the latents; 0.1 times the mean square of A's entries when left out.
        sparsity: w, of the deviations; 0.5 times that mean square when left out.
        steps: of Adam.
        steps_alone: of them on z alone, at first.
        restarts: starts from the prior.
        learning_rate: of Adam; or the first and the last, between them half a cosine.
        drop: when which share of the restarts goes on.
        low_precision: whether all but the last fifth of the steps work in bfloat16, faster on hardware that has it.
        batch: signals searched at once.
        random_state: seed of the starts.
    """

    default_penalties: ClassVar = {"penalty": 0.1, "sparsity": 0.5}

    def __init__(
        self, operator: LinearOperator | None = None, prior: Any = None, *, noise: float = 0.0, basis: str = "pixels",
        penalty: float | None = None, sparsity: float | None = None, steps: int = 1500, steps_alone: int = 800,
        restarts: int = 10, learning_rate: LearningRate = 0.01, drop: Sequence[tuple[float, float]] = (),
        low_precision: bool = False, batch: int = 100, random_state: int = 0,
    ) -> None:  # fmt: skip
        self.operator, self.prior, self.noise, self.basis = operator, prior, noise, basis
        self.penalty, self.sparsity, self.steps, self.steps_alone = penalty, sparsity, steps, steps_alone
        self.restarts, self.learning_rate, self.drop, self.batch = restarts, learning_rate, drop, batch
        self.low_precision, self.random_state = low_precision, random_state

    @property
    def bounded(self) -> bool:
        """Signals are held in [0, 1], always."""
        return True

    def _recover(self, y: Measurements, first: int) -> Recovered:
        prior, operator = checked_prior(self.prior, self.measuring), self.measuring
        penalty, sparsity = self.penalty_of("penalty"), self.penalty_of("sparsity")
        if not sparsity >= 0 or not penalty >= 0:
            raise UserError(f"expected penalties of 0 or more, got {penalty} and {sparsity}")
        if not isinstance(self.basis, str) or self.basis != "pixels":  # arrays are compared value by value
            require_matrices(operator.n)
        A = operator.matrix().to(y)
        basis = build_basis(self.basis, operator.signal_shape).columns(A)
        lipschitz = 2 / operator.m * float(torch.linalg.matrix_norm(A.double(), 2)) ** 2
        parts = []
        with steady(prior):
            if self.steps < self.steps_alone:
                raise UserError(
                    f"steps: expected at least the {self.steps_alone} of steps_alone, which search latents only, got "
                    f"{self.steps}"
                )
            for start in range(0, len(y), self.batch):
                parts.append(self._part(A, basis, lipschitz, y[start : start + self.batch], first + start))
        x, loss, deviation = (torch.cat(part) for part in zip(*parts, strict=True))
        return Recovered(x.unflatten(1, operator.signal_shape), None, {"loss": loss, "deviation": deviation})

    def _part(
        self, A: Tensor, basis: Tensor | None, lipschitz: float, y: Measurements, first: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        prior, m = self.prior, len(A)
        penalty, sparsity = self.penalty_of("penalty"), self.penalty_of("sparsity")
        drop: Any = tuple(map(tuple, self.drop))
        plan = Search(self.steps, self.restarts, self.learning_rate, drop, self.low_precision)
        signals_of = lambda nu: nu if basis is None else nu @ basis  # noqa: E731
        moving = [self.steps_alone == 0]
        generated: list[Tensor] = []

        def objective(y: Tensor, x: Tensor, z: Tensor, deviation: Tensor | float) -> Tensor:
            fit = (y - x @ A.T).square().sum(1) / m
            return fit + penalty * z.square().flatten(1).sum(1) + sparsity * deviation

        def loss(variables: Sequence[Tensor], signals: Tensor) -> Tensor:
            z, nu = variables
            made = prior.decode(z).flatten(1)
            generated[:] = [made.detach()]
            x = made + signals_of(nu) if moving[0] else made
            x = x.clamp(0, 1) if moving[0] and basis is not None else x
            return objective(y[signals], x, z, nu.abs().sum(1) if moving[0] else 0.0)

        def project(variables: Sequence[Tensor], step: int) -> None:
            """Keeps the sum in the box; for pixels only, where that is closed."""
            moving[0] = step >= self.steps_alone
            if moving[0] and basis is None:
                nu = variables[1]
                nu.copy_((generated[0] + nu).clamp(0, 1) - generated[0])

        z = starts(prior, len(y), self.restarts, self.random_state, first).to(y)
        nu = y.new_zeros(*z.shape[:2], A.shape[1])
        found = search(loss, [z, nu], plan, after_step=project)
        with torch.no_grad():
            made = prior.decode(found.variables[0]).flatten(1)
            x = refine(A, basis, y, made, found.variables[1], sparsity, lipschitz, REFINE_STEPS)
        deviation = (x - made if basis is None else (x - made) @ basis.T).abs().sum(1)
        # the loss is of what is returned, which the last steps have moved since the search
        return x, objective(y, x, found.variables[0], deviation), deviation


def refine(
    A: Float[Tensor, "m n"], basis: Tensor | None, y: Float[Tensor, "batch m"], made: Float[Tensor, "batch n"],
    nu: Float[Tensor, "batch n"], sparsity: float, lipschitz: float, steps: int,
) -> Float[Tensor, "batch n"]:  # fmt: skip
    """Returns the signals G(z) + B nu, in [0, 1], once nu has taken FISTA steps with z as it is.

    The proximal map of sparsity ||nu||_1 with 0 <= G + nu <= 1 is, in pixels, soft thresholding clipped to
    [-G, 1 - G]; in other bases signals are clipped in the end.
    """
    columns = A if basis is None else A @ basis.T
    m = len(A)
    target = y - made @ A.T
    z, t = nu, 1.0
    for _ in range(steps):
        gradient = 2 / m * (z @ columns.T - target) @ columns
        new = shrink(z - gradient / lipschitz, sparsity / lipschitz)
        if basis is None:
            new = torch.minimum(torch.maximum(new, -made), 1 - made)
        following = 0.5 * (1 + (1 + 4 * t * t) ** 0.5)
        z = new + (t - 1) / following * (new - nu)
        nu, t = new, following
    return (made + (nu if basis is None else nu @ basis)).clamp(0, 1)
