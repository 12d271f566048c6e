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

from statistics import NormalDist
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from core_models.errors import UserError

from .generative.csgm import CSGM, checked_prior
from .operators import LinearOperator, Mask
from .operators.base import Measurements, Signals
from .recovery import Recovered

PerSignal = Float[Tensor, " batch"]
LEVELS = (0.5, 0.9, 0.95)


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


def diagnose(
    method: CSGM, x: Signals, y: Measurements, found: Recovered, *, generator: Generator | None = None
) -> dict[str, PerSignal]:
    """Returns, signal by signal, what the error of a recovery by CSGM is made of.

    Args:
        method: what recovered.
        x: the true signals.
        y: their measurements.
        found: what came of them.
        generator: unused by deterministic parts; of samples.

    Returns:
        error, representation_error, measurement_error, noise_norm, optimisation_gap, bound: (batch,) each; norms, not
        squares. The bound is that of theorem 1.1 with epsilon the optimisation gap's share, for a Gaussian A.
    """
    prior, operator = method.prior, method.measuring
    z = nearest_latents(prior, x)
    noise = (operator(x) - y).norm(dim=1)
    scale = (operator.n / float(operator.matrix().double().square().sum())) ** 0.5
    nearest = representation_error(prior, x, z)
    with torch.no_grad():
        fit = (y - operator(prior.decode(z))).square().mean(1)
        at_nearest = fit + method.penalty * z.square().flatten(1).sum(1)
    gap = found.details["loss"] - at_nearest
    epsilon = scale * (gap.clamp(min=0) * operator.m).sqrt()
    return {
        "error": (found.x - x).flatten(1).norm(dim=1),
        "representation_error": nearest,
        "measurement_error": (operator(found.x) - y).norm(dim=1),
        "noise_norm": noise,
        "optimisation_gap": gap,
        "bound": 6 * nearest + 3 * scale * noise + 2 * epsilon,
    }


def coverage(found: Recovered, x: Signals, levels: tuple[float, ...] = LEVELS) -> dict[float, float]:
    """Returns the share of values that lie inside the central intervals of the posterior, by their level.

    Raises:
        UserError: when the method knows no standard deviation.
    """
    if found.std is None:
        raise UserError("expected a posterior standard deviation, this method has none: use residual covariance or GMM")
    away = (found.x - x).abs()
    shares = {}
    for level in levels:
        reach = NormalDist().inv_cdf(0.5 + level / 2)
        shares[level] = float((away <= reach * found.std).double().mean())
    return shares
