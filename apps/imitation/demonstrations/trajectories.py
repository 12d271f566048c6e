"""Trajectories as the `imitation` library keeps them, an object each, as the arrays of `Demonstrations`.

Of T steps there are T actions and T + 1 observations, the last of which is seen after the last action.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from core_models.errors import UserError

from .consistency import single_precision


def fields_of(trajectories: Sequence[Any]) -> dict[str, Any]:
    """Returns the fields of `Demonstrations` that the trajectories hold; numbers with a fraction in float32.

    Args:
        trajectories: as `Demonstrations.from_trajectories` takes them.

    Raises:
        UserError: when there is none, or one has not one observation more than actions.
    """
    if not trajectories:
        raise UserError("expected one or more trajectories, got none")
    seen = [_parts(own.obs) for own in trajectories]
    for i, (own, parts) in enumerate(zip(trajectories, seen, strict=True)):
        for key, part in parts.items():
            if len(part) != len(own.acts) + 1:
                raise UserError(
                    f"expected one observation more than the {len(own.acts)} actions of trajectory {i}, the last one "
                    f"after its last action, got {len(part)} in obs{f'[{key!r}]' if key else ''}"
                )
    rewards: list[Any] = [getattr(own, "rews", None) for own in trajectories]
    ended = [_terminated(own) for own in trajectories]
    return {
        "observations": _joined(seen, slice(None, -1)),
        "actions": single_precision(np.concatenate([np.asarray(own.acts) for own in trajectories])),
        "lengths": np.array([len(own.acts) for own in trajectories]),
        "rewards": None if any(own is None for own in rewards) else np.concatenate(rewards),
        "terminated": None if any(own is None for own in ended) else np.array(ended),
        "final_observations": _joined(seen, slice(-1, None)),
    }


def _parts(obs: Any) -> dict[str, Any]:
    """Returns observations by the keys of a Dict space; those of another by an empty one."""
    obs = obs.unwrap() if hasattr(obs, "unwrap") else obs  # the library's own class around a dict of arrays
    return dict(obs) if isinstance(obs, dict) else {"": obs}


def _joined(seen: list[dict[str, Any]], rows: slice) -> Any:
    found = {key: single_precision(np.concatenate([np.asarray(own[key])[rows] for own in seen])) for key in seen[0]}
    return found[""] if set(found) == {""} else found


def _terminated(own: Any) -> bool | None:
    """Says whether the environment ended an episode: the library's `terminal` is true of a time limit's end too.

    None where only `infos` could tell which of them it was, and there are none.
    """
    if not own.terminal:
        return False
    infos = getattr(own, "infos", None)
    if infos is None or not len(infos):
        return None
    return not infos[-1].get("TimeLimit.truncated", False)
