r"""The ladder network: a classifier whose every layer also learns to undo noise.

The rows go through the same layers twice, clean and with noise everywhere. From the top down a decoder estimates each
layer's clean values from its noisy ones and from the estimate of the layer above,

.. math:: u_L = \mathrm{normalised}(\tilde p), \quad u_l = \mathrm{normalised}(V_{l+1} \hat z_{l+1}), \qquad
          \hat z_l = (\tilde z_l - \mu(u_l)) \, v(u_l) + \mu(u_l)

with :math:`\tilde p` the noisy class probabilities, and the loss is

.. math:: -\frac{1}{n_l} \sum \log \tilde p(y | x)
          + \sum_{l=0}^{L} \frac{\lambda_l}{m_l} \overline{\Big\| \frac{\hat z_l - \mu_l}{\sigma_l} - z_l \Big\|^2}

where :math:`\mu_l` and :math:`\sigma_l` are the clean batch's, z_l its normalised values, m_l the width of the layer,
and the bar a mean over the unlabelled rows. Gradients flow through the clean values too, as in the authors' code.

Published test error on MNIST with 100 labels: 1.06 ± 0.37 % (fully connected, ten draws).

Source: Rasmus, Valpola, Honkala, Berglund and Raiko, "Semi-supervised learning with ladder networks", NIPS 2015,
algorithm 1 and equations 2 to 5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from core_models.base import Metrics, Objective, Scalar
from core_models.training.config import Precision

from .discriminative import DiscriminativeClassifier, course, normal_like, numbers
from .estimator import Scale
from .normalised import EPSILON, NormalisedNetwork, product


class Combinator(nn.Module):
    """z_hat = (z - mu(u)) v(u) + mu(u), unit by unit; mu and v are a sigmoid plus a line each (equation 2)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        # rows a1 to a5 of mu, then of v: a1 sigmoid(a2 u + a3) + a4 u + a5
        start = torch.zeros(10, width)
        start[1], start[6] = 1, 1
        self.weights = nn.Parameter(start)

    def forward(self, z: Tensor, u: Tensor) -> Tensor:
        """Estimates clean values (n, width) from noisy ones and from what the layer above says."""
        a = self.weights
        mean = a[0] * torch.sigmoid(a[1] * u + a[2]) + a[3] * u + a[4]
        gain = a[5] * torch.sigmoid(a[6] * u + a[7]) + a[8] * u + a[9]
        return (z - mean) * gain + mean


class LadderNetwork(NormalisedNetwork):
    """The classifier with a decoder beside it; arguments as there."""

    def __init__(self, inputs: int, hidden: Sequence[int], classes: int) -> None:
        super().__init__(inputs, hidden, classes)
        self.decoder = nn.ModuleList(product(b, a) for a, b in pairwise(self.widths))
        self.combinators = nn.ModuleList(Combinator(width) for width in self.widths)

    def estimates(self, z: Sequence[Tensor], probabilities: Tensor) -> list[Tensor]:
        """Returns the estimates of every layer's clean values, from the input (0) to the logits (L).

        Args:
            z: noisy values of every layer, (n, width).
            probabilities: noisy class probabilities (n, classes).
        """
        u, found = probabilities, []
        for i in reversed(range(len(self.widths))):
            u = (u - u.mean(0)) / (u.var(0, correction=0) + EPSILON).sqrt()
            found.append(self.combinators[i](z[i], u))
            if i:
                u = self.decoder[i - 1](found[-1]).to(u.dtype)
        return found[::-1]


