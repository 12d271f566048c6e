"""Trained models by the names that a command line gives: generative priors and uncertainty autoencoders."""

from __future__ import annotations

import sys
from typing import Any

from torch import nn

from apps.common.building import load_model
from core_models.errors import UserError
from core_models.latent import UncertaintyAutoencoderModel

from .generative.csgm import require_decodable
from .generative.own_prior import require_shapes

OUTSIDE = 0.1
"""By how much what a prior makes may leave [0, 1] and still be images in it."""


def load_prior(name: str) -> nn.Module:
    """Loads a generative prior: a model that decodes latents; warns of one whose images leave [0, 1].

    Raises:
        UserError: when there is no such model, or it lacks `decode`, `latent_shape` or `event_shape`, or decodes
            latents into another shape.
    """
    model: Any = load_model(name)
    require_decodable(model, f"--prior {name}: ")
    low, high = value_range(model, f"--prior {name}: ")
    if len(model.event_shape) == 3 and model.event_shape[0] in (1, 3) and leaves_unit_range(low, high):
        print(
            f"warning: --prior {name} makes values from {low:.2g} to {high:.2g}, images here are in [0, 1]: where y is "
            "of such images, rescale what it makes, e.g. (G + 1) / 2 after tanh, or Prior(..., low=-1, high=1)",
            file=sys.stderr,
        )
    return model


def value_range(model: nn.Module, where: str = "") -> tuple[float, float]:
    """Returns the least and the largest value among a few signals that a prior makes."""
    made = require_shapes(model, where)
    return float(made.min()), float(made.max())


def leaves_unit_range(low: float, high: float) -> bool:
    """Tells whether values go outside [0, 1]."""
    return low < -OUTSIDE or high > 1 + OUTSIDE


def load_autoencoder(name: str, option: str = "--prior") -> UncertaintyAutoencoderModel:
    """Loads a trained uncertainty autoencoder.

    Raises:
        UserError: when there is no such model, or it is of another kind.
    """
    model = load_model(name)
    if not isinstance(model, UncertaintyAutoencoderModel):
        raise UserError(
            f"{option} {name}: expected an uncertainty autoencoder, got {type(model).__name__}: train one with "
            "genapps compressed-sensing train uae"
        )
    return model
