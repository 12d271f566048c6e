r"""The posterior mean of a signal under a generative prior, by sampling.

As in `residual_covariance`, x = G(z) + r with r ~ N(0, S), so that y given z is normal. There the restarts of a search
stand for the posterior over z; here samples do. The mean of the signals they make,

.. math:: \hat x = E[x | y] \approx \frac1P \sum_p G(z_p) + K (y - A G(z_p)), \quad z_p \sim p(z | y),

has the least squared error that any estimate can have, as far as the prior is right, and the samples' spread is the
posterior's. It pays where measurements are few and the posterior has many modes.

Source: `sequential_monte_carlo`, for how z is sampled; Bora et al. 2017 for the prior on z; Rasmussen and Williams,
"Gaussian processes for machine learning", 2006, section 2.7, for the residual.
"""

from __future__ import annotations

from math import log, pi, prod
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from core_models.modes import steady
from core_models.training import seed_of

from ..operators import LinearOperator
from ..operators.base import Measurements, tensor_of
from ..recovery import Recovered
from .residual_covariance import ResidualCovariance, ResidualPosterior
from .sequential_monte_carlo import Latents, Sampler, sample_posterior


class PosteriorSampling(ResidualCovariance):
    """The mean of samples of the posterior under a generative prior and a Gaussian for what it can't make.

    Args:
        operator: what made the measurements.
        noise: standard deviation of each measurement's noise, above 0.
        prior: a model with `decode`; one that encodes too fits faster.
        shrinkage: added to the diagonal of the residual covariance [variance of a value].
        particles: samples of the latents.
        leapfrog_steps: of each move of a sample.
        effective: how slowly samples go from the prior to the posterior: the share of them that each step leaves.
        low_precision: whether moves are steered by gradients in bfloat16, faster on hardware that has it; which moves
            are made is judged in float32 all the same.
        clip: whether signals are clipped to [0, 1].
        batch: signals sampled at once.
        random_state: seed of the samples.
    """

    def __init__(
        self, operator: LinearOperator | None = None, prior: Any = None, *, noise: float = 0.1, shrinkage: float = 1e-4,
        particles: int = 64, leapfrog_steps: int = 8, effective: float = 0.6, low_precision: bool = False,
        clip: bool = True, batch: int = 50, random_state: int = 0,
    ) -> None:  # fmt: skip
        self.operator, self.prior, self.noise, self.shrinkage = operator, prior, noise, shrinkage
        self.particles, self.leapfrog_steps, self.effective = particles, leapfrog_steps, effective
        self.low_precision, self.clip, self.batch, self.random_state = low_precision, clip, batch, random_state

    def sample(self, y: Measurements, first: int = 0) -> Float[Tensor, "batch particles ..."]:
        """Returns signals drawn from the posterior, (batch, particles, *signal_shape), their residuals drawn too.

        Args:
            y: measurements (batch, m).
            first: place of the first signal among all, which decides what is drawn for it.
        """
        residual, y = self._residual(), tensor_of(y, "measurements")
        spread = residual.spread()
        parts = []
        for start in range(0, len(y), self.batch):
            own = y[start : start + self.batch]
            x, _ = self._signals(residual, own, first + start)
            for i, signals in enumerate(x):
                generator = _generator(self.random_state, first + start + i, "residuals")
                drawn = signals + torch.randn(signals.shape, generator=generator).to(signals) @ spread.T
                parts.append(drawn.clamp(0, 1) if self.clip else drawn)
        return torch.stack(parts).unflatten(2, self.measuring.signal_shape)

    def _recover(self, y: Measurements, first: int) -> Recovered:
        residual = self._residual()
        means, stds, evidence = [], [], []
        for start in range(0, len(y), self.batch):
            x, log_evidence = self._signals(residual, y[start : start + self.batch], first + start)
            x = x.clamp(0, 1) if self.clip else x
            means.append(x.mean(1))
            stds.append((x.var(1) + residual.variance).sqrt())
            evidence.append(log_evidence)
        shape = self.measuring.signal_shape
        return Recovered(
            torch.cat(means).unflatten(1, shape),
            torch.cat(stds).unflatten(1, shape),
            {"log_evidence": torch.cat(evidence)},
        )

    def _signals(self, residual: ResidualPosterior, y: Measurements, first: int) -> tuple[Tensor, Tensor]:
        """Returns E[x | y, z] for samples z, (batch, particles, n), and the log-evidence of each y."""
        plan = Sampler(self.particles, self.leapfrog_steps, self.effective)
        white = residual.whiten(y)
        generators = [_generator(self.random_state, first + i, "latents") for i in range(len(y))]
        with steady(self.prior):
            energy = _Misfit(self.prior, residual, white, self.low_precision)
            found = sample_posterior(energy, prod(self.prior.latent_shape), plan, generators, white.device)
            with torch.no_grad():
                made = energy.decode(found.z)
                away = white[:, None] - made @ residual.whitening.T
                x = made + residual.mean.to(made) + away @ residual.gain.T
        return x, found.log_evidence - 0.5 * y.shape[1] * log(2 * pi) - residual.half_log_determinant


class _Misfit:
    """Half the squared whitened misfit of the measurements that latents make."""

    def __init__(
        self, prior: Any, residual: ResidualPosterior, white: Float[Tensor, "batch m"], low_precision: bool
    ) -> None:
        self.prior, self.residual, self.white, self.low_precision = prior, residual, white, low_precision

    def decode(self, z: Latents) -> Float[Tensor, "batch particles n"]:
        """Returns G(z)."""
        latents = z.flatten(0, 1).unflatten(1, tuple(self.prior.latent_shape)).to(self.white)
        made: Tensor = self.prior.decode(latents).flatten(1)
        return made.unflatten(0, z.shape[:2])

    def __call__(self, z: Latents, signals: Int[Tensor, " batch"]) -> Float[Tensor, "batch particles"]:
        with torch.no_grad():
            return self._misfit(z, signals)

    def gradient(self, z: Latents, signals: Int[Tensor, " batch"]) -> Latents:
        z = z.detach().requires_grad_(True)
        with torch.autocast(z.device.type, dtype=torch.bfloat16, enabled=self.low_precision):
            value = self._misfit(z, signals)
        (gradient,) = torch.autograd.grad(value.sum(), z)
        return gradient.float()

    def _misfit(self, z: Tensor, signals: Tensor) -> Tensor:
        return self.residual.misfit(self.white[signals][:, None], self.decode(z))


def _generator(seed: int, signal: int, what: str) -> Generator:
    """Returns the stream of a signal: the same whatever batch it is in."""
    return Generator().manual_seed(seed_of(seed * 1_000_003 + signal, what))
