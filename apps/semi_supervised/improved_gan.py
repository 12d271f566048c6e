r"""Improved GAN: a classifier of K classes that also tells real from made, and a generator that matches its features.

With logits l(x) and :math:`Z = \log \sum_k e^{l_k}`, an image is taken for real with the probability
:math:`e^Z / (1 + e^Z)`: the class "made" has the logit 0. The classifier minimises

.. math:: \overline{-l_y + Z}_{labelled}
          + \tfrac12 \Big( \overline{-Z + \mathrm{softplus}(Z)}_{unlabelled}
          + \overline{\mathrm{softplus}(Z)}_{made} \Big)

and the generator the squared distance between the mean features of made and of unlabelled rows, in the last hidden
layer (feature matching). The two take turns, step by step, on rows of their own: moving both at once, on the same rows,
lets the classifier win for good within a dozen passes.

Layers are weight-normalised, with scale and shift set so that their values on some training rows have mean 0 and
deviation 1; as in the authors' code only the scales of either player's last layer are learnt on.

Published test error on MNIST with 100 labels: 0.93 ± 0.07 % (fully connected, ten draws).

Source: Salimans, Goodfellow, Zaremba, Cheung, Radford and Chen, "Improved techniques for training GANs", NIPS 2016,
sections 3.1 and 5; Salimans and Kingma, "Weight normalization", NIPS 2016, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from sklearn.utils.validation import check_is_fitted
from torch import Generator, Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from core_models.base import Metrics, Objective, Scalar
from core_models.errors import UserError
from core_models.training import seed_of
from core_models.training.config import Precision

from .discriminative import ClassifyingNetwork, DiscriminativeClassifier, course, normal_like, numbers, widths
from .estimator import Scale

_FIRST_ROWS = 500


class WeightNormalised(nn.Module):
    """x V^T g / |V| + b, with |V| the norm of a unit's weights.

    Args:
        inputs: values of a row.
        outputs: units.
        learn_scale: whether g is learnt, beyond its initial value.
        spread: standard deviation of the initial weights; the larger, the slower Adam turns them.
    """

    def __init__(self, inputs: int, outputs: int, *, learn_scale: bool = False, spread: float = 0.1) -> None:
        super().__init__()
        self.direction = nn.Parameter(torch.randn(outputs, inputs) * spread)
        self.shift = nn.Parameter(torch.zeros(outputs))
        self.scale = nn.Parameter(torch.ones(outputs), requires_grad=learn_scale)

    def forward(self, x: Float[Tensor, "n inputs"]) -> Float[Tensor, "n outputs"]:
        """Returns the units' values."""
        norm = self.direction.norm(dim=1, keepdim=True).clamp_min(1e-6)
        return F.linear(x, self.direction * (self.scale[:, None] / norm), self.shift)

    @torch.no_grad()
    def begin(self, x: Float[Tensor, "n inputs"]) -> None:
        """Sets scale and shift so that the values on these rows have mean 0 and deviation 1, unit by unit."""
        values = self(x)
        deviation = values.std(0, correction=0).clamp_min(1e-3)
        self.shift.copy_((self.shift - values.mean(0)) / deviation)
        self.scale.div_(deviation)


class Discriminator(nn.Module):
    """The classifier: ReLU layers with noise before each of them."""

    def __init__(self, inputs: int, hidden: Sequence[int], classes: int) -> None:
        super().__init__()
        self.widths = (inputs, *widths("hidden", hidden), classes)
        last = len(self.widths) - 2
        self.layers = nn.ModuleList(
            WeightNormalised(a, b, learn_scale=i == last) for i, (a, b) in enumerate(pairwise(self.widths))
        )

    def noise(self, x: Tensor, scales: Sequence[float], generator: Generator | None) -> list[Tensor | None]:
        """Draws what `forward` adds: the first scale for the input, the second for every hidden layer."""
        each = [scales[0], *[scales[1]] * (len(self.widths) - 2)]
        return [normal_like(x, width, scale, generator) for width, scale in zip(self.widths, each, strict=False)]

    def forward(
        self, x: Float[Tensor, "n inputs"], noise: Sequence[Tensor | None] | None = None
    ) -> tuple[Float[Tensor, "n classes"], Float[Tensor, "n features"]]:
        """Returns the logits and the features: the last hidden layer, before its noise."""
        h = x
        for i, layer in enumerate(self.layers):
            features = h
            if noise is not None and (added := noise[i]) is not None:
                h = h + added
            h = layer(h)
            if i < len(self.layers) - 1:
                h = h.relu()
        return h, features

    @torch.no_grad()
    def begin(self, x: Tensor, noise: Sequence[Tensor | None]) -> None:
        """Sets scales and shifts by some training rows, layer after layer."""
        h = x
        for i, layer in enumerate(self.layers):
            h = h if (added := noise[i]) is None else h + added
            layer.begin(h)  # type: ignore[operator]
            h = layer(h).relu()


