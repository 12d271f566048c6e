"""Environments made by their id, with one line for what goes wrong."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import gymnasium

from core_models.errors import UserError


def make(environment: str, kwargs: Mapping[str, Any] | None = None) -> gymnasium.Env[Any, Any]:
    """Makes an environment.

    Raises:
        UserError: when there is none of this id, it lacks a package, or it doesn't take the arguments.
    """
    try:
        with warnings.catch_warnings():
            # demonstrations of v4 are no mistake: v5 observes other shapes
            warnings.filterwarnings("ignore", r".*The environment .* is out of date", DeprecationWarning)
            return gymnasium.make(environment, **(kwargs or {}))
    except (gymnasium.error.Error, ImportError, TypeError) as error:
        raise UserError(f"expected an environment that gymnasium can make, got {environment}: {error}") from error