class LadderLoss(Objective):
    """The loss above.

    Args:
        network: encoder and decoder.
        denoising: lambda of the input, of the first hidden layer and so on; the last holds for all layers above too.
        noise: standard deviation of the noise on the input and in every layer, and so on likewise.
    """

    def __init__(self, network: LadderNetwork, denoising: Sequence[float], noise: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        count = len(network.widths)
        self.denoising = _filled(numbers("denoising", denoising, most=count), count)
        self.noise = _filled(numbers("noise", noise, most=count), count)
        # what a run that goes on must have in common with the one before
        self.settings = f"denoising {self.denoising}, noise {self.noise}"

    def forward(self, batch: Mapping[str, Any], generator: Generator | None = None) -> tuple[Scalar, Metrics]:
        """Returns the loss of a batch; where nothing is unlabelled its labelled rows are denoised."""
        labelled = batch["labelled"]
        rows, network = batch.get("unlabelled", labelled), self.network
        n, m = len(labelled), len(rows)
        # noisy labelled, noisy, clean: one product a layer for all three
        x = torch.cat([labelled, rows, rows])
        noisy = x[: n + m]
        noise = [
            normal_like(noisy, width, scale, generator) for width, scale in zip(network.widths, self.noise, strict=True)
        ]
        encoded = network.encode(x, (n, m, m), noise)
        cross_entropy = F.cross_entropy(encoded.logits[:n], batch["y"])
        probabilities = encoded.logits[n : n + m].softmax(1)
        estimates = network.estimates([z[n : n + m] for z in encoded.z], probabilities)
        loss, told = cross_entropy, {"cross_entropy_nats": cross_entropy.detach()}
        for i, (estimate, weight) in enumerate(zip(estimates, self.denoising, strict=True)):
            error = ((estimate - encoded.mean[i]) / encoded.deviation[i] - encoded.z[i][n + m :]).square().mean()
            loss = loss + weight * error
            told[f"denoising_{i}"] = error.detach()
        return loss, told


def _filled(values: Sequence[float], count: int) -> list[float]:
    """Returns as many values as there are layers, the last one repeated."""
    return [*values, *[values[-1]] * count][:count]


class Ladder(DiscriminativeClassifier):
    """The fully connected ladder network of Rasmus et al. (2015).

    Args:
        hidden: units of the hidden layers.
        denoising: weights lambda of the reconstruction of the input, of the first hidden layer and so on up to the
            logits; the last one holds for all layers above too.
        noise: standard deviation of the noise on the input and, after normalisation, on every layer; likewise.
        epochs: passes through the unlabelled rows.
        batch_size: unlabelled rows a step.
        labelled_batch_size: labelled rows a step, at most.
        learning_rate: of Adam.
        hold: share of the training at this rate, before it falls to 0 along a line.
        scale: what happens to the inputs; see `SemiSupervisedClassifier`.
        random_state: seeds initial weights, order and noise.
        device: auto, cpu, cuda or cuda:N.
        precision: 32-true, bf16-mixed or 64-true.
        compile: whether torch compiles training (wants a C++ compiler): the same numbers up to rounding, and 1.6 times
            as fast on a CPU.
        threads: CPU threads, or None for torch's choice.
        time_limit: time after which to save and stop [s], or None.
        verbose: whether to show progress.
    """

    def __init__(
        self,
        hidden: tuple[int, ...] = (1000, 500, 250, 250, 250),
        denoising: tuple[float, ...] = (1000.0, 10.0, 0.1),
        noise: tuple[float, ...] = (0.3,),
        epochs: int = 150,
        batch_size: int = 100,
        labelled_batch_size: int = 100,
        learning_rate: float = 2e-3,
        hold: float = 2 / 3,
        scale: Scale = "auto",
        random_state: int | np.random.RandomState | None = 0,
        device: str = "auto",
        precision: Precision = "32-true",
        compile: bool = False,
        threads: int | None = None,
        time_limit: float | None = None,
        verbose: bool = False,
    ) -> None:
        self.hidden = hidden
        self.denoising = denoising
        self.noise = noise
        self.epochs = epochs
        self.batch_size = batch_size
        self.labelled_batch_size = labelled_batch_size
        self.learning_rate = learning_rate
        self.hold = hold
        self.scale = scale
        self.random_state = random_state
        self.device = device
        self.precision = precision
        self.compile = compile
        self.threads = threads
        self.time_limit = time_limit
        self.verbose = verbose

    def _build(self) -> LadderNetwork:
        return LadderNetwork(self.n_features_in_, self.hidden, len(self.classes_))

    def _objective(self, network: LadderNetwork) -> LadderLoss:
        return LadderLoss(network, self.denoising, self.noise)

    def _training(self) -> dict[str, Any]:
        return {**course(self.hold), "compile": self.compile}
