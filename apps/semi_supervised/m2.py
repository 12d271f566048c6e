"""M2 as an estimator: the class and the style of a row are both latent, and some classes are known.

Source: Kingma, Rezende, Mohamed and Welling, "Semi-supervised learning with deep generative models", NIPS 2014. The
model and its loss are in `m2_objective`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from torch import Tensor

from core_models.errors import UserError
from core_models.latent import ConditionalVAEConfig
from core_models.latent.likelihoods import LikelihoodName
from core_models.layers.networks import Activation, Architecture
from core_models.training.config import Precision

from .discriminative import widths
from .estimator import Codes, Rows, Scale
from .generative import GenerativeClassifier, Problem, Schedule
from .observation import Observation

if TYPE_CHECKING:
    from core_models.training import RunFolder


def likelihood_of(x: Rows, asked: LikelihoodName | Literal["auto"], option: str) -> LikelihoodName:
    """Returns the likelihood that is asked for, or for "auto" the one that the rows suggest.

    Raises:
        UserError: when it is one of pixels, and rows lie outside [0, 1].
    """
    if asked == "auto":
        return choose_likelihood(x)
    low, high = float(x.min()), float(x.max())
    if asked in ("bernoulli", "discretised-logistic") and (low < 0 or high > 1):
        raise UserError(
            f"{option}: expected {asked}, which is of values in [0, 1], with rows that lie there once scaled, got "
            f"values from {low:g} to {high:g}: use scale='unit', or gaussian"
        )
    return asked


def choose_likelihood(x: Rows) -> LikelihoodName:
    """Returns the likelihood that suits scaled rows: Bernoulli for grey pixels or unit-interval vectors, else others.

    Colour images in [0, 1] are levels, hence the discretised logistic; all else is Gaussian.
    """
    if float(x.min()) < 0 or float(x.max()) > 1:
        return "gaussian"
    return "discretised-logistic" if x.dim() == 4 and x.shape[1] > 1 else "bernoulli"


class M2(GenerativeClassifier):
    """M2 of Kingma et al. (2014), fully connected or convolutional.

    Args:
        latent: dimensions of z.
        hidden: units of the hidden layers of every network.
        activation: non-linearity.
        network: fully connected or convolutional (then X is (n, channels, height, width)).
        channels: channels of the convolutional stages.
        likelihood: p(x | y, z); "auto" chooses by the data (see `choose_likelihood`).
        learned_scale: whether the decoder gives every value of x a scale of its own, else one a channel.
        epochs: passes through the unlabelled rows.
        batch_size: unlabelled rows a step.
        labelled_batch_size: labelled rows a step, at most.
        learning_rate: of Adam, at its highest.
        schedule: course of the learning rate.
        warmup_steps: steps over which the learning rate rises.
        alpha: weight of the mean cross-entropy on labelled rows. Where labels are many it may be larger: from 600 on,
            the benchmark's presets take 20.
        weight_prior: precision of the Gaussian prior on the weights; a few thousand rows or fewer may want less than 1.
        labels_first: epochs at first in which q(y | x) learns from the labelled rows alone; see `m2_objective`.
        class_warmup: share of the training over which the weight of KL(q(y | x) || p(y)) rises from 0 to 1.
        ema: decay of the average of the weights that predicts, or None for the last weights.
        scale: what happens to the inputs; see `SemiSupervisedClassifier`.
        random_state: seeds initial weights, order and noise.
        device: auto, cpu, cuda or cuda:N.
        precision: 32-true, bf16-mixed or 64-true.
        compile: whether torch compiles training (wants a C++ compiler): the same numbers up to rounding.
        threads: CPU threads, or None for torch's choice.
        time_limit: time after which to save and stop [s], or None.
        verbose: whether to show progress.
    """

    def __init__(
        self,
        latent: int = 50,
        hidden: tuple[int, ...] = (500,),
        activation: Activation = "relu",
        network: Architecture = "mlp",
        channels: tuple[int, ...] = (32, 64),
        likelihood: LikelihoodName | Literal["auto"] = "auto",
        learned_scale: bool = True,
        epochs: int = 50,
        batch_size: int = 100,
        labelled_batch_size: int = 100,
        learning_rate: float = 3e-3,
        schedule: Schedule = "cosine",
        warmup_steps: int = 100,
        alpha: float = 0.1,
        weight_prior: float = 1.0,
        labels_first: int = 1,
        class_warmup: float = 0.8,
        ema: float | None = None,
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
        self.network = network
        self.channels = channels
        self.likelihood = likelihood
        self.learned_scale = learned_scale
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
        self.scale = scale
        self.random_state = random_state
        self.device = device
        self.precision = precision
        self.compile = compile
        self.threads = threads
        self.time_limit = time_limit
        self.verbose = verbose

    def _prepare(self, x: Rows, y: Codes, *, run: RunFolder | None, resume: bool) -> Problem:
        likelihood = likelihood_of(x, self.likelihood, "likelihood")
        config = ConditionalVAEConfig(
            event_shape=tuple(x.shape[1:]),
            latent=self.latent,
            hidden=widths("hidden", self.hidden),
            activation=self.activation,
            likelihood=likelihood,
            learned_scale=self.learned_scale,
            network=self.network,
            channels=tuple(self.channels),
            classes=len(self.classes_),
        )
        observation: Observation = "binarised" if likelihood == "bernoulli" else "as is"
        return self._problem(config, x, y, observation)

    def _to_m2(self, x: Rows) -> Tensor:
        return x

    def _from_m2(self, x: Tensor) -> Rows:
        return x
