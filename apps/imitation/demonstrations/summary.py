"""What there is to know of demonstrations at a glance."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from .checking import oddities
from .data import Demonstrations


def summary(
    demonstrations: Demonstrations,
    observation_space: spaces.Space[Any] | None = None,
    action_space: spaces.Space[Any] | None = None,
) -> dict[str, Any]:
    """Returns plain values: sizes, shapes, returns, codes, the card, and what looks odd.

    Args:
        demonstrations: of what.
        observation_space: the environment's, where it is known, so that numbers beyond its bounds are counted.
        action_space: the same.
    """
    seen = demonstrations.observations
    shapes = {key: _kind(array) for key, array in seen.items()} if isinstance(seen, dict) else _kind(seen)
    returns, terminated, steps = demonstrations.returns, demonstrations.terminated, demonstrations.steps
    found: dict[str, Any] = {
        "environment": demonstrations.environment,
        "environment_kwargs": demonstrations.environment_kwargs,
        "trajectories": demonstrations.trajectories,
        "rows": len(demonstrations),
        "subsample": demonstrations.subsample,
        "steps": {"sum": int(steps.sum()), "min": int(steps.min()), "max": int(steps.max())},
        "observations": shapes,
        "actions": _kind(demonstrations.actions) | _actions(demonstrations.actions),
        "returns": None,
        "terminated": None if terminated is None else int(terminated.sum()),
        "codes": None,
        "card": demonstrations.card,
        "oddities": oddities(demonstrations, observation_space, action_space),
    }
    if returns is not None:
        found["returns"] = {
            "mean": float(returns.mean()), "std": float(returns.std()), "min": float(returns.min()),
            "max": float(returns.max()),
        }  # fmt: skip
    if demonstrations.codes is not None:
        values, counts = np.unique(demonstrations.codes, return_counts=True)
        found["codes"] = {str(value): int(count) for value, count in zip(values, counts, strict=True)}
    return found


def summary_text(found: dict[str, Any]) -> str:
    """Returns what `summary` found as lines for a terminal."""
    steps = found["steps"]
    kwargs = ", ".join(f"{key}={value}" for key, value in found["environment_kwargs"].items())
    observations = found["observations"]
    if "shape" not in observations:
        seen = ", ".join(f"{key} {_in_words(own)}" for key, own in observations.items())
    else:
        seen = _in_words(observations)
    rows = f"{found['rows']:,} rows"
    if found["subsample"] > 1:
        rows += f", one in {found['subsample']} of {steps['sum']:,} steps"
    lines = {
        "environment": found["environment"] + (f" ({kwargs})" if kwargs else ""),
        "trajectories": f"{found['trajectories']:,} of {steps['min']:,} to {steps['max']:,} steps; {rows}",
        "return": _returns(found["returns"]),
        "ended": _ended(found["terminated"], found["trajectories"]),
        "observations": seen,
        "actions": _in_words(found["actions"]) + _spread(found["actions"]),
    }
    if found["codes"]:
        lines["codes"] = ", ".join(f"{code}: {count}" for code, count in found["codes"].items())
    lines |= {f"card: {key}": str(value) for key, value in found["card"].items()}
    width = max(map(len, lines)) + 2
    shown = [f"{name + ':':<{width}}{value}" for name, value in lines.items()]
    return "\n".join(shown + [f"warning: {line}" for line in found["oddities"]])


def _returns(told: dict[str, float] | None) -> str:
    if told is None:
        return "not known"
    return f"{told['mean']:.2f} ± {told['std']:.2f} (std), {told['min']:.2f} to {told['max']:.2f}"


def _ended(terminated: int | None, trajectories: int) -> str:
    if terminated is None:
        return "not known"
    return f"{terminated:,} by the environment, {trajectories - terminated:,} by time"


def _kind(array: np.ndarray) -> dict[str, Any]:
    return {"shape": list(array.shape[1:]), "dtype": str(array.dtype)}


def _actions(actions: np.ndarray) -> dict[str, Any]:
    if actions.ndim == 1 and actions.dtype.kind in "iub":
        values, counts = np.unique(actions, return_counts=True)
        return {"counts": {str(value): int(count) for value, count in zip(values, counts, strict=True)}}
    return {"min": float(actions.min()), "max": float(actions.max())}


def _spread(actions: dict[str, Any]) -> str:
    if "counts" in actions:
        total = sum(actions["counts"].values())
        return ": " + ", ".join(f"{value} {count / total:.0%}" for value, count in actions["counts"].items())
    return f", {actions['min']:.3g} to {actions['max']:.3g}"


def _in_words(kind: dict[str, Any]) -> str:
    return f"({', '.join(map(str, kind['shape']))}) {kind['dtype']}"
