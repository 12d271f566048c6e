r"""Contractive auto-encoder: features that change little when the input does.

A layer encodes :math:`h = \sigma(W x + b)` and decodes with the same weights,
:math:`\hat x = \sigma(W^\top h + c)`. It minimises (Rifai et al., 2011, "Contractive auto-encoders: explicit invariance
during feature extraction", equations 4 and 7)

.. math:: \mathrm{CE}(x, \hat x) + \lambda \Big\| \frac{\partial h}{\partial x} \Big\|_F^2, \qquad
          \Big\| \frac{\partial h}{\partial x} \Big\|_F^2 = \sum_j \big( h_j (1 - h_j) \big)^2 \sum_i W_{ji}^2 .

The higher-order kind (CAE+H) also keeps the Jacobian J from changing nearby (Rifai et al., 2011, "Higher order
contractive auto-encoder", equation 7), by a mean over a few draws of a small Gaussian :math:`\epsilon`,

.. math:: \gamma \, \mathrm{E} \| J(x) - J(x + \epsilon) \|_F^2
          = \gamma \, \mathrm{E} \sum_j \big( h_j (1 - h_j) - h'_j (1 - h'_j) \big)^2 \sum_i W_{ji}^2,
          \qquad h' = h(x + \epsilon) .

Layers are trained one after the other on all rows, labelled or not; then a softmax layer is put on top and the whole
network is fine-tuned on the labelled rows.

Published test errors on MNIST with 100 / 600 / 1000 / 3000 labels: 13.47 / 6.3 / 4.77 / 3.22 %, of Rifai, Dauphin,
Vincent, Bengio and Muller, "The manifold tangent classifier", NIPS 2011, as quoted by Kingma et al. (2014, table 1).
The layers of that paper are of the higher-order kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from math import ceil
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from core_models.base import Metrics, Objective, PerExample, Scalar
from core_models.errors import UserError
from core_models.seeding import seeded
from core_models.training import TensorBatches, TrainingConfig, fit, resolve_device

from .baselines import CrossEntropy
from .discriminative import numbers, widths
from .estimator import Codes, LogProbabilities, Rows, Scale, SemiSupervisedClassifier, in_double

if TYPE_CHECKING:
    from core_models.training import RunFolder


class ContractiveLayer(nn.Module):
    """A sigmoid encoder and its decoder with the same weights."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.encoder = nn.Linear(inputs, hidden)
        nn.init.xavier_uniform_(self.encoder.weight)
        self.decoder_bias = nn.Parameter(torch.zeros(inputs))

    def forward(self, x: Float[Tensor, "n inputs"]) -> Float[Tensor, "n hidden"]:
        """Encodes."""
        return self.encoder(x).sigmoid()

    def reconstruction(self, h: Float[Tensor, "n hidden"]) -> Float[Tensor, "n inputs"]:
        """Decodes, before the sigmoid."""
        return F.linear(h, self.encoder.weight.T, self.decoder_bias)

    def bending(self, h: Float[Tensor, "n hidden"], near: Float[Tensor, "n hidden"]) -> PerExample:
        """Returns the squared Frobenius norm of the difference of the Jacobians where the outputs are h and near."""
        return (h * (1 - h) - near * (1 - near)).square() @ self.encoder.weight.square().sum(1)

    def contraction(self, h: Float[Tensor, "n hidden"]) -> PerExample:
        """Returns the squared Frobenius norm of the encoder's Jacobian where its output is h."""
        return (h * (1 - h)).square() @ self.encoder.weight.square().sum(1)


class ContractiveLoss(Objective):
    """Reconstruction [nats, or squared error] plus the penalties, mean over the batch.

    Args:
        layer: what is trained.
        penalty: weight lambda of the contraction.
        pixels: whether the inputs lie in [0, 1]: cross-entropy then, squared error and a linear decoder otherwise.
        hessian: weight gamma of the Jacobian's change nearby.
        noise: standard deviation of epsilon, which says how near.
        draws: of epsilon, for every row.
    """

    def __init__(
        self, layer: ContractiveLayer, penalty: float, pixels: bool, hessian: float = 0.0, noise: float = 0.1,
        draws: int = 4,
    ) -> None:  # fmt: skip
        super().__init__()
        self.layer, self.penalty, self.pixels = layer, penalty, pixels
        self.hessian, self.noise, self.draws = hessian, noise, draws

    def forward(self, batch: Mapping[str, Any], generator: Generator | None = None) -> tuple[Scalar, Metrics]:
        """Returns the loss, and its parts apart."""
        x = batch["x"]
        h = self.layer(x)
        back = self.layer.reconstruction(h)
        if self.pixels:
            error = F.binary_cross_entropy_with_logits(back, x, reduction="none").sum(1).mean()
        else:
            error = (back - x).square().sum(1).mean()
        contraction = self.layer.contraction(h).mean()
        metrics = {"reconstruction": error.detach(), "contraction": contraction.detach()}
        loss = error + self.penalty * contraction
        if self.hessian > 0:
            rows = x.repeat(self.draws, 1)
            near = self.layer(rows + torch.empty_like(rows).normal_(0, self.noise, generator=generator))
            bending = self.layer.bending(h.repeat(self.draws, 1), near).mean()
            loss, metrics["bending"] = loss + self.hessian * bending, bending.detach()
        return loss, metrics


