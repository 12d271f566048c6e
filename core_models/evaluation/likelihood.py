r"""Average log-likelihood of a data set, exact or by a bound, in nats and in bits per dimension.

.. math:: \text{bits per dim} = -\frac{\log p(x)}{D \log 2}

for events of D values, the density being a mass over pixel levels.

Source of the bounds: Kingma and Welling 2014 (ELBO), Burda, Grosse and Salakhutdinov 2016 (IWAE-k).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from math import log, prod, sqrt

import torch
from jaxtyping import Float64
from torch import Generator, Size, Tensor

from ..base import Events, ExactLikelihood, GenerativeModel, Labels, PerExample, Variational
from ..errors import UserError
from ..latent.iwae import iwae
from ..modes import evaluating, full_precision

Estimator = str
"""'exact', 'elbo' or 'iwae-k' with a whole k, for instance 'iwae-5000'."""


@dataclass(frozen=True)
class Estimate:
    """The mean over a data set of a log-likelihood or of a bound on it."""

    nats: float
    """Mean of minus the log-likelihood, or of minus the bound [nats]."""
    standard_error: float
    """Standard error of that mean over events [nats]."""
    n: int
    """Number of events."""
    estimator: str
    """'exact', 'elbo' or 'iwae-k'."""
    event_shape: tuple[int, ...]
    """Shape of one event."""

    @property
    def bits_per_dim(self) -> float:
        """The same in bits per dimension."""
        return bits_per_dim(self.nats, Size(self.event_shape))


def bits_per_dim(nats: float, event_shape: Size) -> float:
    """Turns minus a log-likelihood [nats] of one event into bits per value."""
    return nats / (prod(event_shape) * log(2))


def estimator_for(model: GenerativeModel, estimator: Estimator) -> Callable[..., PerExample]:
    """Returns the function (x, y, generator) -> per-event log-likelihood or bound [nats], shape (n,).

    Raises:
        UserError: when the estimator is unknown, or asks for a capability that the model lacks.
    """
    match = re.fullmatch(r"iwae-([1-9]\d*)", estimator)
    if estimator == "exact":
        if not isinstance(model, ExactLikelihood):
            raise UserError(f"{type(model).__name__} has no exact likelihood: use elbo or iwae-5000")
        exact = model
        return lambda x, y, generator: exact.log_prob(x, y)
    if estimator != "elbo" and not match:
        raise UserError(f"expected an estimator exact, elbo or iwae-k with k of at least 1, got {estimator!r}")
    if not isinstance(model, Variational):
        raise UserError(f"{type(model).__name__} has no variational bound: use exact")
    variational = model
    if match is None:
        return lambda x, y, generator: variational.elbo(x, y, generator=generator)
    k = int(match[1])
    return lambda x, y, generator: iwae(variational, x, y, k=k, generator=generator)


@torch.no_grad()
def per_event(
    model: GenerativeModel,
    x: Events,
    y: Labels | None = None,
    *,
    estimator: Estimator,
    generator: Generator | None = None,
    batch_size: int = 500,
    on_batch: Callable[[int, float], None] | None = None,
) -> Float64[Tensor, " n"]:
    """Returns minus the likelihood, or minus the bound, of each event [nats], on the CPU.

    It is computed in the precision of the weights, on a GPU too (`core_models.modes.full_precision`).

    Args:
        model: the model; put in evaluation mode for the time of the call.
        x: events (n, *event_shape), already binarised or dequantised as the model expects.
        y: labels (n,), for a conditional model.
        estimator: 'exact', 'elbo' or 'iwae-k'.
        generator: source of the noise of a bound.
        batch_size: events at a time.
        on_batch: called after each batch with the events done and the running mean [nats].

    Raises:
        UserError: when there is nothing to evaluate, the estimator isn't one of the model's, or a model that has
            `check_values` finds values that its likelihood isn't of.
    """
    if not len(x):
        raise UserError("expected at least one event to evaluate, got none")
    if batch_size < 1:
        raise UserError(f"expected a batch size of at least 1, got {batch_size}")
    estimate = estimator_for(model, estimator)
    if callable(check := getattr(model, "check_values", None)):
        check(x)
    # float64: the running sums of 10,000 events would lose the fourth decimal in single precision
    values = torch.empty(len(x), dtype=torch.float64)
    with evaluating(model), full_precision():
        for start in range(0, len(x), batch_size):
            stop = min(start + batch_size, len(x))
            values[start:stop] = -estimate(x[start:stop], None if y is None else y[start:stop], generator)
            if on_batch:
                on_batch(stop, float(values[:stop].mean()))
    return values


def evaluate(
    model: GenerativeModel,
    x: Events,
    y: Labels | None = None,
    *,
    estimator: Estimator,
    generator: Generator | None = None,
    batch_size: int = 500,
    on_batch: Callable[[int, float], None] | None = None,
) -> Estimate:
    """Averages a likelihood or bound over events; the arguments are those of `per_event`."""
    values = per_event(model, x, y, estimator=estimator, generator=generator, batch_size=batch_size, on_batch=on_batch)
    return summarise(values, estimator, model.event_shape)


def summarise(values: Float64[Tensor, " n"], estimator: Estimator, event_shape: Size) -> Estimate:
    """Returns the mean of per-event values [nats] and its standard error."""
    spread = float(values.std()) if len(values) > 1 else 0.0
    return Estimate(float(values.mean()), spread / sqrt(len(values)), len(values), estimator, tuple(event_shape))
