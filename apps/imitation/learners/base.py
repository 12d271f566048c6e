"""What every learner is: an object like SB3's algorithms, whose policy is an SB3 policy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from core_models.errors import UserError

from ..demonstrations import Demonstrations
from ..networks import observations_to_tensor
from ..networks.encoder import Observed


class Learner(ABC):
    """Learns a policy from demonstrations.

    Attributes:
        num_timesteps: steps taken in the environment [env steps].
    """

    name: ClassVar[str]
    """As the command line spells it."""

    num_timesteps: int
    seed: int
    history: list[dict[str, float]]
    """A record of each iteration, epoch or line of the log."""

    @abstractmethod
    def learn(self, total_timesteps: int) -> Self:
        """Learns for so many steps; returns itself."""

    @abstractmethod
    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """Returns the actions for observations as the environment gives them, as SB3's `predict`."""

    @abstractmethod
    def save(self, path: Path | str) -> None:
        """Writes a zip archive that plain SB3 opens too."""


def expert_pairs(
    demonstrations: Demonstrations, observation_space: spaces.Space, action_space: spaces.Space, device: Any
) -> tuple[Observed, Tensor]:
    """Returns the expert's observations, and actions as rows of numbers, as tensors of a policy's spaces.

    Raises:
        UserError: when the demonstrations are of other spaces.
    """
    observations = observations_to_tensor(demonstrations.observations, observation_space, device)
    actions = torch.as_tensor(demonstrations.actions, device=device)
    if isinstance(action_space, spaces.Box):
        if actions.shape[1:] != action_space.shape:
            raise UserError(
                f"expected actions of shape {action_space.shape}, as the environment's are, got "
                f"{tuple(actions.shape[1:])} in the demonstrations"
            )
        return observations, actions.flatten(1).float()
    if not isinstance(action_space, spaces.Discrete):
        raise UserError(f"expected actions of the kind Box or Discrete, the environment's are {action_space}")
    if action_space.start != 0:
        raise UserError(
            f"expected actions from 0 on, as stable-baselines3 takes them, got {action_space}: wrap the environment"
        )
    if actions.ndim != 1 or actions.is_floating_point():
        raise UserError(
            f"expected one whole number an action, as the environment's {action_space} takes, got {actions.dtype} of "
            f"shape {tuple(actions.shape)} in the demonstrations"
        )
    return observations, actions.reshape(-1, 1).float()
