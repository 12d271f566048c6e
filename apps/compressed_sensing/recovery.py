"""What all recovery methods share: `fit(X)`, `acquire(X)`, `reconstruct(y)`, a whole batch at once.

A method stores its constructor's arguments as they are, so that `get_params` and `sklearn.base.clone` work; what `fit`
learns ends in `_`. Signals are (batch, *signal_shape), measurements (batch, m); arrays of numpy are taken for either,
and tensors returned. Most methods hold signals in [0, 1], unless their `box` and `clip` are turned off.

Penalties weigh against squared measurements, so that what is right for one A is too much for another whose entries are
smaller. One that is left out is its method's default times the mean square of A's entries; one that is given counts as
it is.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Float
from sklearn.base import BaseEstimator
from torch import Generator, Tensor, nn

from core_models.errors import UserError

from .convergence import NotSolved, Unsolved
from .operators import LinearOperator, measure
from .operators.base import Measurements, Signals, tensor_of

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
            f"expected signals of at most {largest:,} values, whose {held} fit into memory, got {n:,}: take LASSO with "
            f"solver batched or matrix-free, which need none, or measure and recover patches one by one{fewer}"
        )


def in_precision_of(prior: Any, y: Tensor) -> Tensor:
    """Returns measurements in the precision of a prior's weights, or as they are where it has none."""
    weights = prior.parameters() if isinstance(prior, nn.Module) else ()
    own = next((weight for weight in weights if weight.is_floating_point()), None)
    return y if own is None else y.to(own.dtype)


def to_learn_from(X: Any, y: Any, signal_shape: Sequence[int] | None = None) -> Tensor | None:
    """Returns the signals among what `fit` was given, measurements and labels being left alone.

    Args:
        X: signals (n, *signal_shape), or measurements; alone or beside labels also signals of as many values in
            another shape, (n, values).
        y: signals, or labels of one axis or more.
        signal_shape: of one signal; where it isn't known, y is signals if it has more than one axis.

    Raises:
        UserError: when neither has signals of that shape.
    """
    beside = getattr(y, "ndim", 1) > 1
    if signal_shape is None:
        signals = y if beside else X
        return None if signals is None else tensor_of(signals, "signals")
    shape = tuple(signal_shape)
    if beside and tuple(y.shape[1:]) == shape:
        return tensor_of(y, "signals")
    if X is None and not beside:
        return None
    signals = None if X is None else tensor_of(X, "signals")
    if signals is not None:
        own = tuple(signals.shape[1:])
        if own == shape or len(signals) == 0 or (not beside and prod(own) == prod(shape)):
            return signals
    given = [f"X {'None' if signals is None else tuple(signals.shape)}", *([f"y {tuple(y.shape)}"] if beside else [])]
    wanted = ", ".join(map(str, shape))
    raise UserError(f"expected signals (n, {wanted}), as the operator measures, got {' and '.join(given)}")


class Recovery(BaseEstimator, ABC):
    """A method that recovers signals from the measurements of one operator."""

    operator: LinearOperator | None
    noise: float
    default_penalties: ClassVar[Mapping[str, float]] = {}
    """Of penalties that may be left out: what the mean square of A's entries is multiplied by then."""

    def fit(self, X: Signals | None = None, y: Any = None) -> Self:
        """Learns what there is to learn from signals; for most methods nothing. Returns itself.

        Args:
            X: signals (n, *signal_shape); or measurements, where signals are given beside them.
            y: the signals that were measured, as scikit-learn's searches hand them over, `fit(y, x)`; labels, which
                have another shape than signals, are left alone.
        """
        return self

    def score(self, y: Measurements, x: Signals) -> float:
        """Returns minus the mean squared error of a value, of signals recovered from their measurements.

        So `GridSearchCV(LASSO(operator), {"alpha": [...]}).fit(y, x)` chooses what comes nearest to signals.

        Args:
            y: measurements (batch, m).
            x: the signals (batch, *signal_shape) that were measured.

        Raises:
            UserError: as `recover` does, or when the signals have another shape than those recovered.
        """
        x = tensor_of(x, "signals")
        found = self.reconstruct(y).detach()
        if x.shape != found.shape:
            raise UserError(f"expected the signals that were measured, {tuple(found.shape)}, got {tuple(x.shape)}")
        return -float((found.double() - x.to(found.device).double()).square().mean())

    def penalty_of(self, name: str) -> float:
        """Returns a penalty as it counts: the number given, else its default times the mean square of A's entries."""
        given: float | None = getattr(self, name)
        return self.default_penalties[name] * self.measuring.mean_square() if given is None else given

    def acquire(self, X: Signals, *, generator: Generator | None = None) -> Measurements:
        """Returns noisy measurements (batch, m) of signals (batch, *signal_shape).

        Warns of signals outside [0, 1] where those recovered are held in it.

        Raises:
            UserError: when signals aren't real numbers, aren't finite, or have another shape.
        """
        X = tensor_of(X, "signals")
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

        Warns of signals that aren't solved to the tolerance, by scikit-learn's `ConvergenceWarning` (`NotSolved`).

        Args:
            y: measurements (batch, m).
            first: place of the first of them among all signals, where these come in parts: what is drawn for a signal
                follows from its place.

        Raises:
            UserError: when measurements have another number, or there are none, or they aren't real or finite, or a
                count of the method is below 1.
        """
        operator, y = self.measuring, tensor_of(y, "measurements")
        for name in ("batch", "modes", "components"):
            if getattr(self, name, 1) < 1:
                raise UserError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if y.ndim != 2 or y.shape[1] != operator.m:
            raise UserError(f"expected measurements (batch, {operator.m}), as the operator makes, got {tuple(y.shape)}")
        if len(y) == 0:
            raise UserError("expected the measurements of one signal or more, got none")
        if not y.is_floating_point():
            hint = "stack both parts, torch.cat([y.real, y.imag], 1)" if y.is_complex() else "convert them to float32"
            if y.is_complex() and hasattr(operator, "from_spectrum"):
                hint = "operator.from_spectrum(y) makes them of Fourier coefficients"
            raise UserError(f"expected measurements of real numbers, got {y.dtype}: {hint}")
        if not bool(torch.isfinite(y).all()):
            raise UserError("expected finite measurements, got NaN or infinity")
        if not self.noise >= 0:
            raise UserError(f"expected a noise of 0 or more, got {self.noise}")
        found = self._recover(in_precision_of(getattr(self, "prior", None), y), first)
        if words := Unsolved().add(found.details).words(self.if_unsolved()):
            warnings.warn(f"{type(self).__name__}: {words}", NotSolved, stacklevel=2)
        return found

    @abstractmethod
    def _recover(self, y: Measurements, first: int) -> Recovered:
        """Does what `recover` says, measurements having been checked."""

    def if_unsolved(self) -> str:
        """Says what to do where signals are not solved to the tolerance."""
        return "raise max_steps or tolerance"

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
