"""M1+M2: M2 on the latents of M1 instead of pixels.

M2 sees draws of M1's posterior, fresh at every step, and models them with a Gaussian of learned variance; classes are
told at the posterior's mean.

Source: Kingma, Rezende, Mohamed and Welling, "Semi-supervised learning with deep generative models", NIPS 2014,
section 2.1, "stacked generative semi-supervised model".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from core_models.base import GenerativeModel, Variational
from core_models.latent import ConditionalVAEConfig
from core_models.latent.likelihoods import LikelihoodName
from core_models.layers.networks import Activation, Architecture
from core_models.training.config import Precision

from .discriminative import widths
from .estimator import Codes, Rows, Scale
from .features import FeatureLearner
from .generative import GenerativeClassifier, Problem, Schedule

if TYPE_CHECKING:
    from core_models.training import RunFolder


class M1M2(FeatureLearner, GenerativeClassifier):
    """M1+M2 of Kingma et al. (2014).

    Args:
        latent: dimensions of M2's z.
        hidden: units of the hidden layers of M2's networks.
        activation: M2's non-linearity.
        epochs: M2's passes through the unlabelled rows.
        batch_size: unlabelled rows a step of M2.
        labelled_batch_size: labelled rows a step of M2, at most.
        learning_rate: of Adam for M2, at its highest.
        schedule: course of M2's learning rate.
        warmup_steps: steps over which M2's learning rate rises.
        alpha: weight of the mean cross-entropy on labelled rows.
        weight_prior: precision of the Gaussian prior on M2's weights; a few thousand rows or fewer may want below 1.
        labels_first: epochs at first in which M2's q(y | x) learns from the labelled rows alone; see `m2_objective`.
        class_warmup: share of the training over which the weight of M2's KL(q(y | x) || p(y)) rises from 0 to 1.
        ema: decay of the average of M2's weights that predicts, or None for the last weights.
        m1: a trained auto-encoder to use instead of training one: the folder of a run, or a `Variational` model.
        m1_latent: M1's latent dimensions.
        m1_hidden: units of M1's hidden layers.
        m1_activation: M1's non-linearity.
        m1_network: fully connected or convolutional M1 (then X is (n, channels, height, width)).
        m1_channels: channels of M1's convolutional stages.
        m1_likelihood: M1's p(x | z); "auto" chooses by the data.
        m1_learned_scale: whether M1's decoder gives every value of x a scale of its own, else one a channel.
        m1_epochs: M1's passes through all rows.
        m1_batch_size: rows a step of M1.
        m1_learning_rate: of Adam for M1, at its highest; it falls to 0 along a cosine.
        m1_kl_warmup: epochs over which the weight of M1's KL term rises to 1.
        m1_precision: arithmetic of M1's training, as `precision`, or None for that; without effect where m1 is given.
        active_threshold: standard deviation of its posterior mean above which a latent of M1 counts as in use.
        scale: what happens to the inputs; see `SemiSupervisedClassifier`.
        random_state: seeds initial weights, order and noise.
        device: auto, cpu, cuda or cuda:N.
        precision: 32-true, bf16-mixed or 64-true.
        compile: whether torch compiles training (wants a C++ compiler): the same numbers up to rounding.
        threads: CPU threads, or None for torch's choice.
        time_limit: time after which to save and stop [s], for each of the two trainings, or None.
        verbose: whether to show progress.
    """

    def __init__(
        self,
        latent: int = 10,
        hidden: tuple[int, ...] = (300,),
        activation: Activation = "relu",
        epochs: int = 100,
        batch_size: int = 100,
        labelled_batch_size: int = 100,
        learning_rate: float = 3e-3,
        schedule: Schedule = "cosine",
        warmup_steps: int = 500,
        alpha: float = 0.1,
        weight_prior: float = 1.0,
        labels_first: int = 1,
        class_warmup: float = 0.5,
        ema: float | None = None,
        m1: str | GenerativeModel | None = None,
        m1_latent: int = 50,
        m1_hidden: tuple[int, ...] = (600, 600),
        m1_activation: Activation = "silu",
        m1_network: Architecture = "mlp",
        m1_channels: tuple[int, ...] = (32, 64),
        m1_likelihood: LikelihoodName | Literal["auto"] = "auto",
        m1_learned_scale: bool = True,
        m1_epochs: int = 100,
        m1_batch_size: int = 200,
        m1_learning_rate: float = 2e-3,
        m1_kl_warmup: int = 10,
        m1_precision: Precision | None = None,
        active_threshold: float = 0.1,
        scale: Scale = "auto",
        random_state: int = 0,
        device: str = "auto",
        precision: Precision = "32-true",
        compile: bool = False,
        threads: int | None = None,
        time_limit: float | None = None,
        verbose: bool = False,
    ) -> None:
        self.latent = latent
        self.hidden = hidden
        self.activation = activation
        self.epochs = epochs
        self.batch_size = batch_size
        self.labelled_batch_size = labelled_batch_size
        self.learning_rate = learning_rate
        self.schedule = schedule
        self.warmup_steps = warmup_steps
        self.alpha = alpha
        self.weight_prior = weight_prior
        self.labels_first = labels_first
        self.class_warmup = class_warmup
        self.ema = ema
        self.m1 = m1
        self.m1_latent = m1_latent
        self.m1_hidden = m1_hidden
        self.m1_activation = m1_activation
        self.m1_network = m1_network
        self.m1_channels = m1_channels
        self.m1_likelihood = m1_likelihood
        self.m1_learned_scale = m1_learned_scale
        self.m1_epochs = m1_epochs
        self.m1_batch_size = m1_batch_size
        self.m1_learning_rate = m1_learning_rate
        self.m1_kl_warmup = m1_kl_warmup
        self.m1_precision = m1_precision
        self.active_threshold = active_threshold
        self.scale = scale
        self.random_state = random_state
        self.device = device
        self.precision = precision
        self.compile = compile
        self.threads = threads
        self.time_limit = time_limit
        self.verbose = verbose

    def precision_of_m1(self) -> Precision:
        """Returns the arithmetic that M1 is trained in, which may not be M2's."""
        return self.precision if self.m1_precision is None else self.m1_precision

    def _prepare(self, x: Rows, y: Codes, *, run: RunFolder | None, resume: bool) -> Problem:
        mean, deviation = self._learn_m1(x, self._seed(), run=run, resume=resume)
        config = ConditionalVAEConfig(
            event_shape=(mean.shape[1],),
            latent=self.latent,
            hidden=widths("hidden", self.hidden),
            activation=self.activation,
            likelihood="gaussian",
            classes=len(self.classes_),
        )
        # a given M1, or one with a precision of its own, need not be of the kind that M2 is trained in
        kind = torch.float64 if self.precision == "64-true" else torch.float32
        return self._problem(config, torch.cat([mean, deviation], 1).to(kind), y, "posterior")

    def _to_m2(self, x: Rows) -> Tensor:
        return self._features(x)

    def _from_m2(self, x: Tensor) -> Rows:
        # latents that are not in use keep their average
        z = torch.from_numpy(self.latent_mean_).repeat(len(x), 1)
        z[:, self.active_] = x
        assert isinstance(self._m1_double, Variational)
        return self._m1_double.decode(z)

    def _state(self) -> dict[str, Any]:
        return GenerativeClassifier._state(self)

    def _restore(self, state: Mapping[str, Tensor]) -> None:
        GenerativeClassifier._restore(self, state)
