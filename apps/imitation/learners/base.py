"""What every learner is: an object like SB3's algorithms, whose policy is an SB3 policy.

The zip that `save` writes is SB3's own format and opens with plain `TRPO.load`, `PPO.load` or `SAC.load`. The learner's
own state lies beside SB3's in the same archive, as safetensors and JSON, where SB3 does not look.
"""

from __future__ import annotations

import inspect
import io
import json
import zipfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from gymnasium import spaces
from safetensors import SafetensorError
from safetensors.torch import load as from_bytes
from safetensors.torch import save as to_bytes
from stable_baselines3.common.base_class import BaseAlgorithm
from torch import Tensor

from core_models.errors import UserError
from core_models.files import atomic

from ..demonstrations import Demonstrations
from ..networks import observations_to_tensor
from ..networks.encoder import Observed

SETTINGS, TENSORS = "genapps.json", "genapps.safetensors"
"""Names of the members of an archive that are ours."""


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
    if actions.ndim != 1 or actions.is_floating_point():
        raise UserError(
            f"expected one whole number an action, as the environment's {action_space} takes, got {actions.dtype} of "
            f"shape {tuple(actions.shape)} in the demonstrations"
        )
    return observations, actions.reshape(-1, 1).float()


def constructor_settings(learner: Learner) -> dict[str, Any]:
    """Returns the arguments of a learner's constructor, read from the attributes of the same names."""
    names: dict[str, None] = {}
    for kind in type(learner).__mro__:
        if issubclass(kind, Learner) and "__init__" in vars(kind):
            names |= dict.fromkeys(inspect.signature(kind).parameters)
    left_out = {"self", "env", "demonstrations", "tensorboard_log", "verbose"}
    settings = {n: getattr(learner, n) for n in names if n not in left_out and hasattr(learner, n)}
    return json.loads(json.dumps(settings, default=str))


def write_archive(
    path: Path | str, algorithm: BaseAlgorithm, settings: dict[str, Any], tensors: dict[str, Tensor]
) -> None:
    """Writes an SB3 algorithm and, beside it, a learner's own state; whole or not at all.

    Args:
        path: the archive; `.zip` is added where it has no suffix.
        algorithm: what plain SB3 will open.
        settings: of the learner, JSON.
        tensors: of the learner.
    """
    path = Path(path)
    path = path if path.suffix else path.with_suffix(".zip")
    buffer = io.BytesIO()
    algorithm.save(buffer)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr(SETTINGS, json.dumps(settings, indent=2))
        archive.writestr(
            TENSORS, to_bytes({name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()})
        )
    with atomic(path) as temporary:
        temporary.write_bytes(buffer.getvalue())


def read_archive(path: Path | str, name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Returns the settings and tensors that `write_archive` wrote; nothing is unpickled.

    Args:
        path: the archive; `.zip` may be left out.
        name: of the learner that is expected in it.

    Raises:
        UserError: when there is none, or it is another learner's, or plain SB3's.
    """
    path = Path(path)
    path = path if path.exists() else path.with_suffix(".zip")
    try:
        with zipfile.ZipFile(path) as archive:
            settings = json.loads(archive.read(SETTINGS))
            tensors = from_bytes(archive.read(TENSORS))
    except FileNotFoundError as error:
        raise UserError(f"expected a saved learner {path}, found none") from error
    except KeyError as error:
        raise UserError(
            f"expected a learner saved by {name}, {path} is another archive: what SB3 saved opens with its own load"
        ) from error
    except (zipfile.BadZipFile, json.JSONDecodeError, SafetensorError, OSError) as error:
        raise UserError(f"{path} is no saved learner, or was cut short: {error}") from error
    if settings["learner"] != name:
        raise UserError(f"expected a learner saved by {name}, {path} holds one of {settings['learner']}")
    return settings, tensors
