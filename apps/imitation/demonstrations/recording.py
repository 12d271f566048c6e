"""Demonstrations recorded by running a policy in its environment."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, Protocol

import gymnasium
import numpy as np
import torch
from jaxtyping import Float, Int
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    VecEnv,
    VecEnvWrapper,
    VecNormalize,
    VecTransposeImage,
    unwrap_vec_wrapper,
)
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn

from core_models.errors import UserError
from core_models.training.progress import Progress

from .consistency import single_precision
from .data import Demonstrations, Observations
from .identity import identity_of


class Policy(Protocol):
    """Anything that acts as stable-baselines3's models and policies do."""

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[Any, Any]:
        """Returns an action for each observation of a batch, and the state to hand in next time."""


class RandomPolicy:
    """Acts by drawing from the action space: the zero of the scale on which returns are compared.

    Args:
        action_space: drawn from; a copy, so that the environment's own draws stay what they are.
        seed: of the draws.
    """

    def __init__(self, action_space: gymnasium.Space[Any], seed: int) -> None:
        self.action_space = deepcopy(action_space)
        self.action_space.seed(seed)

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, Any]:
        """Returns a draw for each observation of a batch."""
        batch = next(iter(observation.values())) if isinstance(observation, dict) else observation
        return np.stack([self.action_space.sample() for _ in range(len(batch))]), state


def record(
    policy: Policy,
    env: gymnasium.Env[Any, Any] | VecEnv,
    trajectories: int,
    *,
    seed: int,
    deterministic: bool = False,
    environment: str | None = None,
    environment_kwargs: dict[str, Any] | None = None,
    card: dict[str, Any] | None = None,
    progress: bool = False,
) -> Demonstrations:
    """Runs a policy for whole episodes and returns what it saw and did.

    Of several environments side by side each runs its share, trajectory i in environment i modulo their number: taking
    whichever episodes end first would prefer short ones. With the same seed and as many environments the numbers are
    the same; the generators of torch, numpy and random are left as they were. Numbers with a fraction are kept in
    float32. Where the environment says `info["code"]`, it becomes the trajectory's code.

    Observations are the environment's own: what VecNormalize makes of them (its averages held still meanwhile), or the
    channels that VecTransposeImage moves, only the policy sees.

    Args:
        policy: anything with stable-baselines3's `predict`, recurrent or not.
        env: an environment, or several of stable-baselines3's VecEnv; it is neither closed nor left at an episode's
            start.
        trajectories: episodes in all.
        seed: of the environments and of the policy's draws.
        deterministic: whether the policy takes its likeliest action instead of drawing one.
        environment: the gymnasium id; that of the environment's spec where None.
        environment_kwargs: what it was made with; the spec's where None.
        card: where the demonstrations come from.
        progress: whether to show how many episodes are done.

    Raises:
        UserError: when no episode is asked for, the environment has no id or observes tuples, or its code changes
            within an episode.
    """
    envs = env if isinstance(env, VecEnv) else DummyVecEnv([lambda: env])
    _check(envs, trajectories)
    name, kwargs = _identity(envs, environment, environment_kwargs)
    episodes = _played(policy, envs, trajectories, seed, deterministic, progress=progress, keeps=True)
    return _joined(episodes, name, kwargs, card or {})


def play(
    policy: Policy, envs: VecEnv, episodes: int, *, seed: int, deterministic: bool = False
) -> tuple[Float[np.ndarray, " episodes"], Int[np.ndarray, " episodes"]]:
    """Returns what whole episodes return and how long they are, as `record` runs them; what is seen isn't kept.

    Args:
        policy: anything with stable-baselines3's `predict`.
        envs: environments side by side.
        episodes: how many in all.
        seed: of the environments and of the policy's draws.
        deterministic: whether the policy takes its likeliest action instead of drawing one.

    Raises:
        UserError: when no episode is asked for, the environment observes tuples, or an action or a reward isn't finite.
    """
    _check(envs, episodes)
    played = _played(policy, envs, episodes, seed, deterministic, progress=False, keeps=False)
    returns = np.array([sum(episode.rewards) for episode in played], np.float64)
    return returns, np.array([len(episode.rewards) for episode in played], np.int64)


def _check(envs: VecEnv, episodes: int) -> None:
    """Refuses what can't be run."""
    if episodes < 1:
        raise UserError(f"expected 1 trajectory or more to record, got {episodes}")
    if isinstance(envs.observation_space, gymnasium.spaces.Tuple):
        raise UserError(
            "expected observations of arrays, numbers or a dict of these, got a Tuple: wrap the environment in "
            "gymnasium.wrappers.FlattenObservation"
        )


def _played(
    policy: Policy, envs: VecEnv, trajectories: int, seed: int, deterministic: bool, *, progress: bool, keeps: bool
) -> list[_Episode]:
    """Runs a policy for whole episodes; `keeps` says whether observations and actions are kept."""
    episodes = [_Episode(keeps) for _ in range(trajectories)]
    with (
        _watched(envs) as (top, seen),
        _seeded(seed),
        Progress("recording", trajectories, enabled=progress, unit="episode") as bar,
    ):
        top.seed(seed)
        shown = top.reset()
        now = list(range(top.num_envs))  # the episode that runs in each; past the last one: none that is kept
        state, starts = None, np.ones(top.num_envs, bool)
        ended = 0
        while min(now) < trajectories:
            before = seen.observations
            actions, state = policy.predict(shown, state=state, episode_start=starts, deterministic=deterministic)
            actions = np.asarray(actions)
            if len(np.atleast_1d(actions)) != top.num_envs:
                raise UserError(
                    f"expected predict to return an action for each of {top.num_envs} observations, got an array of "
                    f"shape {actions.shape}"
                )
            shown, _, starts, _ = top.step(actions)
            for i in range(top.num_envs):
                if now[i] < trajectories:
                    episodes[now[i]].add(_row(before, i), actions[i], seen, i)
                if starts[i]:
                    ended += now[i] < trajectories
                    now[i] += top.num_envs
                    bar.update(ended)
    return episodes


