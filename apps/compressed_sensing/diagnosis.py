r"""Where the error of a recovery comes from.

For a generative prior G and the recovery \hat x = G(\hat z) of x from y = A x + e:

- representation error: min_z ||G(z) - x||, what no recovery in the range of G can beat;
- measurement error: ||A \hat x - y|| beside ||A x - y|| = ||e||: far above it the search has failed or the prior can't
  explain y, far below it noise was fitted;
- optimisation gap: the loss at \hat z less the loss at the latent nearest to x. Above 0, the search missed a latent
  that explains y better; below 0, the measurements prefer another signal than the nearest one;
- the set-restricted eigenvalue condition S-REC(gamma, delta): ||A (x_1 - x_2)|| >= gamma ||x_1 - x_2|| - delta in the
  range of G, here by pairs of samples, at delta = 0 and for A scaled to E ||A x||^2 = ||x||^2. It is an upper bound on
  the true gamma;
- the bound of the theory, 6 min_z ||G(z) - x|| + 3 ||e|| + 2 epsilon, which holds with high probability for Gaussian A
  of entries of variance 1/m, once m is of order k d log n for a ReLU network of depth d with k latents.

Source: Bora, Jalal, Price and Dimakis, "Compressed sensing using generative models", 2017, definition 1, theorems 1.1
and 1.2, lemma 4.3, section 6.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import NormalDist
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from core_models.errors import UserError

from .generative.csgm import CSGM, checked_prior
from .metrics import summary
from .operators import LinearOperator, Mask
from .operators.base import Measurements, Signals
from .recovery import Recovered, Recovery

PerSignal = Float[Tensor, " batch"]
LEVELS = (0.5, 0.9, 0.95)
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
    with torch.no_grad():
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
    scale = (operator.n / float(operator.matrix().double().square().sum())) ** 0.5
    with torch.no_grad():
        z = torch.randn(2 * pairs, *prior.latent_shape, generator=generator)
        made = prior.decode(z)
        away = made[:pairs] - made[pairs:]
        ratio = scale * operator(away).norm(dim=1) / away.flatten(1).norm(dim=1).clamp(min=1e-12)
    return {
        "least": float(ratio.min()), "percentile_1": float(ratio.quantile(0.01)), "mean": float(ratio.mean()),
        "pairs": pairs,
    }  # fmt: skip


def diagnose(method: Recovery, x: Signals, y: Measurements, found: Recovered) -> dict[str, PerSignal]:
    """Returns, signal by signal, what the error of a recovery is made of.

    Args:
        method: what recovered.
        x: the true signals.
        y: their measurements.
        found: what was recovered; of CSGM, with its loss.

    Returns:
        error, measurement_error and noise_norm, (batch,) each; norms, not squares. With a prior, representation_error.
        For CSGM, whose signals lie in the prior's range, loss_at_nearest, the loss at the latent nearest to x,
        optimisation_gap, and bound, that of theorem 1.1 with epsilon the gap's share, for a Gaussian A.
    """
    operator = method.measuring
    noise = (operator(x) - y).norm(dim=1)
    told = {
        "error": (found.x - x).flatten(1).norm(dim=1),
        "measurement_error": (operator(found.x) - y).norm(dim=1),
        "noise_norm": noise,
    }
    prior = getattr(method, "prior", None)
    if prior is None:
        return told
    z = nearest_latents(prior, x)
    nearest = told["representation_error"] = representation_error(prior, x, z)
    if type(method) is not CSGM:
        return told
    with torch.no_grad():
        at_nearest = (y - operator(prior.decode(z))).square().mean(1) + method.penalty * z.square().flatten(1).sum(1)
    told["loss_at_nearest"] = at_nearest
    gap = told["optimisation_gap"] = found.details["loss"] - at_nearest
    scale = (operator.n / float(operator.matrix().double().square().sum())) ** 0.5
    epsilon = scale * (gap.clamp(min=0) * operator.m).sqrt()
    told["bound"] = 6 * nearest + 3 * scale * noise + 2 * epsilon
    return told


PRIOR_TO_BLAME = 0.5
"""From this share of the squared error on it is the prior's: no search in its range can halve it."""
NOT_EXPLAINED, FITTED = 2.0, 0.5
"""Measurement error over the noise's norm: of m normal numbers the norm is within a fifth of sigma sqrt(m) from m = 50
on, so that twice as much is no chance, nor is half."""
MISSED = 0.1
"""A gap from which on a search has missed a better latent, as a share of the loss there."""


def account(
    method: Recovery, noise: float, found: Recovered, y: Measurements, x: Signals | None = None, *, seed: int = 0
) -> dict[str, Any]:
    """Returns what can be said of where the error of a recovery comes from, as plain values.

    Args:
        method: what recovered.
        noise: standard deviation of each measurement's noise.
        found: what came of the measurements.
        y: the measurements.
        x: the true signals, where they are known.
        seed: of the pairs of samples that S-REC is estimated from.

    Returns:
        signals, how many; per_signal, lists by name; means, each with its half_width; s_rec, with a prior; words, the
        verdict in sentences.
    """
    operator, prior = method.measuring, getattr(method, "prior", None)
    alone = {"measurement_error": (operator(found.x) - y).norm(dim=1)}
    told = alone if x is None else diagnose(method, x, y, found)
    means = {name: summary(values) for name, values in told.items()}
    s_rec_told = None if prior is None else s_rec(prior, operator, generator=Generator().manual_seed(seed))
    return {
        "signals": len(y),
        "means": means,
        "per_signal": {name: [float(f"{value:.8g}") for value in values.tolist()] for name, values in told.items()},
        "s_rec": s_rec_told,
        "words": _verdict(told, noise, operator.m, in_range=type(method) is CSGM, prior=prior is not None),
    }


def _verdict(told: Mapping[str, PerSignal], noise: float, m: int, *, in_range: bool, prior: bool) -> list[str]:
    """Says in words what the figures say."""
    words = []
    size = noise * m**0.5
    away = float(told["measurement_error"].mean())
    if size > 0:
        ratio = away / size
        beside = f"measurement error {away:.3g}, the noise's norm {size:.3g}"
        if ratio > NOT_EXPLAINED:
            words.append(f"the signals don't explain their measurements: {beside}")
        elif ratio < FITTED:
            words.append(f"noise was fitted: {beside}")
        else:
            words.append(f"the measurements are explained as far as the noise: {beside}")
    if "error" not in told:
        return [*words, "the true signals are not known: nothing can be said of the error itself"]
    if "representation_error" in told:
        share = float(told["representation_error"].square().sum() / told["error"].square().sum())
        if in_range:
            words.append(
                f"{100 * min(share, 1):.0f} % of the squared error is what the prior can't make"
                + (": a better prior helps, more measurements don't" if share >= PRIOR_TO_BLAME else "")
            )
        else:
            words.append(
                f"the prior alone comes as near as {float(told['representation_error'].mean()):.3g} to the signals, "
                f"the recovery {float(told['error'].mean()):.3g}: what the prior can't make is recovered otherwise"
            )
    if "optimisation_gap" in told:
        missed = float((told["optimisation_gap"] > MISSED * told["loss_at_nearest"]).double().mean())
        words.append(f"the search missed a better latent for {100 * missed:.0f} % of the signals"
                     + (": more restarts or steps" if missed > 0.1 else ""))  # fmt: skip
    if not prior:
        words.append("no prior with latents: representation, search and S-REC don't apply")
    return words


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
