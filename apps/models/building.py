"""From a model to the objective that trains it."""

from __future__ import annotations

from core_models.adversarial import WGANGP
from core_models.base import ExactLikelihood, GenerativeModel, Objective, Variational
from core_models.data import Binarisation
from core_models.errors import UserError
from core_models.latent import NegativeELBO
from core_models.objectives import NegativeLogLikelihood

from .pixels import spreads


def build_objective(
    model: GenerativeModel,
    binarisation: Binarisation,
    *,
    importance_samples: int = 1,
    kl_warmup_steps: int = 0,
    levels: int = 0,
) -> Objective:
    """Returns what to minimise: minus the log-likelihood where the model has one, else minus its bound.

    A density over continuous values, as a flow's, is trained on dequantised pixels of so many levels.

    Raises:
        UserError: when the model has neither, or settings of a bound are given to a model without one.
    """
    if isinstance(model, ExactLikelihood):
        if importance_samples != 1 or kl_warmup_steps:
            raise UserError(
                f"{type(model).__name__} is trained by its exact likelihood: expected importance_samples 1 and "
                "kl_warmup_epochs 0; leave them out"
            )
        return NegativeLogLikelihood(model, binarisation=binarisation, dequantise=levels if spreads(model) else 0)
    if isinstance(model, Variational):
        return NegativeELBO(
            model, binarisation=binarisation, importance_samples=importance_samples, kl_warmup_steps=kl_warmup_steps
        )
    if isinstance(model, WGANGP):
        raise UserError(
            "a GAN has no likelihood to train by or to measure: train it as a prior by genapps compressed-sensing train"
        )
    raise UserError(
        f"expected a model with an exact likelihood or a variational bound, {type(model).__name__} has neither: "
        "make it an ExactLikelihood or Variational of core_models.base"
    )
