"""Environments and experts so small that a learner is done in seconds."""

from __future__ import annotations

from itertools import pairwise

import gymnasium
import numpy as np
from gymnasium import spaces

from apps.imitation.demonstrations import Demonstrations

STEPS = 20


class Signs(gymnasium.Env):
    """Two numbers are shown; right is to say which sign the first has. Ends early after `patience` mistakes."""

    def __init__(self, patience: int = 0) -> None:
        self.observation_space = spaces.Box(-5, 5, (2,), np.float32)
        self.action_space = spaces.Discrete(2)
        self.patience = patience

    def _see(self) -> np.ndarray:
        self.seen = (self.np_random.uniform(-1, 1, 2) * [2, 3] + [0, 1]).astype(np.float32)
        return self.seen

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.mistakes = 0, 0
        return self._see(), {}

    def step(self, action):
        right = int(action) == int(self.seen[0] > 0)
        self.t, self.mistakes = self.t + 1, self.mistakes + (not right)
        over = bool(self.patience) and self.mistakes >= self.patience
        return self._see(), float(right), over, self.t >= STEPS, {}


class Line(gymnasium.Env):
    """Two numbers are shown; right is a linear function of them."""

    WEIGHTS = np.array([0.6, -0.3], dtype=np.float32)

    def __init__(self) -> None:
        self.observation_space = spaces.Box(-5, 5, (2,), np.float32)
        self.action_space = spaces.Box(-1, 1, (1,), np.float32)

    def _see(self) -> np.ndarray:
        self.seen = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return self.seen

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self._see(), {}

    def _right(self) -> float:
        return float(self.WEIGHTS @ self.seen)

    def step(self, action):
        error = abs(float(action[0]) - self._right())
        self.t += 1
        return self._see(), -error, False, self.t >= STEPS, {}


class Table(Line):
    """A table of two rows is shown, one far from 0 and one near; right is to say the sum of the near one."""

    CENTRES, SPREADS = np.array([[40.0], [0.0]]), np.array([[8.0], [0.3]])

    def __init__(self) -> None:
        self.observation_space = spaces.Box(-100, 100, (2, 3), np.float32)
        self.action_space = spaces.Box(-3, 3, (1,), np.float32)

    def _see(self) -> np.ndarray:
        self.seen = (self.CENTRES + self.SPREADS * self.np_random.uniform(-1, 1, (2, 3))).astype(np.float32)
        return self.seen

    def _right(self) -> float:
        return float(self.seen[1].sum())


class Sides(gymnasium.Env):
    """A point on a line moves by the action; experts go to one side or to the other."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(-5, 5, (1,), np.float32)
        self.action_space = spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.place = 0, 0.0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.t += 1
        self.place += 0.1 * float(np.clip(action[0], -1, 1))
        return np.array([self.place], np.float32), 0.0, False, self.t >= STEPS, {}


class Colours(gymnasium.Env):
    """A small picture is shown, red or blue with noise; right is to say which. Channels come last."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(0, 255, (36, 36, 3), np.uint8)
        self.action_space = spaces.Discrete(2)

    def _see(self) -> np.ndarray:
        self.red = bool(self.np_random.integers(2))
        picture = self.np_random.integers(0, 60, (36, 36, 3))
        picture[:, :, 0 if self.red else 2] += 150
        return picture.astype(np.uint8)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self._see(), {}

    def step(self, action):
        right = int(action) == int(self.red)
        self.t += 1
        return self._see(), float(right), False, self.t >= STEPS, {}


def expert_of(env: gymnasium.Env, seed: int = 0):
    """Returns a function from an observation to the right action, by the kind of environment."""
    rng = np.random.default_rng(seed)

    def act(observation, side):
        if isinstance(env, Signs):
            return np.int64(observation[0] > 0)
        if isinstance(env, Line):
            return (Line.WEIGHTS @ observation + rng.normal(0, 0.05, 1)).astype(np.float32)
        if isinstance(env, Colours):
            return np.int64(observation[:, :, 0].mean() > observation[:, :, 2].mean())
        return np.array([side * 0.7 + rng.normal(0, 0.1)], np.float32)

    return act


def demonstrate(env: gymnasium.Env, trajectories: int = 10, *, seed: int = 0, at_random: bool = False):
    """Returns demonstrations of the right actions, or of random ones."""
    act = expert_of(env, seed)
    env.action_space.seed(seed)
    observations, actions, rewards, finals, lengths, codes, ended = [], [], [], [], [], [], []
    for i in range(trajectories):
        observation, _ = env.reset(seed=seed * 1000 + i)
        over, n = False, 0
        while not over:
            action = env.action_space.sample() if at_random else act(observation, 1 if i % 2 else -1)
            observations.append(observation)
            actions.append(action)
            observation, reward, terminated, truncated, _ = env.step(action)
            rewards.append(reward)
            over, n = terminated or truncated, n + 1
        finals.append(observation)
        ended.append(terminated)
        lengths.append(n)
        codes.append(i % 2)
    edges = np.cumsum([0, *lengths])
    return Demonstrations(
        observations=np.stack(observations),
        actions=np.stack(actions),
        rewards=np.array(rewards, np.float32),
        lengths=np.array(lengths),
        returns=np.array([np.sum(rewards[a:b]) for a, b in pairwise(edges)], np.float32),
        terminated=np.array(ended, bool),
        final_observations=np.stack(finals),
        environment=f"Tiny{type(env).__name__}-v0",
        codes=np.array(codes) if isinstance(env, Sides) else None,
    )


def score(learner, env: gymnasium.Env, episodes: int = 5) -> float:
    """Returns the mean reward of a step, of deterministic actions."""
    total, n = 0.0, 0
    for i in range(episodes):
        observation, _ = env.reset(seed=9000 + i)
        over = False
        while not over:
            action, _ = learner.predict(observation, deterministic=True)
            observation, reward, terminated, truncated, _ = env.step(action)
            total, n, over = total + reward, n + 1, terminated or truncated
    return total / n


for kind in (Signs, Line, Table, Sides, Colours):
    gymnasium.register(f"Tiny{kind.__name__}-v0", entry_point=kind)
