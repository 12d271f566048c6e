"""A learner whose policy is that of an SB3 algorithm, `generator`: it predicts, is saved and is loaded."""

from __future__ import annotations

import inspect
import json
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Self

import gymnasium
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from core_models.errors import UserError

from ..demonstrations import Demonstrations
from ..policies import plain_algorithm
from ..spaces_as_json import Spaces, space_from_json, space_to_json
from .archive import read_archive, write_archive
from .base import Learner


class OverSB3(Learner):
    """What behavioural cloning and the on-policy learners share."""

    generator: Any
    """SB3's TRPO or PPO."""

    UNNAMED: ClassVar[dict[str, Any]] = {}
    """Settings that are told only where they are others: archives and cells that are older than they are had these."""

    def __init__(self, env: Any, demonstrations: Demonstrations | None, **settings: Any) -> None:
        raise NotImplementedError

    @abstractmethod
    def _weights(self) -> dict[str, Tensor]:
        """Returns copies of all weights."""

    def _saved(self) -> dict[str, Tensor]:
        """Returns what an archive holds: the weights, and what else a reopened learner needs without demonstrations."""
        return self._weights()

    @abstractmethod
    def _set_weights(self, tensors: dict[str, Tensor]) -> None:
        """Takes over what `_weights` returned."""

    @property
    def policy(self) -> Any:
        """SB3's policy."""
        return self.generator.policy

    @property
    def observation_space(self) -> spaces.Space:
        """What the policy takes; images with channels first."""
        return self.generator.observation_space

    @property
    def action_space(self) -> spaces.Space:
        """What the policy gives."""
        return self.generator.action_space

    _left_out: tuple[str, ...] | list[str] = ()
    """Settings of the archive it came from that were functions, and were not given since."""

    @property
    def num_timesteps(self) -> int:  # type: ignore[override]
        """Steps taken in the environment [env steps]."""
        return self.generator.num_timesteps

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """Returns the actions for observations as the environment gives them, as SB3's `predict`."""
        return self.generator.predict(observation, state, episode_start, deterministic)

    def save(self, path: Path | str) -> None:
        """Writes a zip archive, which plain `TRPO.load` (or `PPO.load`) opens as the same policy.

        Settings that are functions, a schedule of the learning rate, say, can't be written, and are left out.
        """
        own = {name: space_to_json(getattr(self, name)) for name in ("observation_space", "action_space")}
        settings: dict[str, Any] = {"learner": self.name, "settings": constructor_settings(self), **own}
        settings["num_timesteps"] = self.num_timesteps
        left_out = [path for name in settings["settings"] for path in _functions_in(getattr(self, name), name)]
        left_out = list(dict.fromkeys([*left_out, *self._left_out]))
        settings |= {"left_out": left_out} if left_out else {}
        write_archive(path, plain_algorithm(self.generator), settings, self._saved())

    @classmethod
    def load(
        cls,
        path: Path | str,
        env: gymnasium.Env | VecEnv | None = None,
        demonstrations: Demonstrations | None = None,
        **changed: Any,
    ) -> Self:
        """Returns a saved learner; with an environment and demonstrations it goes on learning.

        Args:
            path: what `save` wrote.
            env: as the constructor's; without it the learner only predicts.
            demonstrations: as the constructor's.
            **changed: settings in the place of those that were saved.

        Raises:
            UserError: when it isn't such a file, the environment has other spaces, or a setting to learn by was a
                function, which no archive holds, and is not given again.
        """
        settings, tensors = read_archive(path, cls.name)
        own = Spaces(space_from_json(settings["observation_space"]), space_from_json(settings["action_space"]))
        given: Any = own if env is None else env
        lacking = [path for path in settings.get("left_out", []) if path.split(".")[0] not in changed]
        if lacking and env is not None:
            raise UserError(
                f"{path} was trained with a function as {', '.join(lacking)}, which no archive holds: to go on "
                f"learning, give {lacking[0].split('.')[0]} again, whole; to predict, leave out the environment"
            )
        learner = cls(given, demonstrations, **{**cls.UNNAMED, **settings["settings"], **changed})
        if (learner.observation_space, learner.action_space) != own:
            raise UserError(
                f"{path} was trained on {own.observation_space} with actions {own.action_space}, the environment has "
                f"{learner.observation_space} with actions {learner.action_space}"
            )
        learner._left_out = lacking
        learner._set_weights(tensors)
        learner.generator.num_timesteps = settings["num_timesteps"]
        return learner


def constructor_settings(learner: Learner) -> dict[str, Any]:
    """Returns the arguments of a learner's constructor, read from the attributes of the same names.

    Left out are functions, which are no plain values and others in each process, and settings that `UNNAMED` knows.
    """
    names: dict[str, None] = {}
    for kind in type(learner).__mro__:
        if issubclass(kind, Learner) and "__init__" in vars(kind):
            names |= dict.fromkeys(inspect.signature(kind).parameters)
    left_out = {"self", "env", "demonstrations", "tensorboard_log", "verbose"}
    settings = {n: getattr(learner, n) for n in names if n not in left_out and hasattr(learner, n)}
    unnamed = learner.UNNAMED if isinstance(learner, OverSB3) else {}
    settings = {n: _without_functions(v) for n, v in settings.items() if n not in unnamed or unnamed[n] != v}
    return json.loads(json.dumps(settings, default=str))


def _is_function(value: Any) -> bool:
    """Classes are told by their names: whoever opens the archive is asked for them."""
    return callable(value) and not isinstance(value, type)


def _without_functions(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: _without_functions(part) for key, part in value.items() if not _is_function(part)}


def _functions_in(value: Any, path: str) -> list[str]:
    """Returns where there are functions in a setting, and in those that it is made of."""
    if isinstance(value, dict):
        return [found for key, part in value.items() for found in _functions_in(part, f"{path}.{key}")]
    return [path] if _is_function(value) else []
