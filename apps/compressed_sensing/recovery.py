"""What all recovery methods share: `fit(X)`, `acquire(X)`, `reconstruct(y)`, a whole batch at once.

A method stores its constructor's arguments as they are, so that `get_params` and `sklearn.base.clone` work; what `fit`
learns ends in `_`. Signals are (batch, *signal_shape), measurements (batch, m). Most methods hold signals in [0, 1],
unless their `box` and `clip` are turned off.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from jaxtyping import Float
from sklearn.base import BaseEstimator
from torch import Generator, Tensor, nn

from core_models.errors import UserError

from .operators import LinearOperator, measure
from .operators.base import Measurements, Signals

LARGEST = 20_000
"""Values of a signal whose square matrix fits into memory."""
LARGEST_ALL = 1_000_000_000
"""Numbers, in double precision, of several such matrices together."""
SLACK = 1e-3
"""By how much signals may leave [0, 1] and still count as inside."""


@dataclass(frozen=True, eq=False)
class Recovered:
    """Signals recovered from measurements."""

    x: Signals
    std: Signals | None = None
    """Posterior standard deviation of every value, where the method knows one."""
    details: dict[str, Float[Tensor, " batch"]] = field(default_factory=dict)
    """What the method says of each signal: objective, gap, loss, ..."""


def require_matrices(n: int, matrices: int = 1) -> None:
    """Holds signals to a number of values whose square matrices fit into memory.

    Args:
        n: values of a signal.
        matrices: square matrices that are held at once.

    Raises:
        UserError: when they have more.
    """
    largest = min(LARGEST, int((LARGEST_ALL / matrices) ** 0.5))
    if n > largest:
        held, fewer = (
            ("matrices", "") if matrices == 1 else (f"{matrices} square matrices", ", or take fewer components")
        )
        raise UserError(
            f"expected signals of at most {largest:,} values, whose {held} fit into memory, got {n:,}: cut images into "
            f"patches{fewer}"
        )


def in_precision_of(prior: Any, y: Tensor) -> Tensor:
    """Returns measurements in the precision of a prior's weights, or as they are where it has none."""
    weights = prior.parameters() if isinstance(prior, nn.Module) else ()
    own = next((weight for weight in weights if weight.is_floating_point()), None)
    return y if own is None else y.to(own.dtype)


class Recovery(BaseEstimator, ABC):
    """A method that recovers signals from the measurements of one operator."""

    operator: LinearOperator | None
    noise: float

    def fit(self, X: Signals | None = None, y: Any = None) -> Self:
        """Learns what there is to learn from signals; for most methods nothing. Returns itself."""
        return self

    def acquire(self, X: Signals, *, generator: Generator | None = None) -> Measurements:
        """Returns noisy measurements (batch, m) of signals (batch, *signal_shape).

        Warns of signals outside [0, 1] where those recovered are held in it.

        Raises:
            UserError: when signals aren't real numbers, aren't finite, or have another shape.
        """
        if not X.is_floating_point():
            raise UserError(f"expected signals of real numbers, got {X.dtype}: scale them to [0, 1] as float32")
        if not bool(torch.isfinite(X).all()):
            raise UserError("expected finite signals, got NaN or infinity")
        if self.bounded and X.numel() and not -SLACK <= float(X.min()) <= float(X.max()) <= 1 + SLACK:
            off = " and ".join(f"{name}=False" for name in self.bounds())
            warnings.warn(
                f"{type(self).__name__} recovers signals in [0, 1], these go from {float(X.min()):.3g} to "
                f"{float(X.max()):.3g}: rescale them{off and f', or give {off}'}",
                stacklevel=2,
            )
        return measure(self.measuring, X, self.noise, generator)

    def reconstruct(self, y: Measurements) -> Signals:
        """Returns the signals (batch, *signal_shape) recovered from measurements (batch, m)."""
        return self.recover(y).x

    def recover(self, y: Measurements, first: int = 0) -> Recovered:
        """Returns the signals with what else the method knows of them.

        Args:
            y: measurements (batch, m).
            first: place of the first of them among all signals, where these come in parts: what is drawn for a signal
                follows from its place.

        Raises:
            UserError: when measurements have another number, or there are none, or they aren't real or finite, or a
                count of the method is below 1.
        """
        operator = self.measuring
        for name in ("batch", "modes", "components"):
            if getattr(self, name, 1) < 1:
                raise UserError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if y.ndim != 2 or y.shape[1] != operator.m:
            raise UserError(f"expected measurements (batch, {operator.m}), as the operator makes, got {tuple(y.shape)}")
        if len(y) == 0:
            raise UserError("expected the measurements of one signal or more, got none")
        if not y.is_floating_point():
            hint = "stack both parts, torch.cat([y.real, y.imag], 1)" if y.is_complex() else "convert them to float32"
            raise UserError(f"expected measurements of real numbers, got {y.dtype}: {hint}")
        if not bool(torch.isfinite(y).all()):
            raise UserError("expected finite measurements, got NaN or infinity")
        if not self.noise >= 0:
            raise UserError(f"expected a noise of 0 or more, got {self.noise}")
        return self._recover(in_precision_of(getattr(self, "prior", None), y), first)

    @abstractmethod
    def _recover(self, y: Measurements, first: int) -> Recovered:
        """Does what `recover` says, measurements having been checked."""

    @property
    def bounded(self) -> bool:
        """Whether the signals recovered are held in [0, 1], whatever was measured."""
        return bool(getattr(self, "box", False) or getattr(self, "clip", False))

    def bounds(self) -> list[str]:
        """Returns the settings that hold signals in [0, 1]; none where something else does."""
        on = [name for name in ("box", "clip") if getattr(self, name, False)]
        return on if set(on) <= set(self.get_params(deep=False)) else []

    @property
    def measuring(self) -> LinearOperator:
        """The operator, which must be there."""
        if self.operator is None:
            raise UserError(f"{type(self).__name__}: expected an operator, got none: give operator=...")
        return self.operator
