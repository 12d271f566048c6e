r"""Where the error of a recovery comes from.

For a generative prior G and the recovery \hat x = G(\hat z) of x from y = A x + e:

- representation error: min_z ||G(z) - x||, what no recovery in the range of G can beat, as far as a search finds it;
- complete error: ||G(z') - x||, z' being the latent of the least loss were every value measured, without noise. By as
  much as it is above the representation error, the method's penalty keeps it from latents that are far from 0;
- measurement error: ||A \hat x - y|| beside ||A x - y|| = ||e||: far above it the search has failed or the prior can't
  explain y, far below it noise was fitted;
- optimisation gap: the loss at \hat z less the loss at z', the latent nearest to x in the method's own sense. Above 0,
  the search missed a latent that explains y better; below 0, the measurements prefer another signal. The latent of the
  representation error won't do: of the prior of MNIST that ships it lies 150 away from 0, where latents of the prior
  lie 7 away, and the poorest search has a lower loss;
- the set-restricted eigenvalue condition S-REC(gamma, delta): ||A (x_1 - x_2)|| >= gamma ||x_1 - x_2|| - delta in the
  range of G, here by pairs of samples, at delta = 0 and for A scaled to E ||A x||^2 = ||x||^2. It is an upper bound on
  the true gamma;
- the bound of the theory, 6 min_z ||G(z) - x|| + 3 ||e|| + 2 epsilon, which holds with high probability for Gaussian A
  of entries of variance 1/m, once m is of order k d log n for a ReLU network of depth d with k latents. Epsilon is by
  how much ||A \hat x - y|| is above that of the nearest latent: the proof asks no more of the search.

Source: Bora, Jalal, Price and Dimakis, "Compressed sensing using generative models", 2017, definition 1, theorems 1.1
and 1.2, lemma 4.3, section 6.3.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from core_models.errors import UserError
from core_models.modes import evaluating, steady

from .generative.csgm import CSGM, checked_prior, starts
from .generative.flow_prior import FlowPrior
from .generative.latent_search import Search, search
from .generative.residual_covariance import ResidualCovariance
from .operators import LinearOperator, Mask
from .operators.base import Measurements, Signals
from .recovery import Recovered, Recovery

PerSignal = Float[Tensor, " batch"]
LEVELS = (0.5, 0.9, 0.95)
PAIRS = 500
"""Pairs of samples made at once."""
IN_RANGE = (CSGM, FlowPrior)
"""Methods whose signals are G(z), and nothing beside; by their class itself, since one derived may do anything."""
UNCERTAIN = 0.05
"""The standard deviation from which on a value of an image counts as uncertain."""


def nearest_latents(
    prior: Any, x: Signals, *, steps: int = 1000, restarts: int = 3, learning_rate: float = 0.02, random_state: int = 0
) -> Float[Tensor, "batch ..."]:
    """Returns the latents of the least ||G(z) - x|| that a search finds, from the prior and from an encoding."""
    everything = Mask(torch.ones(tuple(prior.event_shape), dtype=torch.bool)).to(x.device)
    method = CSGM(
        everything, prior, penalty=0.0, steps=steps, restarts=restarts, learning_rate=learning_rate,
        drop=((0.3, 0.5),), random_state=random_state,
    )  # fmt: skip
    return method.search_latents(x.flatten(1), encoded=x if callable(getattr(prior, "encode", None)) else None)


def representation_error(prior: Any, x: Signals, z: Float[Tensor, "batch ..."]) -> PerSignal:
    """Returns ||G(z) - x|| of each signal."""
    with torch.no_grad(), evaluating(prior):
        error: Tensor = (prior.decode(z) - x).flatten(1).norm(dim=1)
    return error


def s_rec(
    prior: Any, operator: LinearOperator, *, pairs: int = 10_000, generator: Generator | None = None
) -> dict[str, float]:
    """Returns the least, the 1st percentile and the mean of ||A (x_1 - x_2)|| / ||x_1 - x_2|| over pairs of samples.

    A is scaled so that E ||A x||^2 = ||x||^2 for white x.

    Raises:
        UserError: when the prior makes other signals than the operator measures.
    """
    checked_prior(prior, operator)
    scale, parts = scale_of(operator), []
    like = next((p for p in prior.parameters() if p.is_floating_point()), torch.empty(0))
    with torch.no_grad(), evaluating(prior):
        for count in torch.ones(pairs).split(PAIRS):
            z = torch.randn(2, len(count), *prior.latent_shape, generator=generator).to(like)
            away = prior.decode(z[0]) - prior.decode(z[1])
            parts.append(scale * operator(away).norm(dim=1) / away.flatten(1).norm(dim=1).clamp(min=1e-12))
    ratio = torch.cat(parts)
    return {
        "least": float(ratio.min()), "percentile_1": float(ratio.quantile(0.01)), "mean": float(ratio.mean()),
        "pairs": pairs,
    }  # fmt: skip


def scale_of(operator: LinearOperator) -> float:
    """Returns what A is to be multiplied by for E ||A x||^2 = ||x||^2 of white x."""
    return float((operator.n / sum(float(block.double().square().sum()) for block in operator.blocks())) ** 0.5)


def diagnose(method: Recovery, x: Signals, y: Measurements, found: Recovered) -> dict[str, PerSignal]:
    """Returns, signal by signal, what the error of a recovery is made of.

    Args:
        method: what recovered.
        x: the true signals.
        y: their measurements.
        found: what was recovered; with its loss where the method searches latents.

    Returns:
        error, measurement_error and noise_norm, (batch,) each; norms, not squares. With a prior, representation_error:
        the prior's alone, which is no bound where a method recovers something beside G(z). Where a method's loss is
        known (`loss_at`), loss_at_nearest, that at the latent nearest to x under its penalty, and optimisation_gap. Of
        CSGM and FlowPrior, whose signals lie in the prior's range, complete_error, and bound, that of theorem 1.1.
    """
    operator = method.measuring
    with torch.no_grad():
        noise = (operator(x) - y).norm(dim=1)
        error = (found.x - x).flatten(1).norm(dim=1)
        measured = (operator(found.x) - y).norm(dim=1)
    told = {"error": error, "measurement_error": measured, "noise_norm": noise}
    prior = getattr(method, "prior", None)
    if prior is None:
        return told
    likely, nearest = _latents_near(method, x)
    representation = told["representation_error"] = representation_error(prior, x, nearest)
    with evaluating(prior):
        loss, there = found.details.get("loss"), loss_at(method, y, likely)
    in_range = type(method) in IN_RANGE
    if in_range:  # what was recovered is in the range, too: neither search that knows x may come out above it
        complete = told["complete_error"] = torch.minimum(representation_error(prior, x, likely), error)
        representation = told["representation_error"] = torch.minimum(representation, complete)
    if loss is not None and there is not None:
        told["loss_at_nearest"] = there
        told["optimisation_gap"] = loss.to(there) - there
    if in_range:
        scale = scale_of(operator)
        with torch.no_grad(), evaluating(prior):
            excess = (measured - (operator(prior.decode(nearest)) - y).norm(dim=1)).clamp(min=0)
        told["bound"] = 6 * representation + 3 * scale * noise + 2 * scale * excess
    return told


def loss_at(method: Recovery, y: Measurements, z: Float[Tensor, "batch ..."]) -> PerSignal | None:
    """Returns the loss that a method's search minimises, at given latents; None where it isn't one of latents alone.

    A method says it by `loss_at(y, z)`, one of the user's own too.

    Args:
        method: with its operator and prior, and fitted.
        y: measurements (batch, m).
        z: latents (batch, *latent_shape).
    """
    own = getattr(method, "loss_at", None)
    if not callable(own):
        return None
    with torch.no_grad():
        told: PerSignal = own(y, z)
    return told


def _latents_near(method: Recovery, x: Signals) -> tuple[Tensor, Tensor]:
    """Returns the latents nearest to signals under a method's penalty, and without any."""
    prior: Any = method.prior
    exact = getattr(prior, "encode_exactly", None)
    encode = exact or getattr(prior, "encode", None)
    penalty = _penalty(method)
    likely, nearest = [], []
    first = 0
    for own in x.split(100):
        start = starts(prior, len(own), 3, 0, first).to(own)
        first += len(own)
        if callable(encode):
            with torch.no_grad(), evaluating(prior):
                encoded = encode(own)[0] if exact else encode(own).mean
            start = torch.cat([encoded[:, None], start], 1)
        z = _search_near(prior, own, start, penalty, *LIKELY) if penalty > 0 else None
        if callable(exact):
            away = start[:, 0]
        else:
            away = _search_near(prior, own, start if z is None else z[:, None], 0.0, *NEAREST)
        likely.append(away if z is None else z)
        nearest.append(away)
    return torch.cat(likely), torch.cat(nearest)


