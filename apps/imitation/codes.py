"""The code that InfoGAIL's policy is given beside the observation: one-hot, the same from the first step to the last.

A vector is followed by the code's ones and zeros; an image becomes a Dict of `image` and `code`; a Dict gains the part
`code`. `Coded` does so for one environment, to show a saved policy what it needs; `CodedVecEnv` for a vector of them.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper

from core_models.errors import UserError


def coded_space(space: spaces.Space, codes: int) -> spaces.Space:
    """Returns the space of observations with a code of so many values.

    Raises:
        UserError: for fewer than two values, or a kind of space that takes no code.
    """
    if not isinstance(codes, int) or codes < 2:
        raise UserError(f"codes: expected a discrete code of 2 values or more, got {codes!r}")
    code = spaces.Box(0, 1, (codes,), np.float32)
    if isinstance(space, spaces.Dict):
        if "code" in space.spaces:
            raise UserError("expected observations without a part named code, got one: the policy's code has that name")
        return spaces.Dict({**space.spaces, "code": code})
    if isinstance(space, spaces.Box) and len(space.shape) == 1:
        low, high = np.concatenate([space.low, code.low]), np.concatenate([space.high, code.high])
        return spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)
    if isinstance(space, spaces.Box) and len(space.shape) == 3:
        return spaces.Dict({"image": space, "code": code})
    raise UserError(f"expected observations that are a vector, an image or a Dict of these, got {space}")


def shows_code(space: spaces.Space, coded: spaces.Space) -> bool:
    """Says whether observations have a code already, as those of a policy's space have."""
    if isinstance(coded, spaces.Dict):
        return isinstance(space, spaces.Dict) and "code" in space.spaces
    return space.shape == coded.shape


def as_dict(observations: Any) -> dict[str, Any]:
    """Returns images as the part `image` that they are beside a code; a dict as it is."""
    return observations if isinstance(observations, dict) else {"image": observations}


def with_code(observation: Any, code: np.ndarray) -> Any:
    """Returns an observation, or a batch of them, with one-hot codes (..., codes).

    Args:
        observation: as the environment gives it.
        code: the same number of leading dimensions as the observation.
    """
    code = code.astype(np.float32)
    if isinstance(observation, dict):
        return {**observation, "code": code}
    if observation.ndim - code.ndim == 0:
        return np.concatenate([observation.astype(np.float32), code], -1)
    return {"image": observation, "code": code}


def one_hot(code: int | np.ndarray, codes: int) -> np.ndarray:
    """Returns ones and zeros (..., codes)."""
    return np.eye(codes, dtype=np.float32)[code]


class Coded(gymnasium.Wrapper):
    """Shows a policy of InfoGAIL the code beside the observation.

    Args:
        env: an environment.
        codes: how many values the code takes.
        code: the one that is shown; drawn at each reset when None.

    Raises:
        UserError: when there is no such value.
    """

    def __init__(self, env: gymnasium.Env, codes: int, code: int | None = None) -> None:
        super().__init__(env)
        self.observation_space = coded_space(env.observation_space, codes)
        if code is not None and not 0 <= code < codes:
            raise UserError(f"expected a code from 0 to {codes - 1}, got {code}")
        self.codes, self.fixed = codes, code
        self.code = code or 0

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        """Begins an episode, with a code of its own."""
        observation, info = self.env.reset(**options)
        self.code = int(self.np_random.integers(self.codes)) if self.fixed is None else self.fixed
        return with_code(observation, one_hot(self.code, self.codes)), {**info, "policy_code": self.code}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Takes a step."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        shown = with_code(observation, one_hot(self.code, self.codes))
        return shown, reward, terminated, truncated, {**info, "policy_code": self.code}


class CodedVecEnv(VecEnvWrapper):
    """The same for a vector of environments; codes go round, so that an iteration has as many of each.

    Args:
        venv: the environments.
        codes: how many values the code takes.
        code: the one that is shown; those of all in turn when None.
        seed: of codes that are drawn for each episode in place of going round; None for these.

    Raises:
        UserError: when there is no such value.
    """

    def __init__(self, venv: VecEnv, codes: int, code: int | None = None, seed: int | None = None) -> None:
        super().__init__(venv, observation_space=coded_space(venv.observation_space, codes))
        if code is not None and not 0 <= code < codes:
            raise UserError(f"expected a code from 0 to {codes - 1}, got {code}")
        self.codes, self.fixed, self.seed_of_codes = codes, code, seed
        self._begin()

    def _begin(self) -> None:
        self._rng = np.random.default_rng(self.seed_of_codes)
        self._next = 0
        self.current = np.array([self._code() for _ in range(self.num_envs)])

    def _code(self) -> int:
        """Returns the code of the episode that begins next."""
        self._next += 1
        if self.fixed is not None:
            return self.fixed
        drawn = self.seed_of_codes is not None
        return int(self._rng.integers(self.codes)) if drawn else (self._next - 1) % self.codes

    def reset(self) -> Any:
        """Begins new episodes, with the codes from the first on."""
        self._begin()
        return with_code(self.venv.reset(), one_hot(self.current, self.codes))

    def step_wait(self) -> Any:
        """Takes a step; an episode that ends is followed by one of the next code."""
        observations, rewards, dones, infos = self.venv.step_wait()
        for i in np.flatnonzero(dones):
            code = one_hot(int(self.current[i]), self.codes)
            infos[i]["terminal_observation"] = with_code(infos[i]["terminal_observation"], code)
            self.current[i] = self._code()
        return with_code(observations, one_hot(self.current, self.codes)), rewards, dones, infos
