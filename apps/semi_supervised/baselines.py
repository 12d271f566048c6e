r"""What is learnt from the labelled rows alone: NN and CNN of table 1 of Kingma et al. (2014), and an SVM.

The two networks minimise the cross-entropy of the labelled rows. The support vector machine has the kernel
:math:`k(x, x') = \exp(-\gamma \|x - x'\|^2)` and one machine per pair of classes; its votes become probabilities
through one temperature: :math:`q(y | x) \propto \exp(v_y(x) / T)`, where v are scikit-learn's one-vs-rest scores and T
minimises the cross-entropy of held-out labelled rows.

Published test errors on MNIST with 100 / 600 / 1000 / 3000 labels, as quoted by Kingma et al. (2014, table 1):
NN 25.81 / 11.44 / 10.7 / 6.04 %, CNN 22.98 / 7.68 / 6.45 / 3.35 %.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import minimize_scalar
from sklearn.model_selection import StratifiedKFold
from sklearn.svm import SVC
from sklearn.utils.multiclass import _ovr_decision_function
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from core_models.base import Metrics, Objective, Scalar
from core_models.errors import UserError
from core_models.layers.networks import Activation, conv_encoder, mlp
from core_models.seeding import seeded
from core_models.training import TensorBatches, TrainingConfig, fit

from .discriminative import numbers, widths
from .estimator import Codes, LogProbabilities, Rows, Scale, SemiSupervisedClassifier, in_double

if TYPE_CHECKING:
    from core_models.training import RunFolder


class CrossEntropy(Objective):
    """Mean cross-entropy [nats] of a network's logits on batches of `x` and `y`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: Mapping[str, Any], generator: Generator | None = None) -> tuple[Scalar, Metrics]:
        """Returns the loss, and the share of rows that are classified wrongly."""
        logits = self.network(batch["x"])
        loss = F.cross_entropy(logits, batch["y"])
        return loss, {"error_share": (logits.argmax(1) != batch["y"]).float().mean().detach()}


class _Network(SemiSupervisedClassifier):
    """A network trained on the labelled rows; subclasses build it."""

    learning_rate: float
    weight_decay: float
    steps: int
    batch_size: int
    device: str
    precision: Literal["32-true", "bf16-mixed", "64-true"]
    verbose: bool

    def _build(self) -> nn.Module:
        raise NotImplementedError

    def _fit(self, x: Rows, y: Codes, *, run: RunFolder | None, resume: bool) -> None:
        labelled = y >= 0
        seed = self._seed()
        if self.steps < 1:
            raise UserError(f"steps: expected at least 1, got {self.steps}")
        with seeded(seed):
            network = self._build()
        tensors = {"x": x[labelled], "y": y[labelled]}
        batches = TensorBatches(tensors, min(self.batch_size, len(tensors["y"])), seed=seed, drop_last=False)
        config = TrainingConfig(
            epochs=ceil(self.steps / batches.steps_per_epoch),
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            optimizer="adamw",
            schedule="cosine",
            seed=seed,
            device=self.device,
            precision=self.precision,
        )
        fit(CrossEntropy(network), batches, config, run=run, resume=resume, stage="classifier", progress=self.verbose)
        self._network = in_double(network)

    def _log_proba(self, x: Rows) -> LogProbabilities:
        return self._network(x.double()).log_softmax(1)

    def _state(self) -> dict[str, Tensor]:
        return self._network.state_dict()

    def _restore(self, state: Mapping[str, Tensor]) -> None:
        self._network = in_double(self._build())
        self._network.load_state_dict(state)


class NeuralNetwork(_Network):
    """A multilayer perceptron on the labelled rows.

    Args:
        hidden: widths of the hidden layers.
        activation: relu, softplus, silu, elu or tanh.
        learning_rate: of AdamW, falling to 0 along a cosine.
        weight_decay: decoupled weight decay.
        steps: gradient steps, whatever the number of labels.
        batch_size: labelled rows in a step, at most.
        scale: see `SemiSupervisedClassifier`.
        random_state: seeds the weights and the order of the rows.
        device: auto, cpu, cuda or cuda:N.
        precision: arithmetic of the training steps; predictions are in float64.
        verbose: whether to show progress.
    """

    def __init__(
        self,
        hidden: tuple[int, ...] = (500,),
        activation: Activation = "relu",
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-2,
        steps: int = 1000,
        batch_size: int = 100,
        scale: Scale = "auto",
        random_state: int | np.random.RandomState | None = 0,
        device: str = "auto",
        precision: Literal["32-true", "bf16-mixed", "64-true"] = "32-true",
        verbose: bool = False,
    ) -> None:
        self.hidden = hidden
        self.activation = activation
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.steps = steps
        self.batch_size = batch_size
        self.scale = scale
        self.random_state = random_state
        self.device = device
        self.precision = precision
        self.verbose = verbose

    def _build(self) -> nn.Module:
        return mlp(self.n_features_in_, widths("hidden", self.hidden), len(self.classes_), self.activation)