LIKELY, NEAREST = (300, 0.1), (500, 0.2)
"""Steps and learning rate of Adam. Of the VAE of MNIST that ships, with the penalty of Bora et al. and 20 training
images, more steps, half the rate or other starts change the error of the first in the fifth digit; that of the second
is 9 % above what 3000 steps from 7 starts find in ten times the time of both."""


def _search_near(prior: Any, x: Signals, start: Tensor, penalty: float, steps: int, learning_rate: float) -> Tensor:
    """Returns the latents of the least mean (G(z) - x)^2 + penalty ||z||^2, of starts (batch, starts, *latent)."""

    def loss(variables: Any, signals: Tensor) -> Tensor:
        (z,) = variables
        fit: Tensor = (prior.decode(z) - x[signals]).square().flatten(1).mean(1)
        return fit + penalty * z.square().flatten(1).sum(1)

    plan = Search(steps, start.shape[1], learning_rate, ((0.1, 0.5), (0.2, 0.25)))
    with steady(prior):
        return search(loss, [start], plan).variables[0]


def _penalty(method: Recovery) -> float:
    """Returns a method's penalty on ||z||^2 beside mean (G(z) - x)^2, the loss it would have of complete measurements.

    Of CSGM's loss, mean (A (G(z) - x))^2 is ||G(z) - x||^2 times the mean square of A's entries. Residuals are taken
    for white.
    """
    operator, known = method.measuring, "penalty" in method.default_penalties
    penalty = method.penalty_of("penalty") if known else getattr(method, "penalty", None)
    if isinstance(method, ResidualCovariance):
        return float(method.covariance_.diagonal().mean()) / operator.n
    own = float(penalty) if isinstance(penalty, int | float) else 0.0
    return own * scale_of(operator) ** 2 * operator.m / operator.n


def coverage(
    found: Recovered, x: Signals, levels: tuple[float, ...] = LEVELS, *, least_std: float = 0.0
) -> dict[float, float]:
    """Returns the share of values that lie inside the central intervals of the posterior, by their level.

    Args:
        found: what was recovered, with its standard deviations.
        x: the true signals.
        levels: of the intervals.
        least_std: only values count whose standard deviation is so large: of images, many values are black for sure,
            and swell the share.

    Raises:
        UserError: when the method knows no standard deviation, or none is so large.
    """
    if found.std is None:
        raise UserError("expected a posterior standard deviation, this method has none: use residual covariance or GMM")
    counted = found.std >= least_std
    if not bool(counted.any()):
        raise UserError(f"expected a standard deviation of {least_std:g} or more, the largest is {found.std.max():g}")
    away, std = (found.x - x).abs()[counted], found.std[counted]
    shares = {}
    for level in levels:
        reach = NormalDist().inv_cdf(0.5 + level / 2)
        shares[level] = float((away <= reach * std).double().mean())
    return shares
