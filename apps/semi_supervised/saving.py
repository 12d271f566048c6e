"""How fitted attributes and constructor arguments become JSON and tensors, and come back; no pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

OWN = "estimator."
"""Prefix of the base class's tensors in model.safetensors."""


def plain(value: Any) -> Any:
    """Returns numbers and arrays of numpy as Python's own, within lists and dicts too, and paths as text.

    A `RandomState` becomes None: where it stood when training began is gone, and a fresh seed is as good.
    """
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, list | tuple):
        return type(value)(map(plain, value)) if type(value) in (list, tuple) else value
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, np.random.RandomState):
        return None
    return str(value) if isinstance(value, Path) else value


def is_json(value: Any) -> bool:
    """Says whether a value can be written as JSON."""
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


def tuples(value: Any) -> Any:
    """Returns lists as tuples: JSON knows none, and the sequences among arguments are tuples by our convention."""
    return tuple(tuples(item) for item in value) if isinstance(value, list) else value


def fitted(name: str, entry: dict[str, Any], tensors: Mapping[str, Tensor]) -> Any:
    """Returns a fitted attribute as it was, from its entry in the description."""
    if "values" in entry:
        return np.array(entry["values"], dtype=np.dtype(entry["array"]))
    if "array" in entry:
        return tensors[OWN + name].numpy().astype(entry["array"])
    if "tensor" in entry:
        return tensors[OWN + name]
    return tuples(entry["tuple"]) if "tuple" in entry else entry["value"]
