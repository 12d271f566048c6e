"""What makes the collection of rollouts fast changes none of its numbers."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from tiny_environments import Line, Signs, demonstrate

from apps.imitation.learners.on_policy.gail import GAIL
from apps.imitation.learners.on_policy.rollouts import compute_advantages


@pytest.mark.parametrize("envs", [1, 3])
def test_advantages_are_stable_baselines3s_to_the_last_bit(envs):
    rng = np.random.default_rng(envs)
    space = spaces.Box(-1, 1, (2,))
    buffer = RolloutBuffer(200, space, space, "cpu", gae_lambda=0.97, gamma=0.995, n_envs=envs)
    buffer.rewards[:], buffer.values[:] = rng.normal(size=(2, 200, envs))
    buffer.episode_starts[:] = rng.random((200, envs)) < 0.1
    last, dones = rng.normal(size=envs).astype(np.float32), np.arange(envs) % 2 == 1
    buffer.compute_returns_and_advantage(torch.as_tensor(last), dones)
    advantages, returns = buffer.advantages.copy(), buffer.returns
    buffer.reset()
    buffer.rewards[:], buffer.values[:] = 0, 0
    rng = np.random.default_rng(envs)
    buffer.rewards[:], buffer.values[:] = rng.normal(size=(2, 200, envs))
    buffer.episode_starts[:] = rng.random((200, envs)) < 0.1
    compute_advantages(buffer, last, dones)
    assert np.array_equal(buffer.advantages, advantages) and np.array_equal(buffer.returns, returns)
    assert buffer.advantages.dtype == buffer.returns.dtype == np.float32


class Looking(BaseCallback):
    def __init__(self):
        super().__init__()
        self.seen = []

    def _on_step(self):
        self.seen.append(self.locals["new_obs"].copy())
        return True


@pytest.mark.parametrize("kind", [Signs, Line])
def test_a_callback_sees_each_step_and_changes_nothing(kind):
    callback, learners = Looking(), []
    for given in (None, callback):
        env = make_vec_env(kind, n_envs=2, seed=0)
        learners.append(GAIL(env, demonstrate(kind()), steps=40, hidden=(8,)).learn(80, given))
    assert len(callback.seen) == 40 and len({seen.tobytes() for seen in callback.seen}) == 40
    first, second = (learner.policy.state_dict() for learner in learners)
    assert all(torch.equal(first[name], second[name]) for name in first)
