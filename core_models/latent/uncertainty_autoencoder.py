r"""Uncertainty autoencoder: the measurements are learnt, together with what recovers signals from them.

.. math:: y = W x + e, \quad e \sim N(0, \sigma^2 I), \qquad
   \max_{W, \theta} E[\log p_\theta(x | y)], \quad p_\theta(x | y) = N(g_\theta(y), \tau^2 I)

a variational lower bound on the mutual information of x and y, up to a constant. With a Gaussian of fixed \tau it is
least squares. W has no bias, so that it is an operator like any other. **Norm matching**: left alone, W grows until the
noise is drowned; here its Frobenius norm is held at that of a random Gaussian matrix, sqrt(m n), so that the ratio of
signal to noise is the same as for the methods it stands beside. Without it the norm reached is reported.

It has no prior of y, but a Markov chain that measures and recovers in turn, y_t ~ N(W x_t, \sigma^2 I) and x_{t+1} ~
p_\theta(x | y_t), has the distribution of the signals for its stationary one where p_\theta(x | y) is the posterior.
Here signals are held in [0, 1], as those of the training are: outside g knows nothing, and chains don't return.

Source: Grover and Ermon, "Uncertainty autoencoders: learning compressed representations via variational information
maximization", 2019, equations 5 to 7 and section 5.1; theorem 1 and corollary 1 (the chain).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Size, Tensor, nn

from ..base import GenerativeModel, Labels, Metrics, Objective, Scalar
from ..errors import UserError
from ..layers.networks import refuse_labels

Signals = Float[Tensor, "batch ..."]
Measurements = Float[Tensor, "batch m"]


@dataclass(frozen=True)
class UAEConfig:
    """What an uncertainty autoencoder is made of."""

    event_shape: tuple[int, ...] = (1, 28, 28)
    """Shape of a signal."""
    measurements: int = 25
    """m."""
    hidden: tuple[int, ...] = (500, 500)
    """Units of the decoder's hidden layers."""
    noise: float = 0.1
    """Standard deviation of each measurement's noise, for entries of W of mean square 1."""
    norm_matched: bool = True
    """Whether ||W||_F = sqrt(m n)."""
    linear_path: bool = True
    """Whether the decoder adds a linear map of the measurements to its network: it starts near the best linear
    estimate. The paper's has none."""


class UncertaintyAutoencoderModel(GenerativeModel):
    """Encoder W (m, n) and decoder g; both are applied to a batch.

    Args:
        config: sizes, noise, norm.
    """

    def __init__(self, config: UAEConfig) -> None:
        super().__init__()
        if config.measurements < 1:
            raise UserError(f"expected at least one measurement, got measurements = {config.measurements}")
        if min(config.hidden, default=1) < 1:
            raise UserError(f"expected hidden layers of at least one unit, got hidden = {config.hidden}")
        if not config.noise >= 0:
            raise UserError(f"expected a noise of 0 or more, got {config.noise}")
        self.config, self.event_shape = config, Size(config.event_shape)
        n, m = prod(config.event_shape), config.measurements
        self.raw = nn.Parameter(torch.randn(m, n) / n**0.5)
        sizes = [m, *config.hidden]
        layers: list[nn.Module] = []
        for inside, outside in pairwise(sizes):
            layers += [nn.Linear(inside, outside), nn.ReLU()]
        self.network = nn.Sequential(*layers, nn.Linear(sizes[-1], n))
        self.linear = nn.Linear(m, n) if config.linear_path else None

    def encoder(self) -> Float[Tensor, "m n"]:
        """Returns W, its entries of mean square 1 where norms are matched."""
        if not self.config.norm_matched:
            return self.raw * self.raw.shape[1] ** 0.5
        return self.raw * (self.raw.numel() ** 0.5 / self.raw.norm())

    def measure(self, x: Signals, generator: Generator | None = None) -> Measurements:
        """Returns noisy measurements (batch, m) of signals (batch, *event_shape)."""
        y = x.flatten(1) @ self.encoder().T
        return y + self.config.noise * torch.empty_like(y).normal_(generator=generator)

    def decode_measurements(self, y: Measurements) -> Signals:
        """Returns g(y), (batch, *event_shape)."""
        scaled = y / self.event_shape.numel() ** 0.5  # of order 1 whatever the signal's size
        out = self.network(scaled)
        if self.linear is not None:
            out = out + self.linear(scaled)
        return out.unflatten(1, self.event_shape)

    @torch.no_grad()
    def sample(
        self, n: int, y: Labels | None = None, *, generator: Generator | None = None, steps: int = 10,
        deviation: float = 0.0, start: Signals | None = None,
    ) -> Signals:  # fmt: skip
        """Returns the ends of n Markov chains, which measure a signal and recover it in turn: the last means g(y).

        They are signals of the data only as far as p(x | y) is their posterior. That of fixed deviation hardly is, and
        chains end near a few blurred images, on MNIST within 100 steps: start them at signals of the data, of which a
        few steps make others like them.

        Args:
            n: chains.
            y: none: there are no classes to draw from.
            generator: of what is drawn.
            steps: of a chain.
            deviation: standard deviation of p(x | y), which the loss leaves open.
            start: first signals (n, *event_shape), e.g. those of a data set; values drawn from [0, 1] when left out.

        Raises:
            UserError: when classes are given, a count is below 1, the deviation below 0, or the start of another shape.
        """
        refuse_labels(self, y)
        if n < 1 or steps < 1 or not deviation >= 0:
            raise UserError(f"expected a sample, a step or more and a deviation of 0 or more, got {n}, {steps} and "
                            f"{deviation}")  # fmt: skip
        if start is not None and start.shape != (n, *self.event_shape):
            raise UserError(f"expected starts of shape {(n, *self.event_shape)}, got {tuple(start.shape)}")
        x = self.raw.new_empty(n, *self.event_shape).uniform_(generator=generator) if start is None else start
        for _ in range(steps):
            mean = self.decode_measurements(self.measure(x.to(self.raw), generator))
            x = (mean + deviation * torch.empty_like(mean).normal_(generator=generator)).clamp(0, 1)
        return mean.clamp(0, 1)


class SquaredRecoveryError(Objective):
    """Mean squared error of the signals recovered from freshly noisy measurements."""

    __qualname__ = "RecoveryError"  # by which checkpoints of runs from before know it

    def __init__(self, model: UncertaintyAutoencoderModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Mapping[str, Any], generator: Generator | None = None) -> tuple[Scalar, Metrics]:
        """Returns the loss, summed over pixels, of a batch with signals "x" in [0, 1]."""
        x = batch["x"]
        found = self.model.decode_measurements(self.model.measure(x, generator))
        squared = (found - x).square().flatten(1)
        return squared.sum(1).mean(), {"mse": squared.mean().detach()}
