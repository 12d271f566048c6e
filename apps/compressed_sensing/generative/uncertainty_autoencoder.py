r"""Uncertainty autoencoder: the measurements are learnt, together with what recovers signals from them.

.. math:: y = W x + e, \quad e \sim N(0, \sigma^2 I), \qquad
   \max_{W, \theta} E[\log p_\theta(x | y)], \quad p_\theta(x | y) = N(g_\theta(y), \tau^2 I)

a variational lower bound on the mutual information of x and y, up to a constant. With a Gaussian of fixed \tau it is
least squares. W has no bias, so that it is an operator like any other. **Norm matching**: left alone, W grows until the
noise is drowned; here its Frobenius norm is held at that of a random Gaussian matrix, sqrt(m n), so that the ratio of
signal to noise is the same as for the methods it stands beside. Without it the norm reached is reported.

Source: Grover and Ermon, "Uncertainty autoencoders: learning compressed representations via variational information
maximization", 2019, equations 5 to 7 and section 5.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Generator, Size, Tensor, nn

from core_models.base import GenerativeModel, Labels, Metrics, Objective, Scalar
from core_models.errors import UserError
from core_models.training import RunFolder, TensorBatches, TrainingConfig, fit

from ..operators import Matrix
from ..operators.base import Measurements, Signals
from ..recovery import Recovered, Recovery


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

    def sample(self, n: int, y: Labels | None = None, *, generator: Generator | None = None) -> Signals:
        """Is refused: it models signals given measurements, not signals.

        Raises:
            UserError: always.
        """
        raise UserError("an uncertainty autoencoder has no samples of its own: it recovers signals from measurements")


class RecoveryError(Objective):
    """Mean squared error of the signals recovered from freshly noisy measurements."""

    def __init__(self, model: UncertaintyAutoencoderModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Mapping[str, Any], generator: Generator | None = None) -> tuple[Scalar, Metrics]:
        """Returns the loss, summed over pixels, of a batch with signals "x" in [0, 1]."""
        x = batch["x"]
        x = x.float() / 255 if x.dtype == torch.uint8 else x
        found = self.model.decode_measurements(self.model.measure(x, generator))
        squared = (found - x).square().flatten(1)
        return squared.sum(1).mean(), {"mse": squared.mean().detach()}


class UncertaintyAutoencoder(Recovery):
    """Learned acquisition and recovery.

    Args:
        model: a trained `UncertaintyAutoencoderModel`; `fit` trains one of `config` when left out.
        config: of the model that `fit` trains.
        training: of `fit`.
        batch_size: of `fit`.
        clip: whether signals are clipped to [0, 1].
        random_state: seed of the weights.
    """

    def __init__(
        self, model: UncertaintyAutoencoderModel | None = None, *, config: UAEConfig | None = None,
        training: TrainingConfig | None = None, batch_size: int = 100, clip: bool = True, random_state: int = 0,
    ) -> None:  # fmt: skip
        self.model, self.config, self.training, self.batch_size = model, config, training, batch_size
        self.clip, self.random_state = clip, random_state

    def fit(
        self, X: Signals | None = None, y: Any = None, *, run: RunFolder | None = None, resume: bool = False
    ) -> Self:
        """Trains encoder and decoder on signals (n, *event_shape), in [0, 1] or 8-bit.

        Raises:
            UserError: when there are no signals.
        """
        if X is None or len(X) == 0:
            raise UserError("expected signals to learn from, got none")
        config = self.config or UAEConfig(event_shape=tuple(X.shape[1:]))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.random_state)
            self.model_ = UncertaintyAutoencoderModel(config)
        training = self.training or TrainingConfig(epochs=100, learning_rate=1e-3, schedule="cosine")
        batches = TensorBatches({"x": X}, min(self.batch_size, len(X)), training.seed)
        self.history_ = fit(RecoveryError(self.model_), batches, training, run=run, resume=resume)
        self.model_.eval()
        return self

    @property
    def fitted(self) -> UncertaintyAutoencoderModel:
        """The trained model."""
        found = self.model if self.model is not None else getattr(self, "model_", None)
        if found is None:
            raise UserError("UncertaintyAutoencoder: expected a trained model: call fit(X), or give model=...")
        return found

    @property
    def noise(self) -> float:  # type: ignore[override]
        """Standard deviation of each measurement's noise."""
        return self.fitted.config.noise

    @property
    def operator(self) -> Matrix:  # type: ignore[override]
        """W as an operator: other methods can recover from its measurements too."""
        return Matrix(self.fitted.encoder().detach(), tuple(self.fitted.event_shape))

    @torch.no_grad()
    def _recover(self, y: Measurements, first: int) -> Recovered:
        x = self.fitted.decode_measurements(y.to(self.fitted.raw))
        return Recovered(x.clamp(0, 1) if self.clip else x)
