"""The uncertainty autoencoder as a recovery method: what measures is learnt together with what recovers.

Source: `core_models/latent/uncertainty_autoencoder.py`; Grover and Ermon, "Uncertainty autoencoders: learning
compressed representations via variational information maximization", 2019.
"""

from __future__ import annotations

from typing import Any, Self

import torch
from jaxtyping import UInt8
from torch import Tensor

from core_models.errors import UserError
from core_models.latent import SquaredRecoveryError, UAEConfig
from core_models.latent import UncertaintyAutoencoderModel as UncertaintyAutoencoderModel
from core_models.seeding import seeded
from core_models.training import Batches, PixelBatches, RunFolder, TensorBatches, TrainingConfig, fit

from ..operators import Matrix
from ..operators.base import Measurements, Signals
from ..recovery import Recovered, Recovery, to_learn_from


class UncertaintyAutoencoder(Recovery):
    """Learned acquisition and recovery.

    Args:
        model: a trained `UncertaintyAutoencoderModel`; once `fit` has trained one of `config`, that one counts.
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
        self, X: Signals | UInt8[Tensor, "batch ..."] | None = None, y: Any = None, *, run: RunFolder | None = None,
        resume: bool = False,
    ) -> Self:  # fmt: skip
        """Trains encoder and decoder on signals (n, *event_shape), in [0, 1] or 8-bit.

        Raises:
            UserError: when there are no signals.
        """
        X = to_learn_from(X, y, self.config.event_shape if self.config else None)
        if X is None or len(X) == 0:
            raise UserError("expected signals to learn from, got none")
        config = self.config or UAEConfig(event_shape=tuple(X.shape[1:]))
        with seeded(self.random_state):
            self.model_ = UncertaintyAutoencoderModel(config)
        training = self.training or TrainingConfig(epochs=100, learning_rate=1e-3, schedule="cosine")
        tensors = TensorBatches({"x": X}, min(self.batch_size, len(X)), training.seed)
        batches: Batches = PixelBatches(tensors, 256) if X.dtype == torch.uint8 else tensors
        self.history_ = fit(SquaredRecoveryError(self.model_), batches, training, run=run, resume=resume)
        self.model_.cpu().eval()
        return self

    @property
    def fitted(self) -> UncertaintyAutoencoderModel:
        """The trained model."""
        found = getattr(self, "model_", self.model)
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
