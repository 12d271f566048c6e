"""M1: a variational auto-encoder learns features from all rows, labelled or not.

Only latents that are in use are kept: those whose posterior mean varies over the training rows.

Source: Kingma, Rezende, Mohamed and Welling, "Semi-supervised learning with deep generative models", NIPS 2014,
section 2.1, "latent-feature discriminative model".
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

import core_models
from core_models.base import GenerativeModel, Variational
from core_models.errors import UserError
from core_models.latent import VAE, NegativeELBO, VAEConfig
from core_models.latent.likelihoods import LikelihoodName
from core_models.layers.networks import Activation, Architecture
from core_models.seeding import seeded
from core_models.training import History, TrainingConfig, fit, resolve_device, seed_of
from core_models.training.batches import TensorBatches
from core_models.training.config import Precision

from .discriminative import widths
from .estimator import Rows, Scale, in_double, stop_if_out_of_time
from .m2 import likelihood_of

if TYPE_CHECKING:
    from core_models.training import RunFolder

_ROWS = 1000


class FeatureLearner:
    """What M1+SVM, M1+TSVM and M1+M2 share: the auto-encoder and its features.

    A subclass stores the constructor's arguments named below.

    Attributes:
        m1_: the trained auto-encoder, any `Variational` model.
        active_: positions of the latents in use.
        latent_mean_: average posterior mean of every latent over the training rows.
        m1_seconds_: time of its training [s], over all resumed parts; 0 where it was given.
    """

    m1: str | GenerativeModel | None
    m1_latent: int
    m1_hidden: tuple[int, ...]
    m1_activation: Activation
    m1_network: Architecture
    m1_channels: tuple[int, ...]
    m1_likelihood: LikelihoodName | Literal["auto"]
    m1_learned_scale: bool
    m1_epochs: int
    m1_batch_size: int
    m1_learning_rate: float
    m1_kl_warmup: int
    active_threshold: float
    scale: Scale
    device: str
    precision: Precision
    compile: bool
    threads: int | None
    time_limit: float | None
    verbose: bool

    m1_: GenerativeModel
    active_: list[int]
    latent_mean_: np.ndarray
    m1_seconds_: float

    def precision_of_m1(self) -> Precision:
        """Returns the arithmetic that M1 is trained in."""
        return self.precision

    def _learn_m1(self, x: Rows, seed: int, *, run: RunFolder | None, resume: bool) -> tuple[Tensor, Tensor]:
        """Trains or takes the auto-encoder; returns means and standard deviations of the active latents, (n, d)."""
        self.m1_seconds_ = 0.0
        if self.m1 is None:
            trained, history = self.train_m1(x, seed, run=run, resume=resume)
            stop_if_out_of_time(history, run)
            self.m1_seconds_ = history.seconds
            self._take_m1(trained)
        else:
            self._take_m1(self._given_m1(x))
        mean, deviation = self._posterior(self.m1_, x)
        self.latent_mean_ = mean.double().mean(0).numpy()
        active = mean.std(0) > self.active_threshold
        if not bool(active.any()):
            raise UserError(
                f"expected some latents of M1 to be in use (standard deviation of their means above "
                f"{self.active_threshold}), got none: train it longer or lower active_threshold"
            )
        self.active_ = torch.nonzero(active).flatten().tolist()
        return mean[:, self.active_], deviation[:, self.active_]

    def train_m1(self, x: Rows, seed: int, *, run: RunFolder | None, resume: bool) -> tuple[VAE, History]:
        """Trains an auto-encoder of the given settings on scaled rows; no label has a part in it."""
        likelihood = likelihood_of(x, self.m1_likelihood, "m1_likelihood")
        config = VAEConfig(
            event_shape=tuple(x.shape[1:]),
            latent=self.m1_latent,
            hidden=widths("m1_hidden", self.m1_hidden),
            activation=self.m1_activation,
            likelihood=likelihood,
            learned_scale=self.m1_learned_scale,
            network=self.m1_network,
            channels=tuple(self.m1_channels),
        )
        with seeded(seed_of(seed, "initial weights of M1")):
            model = VAE(config)
        model.set_output_mean(x.mean(0))
        batches = TensorBatches({"x": x}, min(self.m1_batch_size, len(x)), seed)
        objective = NegativeELBO(
            model,
            binarisation="dynamic" if likelihood == "bernoulli" else "none",
            kl_warmup_steps=self.m1_kl_warmup * batches.steps_per_epoch,
        )
        settings = TrainingConfig(
            epochs=self.m1_epochs,
            learning_rate=self.m1_learning_rate,
            schedule="cosine",
            seed=seed,
            device=self.device,
            precision=self.precision_of_m1(),
            compile=self.compile,
            threads=self.threads,
            time_limit=self.time_limit,
        )
        moved = batches.to(resolve_device(self.device))
        history = fit(objective, moved, settings, run=run, resume=resume, stage="m1", progress=self.verbose)
        return model, history

    def _given_m1(self, x: Rows) -> GenerativeModel:
        model = core_models.load(self.m1, keep_double=True) if isinstance(self.m1, str | Path) else deepcopy(self.m1)
        if not isinstance(model, GenerativeModel) or not isinstance(model, Variational):
            raise UserError(f"expected m1 to be a Variational model or the folder of one, got {type(model).__name__}")
        if model.event_shape.numel() != x[0].numel():
            raise UserError(
                f"expected m1 to model events of {x[0].numel()} values like the rows, got {tuple(model.event_shape)}"
            )
        return model

    def _take_m1(self, model: GenerativeModel) -> None:
        self.m1_ = model.cpu().eval()
        self._m1_double = in_double(self.m1_)

    @torch.no_grad()
    def _posterior(self, model: Any, x: Rows) -> tuple[Tensor, Tensor]:
        """Returns means and standard deviations of q(z | x) for every latent, (n, latent)."""
        dtype = next(model.parameters()).dtype
        rows = x.reshape(len(x), *model.event_shape)
        posteriors = [model.encode(part.to(dtype)) for part in rows.split(_ROWS)]
        return torch.cat([q.mean for q in posteriors]), torch.cat([q.stddev for q in posteriors])

    def _features(self, x: Rows) -> Tensor:
        """Returns posterior means of the active latents, float64 (n, d)."""
        return self._posterior(self._m1_double, x)[0][:, self.active_]

    def _saved_params(self) -> dict[str, Any]:
        parameters: dict[str, Any] = self.get_params(deep=False)  # type: ignore[attr-defined]
        if isinstance(self.m1, GenerativeModel):
            parameters["m1"] = None  # the model itself is saved beside
        return parameters

    def _save_parts(self, folder: Path) -> None:
        core_models.save(self.m1_, folder / "m1")

    def _load_parts(self, folder: Path) -> None:
        self._take_m1(core_models.load(folder / "m1", keep_double=True))
