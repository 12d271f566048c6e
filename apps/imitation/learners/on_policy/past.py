"""The last trajectories of a learner, which InfoGAIL's D and Q learn from, and the same as tensors of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...networks.encoder import Observed

OBSERVATIONS = "past observations/"
"""How the names of their tensors begin; the part's name follows, none where observations are no Dict."""


class Trajectory(NamedTuple):
    """The steps of an episode, or of what an iteration saw of it."""

    observations: Observed
    actions: Tensor
    code: int


def joined(past: Sequence[Trajectory]) -> tuple[Observed, Tensor, Tensor]:
    """Returns the observations and actions of all steps, and the codes (steps,) behind them."""
    first = past[0].observations
    observations: Observed
    if isinstance(first, dict):
        kept = [t.observations for t in past if isinstance(t.observations, dict)]
        observations = {key: torch.cat([o[key] for o in kept]) for key in first}
    else:
        observations = torch.cat([t.observations for t in past if isinstance(t.observations, Tensor)])
    codes = torch.cat([torch.full((len(t.actions),), t.code, device=t.actions.device) for t in past])
    return observations, torch.cat([t.actions for t in past]), codes


def to_tensors(past: Sequence[Trajectory]) -> dict[str, Tensor]:
    """Returns trajectories as tensors by their names in a checkpoint; nothing of none."""
    if not past:
        return {}
    observations, actions, _ = joined(past)
    parts = observations if isinstance(observations, dict) else {"": observations}
    return {
        "past/actions": actions,
        "past/lengths": torch.tensor([len(t.actions) for t in past]),
        "past/codes": torch.tensor([t.code for t in past]),
        **{f"{OBSERVATIONS}{key}": part for key, part in parts.items()},
    }


def from_tensors(tensors: Mapping[str, Tensor], device: torch.device) -> list[Trajectory]:
    """Returns the trajectories that `to_tensors` gave, among other tensors."""
    if "past/actions" not in tensors:
        return []
    lengths = tensors["past/lengths"].tolist()
    kept = {name.removeprefix(OBSERVATIONS): t for name, t in tensors.items() if name.startswith(OBSERVATIONS)}
    parts = {key: part.to(device).split(lengths) for key, part in kept.items()}
    actions = tensors["past/actions"].to(device).split(lengths)
    found = []
    for i, code in enumerate(tensors["past/codes"].tolist()):
        own: Any = {key: part[i] for key, part in parts.items()}
        found.append(Trajectory(own[""] if set(own) == {""} else own, actions[i], int(code)))
    return found
