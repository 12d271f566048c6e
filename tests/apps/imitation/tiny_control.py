"""Environments that take microseconds, an expert for them, and its demonstrations."""

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit

from apps.imitation.demonstrations import Demonstrations

GAIN = np.array([[-0.8, 0.3], [0.1, -0.6]], dtype=np.float32)
"""The linear expert: what it does is this matrix times what it sees."""


class Point(gym.Env):
    """A point in the plane (or on a line), moved by the action; reward is minus its squared distance to the origin.

    Args:
        size: values of an observation, and of an action.
        edge: ends the episode where a coordinate goes beyond it.
        noise: what the environment adds to a move.
    """

    def __init__(self, size: int = 1, edge: float = np.inf, noise: float = 0.0) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (size,), np.float64)
        self.action_space = spaces.Box(-2.0, 2.0, (size,), np.float32)
        self.edge, self.noise = edge, noise

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = self.np_random.uniform(-1, 1, self.observation_space.shape)
        return self.place.copy(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.place = self.place + 0.5 * action + self.noise * self.np_random.normal(size=self.place.shape)
        return self.place.copy(), -float((self.place**2).sum()), bool((abs(self.place) > self.edge).any()), False, {}


def point(limit: int = 20, **settings) -> gym.Env:
    """Returns the environment with a time limit."""
    return TimeLimit(Point(**settings), limit)


def demonstrate(env: gym.Env, trajectories: int, act, seed: int = 0) -> Demonstrations:
    """Rolls an expert out: `act` is a function of what is seen."""
    seen, done, rewards, lengths, ended, final = [], [], [], [], [], []
    for number in range(trajectories):
        place, _ = env.reset(seed=seed + number)
        lengths.append(0)
        terminated = truncated = False
        while not (terminated or truncated):
            action = act(place)
            seen.append(place)
            done.append(action)
            place, reward, terminated, truncated, _ = env.step(action)
            rewards.append(reward)
            lengths[-1] += 1
        ended.append(terminated)
        final.append(place)
    starts = np.cumsum([0, *lengths[:-1]])
    return Demonstrations(
        observations=np.array(seen), actions=np.array(done), rewards=np.array(rewards), lengths=np.array(lengths),
        returns=np.add.reduceat(rewards, starts), terminated=np.array(ended), final_observations=np.array(final),
        environment="Point",
    )  # fmt: skip


def linear_expert(place: np.ndarray) -> np.ndarray:
    """What the expert does."""
    return (GAIN @ place).astype(np.float32)


def mean_return(learner, env: gym.Env, episodes: int = 20) -> float:
    """Returns the mean return of the deterministic policy."""
    total = 0.0
    for number in range(episodes):
        place, _ = env.reset(seed=1000 + number)
        over = False
        while not over:
            place, reward, terminated, truncated, _ = env.step(learner.predict(place, deterministic=True)[0])
            total += reward
            over = terminated or truncated
    return total / episodes
