"""From a name and settings to a new model, and from a name to a trained one, as every runner does it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from torch import nn

import core_models
from core_models import registry
from core_models.base import GenerativeModel
from core_models.data import DataSet
from core_models.errors import UserError
from core_models.seeding import seeded
from core_models.training import seed_of

from .importing import working_folder_importable


def build_model(name: str, config: Mapping[str, Any] | None, data: DataSet, seed: int) -> GenerativeModel:
    """Builds a model with weights drawn from a seed; its shape, levels and classes are the data's where not given.

    Args:
        name: a registered name, or a class path.
        config: fields of the model's configuration.
        data: what it will be trained on.
        seed: of the weights.

    Raises:
        UserError: when there is no such model, a field is unknown or the model refuses a value.
    """
    working_folder_importable()
    cls = registry.model_class(name)
    given = dict(config or {})
    config_class = registry.config_class(cls)
    if config_class is None:
        known = {key: p.default for key, p in inspect.signature(cls).parameters.items()}
    else:
        known = {field.name: field.default for field in fields(config_class)}
    of_data: dict[str, Any] = {"event_shape": tuple(data.event_shape), "levels": data.levels}
    if known.get("classes"):  # a model that has classes unless told otherwise
        of_data["classes"] = len(data.classes)
    filled = {key: value for key, value in of_data.items() if key in known and key not in given}
    with seeded(seed_of(seed, "initial weights")):
        return registry.build(name, {**filled, **given})


def load_model(name: str) -> nn.Module:
    """Loads a trained model in evaluation mode on the CPU.

    Args:
        name: a run folder, `zoo:NAME`, or the class path of a model of the user's own, whose constructor needs no
            arguments and loads its weights.

    Raises:
        UserError: when there is no such model, or its weights aren't those of its card.
    """
    working_folder_importable()
    if not names_class(name):
        model: nn.Module = core_models.load(name)
        return model.eval()
    try:
        return registry.build(name, None, nn.Module).eval()
    except UserError as error:
        raise UserError(
            f"{error} (by its class path goes an nn.Module whose constructor needs no arguments and loads its weights)"
        ) from error


def names_class(name: str) -> bool:
    """Tells whether a trained model is named by its class path, and not by its folder or as one of the zoo."""
    return ":" not in name and "/" not in name and "." in name.strip(".") and not Path(name).exists()