class ContractiveAutoencoder(SemiSupervisedClassifier):
    """Contractive layers trained on all rows, then a classifier fine-tuned on the labelled ones.

    Args:
        hidden: widths of the layers.
        penalty: weight lambda of the contraction.
        hessian: weight gamma of the Jacobian's change nearby; 0 for the plain kind.
        hessian_noise: standard deviation of epsilon, which says how near.
        hessian_draws: of epsilon, for every row of a step.
        epochs: passes over all rows for each layer.
        steps: gradient steps of the fine-tuning.
        learning_rate: of Adam for the layers.
        fine_tuning_rate: of AdamW for the classifier, falling to 0 along a cosine.
        weight_decay: of the fine-tuning.
        batch_size: rows in a step, at most.
        scale: see `SemiSupervisedClassifier`; inputs outside of [0, 1] get a linear decoder and squared error.
        random_state: seeds the weights and the order of the rows.
        device: auto, cpu, cuda or cuda:N.
        precision: arithmetic of the training steps; predictions are in float64.
        verbose: whether to show progress.
    """

    def __init__(
        self,
        hidden: tuple[int, ...] = (1000, 1000),
        penalty: float = 1.0,
        hessian: float = 0.0,
        hessian_noise: float = 0.1,
        hessian_draws: int = 4,
        epochs: int = 20,
        steps: int = 1000,
        learning_rate: float = 1e-3,
        fine_tuning_rate: float = 1e-3,
        weight_decay: float = 1e-2,
        batch_size: int = 100,
        scale: Scale = "auto",
        random_state: int | np.random.RandomState | None = 0,
        device: str = "auto",
        precision: Literal["32-true", "bf16-mixed", "64-true"] = "32-true",
        verbose: bool = False,
    ) -> None:
        self.hidden = hidden
        self.penalty = penalty
        self.hessian = hessian
        self.hessian_noise = hessian_noise
        self.hessian_draws = hessian_draws
        self.epochs = epochs
        self.steps = steps
        self.learning_rate = learning_rate
        self.fine_tuning_rate = fine_tuning_rate
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.scale = scale
        self.random_state = random_state
        self.device = device
        self.precision = precision
        self.verbose = verbose

    def _fit(self, x: Rows, y: Codes, *, run: RunFolder | None, resume: bool) -> None:
        seed = self._seed()
        for name in ("penalty", "hessian", "hessian_noise"):
            numbers(name, getattr(self, name), most=1)
        for name in ("steps", "hessian_draws"):
            value = numbers(name, getattr(self, name), most=1)[0]
            if value < 1 or not value.is_integer():
                raise UserError(f"{name}: expected a whole number of at least 1, got {getattr(self, name)}")
        with seeded(seed):
            network = self._build()
        common: dict[str, Any] = {"seed": seed, "device": self.device, "precision": self.precision}
        config = TrainingConfig(epochs=self.epochs, learning_rate=self.learning_rate, schedule="linear", **common)
        inputs = x.flatten(1).to(resolve_device(self.device))
        for number, layer in enumerate(_layers(network)):
            pixels = bool(inputs.min() >= 0 and inputs.max() <= 1)
            objective = ContractiveLoss(
                layer, self.penalty, pixels, self.hessian, self.hessian_noise, self.hessian_draws
            )
            batches = TensorBatches({"x": inputs}, min(self.batch_size, len(inputs)), seed=seed)
            stage = f"layer{number + 1}"
            fit(objective, batches, config, run=run, resume=resume, stage=stage, progress=self.verbose)
            with torch.no_grad():
                weight = layer.to(inputs.device).encoder.weight
                # what the next layer is trained on has the inputs' precision, whatever this one's weights are in
                inputs = torch.cat([layer(rows.to(weight.dtype)).to(inputs.dtype) for rows in inputs.split(5000)])
        labelled = y >= 0
        tensors = {"x": x[labelled].flatten(1), "y": y[labelled]}
        batches = TensorBatches(tensors, min(self.batch_size, len(tensors["y"])), seed=seed, drop_last=False)
        config = TrainingConfig(
            epochs=ceil(self.steps / batches.steps_per_epoch),
            learning_rate=self.fine_tuning_rate,
            weight_decay=self.weight_decay,
            optimizer="adamw",
            schedule="cosine",
            **common,
        )
        # the decoders' biases have no part in it, and an optimiser of theirs would only decay them
        classifier = nn.Sequential(*_flattened(network))
        fit(
            CrossEntropy(classifier), batches, config, run=run, resume=resume, stage="classifier", progress=self.verbose
        )
        self._network = in_double(network)

    def _build(self) -> nn.Sequential:
        """Returns the layers and the softmax layer on top of them."""
        sizes = (self.n_features_in_, *widths("hidden", self.hidden))
        layers = [ContractiveLayer(before, after) for before, after in pairwise(sizes)]
        return nn.Sequential(*layers, nn.Linear(sizes[-1], len(self.classes_)))

    def _log_proba(self, x: Rows) -> LogProbabilities:
        return self._network(x.flatten(1).double()).log_softmax(1)

    def _state(self) -> dict[str, Tensor]:
        return self._network.state_dict()

    def _restore(self, state: Mapping[str, Tensor]) -> None:
        network = self._build().double().eval()
        network.load_state_dict(state)
        self._network = network


def _layers(network: nn.Sequential) -> list[ContractiveLayer]:
    return [layer for layer in network if isinstance(layer, ContractiveLayer)]


def _flattened(network: nn.Sequential) -> list[nn.Module]:
    """Returns the encoders, their sigmoids and the last layer, sharing the network's weights."""
    encoders = [part for layer in _layers(network) for part in (layer.encoder, nn.Sigmoid())]
    return [*encoders, network[-1]]
