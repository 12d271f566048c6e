"""From a name and settings to a model, as every runner that trains one does it."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from core_models import registry
from core_models.base import GenerativeModel
from core_models.data import DataSet
from core_models.training import seed_of


def working_folder_importable() -> None:
    """Lets a class path name a module in the working folder, as `python -m` does and a console script doesn't."""
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)


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
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, "initial weights"))
        return registry.build(name, {**filled, **given})
