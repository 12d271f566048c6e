"""The vector of environments with less copying takes the same steps as stable-baselines3's."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from apps.imitation.environments.side_by_side import SideBySide


class Pictures(gymnasium.Env):
    """Writes into one and the same array, as renderers do; the info holds what it holds."""

    observation_space = spaces.Box(0, 255, (2, 2), np.uint8)
    action_space = spaces.Discrete(2)

    def __init__(self):
        self.picture = np.zeros((2, 2), np.uint8)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.picture[:] = 0
        return self.picture, {"begun": True}

    def step(self, action):
        self.picture += 1
        over = bool(self.picture[0, 0] == 4)
        return self.picture, 1.0, over, False, {"count": int(self.picture[0, 0])}


@pytest.mark.parametrize("make", [Pictures, lambda: gymnasium.make("CartPole-v1", max_episode_steps=9)])
def test_steps_are_those_of_the_plain_vector(make):
    ours, theirs = (kind([lambda: Monitor(make())] * 3) for kind in (SideBySide, DummyVecEnv))
    for envs in (ours, theirs):
        envs.seed(5)
    np.testing.assert_array_equal(ours.reset(), theirs.reset())
    rng = np.random.default_rng(0)
    kept, episodes = [], 0
    for _ in range(40):
        actions = rng.integers(2, size=3)
        (a, reward_a, done_a, info_a), (b, reward_b, done_b, info_b) = ours.step(actions), theirs.step(actions)
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(reward_a, reward_b)
        np.testing.assert_array_equal(done_a, done_b)
        for x, y in zip(info_a, info_b, strict=True):
            assert set(x) == set(y)
            if make is Pictures and "count" in x and x["count"] == 4:
                assert (x["terminal_observation"] == 4).all()  # theirs is 0: the reset wrote into it
            else:
                np.testing.assert_array_equal(x.get("terminal_observation", 0), y.get("terminal_observation", 0))
            rest = {"terminal_observation", "episode"}
            assert {k: v for k, v in x.items() if k not in rest} == {k: v for k, v in y.items() if k not in rest}
            if "episode" in x:
                episodes += 1
                assert (x["episode"]["r"], x["episode"]["l"]) == (y["episode"]["r"], y["episode"]["l"])
        assert ours.reset_infos == theirs.reset_infos
        kept.append((a, a.copy(), reward_a, reward_a.copy(), done_a, done_a.copy(), info_a, [dict(i) for i in info_a]))
    assert episodes > 6
    for a, a_then, reward, reward_then, done, done_then, info, info_then in kept:  # what was handed out stays as it was
        np.testing.assert_array_equal(a, a_then)
        np.testing.assert_array_equal(reward, reward_then)
        np.testing.assert_array_equal(done, done_then)
        assert [i.keys() for i in info] == [i.keys() for i in info_then]