class ConvolutionalNetwork(_Network):
    """A small convolutional network on the labelled images.

    Args:
        channels: of the convolutions, each of which halves the sides of the image.
        width: of the hidden layer after them.
        activation: relu, softplus, silu, elu or tanh.
        dropout: share of the inputs that is set to zero in a training step.
        hidden_dropout: share of the hidden layer's units that is.
        image_shape: (channels, height, width), where X comes as flat rows.
        learning_rate: of AdamW, falling to 0 along a cosine.
        weight_decay: decoupled weight decay.
        steps: gradient steps, whatever the number of labels.
        batch_size: labelled images in a step, at most.
        scale: see `SemiSupervisedClassifier`.
        random_state: seeds the weights and the order of the images.
        device: auto, cpu, cuda or cuda:N.
        precision: arithmetic of the training steps; predictions are in float64.
        verbose: whether to show progress.
    """

    def __init__(
        self,
        channels: tuple[int, ...] = (32, 64),
        width: int = 256,
        activation: Activation = "relu",
        dropout: float = 0.2,
        hidden_dropout: float = 0.0,
        image_shape: tuple[int, int, int] | None = None,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-2,
        steps: int = 1000,
        batch_size: int = 100,
        scale: Scale = "auto",
        random_state: int | np.random.RandomState | None = 0,
        device: str = "auto",
        precision: Literal["32-true", "bf16-mixed", "64-true"] = "32-true",
        verbose: bool = False,
    ) -> None:
        self.channels = channels
        self.width = width
        self.activation = activation
        self.dropout = dropout
        self.hidden_dropout = hidden_dropout
        self.image_shape = image_shape
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.steps = steps
        self.batch_size = batch_size
        self.scale = scale
        self.random_state = random_state
        self.device = device
        self.precision = precision
        self.verbose = verbose

    def _build(self) -> nn.Module:
        shape = self.event_shape_ if len(self.event_shape_) == 3 else self.image_shape
        if shape is None or int(np.prod(shape)) != self.n_features_in_:
            raise UserError(
                f"expected images (n, channels, height, width), or flat rows and their image_shape, got rows of "
                f"{self.n_features_in_} features and image_shape={self.image_shape}"
            )
        for name in ("dropout", "hidden_dropout"):
            if not numbers(name, getattr(self, name), most=1)[0] < 1:
                raise UserError(f"{name}: expected less than 1, got {getattr(self, name)}")
        channels = widths("channels", self.channels)
        network = conv_encoder(torch.Size(shape), channels, self.width, len(self.classes_), self.activation)
        if self.hidden_dropout:  # within the activation's place: the weights keep their names
            assert isinstance(network.head, nn.Sequential)
            network.head[0] = nn.Sequential(network.head[0], nn.Dropout(self.hidden_dropout))
        return nn.Sequential(nn.Dropout(self.dropout), nn.Flatten(), nn.Unflatten(1, tuple(shape)), network)


