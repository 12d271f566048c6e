r"""CSGM with a residual covariance: what the prior can't make is Gaussian, and is recovered too.

x = G(z) + r with r ~ N(0, S) fitted on what G leaves of training signals. Then y given z is normal, and

.. math:: \hat z = \arg\min_z \tfrac12 (y - A G(z))^T C^{-1} (y - A G(z)) + \tfrac12 \|z\|^2, \quad
   C = A S A^T + \sigma^2 I, \qquad \hat x = G(\hat z) + S A^T C^{-1} (y - A G(\hat z))

The restarts are modes of the posterior over z; by their weight (Laplace's approximation of each mode's evidence) they
average to a posterior mean, whose squared error is below that of the best mode alone. The posterior variance of x is
that of r, plus that of z to first order, plus that between the modes.

Source: Bora et al. 2017 for the search; Rasmussen and Williams, "Gaussian processes for machine learning", 2006,
section 2.7 (a mean function with a Gaussian residual); MacKay, "Information theory, inference and learning algorithms",
2003, chapter 27 (Laplace's method).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from math import prod
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor

from core_models.errors import UserError
from core_models.modes import evaluating, steady

from ..gaussian import factor_of, mean_and_covariance
from ..operators import LinearOperator
from ..operators.base import Measurements, Signals, tensor_of
from ..recovery import Recovered, Recovery, in_precision_of, require_matrices, to_learn_from
from .csgm import checked_prior, starts
from .latent_search import Found, LearningRate, Search, search


class ResidualCovariance(Recovery):
    """A generative prior plus a Gaussian for what it can't make.

    Args:
        operator: what made the measurements.
        noise: standard deviation of each measurement's noise, above 0.
        prior: a model with `decode`; one that encodes too fits faster.
        shrinkage: added to the diagonal of the residual covariance [variance of a value].
        steps: of Adam.
        restarts: starts from the prior.
        learning_rate: of Adam; or the first and the last, between them half a cosine.
        drop: when which share of the restarts goes on.
        low_precision: whether all but the last fifth of the steps work in bfloat16, faster on hardware that has it.
        modes: how many of the restarts that are left are averaged by their weight; 1 takes the likeliest alone.
        clip: whether signals are clipped to [0, 1].
        batch: signals searched at once.
        random_state: seed of the starts.
    """

    def __init__(
        self, operator: LinearOperator | None = None, prior: Any = None, *, noise: float = 0.1, shrinkage: float = 1e-4,
        steps: int = 300, restarts: int = 10, learning_rate: LearningRate = (0.5, 0.005),
        drop: Sequence[tuple[float, float]] = ((0.1, 0.6), (0.3, 0.4)), modes: int = 4,
        low_precision: bool = False, clip: bool = True, batch: int = 100, random_state: int = 0,
    ) -> None:  # fmt: skip
        self.operator, self.prior, self.noise, self.shrinkage = operator, prior, noise, shrinkage
        self.steps, self.restarts, self.learning_rate, self.drop = steps, restarts, learning_rate, drop
        self.modes, self.low_precision, self.clip = modes, low_precision, clip
        self.batch, self.random_state = batch, random_state

    def fit(self, X: Signals | None = None, y: Any = None) -> Self:
        """Fits the covariance of residuals x - G(z) to signals (n, *signal_shape), z being the prior's encoding of x.

        Raises:
            UserError: when there are no signals, or the prior doesn't encode.
        """
        prior = checked_prior(self.prior, self.measuring)
        X = to_learn_from(X, y, self.measuring.signal_shape)
        if X is None or len(X) < 2:
            raise UserError("expected signals to fit to, at least two")
        if not callable(getattr(prior, "encode", None)):
            raise UserError(f"{type(prior).__name__} doesn't encode signals: hand its residuals to fit_residuals")
        parts = []
        with torch.no_grad(), evaluating(prior):
            for own in in_precision_of(prior, X).split(1000):
                parts.append((own - prior.decode(prior.encode(own).mean)).flatten(1))
        return self.fit_residuals(torch.cat(parts))

    def fit_residuals(self, residuals: Float[Tensor, "n d"]) -> Self:
        """Fits the covariance to residuals (n, values) of signals; their mean is kept, too.

        Raises:
            UserError: when the shrinkage is negative, or the covariance wouldn't fit into memory.
        """
        if not self.shrinkage >= 0:
            raise UserError(f"shrinkage: expected 0 or more, got {self.shrinkage}")
        residuals = tensor_of(residuals, "residuals")
        require_matrices(residuals.shape[1])
        self.mean_, self.covariance_ = mean_and_covariance(residuals, self.shrinkage)
        return self

    def _recover(self, y: Measurements, first: int) -> Recovered:
        posterior, operator, prior = self._residual(), self.measuring, self.prior
        parts = []
        with steady(prior):
            for start in range(0, len(y), self.batch):
                own = y[start : start + self.batch]
                parts.append(self._part(posterior, own, self._search(posterior, own, first + start)))
        x, std, loss = (torch.cat(part) for part in zip(*parts, strict=True))
        shape = operator.signal_shape
        return Recovered(x.to(y).unflatten(1, shape), std.to(y).unflatten(1, shape), {"loss": loss})

    def _residual(self) -> ResidualPosterior:
        """Returns the residual's part of the posterior, prior, fit and noise having been checked."""
        checked_prior(self.prior, self.measuring)
        if not hasattr(self, "covariance_"):
            raise UserError(f"{type(self).__name__}: expected fitted residuals: call fit(X) with signals first")
        if not self.noise > 0:
            raise UserError(f"expected a noise above 0, got {self.noise}")
        require_matrices(self.measuring.n)
        A = in_precision_of(self.prior, self.measuring.matrix())
        return ResidualPosterior(A, self.noise, self.mean_.to(A.device), self.covariance_.to(A.device))

    def loss_at(self, y: Measurements, z: Float[Tensor, "batch ..."]) -> Float[Tensor, " batch"]:
        """Returns what the search minimises, at latents z (batch, *latent_shape) of measurements y (batch, m)."""
        posterior = self._residual()
        made = self.prior.decode(z).flatten(1)
        return posterior.misfit(posterior.whiten(y), made) + 0.5 * z.square().flatten(1).sum(1)

    def _search(self, posterior: ResidualPosterior, y: Measurements, first: int) -> Found:
        prior = self.prior
        whitened = posterior.whiten(y)

        def loss(variables: Sequence[Tensor], signals: Tensor) -> Tensor:
            (z,) = variables
            return posterior.misfit(whitened[signals], prior.decode(z).flatten(1)) + 0.5 * z.square().flatten(1).sum(1)

        drop: Any = tuple(map(tuple, self.drop))
        plan = Search(self.steps, self.restarts, self.learning_rate, drop, self.low_precision)
        return search(loss, [starts(prior, len(y), self.restarts, self.random_state, first).to(y)], plan)

    def _part(self, posterior: ResidualPosterior, y: Measurements, found: Found) -> tuple[Tensor, Tensor, Tensor]:
        """Averages the modes of a part of the signals; returns signals, standard deviations, losses."""
        modes = min(self.modes, found.restarts_left)
        losses, order = found.all_losses.sort(1)
        losses, order = losses[:, :modes], order[:, :modes]
        rows = torch.arange(len(y))[:, None]
        z = found.all_variables[0][rows, order]  # (batch, modes, *latent)
        flat = z.flatten(0, 1)
        generated, jacobian = jacobians(self.prior, flat)
        inside = jacobian @ posterior.whitening.T.to(jacobian)  # (batch modes, k, m)
        size = prod(z.shape[2:])
        precision = inside @ inside.transpose(1, 2)
        precision.diagonal(dim1=1, dim2=2).add_(1)
        factor = torch.linalg.cholesky(precision)
        log_weight = -losses - factor.diagonal(dim1=1, dim2=2).log().sum(1).unflatten(0, (len(y), modes))
        # modes that are the same mode found twice count once
        log_weight = log_weight.masked_fill(_repeated(z.flatten(2), losses), -torch.inf)
        weight = torch.softmax(log_weight, 1)[..., None]
        residual = posterior.whiten(y).repeat_interleave(modes, 0) - generated @ posterior.whitening.T
        x = (generated + posterior.mean.to(generated) + residual @ posterior.gain.T).unflatten(0, (len(y), modes))
        # dx/dz, residual included: J - gain W J
        moved = jacobian - inside @ posterior.gain.T
        half = torch.linalg.solve_triangular(factor, moved, upper=False)
        of_z = half.square().sum(1).unflatten(0, (len(y), modes))
        assert half.shape[1] == size
        x = x.clamp(0, 1) if self.clip else x
        mean = (weight * x).sum(1)
        variance = (weight * (x - mean[:, None]).square()).sum(1) + (weight * of_z).sum(1) + posterior.variance
        return mean, variance.clamp(min=0).sqrt(), losses[:, 0]


