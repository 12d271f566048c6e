"""What the scripted experts do, as demonstrations, their modes in turn and as labels alone."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import gymnasium
import numpy as np

from apps.imitation.demonstrations import Demonstrations, record
from core_models.errors import UserError

from .car_racing import TrackDriver, UnsteadyHand
from .circles import HISTORY, HORIZON, RADII, STEP, circle_expert, radial_distances
from .driving import Driving
from .experts import MODES, ScriptedDriver
from .making import make_env

ENVIRONMENTS = ("CarRacing-v3", "Circles-v0", "Driving-v0")
"""Those that have scripted experts."""


def expert_demonstrations(
    env_id: str, task: str | None = None, trajectories: int = 80, *, seed: int = 0
) -> Demonstrations:
    """Returns trajectories of the scripted experts of an environment of ours or of gymnasium's CarRacing.

    Trajectory i follows mode i modulo the number of modes, so that the first trajectories are balanced too; they are
    the same however many there are. CarRacing has one mode, and its trajectories no code.

    Args:
        env_id: `Circles-v0`, `Driving-v0` or `CarRacing-v3`.
        task: of `Driving-v0`: `turn` or `pass`.
        trajectories: how many.
        seed: of everything.

    Raises:
        UserError: when the environment has no scripted expert or not this task, or no trajectory is asked for.
    """
    if env_id not in ENVIRONMENTS:
        *first, last = ENVIRONMENTS
        known = f"{', '.join(first)} or {last}"
        raise UserError(f"expected an environment with scripted experts, {known}, got {env_id!r}")
    tasks = tuple(MODES) if env_id == "Driving-v0" else (None,)
    if task not in tasks:
        raise UserError(f"expected the task of {env_id} to be {' or '.join(map(str, tasks))}, got {task!r}")
    if trajectories < 1:
        raise UserError(f"expected 1 trajectory or more, got {trajectories}")
    card = {"who": "scripted experts", "seed": seed}
    if env_id == "CarRacing-v3":
        with closing(make_env(env_id)) as env:
            steered = UnsteadyHand(env, seed)
            return record(TrackDriver(env), steered, trajectories, seed=seed, card=card, progress=True)
    if task is None:
        return _circles(trajectories, seed, card)
    return _drives(task, trajectories, seed, card)


def _circles(trajectories: int, seed: int, card: dict[str, Any]) -> Demonstrations:
    """All of them side by side: what the environment does is written out here, and a test holds it against it."""
    codes = np.arange(trajectories) % len(RADII)
    # a generator each, so that a trajectory doesn't depend on how many there are
    noise = [np.random.default_rng((seed, i)) for i in range(trajectories)]
    states = np.zeros((HORIZON + 1, trajectories, 2 * HISTORY), np.float32)
    actions = np.zeros((HORIZON, trajectories, 2), np.float32)
    for step in range(HORIZON):
        drawn = np.array([own.standard_normal() for own in noise])
        actions[step] = circle_expert(states[step], codes, noise=drawn)
        length = np.linalg.norm(actions[step].astype(np.float64), axis=-1, keepdims=True)
        states[step + 1, :, :-2] = states[step, :, 2:]
        states[step + 1, :, -2:] = states[step, :, -2:] + STEP * actions[step] / length
    rewards = -radial_distances(states[1:, :, -2:]).min(axis=-1).T
    return Demonstrations(
        observations=states[:-1].swapaxes(0, 1).reshape(-1, 2 * HISTORY),
        actions=actions.swapaxes(0, 1).reshape(-1, 2),
        rewards=rewards.reshape(-1),
        lengths=np.full(trajectories, HORIZON),
        returns=rewards.sum(axis=1),
        terminated=np.zeros(trajectories, bool),
        final_observations=states[-1],
        environment="Circles-v0",
        codes=codes,
        card=card,
    )


def _drives(task: Any, trajectories: int, seed: int, card: dict[str, Any]) -> Demonstrations:
    env = gymnasium.make("Driving-v0", task=task, disable_env_checker=True)
    own = env.unwrapped
    assert isinstance(own, Driving)
    seeds = np.random.default_rng(seed).integers(2**31, size=(trajectories, 2))
    codes = np.arange(trajectories) % len(MODES[own.task])
    images, states, actions, last, lengths, ended = [], [], [], [], [], []
    rewards: list[float] = []
    for code, (world, style) in zip(codes, seeds.tolist(), strict=True):
        observation, _ = env.reset(seed=world, options={"code": int(code)})
        driver = ScriptedDriver(own.task, int(code), np.random.default_rng(style))
        done, begun = False, len(rewards)
        while not done:
            action = driver.act(own.road, own.car)
            images.append(observation["image"])
            states.append(observation["state"])
            actions.append(action)
            observation, reward, terminated, truncated, _ = env.step(action)
            rewards.append(float(reward))
            done = terminated or truncated
        lengths.append(len(rewards) - begun)
        last.append(observation)
        ended.append(terminated)
    env.close()
    starts = np.cumsum(lengths) - np.array(lengths)
    return Demonstrations(
        observations={"image": np.stack(images), "state": np.stack(states)},
        actions=np.stack(actions),
        rewards=np.array(rewards),
        lengths=np.array(lengths),
        returns=np.add.reduceat(np.array(rewards), starts),
        terminated=np.array(ended),
        final_observations={key: np.stack([seen[key] for seen in last]) for key in ("image", "state")},
        environment="Driving-v0",
        environment_kwargs={"task": task},
        codes=codes,
        card=card,
    )
