"""A model's test likelihood as a record: estimator and binarisation stand beside every figure."""

from __future__ import annotations

from collections.abc import Callable
from math import log2
from typing import Any

from torch import Generator

from apps.common.objectives import default_estimator, density_over
from core_models.base import GenerativeModel
from core_models.data import Binarisation
from core_models.evaluation import Estimate, Estimator
from core_models.evaluation import evaluate as average
from core_models.training import seed_of

from .pixels import Pixels


def measure(
    model: GenerativeModel,
    pixels: Pixels,
    *,
    estimator: Estimator | None = None,
    seed: int = 0,
    batch_size: int = 500,
    on_batch: Callable[[int, float], None] | None = None,
) -> Estimate:
    """Averages the likelihood or bound over images, on the device where the model is."""
    place = next(model.parameters())
    x = pixels.events(seed_of(seed, "binarisation")).to(place)
    return average(
        model,
        x,
        None if pixels.y is None else pixels.y.to(place.device),
        estimator=estimator or default_estimator(model),
        generator=Generator(place.device).manual_seed(seed_of(seed, "evaluation")),
        batch_size=batch_size,
        on_batch=on_batch,
    )


def record(estimate: Estimate, model: GenerativeModel, binarisation: Binarisation, levels: int = 256) -> dict[str, Any]:
    """Returns an estimate as plain values; bits/dim only where it is known what the density is over.

    Of a mass over levels they are exact, or as tight as the estimator; of a density over dequantised pixels a bound.
    """
    found: dict[str, Any] = {
        "nats": estimate.nats,
        "standard_error": estimate.standard_error,
        "n": estimate.n,
        "estimator": estimate.estimator,
        "binarisation": binarisation,
    }
    kind = density_over(model)
    if kind in ("binary", "levels"):
        found["bits_per_dim"] = estimate.bits_per_dim
    elif kind == "continuous":
        # the mass of a level is at least the mean density over its share, which is 1 / levels wide
        found["bits_per_dim"] = estimate.bits_per_dim + log2(levels)
        found["dequantisation"] = "uniform"
    return found


def in_words(found: dict[str, Any], split: str) -> str:
    """Returns a record in one line."""
    # of a density over numbers that aren't whole, what bits/dim count is a bound whatever the estimator
    spread = ", at most" if "dequantisation" in found else " ="
    bits = f"{spread} {found['bits_per_dim']:.4f} bits/dim" if "bits_per_dim" in found else ""
    how = "" if found["estimator"] == "exact" else "upper bound on the "
    return (
        f"{split}: {found['nats']:.2f} ± {found['standard_error']:.2f} nats{bits} "
        f"({how}negative log-likelihood, estimator {found['estimator']}, binarisation {found['binarisation']}, "
        f"{found['n']:,} images, ± standard error)"
    )