class ResidualPosterior:
    """The residual's part: W = L^-1 A whitens measurements, C = L L^T; gain K with r = K (W-whitened residual).

    Args:
        A: the operator's matrix (m, n).
        noise: standard deviation of each measurement's noise.
        mean: of residuals, (n,).
        covariance: of residuals, (n, n).

    Raises:
        UserError: when the noise is lost in double precision.
    """

    def __init__(self, A: Tensor, noise: float, mean: Tensor, covariance: Tensor) -> None:
        wide, covariance = A.double(), covariance.double()
        cross = covariance @ wide.T
        C = wide @ cross
        C.diagonal().add_(noise**2)
        self.factor = factor_of(C, noise)
        self.mean = mean
        self.shift = (mean.double() @ wide.T).to(A)
        self.whitening = torch.linalg.solve_triangular(self.factor, wide, upper=False).to(A)  # L^-1 A
        half = torch.linalg.solve_triangular(self.factor, cross.T, upper=False)  # L^-1 A S, (m, n)
        self.gain = half.T.to(A)
        self.variance = (covariance.diagonal() - half.square().sum(0)).clamp(min=0).to(A)
        self.half_log_determinant = float(self.factor.diagonal().log().sum())
        self.covariance, self.half = covariance, half
        self.inverse = torch.linalg.inv(self.factor).to(A)

    def spread(self) -> Tensor:
        """Returns B (n, n) with B B^T the residual's posterior covariance, S - S A^T C^-1 A S."""
        values, vectors = torch.linalg.eigh(self.covariance - self.half.T @ self.half)
        return (vectors * values.clamp(min=0).sqrt()).to(self.gain)

    def misfit(self, white: Float[Tensor, "... m"], made: Float[Tensor, "... n"]) -> Float[Tensor, "..."]:
        """Returns -log p(y | z) but for a constant, of whitened measurements and of what the prior makes."""
        return 0.5 * (white - made @ self.whitening.T).square().sum(-1)

    def whiten(self, y: Tensor) -> Tensor:
        """Returns L^-1 (y - A mean)."""
        return (y.to(self.shift) - self.shift) @ self.inverse.T