def generator_network(latent: int, hidden: Sequence[int], outputs: int, bounded: bool) -> nn.Sequential:
    """Builds softplus layers with batch normalisation; the output is a sigmoid's where rows lie in [0, 1]."""
    layers: list[nn.Module] = []
    for inside, outside in pairwise((latent, *hidden)):
        normalised = nn.BatchNorm1d(outside, eps=1e-6)
        normalised.weight.requires_grad_(False)
        layers += [nn.Linear(inside, outside, bias=False), normalised, nn.Softplus()]
    width = hidden[-1]
    # as spread as Glorot and Bengio's weights
    layers.append(WeightNormalised(width, outputs, learn_scale=True, spread=(2 / (width + outputs)) ** 0.5))
    return nn.Sequential(*layers, nn.Sigmoid()) if bounded else nn.Sequential(*layers)


class ImprovedGANNetwork(ClassifyingNetwork):
    """Classifier and generator.

    Args:
        inputs: values of a row.
        hidden: units of the classifier.
        classes: number of classes.
        latent: uniform inputs of the generator.
        generator_hidden: its units.
        noise: see `ImprovedGAN`.
        bounded: whether rows lie in [0, 1].
    """

    def __init__(
        self, inputs: int, hidden: Sequence[int], classes: int, latent: int, generator_hidden: Sequence[int],
        noise: tuple[float, float], bounded: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        if latent < 1:
            raise UserError(f"latent: expected at least 1, got {latent}")
        self.discriminator = Discriminator(inputs, hidden, classes)
        self.generator = generator_network(latent, widths("generator_hidden", generator_hidden), inputs, bounded)
        self.latent, self.noise = latent, noise

    def logits(self, x: Float[Tensor, "n inputs"]) -> Float[Tensor, "n classes"]:
        """Returns the classes' logits, without noise."""
        logits: Tensor = self.discriminator(x)[0]
        return logits

    def begin(self, x: Float[Tensor, "n inputs"], generator: torch.Generator) -> None:
        """Sets the classifier's scales and shifts by some training rows."""
        rows = x[torch.randperm(len(x), generator=generator)[:_FIRST_ROWS]]
        self.discriminator.begin(rows, self.discriminator.noise(rows, self.noise, generator))

    def make(self, n: int, like: Tensor, generator: torch.Generator | None) -> Float[Tensor, "n inputs"]:
        """Draws n rows."""
        z = torch.empty(n, self.latent, dtype=like.dtype, device=like.device).uniform_(generator=generator)
        made: Tensor = self.generator(z)
        return made.to(like.dtype)


class ImprovedGANLoss(Objective):
    """The classifier's loss in even steps, the generator's in odd ones; steps count by "step" of the batch.

    Parameters of the player whose turn it is not have no gradient, so that an optimiser leaves them alone.

    Args:
        network: classifier and generator.
        unlabelled_weight: of the terms of unlabelled and made rows.
    """

    def __init__(self, network: ImprovedGANNetwork, unlabelled_weight: float = 1.0) -> None:
        super().__init__()
        self.network, self.unlabelled_weight = network, unlabelled_weight
        self.noise = str(network.noise)  # what a run that goes on must have in common with the one before

    def forward(self, batch: Mapping[str, Any], generator: Generator | None = None) -> tuple[Scalar, Metrics]:
        """Returns the loss of a batch; where nothing is unlabelled its labelled rows stand for the real ones."""
        turn = self.classifier_turn if int(batch["step"]) % 2 == 0 else self.generator_turn
        return turn(batch, generator)

    def classifier_turn(self, batch: Mapping[str, Any], generator: Generator | None) -> tuple[Scalar, Metrics]:
        """Returns the classifier's loss."""
        labelled = batch["labelled"]
        real, network = batch.get("unlabelled", labelled), self.network
        judge, n, m = network.discriminator, len(labelled), len(real)
        with torch.no_grad():
            made = network.make(m, labelled, generator)
        x = torch.cat([labelled, real, made])
        logits, _ = judge(x, judge.noise(x, network.noise, generator))
        log_z = logits.to(x.dtype).logsumexp(1)
        cross_entropy = F.cross_entropy(logits[:n], batch["y"])
        unlabelled, false = log_z[n : n + m], log_z[n + m :]
        adversarial = 0.5 * ((F.softplus(unlabelled) - unlabelled).mean() + F.softplus(false).mean())
        told = {"cross_entropy_nats": cross_entropy.detach(), "adversarial_nats": adversarial.detach()}
        return cross_entropy + self.unlabelled_weight * adversarial, told

    def generator_turn(self, batch: Mapping[str, Any], generator: Generator | None) -> tuple[Scalar, Metrics]:
        """Returns the generator's loss."""
        real, network = batch.get("unlabelled", batch["labelled"]), self.network
        judge = network.discriminator
        made = network.make(len(real), real, generator)
        with torch.no_grad():
            _, wanted = judge(real, judge.noise(real, network.noise, generator))
        held = {name: parameter.detach() for name, parameter in judge.named_parameters()}
        _, felt = functional_call(judge, held, (made, judge.noise(made, network.noise, generator)))
        # two means that come near each other: not in half precision
        matching = (felt.to(real.dtype).mean(0) - wanted.to(real.dtype).mean(0)).square().mean()
        return matching, {"feature_distance": matching.detach()}


class ImprovedGAN(DiscriminativeClassifier):
    """The fully connected GAN of Salimans et al. (2016) with feature matching.

    Args:
        hidden: units of the classifier.
        latent: uniform inputs of the generator.
        generator_hidden: units of the generator.
        noise: standard deviations of the noise on the classifier's input and before each later layer.
        unlabelled_weight: weight of telling real from made.
        epochs: passes through the unlabelled rows; each player has every other batch, so that the paper's 300 are 600.
        batch_size: unlabelled rows, and made ones, a step.
        labelled_batch_size: labelled rows a step, at most.
        learning_rate: of Adam, for both players.
        hold: share of the training at this rate, before it falls to 0 along a line; 1 for a constant rate.
        ema: decay, a step of either player, of the average of the weights that predicts, or None for the last weights.
        scale: what happens to the inputs; see `SemiSupervisedClassifier`.
        random_state: seeds initial weights, order and noise.
        device: auto, cpu, cuda or cuda:N.
        precision: 32-true, bf16-mixed or 64-true.
        threads: CPU threads, or None for torch's choice.
        time_limit: time after which to save and stop [s], or None.
        verbose: whether to show progress.
    """

    def __init__(
        self,
        hidden: tuple[int, ...] = (1000, 500, 250, 250, 250),
        latent: int = 100,
        generator_hidden: tuple[int, ...] = (500, 500),
        noise: tuple[float, float] = (0.3, 0.5),
        unlabelled_weight: float = 1.0,
        epochs: int = 600,
        batch_size: int = 100,
        labelled_batch_size: int = 100,
        learning_rate: float = 3e-3,
        hold: float = 1.0,
        ema: float | None = 0.99995,
        scale: Scale = "auto",
        random_state: int | np.random.RandomState | None = 0,
        device: str = "auto",
        precision: Precision = "32-true",
        threads: int | None = None,
        time_limit: float | None = None,
        verbose: bool = False,
    ) -> None:
        self.hidden = hidden
        self.latent = latent
        self.generator_hidden = generator_hidden
        self.noise = noise
        self.unlabelled_weight = unlabelled_weight
        self.epochs = epochs
        self.batch_size = batch_size
        self.labelled_batch_size = labelled_batch_size
        self.learning_rate = learning_rate
        self.hold = hold
        self.ema = ema
        self.scale = scale
        self.random_state = random_state
        self.device = device
        self.precision = precision
        self.threads = threads
        self.time_limit = time_limit
        self.verbose = verbose

    def _fit(self, x: Tensor, y: Tensor, *, run: Any, resume: bool) -> None:
        self.bounded_ = bool(x.min() >= 0 and x.max() <= 1)
        super()._fit(x, y, run=run, resume=resume)

    def _build(self) -> ImprovedGANNetwork:
        noise = numbers("noise", self.noise)
        if len(noise) != 2:
            raise UserError(f"noise: expected two values, for the input and for later layers, got {self.noise}")
        numbers("unlabelled_weight", self.unlabelled_weight, most=1)
        return ImprovedGANNetwork(
            self.n_features_in_, self.hidden, len(self.classes_), self.latent, self.generator_hidden,
            (noise[0], noise[1]), self.bounded_,
        )  # fmt: skip

    def _objective(self, network: ImprovedGANNetwork) -> ImprovedGANLoss:
        return ImprovedGANLoss(network, self.unlabelled_weight)

    def _training(self) -> dict[str, Any]:
        # as where the authors' Adam has 1e-8: under the root
        return {"betas": (0.5, 0.999), "epsilon": 1e-4, **course(self.hold), "ema": self.ema}

    @torch.no_grad()
    def sample(self, n: int = 1) -> np.ndarray:
        """Draws rows, in the units of the training data: (n, *event_shape).

        The same call on the same estimator draws the same rows where `random_state` is a number. Feature matching is
        for the classifier's sake: what it draws need not look like the data.
        """
        check_is_fitted(self, "classes_")
        generator = torch.Generator().manual_seed(seed_of(self._seed(), "sample"))
        double = self._double
        assert isinstance(double, ImprovedGANNetwork)
        rows = double.make(n, torch.zeros((), dtype=torch.float64), generator).numpy()
        return rows.reshape(-1, *self.event_shape_) * self.scale_std_ + self.scale_mean_