class _Seen(VecEnvWrapper):
    """Remembers what the environments themselves said, beneath what prepares it for a policy."""

    observations: Any
    rewards: np.ndarray
    dones: np.ndarray
    infos: list[dict[str, Any]]

    def reset(self) -> Any:
        self.observations = self.venv.reset()
        return self.observations

    def step_wait(self) -> VecEnvStepReturn:
        self.observations, self.rewards, self.dones, infos = self.venv.step_wait()
        self.infos = [dict(info) for info in infos]  # wrappers above put their own final observation into theirs
        return self.observations, self.rewards, self.dones, infos


class _Episode:
    def __init__(self, keeps: bool) -> None:
        self.keeps = keeps
        self.observations: list[Any] = []
        self.actions: list[np.ndarray] = []
        self.rewards: list[float] = []
        self.codes: list[Any] = []
        self.final: Any = None
        self.terminated = False

    def add(self, observation: Any, action: np.ndarray, seen: _Seen, i: int) -> None:
        info = seen.infos[i]
        self.rewards.append(float(seen.rewards[i]))
        if not self.keeps:  # of what is kept `Demonstrations` says where it isn't finite
            for what, value in (("actions", action), ("rewards", seen.rewards[i])):
                if np.issubdtype(np.asarray(value).dtype, np.inexact) and not np.isfinite(value).all():
                    raise UserError(f"expected finite numbers in {what}, got {value} in step {len(self.rewards) - 1}")
            return
        self.observations.append(observation)
        self.actions.append(np.array(action))
        self.codes.append(info.get("code"))
        if seen.dones[i]:
            self.final = info["terminal_observation"]
            self.terminated = not info.get("TimeLimit.truncated", False)


@contextmanager
def _watched(envs: VecEnv) -> Iterator[tuple[VecEnv, _Seen]]:
    """Puts a `_Seen` beneath VecNormalize and VecTransposeImage for the length of a block."""
    lowest, level = None, envs
    while isinstance(level, VecEnvWrapper):
        if isinstance(level, VecNormalize | VecTransposeImage):
            lowest = level
        level = level.venv
    if lowest is None:
        seen = _Seen(envs)
        yield seen, seen
        return
    normalize = unwrap_vec_wrapper(envs, VecNormalize)
    training = normalize.training if normalize else False
    below = lowest.venv
    seen = _Seen(below)
    try:
        lowest.venv = seen
        if normalize:
            normalize.training = False
        yield envs, seen
    finally:
        lowest.venv = below
        if normalize:
            normalize.training = training


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seeds the generators that policies draw from, and puts them back afterwards."""
    numpy_state, own = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            torch.manual_seed(seed)
            np.random.seed(seed % 2**32)
            random.seed(seed)
            yield
        finally:
            np.random.set_state(numpy_state)
            random.setstate(own)


def _identity(
    envs: VecEnv, environment: str | None, environment_kwargs: dict[str, Any] | None
) -> tuple[str, dict[str, Any]]:
    spec = envs.get_attr("spec", 0)[0] if envs.has_attr("spec") else None
    if environment is None and spec is None:
        raise UserError(
            "expected an environment made by gymnasium.make, which knows its id, got one without: give environment"
        )
    known, kwargs = identity_of(spec) if spec is not None else ("", {})
    if environment_kwargs is None:
        environment_kwargs = kwargs if environment in (None, known) else {}
    return environment or known, environment_kwargs


def _row(observations: Any, i: int) -> Any:
    if isinstance(observations, dict):
        return {key: value[i] for key, value in observations.items()}
    return observations[i]


def _joined(
    episodes: list[_Episode], environment: str, environment_kwargs: dict[str, Any], card: dict[str, Any]
) -> Demonstrations:
    return Demonstrations(
        observations=_stacked([seen for episode in episodes for seen in episode.observations]),
        actions=single_precision(np.stack([action for episode in episodes for action in episode.actions])),
        rewards=np.array([reward for episode in episodes for reward in episode.rewards], np.float32),
        lengths=np.array([len(episode.actions) for episode in episodes]),
        returns=np.array([sum(episode.rewards) for episode in episodes]),
        terminated=np.array([episode.terminated for episode in episodes]),
        final_observations=_stacked([episode.final for episode in episodes]),
        environment=environment,
        environment_kwargs=environment_kwargs,
        codes=_codes(episodes),
        card=card,
    )


def _stacked(rows: list[Any]) -> Observations:
    if isinstance(rows[0], dict):
        return {key: single_precision(np.stack([row[key] for row in rows])) for key in rows[0]}
    return single_precision(np.stack(rows))


def _codes(episodes: list[_Episode]) -> np.ndarray | None:
    found = []
    for i, episode in enumerate(episodes):
        first = episode.codes[0]
        for code in episode.codes:
            if code is not None and (not isinstance(code, int | np.integer) or isinstance(code, bool)):
                raise UserError(f'expected a whole number in info["code"], got {code!r} in trajectory {i}')
            if code != first:
                raise UserError(
                    f'expected one info["code"] for a whole episode, got {first} and {code} in trajectory {i}'
                )
        found.append(first)
    known = sum(code is not None for code in found)
    if 0 < known < len(found):
        raise UserError(f'expected info["code"] in every episode or in none, got it in {known} of {len(found)}')
    return np.array(found) if known else None
