r"""Gaussian and Gaussian-mixture priors: posterior means in closed form.

With x ~ sum_k pi_k N(mu_k, S_k) and y = A x + e, e ~ N(0, sigma^2 I), the posterior is a mixture again:

.. math:: C_k = A S_k A^T + \sigma^2 I, \quad w_k \propto \pi_k N(y; A \mu_k, C_k), \quad
   x_k = \mu_k + S_k A^T C_k^{-1} (y - A \mu_k), \quad \hat x = \sum_k w_k x_k

\hat x is the least mean squared error that any estimator can reach under the prior. One component is the Wiener filter.

Source: Wiener, 1949; Yu, Sapiro and Mallat, "Solving inverse problems with piecewise linear estimators", 2012; Chen,
Silva, Xu and Carin, "Compressive sensing on manifolds using a nonparametric mixture of factor analyzers", 2010.
"""

from __future__ import annotations

from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from core_models.errors import UserError

from .operators import LinearOperator
from .operators.base import Measurements, Signals
from .recovery import Recovered, Recovery, require_matrices, to_learn_from


def mean_and_covariance(x: Float[Tensor, "n d"], shrinkage: float) -> tuple[Tensor, Tensor]:
    """Returns the mean (d,) and the covariance (d, d) of rows, with `shrinkage` added to its diagonal, float64."""
    x = x.double()
    mean = x.mean(0)
    away = x - mean
    covariance = away.T @ away / len(x)
    covariance.diagonal().add_(shrinkage)
    return mean, covariance


class MeanSignal(Recovery):
    """The mean of the signals that it is fitted to, whatever is measured: what any method has to beat.

    Args:
        operator: what made the measurements.
        noise: standard deviation of each measurement's noise; only `acquire` asks for it.
    """

    def __init__(self, operator: LinearOperator | None = None, *, noise: float = 0.0) -> None:
        self.operator, self.noise = operator, noise

    def fit(self, X: Signals | None = None, y: Any = None) -> Self:
        """Takes the mean of signals (n, *signal_shape).

        Raises:
            UserError: when there are none.
        """
        X = to_learn_from(X, y, None if self.operator is None else self.operator.signal_shape)
        if X is None or len(X) == 0:
            raise UserError("expected at least 1 signal to fit to, got 0")
        self.mean_ = X.mean(0)
        return self

    def _recover(self, y: Measurements, first: int) -> Recovered:
        if not hasattr(self, "mean_"):
            raise UserError("expected a fitted mean: call fit(X) with signals first")
        return Recovered(self.mean_.to(y).expand(len(y), *self.mean_.shape))


class GaussianMixture(Recovery):
    """The posterior mean under a mixture of normal densities with full covariances, fitted by EM.

    Args:
        operator: what made the measurements.
        noise: standard deviation of each measurement's noise, above 0.
        components: normal densities in the mixture; 1 is the Wiener filter.
        shrinkage: added to the diagonal of every covariance [variance of a value].
        iterations: of EM.
        subspace: leading principal directions in which signals are shared out among the components, much faster than
            by all their values; means and covariances have all values in the end. None for no such short cut.
        clip: whether means are clipped to [0, 1], where signals lie.
        random_state: seed of the start.
    """

    def __init__(
        self, operator: LinearOperator | None = None, *, noise: float = 0.1, components: int = 40,
        shrinkage: float = 1e-3, iterations: int = 30, subspace: int | None = None, clip: bool = True,
        random_state: int = 0,
    ) -> None:  # fmt: skip
        self.operator, self.noise, self.components, self.shrinkage = operator, noise, components, shrinkage
        self.iterations, self.subspace, self.clip, self.random_state = iterations, subspace, clip, random_state

    def fit(self, X: Signals | None = None, y: Any = None) -> Self:
        """Fits the mixture to signals (n, *signal_shape).

        Raises:
            UserError: when there are fewer signals than components, none of these, too little shrinkage, or signals
                whose covariance wouldn't fit into memory.
        """
        if self.components < 1:
            raise UserError(f"components: expected at least 1, got {self.components}")
        if not self.shrinkage >= 0:
            raise UserError(f"shrinkage: expected 0 or more, got {self.shrinkage}")
        X = to_learn_from(X, y, None if self.operator is None else self.operator.signal_shape)
        if X is None or len(X) < self.components:
            raise UserError(f"expected at least {self.components} signals to fit to, got {0 if X is None else len(X)}")
        require_matrices(X[0].numel(), self.components)
        x = X.flatten(1)
        generator = Generator().manual_seed(self.random_state)
        seen = x if self.subspace is None else _leading(x, self.subspace)
        share = _assigned(seen, self.components, generator)
        for _ in range(self.iterations if self.components > 1 else 1):
            self._maximise(seen, share)
            share = self._shares(seen)
        self._maximise(x, share)
        return self

    def _maximise(self, x: Tensor, share: Float[Tensor, "n k"]) -> None:
        totals = share.sum(0).clamp(min=1e-8)
        self.weights_ = (totals / totals.sum()).double()
        components, d = share.shape[1], x.shape[1]
        means = torch.zeros(components, d, dtype=torch.float64, device=x.device)
        # those of before go first, and new ones come one at a time: they are most of the memory
        self.covariances_ = torch.empty(0)
        covariances = torch.zeros(components, d, d, dtype=torch.float64, device=x.device)
        for k in range(components):
            rows = share[:, k] > 1e-4
            own, weight = x[rows], share[rows, k : k + 1]
            mean = (weight * own).sum(0) / totals[k]
            away = (own - mean) * weight.sqrt()
            covariance = (away.T @ away / totals[k]).double()
            covariance.diagonal().add_(self.shrinkage)
            means[k], covariances[k] = mean.double(), covariance
        self.means_, self.covariances_ = means, covariances

    def _shares(self, x: Tensor) -> Float[Tensor, "n k"]:
        logits = []
        for weight, mean, covariance in zip(self.weights_, self.means_, self.covariances_, strict=True):
            factor, failed = torch.linalg.cholesky_ex(covariance)
            if int(failed):
                raise UserError(
                    f"shrinkage: expected more than {self.shrinkage}: values that never vary have a singular covariance"
                )
            # in single precision: the shrinkage bounds the condition number
            white = torch.linalg.inv(factor).to(x)
            distance = ((x - mean.to(x)) @ white.T).square().sum(1)
            logits.append(weight.log().to(x) - 0.5 * distance - factor.diagonal().log().sum().to(x))
        return torch.softmax(torch.stack(logits, 1), 1)

    def _recover(self, y: Measurements, first: int) -> Recovered:
        if not hasattr(self, "means_"):
            raise UserError(f"{type(self).__name__}: expected a fitted prior: call fit(X) with signals first")
        if not self.noise > 0:
            raise UserError(f"expected a noise above 0, got {self.noise}: a singular posterior has no closed form here")
        operator = self.measuring
        A, rows = operator.matrix().double(), y.double()
        logits, means, variances = [], [], []
        fitted = (own.to(rows.device) for own in (self.weights_, self.means_, self.covariances_))
        for weight, mean, covariance in zip(*fitted, strict=True):
            log_evidence, posterior, variance = condition(rows, A, self.noise, mean, covariance)
            logits.append(weight.log() + log_evidence)
            means.append(posterior)
            variances.append(variance)
        share = torch.softmax(torch.stack(logits, 1), 1)
        every = torch.stack(means, 1)
        x = (share[..., None] * every).sum(1)
        second = (share[..., None] * (torch.stack(variances)[None] + every.square())).sum(1)
        std = (second - x.square()).clamp(min=0).sqrt()
        x = x.clamp(0, 1) if self.clip else x
        shape = operator.signal_shape
        evidence = torch.logsumexp(torch.stack(logits, 1), 1)
        return Recovered(x.to(y).unflatten(1, shape), std.to(y).unflatten(1, shape), {"log_evidence": evidence})