class SVM(SemiSupervisedClassifier):
    """A support vector machine with the RBF kernel, on the labelled rows.

    C and gamma are chosen among the given values by cross-validation within the labelled rows; with fewer than two
    rows of some class there is nothing to hold out, and the middle of each list is taken.

    Args:
        C: weights of the errors to choose from; one number fixes it.
        gamma: inverse squared widths of the kernel to choose from, as multiples of 1 / (features x mean variance of
            the labelled rows' features), scikit-learn's `scale`; one number fixes it.
        folds: of the cross-validation, at most.
        scale: see `SemiSupervisedClassifier`.
        random_state: seeds the folds.

    Attributes:
        C_: the weight chosen.
        gamma_: the inverse squared width chosen, in the scaled inputs' unit.
        temperature_: what the scores are divided by before they become probabilities.
    """

    def __init__(
        self,
        C: float | tuple[float, ...] = (1.0, 10.0, 100.0),
        gamma: float | tuple[float, ...] = (0.25, 0.5, 1.0, 2.0),
        folds: int = 5,
        scale: Scale = "auto",
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.C = C
        self.gamma = gamma
        self.folds = folds
        self.scale = scale
        self.random_state = random_state

    def _fit(self, x: Rows, y: Codes, *, run: RunFolder | None, resume: bool) -> None:
        rows, codes = x[y >= 0].flatten(1).double().numpy(), y[y >= 0].numpy()
        unit = 1 / (rows.shape[1] * max(float(rows.var(0).mean()), 1e-12))
        weights, factors = numbers("C", self.C, positive=True), numbers("gamma", self.gamma, positive=True)
        grid = [(C, factor * unit) for C in weights for factor in factors]
        fallback = (middle(weights), middle(factors) * unit)
        splits = labelled_folds(codes, self.folds, self._seed())
        held_out = np.concatenate([test for _, test in splits]) if splits else np.array([], dtype=int)

        def scores(C: float, gamma: float) -> np.ndarray:
            parts = [_Machine(rows[train], codes[train], C, gamma)(rows[test]) for train, test in splits]
            return np.concatenate(parts)

        self.C_, self.gamma_, self.temperature_ = *fallback, 1.0
        if splits:
            tried = {point: scores(*point) for point in (grid if len(grid) > 1 else [fallback])}
            # the first of the best: the softest margin and the widest kernel of those that tie
            best = max(tried, key=lambda point: float((tried[point].argmax(1) == codes[held_out]).mean()))
            self.C_, self.gamma_ = best
            self.temperature_ = fitted_temperature(tried[best], codes[held_out])
        self._machine = _Machine(rows, codes, self.C_, self.gamma_)

    def _log_proba(self, x: Rows) -> LogProbabilities:
        return torch.from_numpy(self._machine(x.flatten(1).double().numpy()) / self.temperature_).log_softmax(1)

    def _state(self) -> dict[str, np.ndarray]:
        return {name: np.asarray(value) for name, value in vars(self._machine).items()}

    def _restore(self, state: Mapping[str, Tensor]) -> None:
        self._machine = _Machine.__new__(_Machine)
        for name, value in state.items():
            setattr(self._machine, name, value.numpy())


class _Machine:
    """The decision functions of scikit-learn's SVC, evaluated by matrix products.

    Saved without pickle, and about ten times as fast as libsvm on the tens of thousands of unlabelled rows.
    """

    def __init__(self, rows: np.ndarray, codes: np.ndarray, C: float, gamma: float) -> None:
        svc = SVC(C=C, gamma=gamma).fit(rows, codes)
        self.vectors, self.gamma = svc.support_vectors_, np.array(gamma)
        self.dual, self.intercept = svc.dual_coef_, svc.intercept_
        self.counts = svc.n_support_.astype(np.int64)

    def __call__(self, rows: np.ndarray) -> Float[np.ndarray, "n classes"]:
        """Returns one score per class: votes of the pairs, ties broken by their summed margins."""
        squared = (rows**2).sum(1)[:, None] + (self.vectors**2).sum(1) - 2 * rows @ self.vectors.T
        kernel = np.exp(-self.gamma * squared.clip(0))
        if len(self.counts) == 2:
            margin = kernel @ self.dual[0] + self.intercept[0]
            return np.stack([-margin, margin], 1)
        ends = self.counts.cumsum()
        parts = [slice(end - count, end) for end, count in zip(ends, self.counts, strict=True)]
        pairs = [(i, j) for i in range(len(parts)) for j in range(i + 1, len(parts))]
        margins = np.stack(
            [
                # libsvm keeps a vector of class i against class j in row j - 1, that of j against i in row i
                kernel[:, parts[i]] @ self.dual[j - 1, parts[i]] + kernel[:, parts[j]] @ self.dual[i, parts[j]] + b
                for (i, j), b in zip(pairs, self.intercept, strict=True)
            ],
            axis=1,
        )
        return _ovr_decision_function(margins < 0, -margins, len(parts))


def labelled_folds(codes: np.ndarray, folds: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns stratified (train, held out) positions; none where some class has a single row."""
    folds = min(folds, int(np.bincount(codes)[np.unique(codes)].min()))
    if folds < 2:
        return []
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed % 2**32)
    return list(splitter.split(np.zeros((len(codes), 1)), codes))


def fitted_temperature(scores: np.ndarray, codes: np.ndarray) -> float:
    """Returns the T that minimises the cross-entropy of softmax(scores / T), between 0.01 and 100.

    Up to a factor: perfectly separated scores would send T to 0, so one row more, wrongly classified, is added.
    """
    logits = torch.from_numpy(np.concatenate([scores, -scores[:1]]))
    targets = torch.from_numpy(np.concatenate([codes, codes[:1]]))

    def loss(log_t: float) -> float:
        return F.cross_entropy(logits / float(np.exp(log_t)), targets, reduction="sum").item()

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.01), np.log(100)), method="bounded").x))


def middle(candidates: Sequence[float]) -> float:
    """Returns the candidate to take where there is nothing to choose by."""
    return candidates[len(candidates) // 2]
