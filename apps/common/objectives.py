"""From a model and a data set to what trains it: what its density is over, how pixels become events, the objective."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from core_models.adversarial import WGANGP
from core_models.base import Autoregressive, ExactLikelihood, GenerativeModel, Objective, Variational
from core_models.data import Binarisation, DataSet
from core_models.errors import UserError
from core_models.evaluation import Estimator
from core_models.latent import DiscretisedLogistic, NegativeELBO
from core_models.modes import evaluating
from core_models.objectives import NegativeLogLikelihood

Kind = Literal["binary", "levels", "continuous", "unknown"]
"""What a model's density is over: {0, 1}, pixel levels, real numbers, or not known."""


def density_over(model: GenerativeModel) -> Kind:
    """Says what a model's density is over, by the distribution that it gives an event or the levels that it has.

    A model of another kind may say so itself, by an attribute `density_over`.
    """
    declared = getattr(model, "density_over", None)
    if declared in ("binary", "levels", "continuous"):
        return declared
    if isinstance(model, Autoregressive):
        return "binary" if model.levels == 2 else "levels"
    if not isinstance(model, Variational):
        return "unknown"
    place = next((p for p in model.parameters()), torch.zeros(()))
    y = torch.zeros(1, dtype=torch.long, device=place.device) if classes_of(model) else None
    with torch.no_grad(), evaluating(model):  # batch norm would refuse one example, and take note of it
        likelihood = model.likelihood(torch.zeros(1, *model.latent_shape, dtype=place.dtype, device=place.device), y)
    base = getattr(likelihood, "base_dist", likelihood)
    if isinstance(base, torch.distributions.Bernoulli):
        return "binary"
    return "levels" if isinstance(base, DiscretisedLogistic) else "continuous"


def spreads(model: GenerativeModel) -> bool:
    """Tells whether pixels are dequantised for a model whatever it is for: its exact density is over continuous values.

    `genapps model` does so for a Gaussian likelihood too, whose bound else compares with nothing. A prior's means,
    which signals are recovered with, are left where the levels are.
    """
    return isinstance(model, ExactLikelihood) and getattr(model, "density_over", None) == "continuous"


def classes_of(model: nn.Module) -> int:
    """Returns the number of classes that a model is conditioned on: its attribute `classes`; 0 where it has none."""
    return int(getattr(model, "classes", 0))


def default_estimator(model: GenerativeModel) -> Estimator:
    """Returns the estimator that needs no more than one pass: the exact likelihood, else the bound."""
    return "exact" if isinstance(model, ExactLikelihood) else "elbo"


def choose_binarisation(asked: Binarisation | None, kind: Kind, data: DataSet) -> Binarisation:
    """Returns how pixels become events: as asked, else as the model's density needs it.

    Raises:
        UserError: when a density over zeros and ones is asked for that of greys, or one over greys for that of bits.
    """
    binary = data.levels == 2 or not bool(((data.train_x > 0) & (data.train_x < data.levels - 1)).any())
    if asked is None:
        return "dynamic" if kind == "binary" and not binary else "none"
    if asked == "none" and kind == "binary" and not binary:
        raise UserError(
            f"expected zeros and ones for a Bernoulli likelihood, {data.name} has {data.levels} grey levels: "
            "give --binarisation dynamic, static or threshold"
        )
    if asked != "none" and kind in ("levels", "continuous"):
        raise UserError(
            f"expected pixels as they are for this model's density, which is not over zeros and ones, got "
            f"binarisation {asked}: leave it out, or choose a Bernoulli likelihood"
        )
    return asked


def build_objective(
    model: GenerativeModel,
    binarisation: Binarisation,
    *,
    importance_samples: int = 1,
    kl_warmup_steps: int = 0,
    kl_weight: float = 1.0,
    levels: int = 0,
    spread: bool | None = None,
) -> Objective:
    """Returns what to minimise: minus the log-likelihood where the model has one, else minus its bound.

    Args:
        model: what is trained.
        binarisation: how the pixels of a batch become events.
        importance_samples: k of the importance-weighted bound.
        kl_warmup_steps: steps over which the weight of the KL term rises to `kl_weight`.
        kl_weight: weight of the KL term in training; 1 is the bound.
        levels: that pixels come in.
        spread: whether they are dequantised; as `spreads` says where left out.

    Raises:
        UserError: when the model has neither, or settings of a bound are given to a model without one.
    """
    dequantise = levels if (spreads(model) if spread is None else spread) else 0
    if isinstance(model, ExactLikelihood):
        if importance_samples != 1 or kl_warmup_steps or kl_weight != 1:
            raise UserError(
                f"{type(model).__name__} is trained by its exact likelihood: expected importance_samples 1, "
                "kl_warmup_epochs 0 and kl_weight 1; leave them out"
            )
        return NegativeLogLikelihood(model, binarisation=binarisation, dequantise=dequantise)
    if isinstance(model, Variational):
        return NegativeELBO(
            model,
            binarisation=binarisation,
            importance_samples=importance_samples,
            kl_warmup_steps=kl_warmup_steps,
            kl_weight=kl_weight,
            dequantise=dequantise,
        )
    if isinstance(model, WGANGP):
        raise UserError(
            "a GAN has no likelihood to train by or to measure: train it as a prior by genapps compressed-sensing train"
        )
    raise UserError(
        f"expected a model with an exact likelihood or a variational bound, {type(model).__name__} has neither: "
        "make it an ExactLikelihood or Variational of core_models.base"
    )
