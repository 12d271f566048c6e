"""What the classifiers share that are one network q(y | x), taught by labelled and unlabelled rows at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from core_models.base import Objective
from core_models.errors import UserError
from core_models.persistence import floating_dtype
from core_models.seeding import seeded
from core_models.training import History, TrainingConfig, fit, resolve_device, seed_of
from core_models.training.config import Precision

from .batches import SemiSupervisedBatches
from .estimator import Codes, LogProbabilities, Rows, SemiSupervisedClassifier, in_double, stop_if_out_of_time

if TYPE_CHECKING:
    from core_models.training import RunFolder


class ClassifyingNetwork(nn.Module, ABC):
    """Networks of which one classifies."""

    @abstractmethod
    def logits(self, x: Float[Tensor, "n inputs"]) -> Float[Tensor, "n classes"]:
        """Returns what predictions rest on: no noise, no statistics of the batch."""

    def begin(self, x: Float[Tensor, "n inputs"], generator: torch.Generator) -> None:
        """Sets initial weights that depend on the data, from some training rows; there are none by default."""

    def settle(self, x: Float[Tensor, "n inputs"]) -> None:
        """Sets what `logits` needs beyond the weights, from all training rows; nothing by default."""


class DiscriminativeClassifier(SemiSupervisedClassifier):
    """A fully connected classifier whose loss also speaks of the unlabelled rows.

    A subclass stores the constructor's arguments named below, and says what its networks (`_build`), their loss
    (`_objective`) and the training's other settings (`_training`) are. Images are taken as rows of pixels.

    Attributes:
        network_: the trained networks.
        history_: what the training did.
    """

    epochs: int
    batch_size: int
    labelled_batch_size: int
    learning_rate: float
    device: str
    precision: Precision
    threads: int | None
    time_limit: float | None
    verbose: bool

    network_: ClassifyingNetwork
    _double: ClassifyingNetwork

    @abstractmethod
    def _build(self) -> ClassifyingNetwork:
        """Builds the networks for rows of `n_features_in_` values and as many classes as `classes_`."""

    @abstractmethod
    def _objective(self, network: Any) -> Objective:
        """Returns the loss, over batches with "labelled" rows, their codes "y" and "unlabelled" rows."""

    @abstractmethod
    def _training(self) -> dict[str, Any]:
        """Returns the settings of the training that are the method's own."""

    def _fit(self, x: Rows, y: Codes, *, run: RunFolder | None, resume: bool) -> None:
        seed, rows = self._seed(), x.flatten(1)
        for name in ("batch_size", "labelled_batch_size"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}: expected at least 1, got {getattr(self, name)}")
        with seeded(seed_of(seed, "initial weights")):
            network = self._build()
        with torch.no_grad():
            network.begin(rows, torch.Generator().manual_seed(seed_of(seed, "first rows")))
        objective = self._objective(network)
        batches = SemiSupervisedBatches(rows, y, self.batch_size, self.labelled_batch_size, seed)
        for kind, part in (("labelled", batches.labelled), ("unlabelled", batches.unlabelled)):
            if part is not None and part.batch_size < 2:  # the layers are normalised over the rows of a batch
                raise UserError(f"expected at least two {kind} rows a step, got {part.batch_size}")
        config = TrainingConfig(
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            seed=seed,
            device=self.device,
            precision=self.precision,
            threads=self.threads,
            time_limit=self.time_limit,
            **self._training(),
        )
        device = resolve_device(self.device)
        self.history_: History = fit(
            objective, batches.to(device), config, run=run, resume=resume, stage="classifier", progress=self.verbose
        )
        stop_if_out_of_time(self.history_, run)
        with torch.no_grad():
            network.settle(rows.to(device, next(network.parameters()).dtype))
        self._take(network.cpu().eval())

    def _take(self, network: ClassifyingNetwork) -> None:
        """Keeps trained networks, with a copy in float64 that predicts."""
        self.network_ = network
        self._double = in_double(network)

    def _log_proba(self, x: Rows) -> LogProbabilities:
        return self._double.logits(x.flatten(1).double()).log_softmax(1)

    def _state(self) -> dict[str, Tensor]:
        return self.network_.state_dict()

    def _restore(self, state: Mapping[str, Tensor]) -> None:
        network = self._build().to(floating_dtype(state))
        network.load_state_dict(state)
        self._take(network.eval())


def normal_like(x: Tensor, width: int, scale: float, generator: torch.Generator | None) -> Tensor | None:
    """Draws noise (n, width) of a standard deviation for rows x (n, ...); None where there is none."""
    if scale == 0:
        return None
    noise = torch.empty(len(x), width, dtype=x.dtype, device=x.device)
    return noise.normal_(0, scale, generator=generator)


def numbers(name: str, values: Any, *, most: int | None = None, positive: bool = False) -> tuple[float, ...]:
    """Returns a setting that is a number or a sequence of them, all finite and at least 0, as a tuple.

    Args:
        name: of the setting.
        values: what was given.
        most: values that can be used, None for any number of them.
        positive: whether 0 is refused too.

    Raises:
        UserError: names the setting and what it is.
    """
    try:
        found = tuple(float(value) for value in np.atleast_1d(np.asarray(values, dtype=np.float64)))
    except (TypeError, ValueError):
        raise UserError(f"{name}: expected numbers, got {values!r}") from None
    if not found or not all(isfinite(value) and value >= 0 for value in found):
        raise UserError(f"{name}: expected finite numbers of at least 0, got {values!r}")
    if positive and min(found) == 0:
        raise UserError(f"{name}: expected numbers of more than 0, got {values!r}")
    if most == 1 and np.ndim(values):
        raise UserError(f"{name}: expected a number, got {values!r}")
    if most is not None and len(found) > most:
        raise UserError(f"{name}: expected at most {most} values, one a layer, got {len(found)}")
    return found


def widths(name: str, values: Any) -> tuple[int, ...]:
    """Returns a setting of numbers of units as a tuple of whole numbers.

    Raises:
        UserError: one is below 1 or no whole number, or there is none.
    """
    found = () if np.size(values) == 0 else numbers(name, values)
    if not found or not all(value >= 1 and value.is_integer() for value in found):
        raise UserError(f"{name}: expected at least one hidden layer of at least one unit, got {name}={values!r}")
    return tuple(int(value) for value in found)


def course(hold: float) -> dict[str, Any]:
    """Returns the settings of a learning rate that stays for a share of the training and then falls to 0 along a line.

    Raises:
        UserError: the share is not one.
    """
    if not 0 <= hold <= 1:
        raise UserError(f"hold: expected in [0, 1], got {hold}")
    # a constant rate is one: a run at it may go on for longer
    return {"schedule": "constant"} if hold == 1 else {"schedule": "linear", "schedule_hold": hold}
