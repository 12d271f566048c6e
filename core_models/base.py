"""What a generative model or a classifier can be asked for, and what the training loop asks of an objective.

Likelihoods are per example, in nats, never reduced: callers take means. An event is whatever shape the model
declares in `event_shape`: an image (channels, height, width) or a vector (features,). A label `y` is an integer
class from 0 to `classes - 1`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Generator, Size, Tensor, nn
from torch.distributions import Distribution

Events = Float[Tensor, "n ..."]
Labels = Int[Tensor, " n"]
Latents = Float[Tensor, "n ..."]
PerExample = Float[Tensor, " n"]
Scalar = Float[Tensor, ""]
Metrics = dict[str, Tensor]


class GenerativeModel(nn.Module, ABC):
    """The part common to all models: they know the shape of what they model and draw samples of it."""

    event_shape: Size
    """Shape of one event: (channels, height, width) [pixels] or (features,)."""

    @abstractmethod
    def sample(self, n: int, y: Labels | None = None, *, generator: Generator | None = None) -> Events:
        """Draws n events, of class y (n,) where given."""


class Classifier(nn.Module, ABC):
    """Maps events to one logit per class.

    Where a classifier is asked for, any module with such a `forward` does; these two attributes let more be checked.
    """

    event_shape: Size
    """Shape of one event: (channels, height, width) [pixels]."""
    classes: int
    """Number of classes."""

    @abstractmethod
    def forward(self, x: Events) -> Float[Tensor, "n classes"]:
        """Returns the logits (n, classes) of events (n, *event_shape), images in [0, 1]."""


class ExactLikelihood(ABC):
    """A density that can be evaluated."""

    @abstractmethod
    def log_prob(self, x: Events, y: Labels | None = None) -> PerExample:
        """Returns log p(x | y) [nats], shape (n,)."""


@runtime_checkable
class Scan(Protocol):
    """A way through the sub-pixels of n events, in the model's order, on which the caller chooses each value."""

    @property
    def finished(self) -> bool:
        """Whether every value is chosen."""

    def conditional(self) -> Distribution:
        """Returns p(x_i | what was chosen so far) of the sub-pixel whose turn it is, of batch shape (n,)."""

    def choose(self, values: Tensor) -> None:
        """Sets the sub-pixel whose turn it is, (n,), and moves to the next."""

    def images(self) -> Events:
        """Returns what was chosen, (n, *event_shape)."""


class Autoregressive(ExactLikelihood):
    """A density that factorises over the sub-pixels of an event, in a fixed order."""

    levels: int
    """Values that a sub-pixel can take."""

    @abstractmethod
    def conditionals(self, x: Events, y: Labels | None = None) -> Distribution:
        """Returns p(level of x_i | x_<i, y) of every sub-pixel i at once: Categorical, its batch shape that of x.

        The order of images is by rows, in a row by columns, and in a pixel by channels.
        """

    def scan(self, n: int, y: Labels | None = None) -> Scan:
        """Returns a scan of n events: the same conditionals, one position at a time.

        A model with caches returns one that is fast; without them, `conditionals` is asked at every position.
        """
        from .autoregressive.scan import FullScan

        return FullScan(self, n, y)


class Decodable(ABC):
    """A differentiable map from latents to events: VAE mean, flow inverse or GAN generator alike."""

    latent_shape: Size

    @abstractmethod
    def prior(self, y: Labels | None = None) -> Distribution:
        """Returns p(z | y), with event shape `latent_shape`."""

    @abstractmethod
    def decode(self, z: Latents, y: Labels | None = None) -> Events:
        """Maps latents (n, *latent_shape) to events (n, *event_shape), differentiably."""


class Variational(Decodable):
    """A latent-variable model with an amortised posterior: what M1, M2 and the importance-weighted bounds need."""

    @abstractmethod
    def encode(self, x: Events, y: Labels | None = None) -> Distribution:
        """Returns q(z | x, y), with event shape `latent_shape`."""

    @abstractmethod
    def likelihood(self, z: Latents, y: Labels | None = None) -> Distribution:
        """Returns p(x | z, y), with event shape `event_shape`; its mean is decode(z, y)."""

    @abstractmethod
    def elbo(self, x: Events, y: Labels | None = None, *, generator: Generator | None = None) -> PerExample:
        """Returns a one-sample lower bound on log p(x | y) [nats], shape (n,)."""


class Objective(nn.Module, ABC):
    """What is trained: holds the model or models; its `forward` returns the loss and what to log.

    It must be `forward`: data parallelism, mixed precision and `torch.compile` hook that method and nothing else.
    A batch is what the `Batches` of the run yield: a mapping from names to tensors on the device.
    """

    compiles = True
    """Whether `torch.compile` can take it: not what differentiates a gradient."""

    @abstractmethod
    def forward(self, batch: Mapping[str, Any], generator: Generator | None = None) -> tuple[Scalar, Metrics]:
        """Returns the scalar loss to minimise and detached scalar metrics by name (with their unit in the name)."""