def jacobians(prior: Any, z: Float[Tensor, "rows ..."]) -> tuple[Float[Tensor, "rows n"], Float[Tensor, "rows k n"]]:
    """Returns G(z), (rows, n), and its Jacobian, (rows, latents, n), by forward differentiation."""
    shape = z.shape[1:]

    def decode(flat: Tensor) -> Tensor:
        decoded: Tensor = prior.decode(flat.unflatten(1, shape)).flatten(1)
        return decoded

    flat = z.detach().flatten(1)
    columns = []
    unit = torch.eye(flat.shape[1], dtype=flat.dtype, device=flat.device)
    with warnings.catch_warnings():
        # forward differentiation compiles some of its rules by a way that torch itself calls deprecated
        warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", DeprecationWarning)
        for direction in unit:
            found: tuple[Tensor, Tensor] = torch.func.jvp(decode, (flat,), (direction.expand_as(flat),))  # type: ignore[assignment]
            generated, moved = found
            columns.append(moved.detach())
    return generated.detach(), torch.stack(columns, 1)


def _repeated(z: Float[Tensor, "batch modes k"], losses: Float[Tensor, "batch modes"]) -> Tensor:
    """Returns which modes are another, better one of the same signal found again, (batch, modes)."""
    distance = torch.cdist(z, z)
    same = distance < 0.1 * z.shape[-1] ** 0.5
    earlier = torch.ones(z.shape[1], z.shape[1], dtype=torch.bool, device=z.device).tril(-1)
    return (same & earlier).any(2)
