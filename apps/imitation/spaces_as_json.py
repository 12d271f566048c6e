"""Gymnasium spaces as JSON, so that a saved learner says what it takes without a pickle."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces

from core_models.errors import UserError


class Spaces(NamedTuple):
    """What a policy takes and gives, in the place of an environment."""

    observation_space: spaces.Space
    action_space: spaces.Space


def space_to_json(space: spaces.Space) -> dict[str, Any]:
    """Returns a space as plain values.

    Raises:
        UserError: for a kind that no learner here takes.
    """
    if isinstance(space, spaces.Box):
        bounds = {"low": space.low, "high": space.high}
        # one number where all are the same: images would fill pages
        plain = {k: float(v.flat[0]) if np.all(v == v.flat[0]) else v.tolist() for k, v in bounds.items()}
        return {"kind": "Box", "shape": list(space.shape), "dtype": str(space.dtype), **_finite(plain)}
    if isinstance(space, spaces.Discrete):
        return {"kind": "Discrete", "n": int(space.n), "start": int(space.start)}
    if isinstance(space, spaces.Dict):
        return {"kind": "Dict", "spaces": {key: space_to_json(part) for key, part in space.spaces.items()}}
    raise UserError(f"expected a space of the kind Box, Discrete or Dict, got {type(space).__name__}")


def space_from_json(plain: dict[str, Any]) -> spaces.Space:
    """Returns the space that `space_to_json` wrote."""
    if plain["kind"] == "Discrete":
        return spaces.Discrete(plain["n"], start=plain["start"])
    if plain["kind"] == "Dict":
        return spaces.Dict({key: space_from_json(part) for key, part in plain["spaces"].items()})
    shape, dtype = tuple(plain["shape"]), np.dtype(plain["dtype"])
    low, high = (np.broadcast_to(np.array(_numbers(plain[k])), shape).astype(dtype) for k in ("low", "high"))
    return spaces.Box(low, high, shape, dtype.type)


def _finite(plain: Any) -> Any:
    """JSON knows no infinity."""
    if isinstance(plain, dict):
        return {key: _finite(value) for key, value in plain.items()}
    if isinstance(plain, list):
        return [_finite(value) for value in plain]
    return str(plain) if np.isinf(plain) else plain


def _numbers(plain: Any) -> Any:
    return [_numbers(value) for value in plain] if isinstance(plain, list) else float(plain)