class Wiener(GaussianMixture):
    """The posterior mean under one normal density: the best linear estimate.

    Args:
        operator: what made the measurements.
        noise: standard deviation of each measurement's noise, above 0.
        shrinkage: added to the diagonal of the covariance.
        clip: whether means are clipped to [0, 1].
    """

    def __init__(
        self, operator: LinearOperator | None = None, *, noise: float = 0.1, shrinkage: float = 1e-4, clip: bool = True
    ) -> None:
        super().__init__(operator, noise=noise, components=1, shrinkage=shrinkage, clip=clip)


def factor_of(C: Float[Tensor, "m m"], noise: float) -> Float[Tensor, "m m"]:
    """Returns the lower Cholesky factor of measurements' covariance.

    Raises:
        UserError: when it is singular in double precision, the noise being lost in it.
    """
    factor, failed = torch.linalg.cholesky_ex(C)
    if int(failed):
        raise UserError(f"expected a noise that isn't lost in double precision, got {noise}: raise it")
    return factor


def condition(
    y: Float[Tensor, "batch m"], A: Float[Tensor, "m n"], noise: float, mean: Float[Tensor, " n"],
    covariance: Float[Tensor, "n n"],
) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch n"], Float[Tensor, " n"]]:  # fmt: skip
    """Returns log N(y; A mean, C), the posterior means and the posterior variances under N(mean, covariance)."""
    cross = covariance @ A.T  # S A^T, (n, m)
    C = A @ cross
    C.diagonal().add_(noise**2)
    factor = factor_of(C, noise)
    away = y - mean @ A.T
    white = torch.linalg.solve_triangular(factor, away.T, upper=False)  # (m, batch)
    half = torch.linalg.solve_triangular(factor, cross.T, upper=False)  # (m, n)
    m = A.shape[0]
    log_evidence = -0.5 * (white.square().sum(0) + m * torch.log(torch.tensor(2 * torch.pi)).double())
    log_evidence = log_evidence - factor.diagonal().log().sum()
    return log_evidence, mean + white.T @ half, (covariance.diagonal() - half.square().sum(0)).clamp(min=0)


def _leading(x: Float[Tensor, "n d"], directions: int) -> Float[Tensor, "n k"]:
    """Returns the coordinates of rows along the leading principal directions of them all."""
    _, covariance = mean_and_covariance(x, 0.0)
    vectors = torch.linalg.eigh(covariance)[1].flip(1)[:, :directions]
    return x @ vectors.to(x)


def _assigned(x: Tensor, components: int, generator: Generator) -> Float[Tensor, "n k"]:
    """Returns a start: each row to the nearest of some centres, by a few steps of k-means."""
    if components == 1:
        return x.new_ones(len(x), 1)
    centres = x[torch.randperm(len(x), generator=generator)[:components]]
    for _ in range(10):
        distance = torch.cdist(x, centres)
        nearest = distance.argmin(1)
        share = torch.nn.functional.one_hot(nearest, components).to(x)
        counts = share.sum(0)
        centres = torch.where(counts[:, None] > 0, share.T @ x / counts.clamp(min=1)[:, None], centres)
    return share
