"""What environments off-policy learners take, and actions between [-1, 1] and the environment's own bounds."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize, unwrap_vec_wrapper

from core_models.errors import UserError

from ..demonstrations.identity import identity_of
from ..spaces_as_json import Spaces


def as_vec_env(env: gym.Env | VecEnv) -> VecEnv:
    """Returns environments as a VecEnv.

    Raises:
        UserError: when it is neither, or normalises observations or rewards as it goes.
    """
    require_env(env)
    if isinstance(env, VecEnv):
        return env
    own: Callable[[], gym.Env] = lambda: env  # noqa: E731
    return DummyVecEnv([own])


def require_env(env: object) -> None:
    """Raises UserError when it's no environment, or normalises observations or rewards as it goes."""
    if not isinstance(env, gym.Env | VecEnv):
        raise UserError(f"expected a gymnasium environment or a VecEnv, got {type(env).__name__}: use gymnasium.make")
    if isinstance(env, VecEnv):
        refuse_normalised(env)


@contextmanager
def refusals(who: str) -> Iterator[None]:
    """Turns what stable-baselines3 refuses while it builds an algorithm, or a policy of its spaces, into one line.

    Raises:
        UserError: with its words.
    """
    try:
        yield
    except UserError:
        raise
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        words = " ".join(str(error).split())
        raise UserError(f"{who} refuses these settings: {words}") from error


def refuse_normalised(env: gym.Env | VecEnv) -> None:
    """Refuses environments that normalise as they go: demonstrations hold what environments observe themselves.

    Raises:
        UserError: for those.
    """
    if isinstance(env, VecEnv) and unwrap_vec_wrapper(env, VecNormalize) is not None:
        raise UserError(
            "expected an environment without VecNormalize: the learner has a normalisation of its own inside, which a "
            "saved policy keeps; give env.venv"
        )


def require_same(own: Spaces, env: VecEnv, who: str) -> None:
    """Refuses environments of other spaces than a learner's.

    Raises:
        UserError: naming what differs.
    """
    there = (env.observation_space, env.action_space)
    for mine, theirs, what in zip(own, there, ("observations", "actions"), strict=True):
        if mine != theirs:
            raise UserError(f"the {who} has {what} of {mine}, the environment {theirs}: give the one it had")


def check_spaces(observation: spaces.Space, action: spaces.Space, learner: str) -> tuple[spaces.Box, spaces.Box]:
    """Returns the spaces when a learner takes them.

    Raises:
        UserError: when actions are not continuous and bounded, or observations no vector.
    """
    other = "use GAIL"
    if not isinstance(action, spaces.Box):
        raise UserError(f"{learner} expects continuous actions (Box), got {action}: {other}, which takes Discrete too")
    if len(action.shape) != 1 or not np.isfinite(action.low).all() or not np.isfinite(action.high).all():
        raise UserError(f"{learner} expects a vector of actions with finite bounds, got {action}: {other}")
    if not isinstance(observation, spaces.Box) or len(observation.shape) != 1:
        raise UserError(f"{learner} expects a vector of observations, got {observation}: {other}")
    return observation, action


def to_unit(actions: np.ndarray, space: spaces.Box) -> np.ndarray:
    """Returns actions as values in [-1, 1]; what lies outside of the bounds is clipped, as environments do."""
    unit = 2 * (actions - space.low) / (space.high - space.low) - 1
    return np.clip(unit, -1, 1).astype(np.float32)


def from_unit(unit: np.ndarray, space: spaces.Box) -> np.ndarray:
    """Returns values in [-1, 1] as actions."""
    return (space.low + 0.5 * (unit + 1) * (space.high - space.low)).astype(space.dtype)


def _as_text(arguments: dict[str, Any]) -> str:
    """Returns arguments in any order as one text; of objects, which may be others in each process, their class."""
    return json.dumps(arguments, sort_keys=True, default=lambda value: type(value).__qualname__)


def describe_env(env: VecEnv) -> dict[str, Any]:
    """Returns what identifies an environment among others: its id, where it has one, its arguments and its spaces."""
    try:
        spec = env.get_attr("spec")[0]
    except AttributeError:
        spec = None
    return {
        "environment": None if spec is None else spec.id,
        "arguments": None if spec is None else _as_text(identity_of(spec)[1]),
        "environments": env.num_envs,
        "observations": str(env.observation_space),
        "actions": str(env.action_space),
    }
