"""What makes the collection of rollouts fast changes none of its numbers."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib import TRPO
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


NAMES = ("n_steps", "actions", "clipped_actions", "rewards", "dones")


class Looking(BaseCallback):
    def __init__(self):
        super().__init__()
        self.seen, self.told, self.ends = [], [], []

    def _on_step(self):
        self.seen.append(self.locals["new_obs"].copy())
        self.told.append({name: np.array(self.locals[name]) for name in NAMES})
        self.ends += [info for info in self.locals["infos"] if "episode" in info]
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


@pytest.mark.parametrize("kind", [Signs, Line])
def test_a_callback_sees_the_names_and_shapes_that_stable_baselines3_shows(kind):
    looks = []
    for learns in (
        lambda env, look: GAIL(env, demonstrate(kind()), steps=80, hidden=(8,)).learn(80, look),
        lambda env, look: TRPO("MlpPolicy", env, n_steps=40, batch_size=40, seed=0, device="cpu").learn(80, look),
    ):
        looks.append(Looking())
        learns(make_vec_env(kind, n_envs=2, seed=0), looks[-1])
    for told, theirs in zip(looks[0].told, looks[1].told, strict=True):
        assert {name: value.shape for name, value in told.items()} == {n: v.shape for n, v in theirs.items()}
        assert told["n_steps"] == theirs["n_steps"]
    told = {name: np.stack([step[name] for step in looks[0].told]) for name in NAMES}
    assert len(looks[0].ends) == len(looks[1].ends) == told["dones"].sum() == 4
    # what Monitor says of the first episode is the sum of what was seen of it
    assert looks[0].ends[0]["episode"]["r"] == pytest.approx(told["rewards"][:20, 0].sum(), abs=1e-4)
    if kind is Line:
        np.testing.assert_array_equal(told["clipped_actions"], np.clip(told["actions"], -1, 1))
        assert np.abs(told["actions"]).max() > 1
