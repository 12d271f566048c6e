"""Demonstrations recorded from a policy: every step, in order, by the seed, as the environment showed them."""

import random
import weakref

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecNormalize, VecTransposeImage

from apps.imitation.demonstrations import RandomPolicy, check_spaces, record
from apps.imitation.demonstrations.recording import play
from core_models.errors import UserError


class Counting(gymnasium.Env):
    """Observes (steps so far, number of the episode) and ends after 2, 3, 2, 3 ... steps; odd episodes are cut off."""

    def __init__(self, name: float = 0.0, codes: bool = False, picture: bool = False) -> None:
        self.observation_space: spaces.Space = spaces.Box(-1e6, 1e6, (3,), np.float64)
        if picture:
            image = spaces.Box(0, 255, (40, 36, 3), np.uint8)
            self.observation_space = spaces.Dict({"image": image, "state": self.observation_space})
        self.action_space = spaces.Box(-1, 1, (1,))
        self.name, self.codes, self.picture = name, codes, picture
        self.episode, self.step_number = -1, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.step_number = self.episode + 1, 0
        self.noise = self.np_random.integers(1000)
        return self._seen(), {}

    def step(self, action):
        self.step_number += 1
        done = self.step_number == 2 + self.episode % 2
        cut = done and self.episode % 2 == 1
        info = {"code": self.episode % 3} if self.codes else {}
        return self._seen(), float(action[0]), done and not cut, cut, info

    def _seen(self):
        state = np.array([self.step_number, self.episode + 100 * self.name, self.noise])
        if not self.picture:
            return state
        image = np.zeros((40, 36, 3), np.uint8)
        image[..., 0] = self.step_number
        return {"image": image, "state": state}


class Echo:
    """Acts by what it sees: a tenth of the first number."""

    def __init__(self) -> None:
        self.seen: list = []

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        self.seen.append(observation)
        rows = observation["state"] if isinstance(observation, dict) else observation
        return rows[:, :1] / 10, None


def counting(n, **settings):
    return DummyVecEnv([lambda i=i: Counting(name=i, **settings) for i in range(n)])


def test_an_environment_is_recorded_step_by_step():
    made = record(Echo(), Counting(), 4, seed=0, environment="Counting-v0", card={"who": "Echo"})
    assert made.lengths.tolist() == [2, 3, 2, 3]
    assert made.observations[:, 0].tolist() == [0, 1, 0, 1, 2, 0, 1, 0, 1, 2]
    assert made.observations[:, 1].tolist() == [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]
    assert made.final_observations[:, :2].tolist() == [[2, 0], [3, 1], [2, 2], [3, 3]]
    assert made.terminated.tolist() == [True, False, True, False]
    assert made.actions[:, 0] == pytest.approx(made.observations[:, 0] / 10)
    assert made.rewards == pytest.approx(made.actions[:, 0])
    assert made.returns == pytest.approx([0.1, 0.3, 0.1, 0.3])
    assert made.observations.dtype == made.actions.dtype == np.float32
    assert made.card == {"who": "Echo"} and made.codes is None
    check_spaces(made, Counting().observation_space, Counting().action_space)


@pytest.mark.parametrize(("n", "trajectories"), [(2, 5), (3, 2), (3, 7)])
def test_each_of_several_environments_runs_its_share(n, trajectories):
    made = record(Echo(), counting(n), trajectories, seed=0, environment="Counting-v0")
    first = made.row_starts()
    assert made.observations[first, 1].tolist() == [100 * (i % n) + i // n for i in range(trajectories)]
    assert made.lengths.tolist() == [2 + i // n % 2 for i in range(trajectories)]
    assert made.observations[:, 0].tolist() == [step for length in made.lengths for step in range(length)]
    assert made.final_observations[:, 0].tolist() == made.lengths.tolist()


def test_a_recurrent_policy_is_told_where_episodes_start():
    class Counts(Echo):
        def predict(self, observation, state=None, episode_start=None, deterministic=False):
            state = (0 if state is None else state) + episode_start
            return state[:, None] / 10, state

    made = record(Counts(), counting(2), 4, seed=0, environment="Counting-v0")
    assert (made.actions[:, 0] * 10).round().tolist() == [1, 1, 1, 1, 2, 2, 2, 2, 2, 2]


@pytest.mark.parametrize("draw", [lambda: float(torch.rand(())), np.random.rand, random.random])
def test_the_seed_decides_and_other_generators_are_left_alone(draw):
    class Draws:
        def predict(self, observation, state=None, episode_start=None, deterministic=False):
            return np.full((len(observation), 1), draw()), None

    made = []
    for seed in (1, 1, 2):
        torch.manual_seed(5), np.random.seed(5), random.seed(5)
        first = [draw() for _ in range(len(made))]  # not where it stood the last time
        made.append(record(Draws(), Counting(), 3, seed=seed, environment="Counting-v0"))
        after = draw()
        torch.manual_seed(5), np.random.seed(5), random.seed(5)
        assert [draw() for _ in range(len(first) + 1)] == [*first, after]
    one, two, other = made
    assert np.array_equal(one.actions, two.actions) and np.array_equal(one.observations, two.observations)
    assert not np.array_equal(one.actions, other.actions)
    assert not np.array_equal(one.observations[:, 2], other.observations[:, 2])


@pytest.mark.parametrize("wrap", [lambda envs: envs, lambda envs: VecNormalize(envs, clip_obs=0.5)])
def test_what_is_played_returns_what_is_recorded(wrap):
    class Draws(Echo):
        def predict(self, observation, *rest, deterministic=False, **named):
            action, _ = super().predict(observation)
            return action + (0 if deterministic else np.random.rand(*action.shape)), None

    for deterministic in (False, True):
        options = {"seed": 4, "deterministic": deterministic}
        made = record(Draws(), wrap(counting(3)), 7, environment="Counting-v0", **options)
        returns, lengths = play(Draws(), wrap(counting(3)), 7, **options)
        np.testing.assert_array_equal(returns, made.returns)
        np.testing.assert_array_equal(lengths, made.lengths)
    assert lengths.tolist() == [2, 2, 2, 3, 3, 3, 2] and len(set(returns)) > 1


def test_what_is_played_is_not_kept():
    class Watching(Echo):
        """Counts how many of the observations that it was shown are still there."""

        def __init__(self):
            self.shown, self.most = [], 0

        def predict(self, observation, *rest, **named):
            self.shown.append(weakref.ref(observation["image"]))
            self.most = max(self.most, sum(one() is not None for one in self.shown))
            return observation["state"][:, :1] / 10, None

    played, recorded = Watching(), Watching()
    play(played, counting(2, picture=True), 40, seed=0)
    record(recorded, counting(2, picture=True), 40, seed=0, environment="Counting-v0")
    assert played.most <= 3 < recorded.most == len(recorded.shown)


def test_a_model_of_sb3_is_recorded_with_and_without_noise():
    env = gymnasium.make("CartPole-v1", max_episode_steps=30)
    model = PPO("MlpPolicy", "CartPole-v1", seed=0, device="cpu")
    drawn = record(model, env, 3, seed=0)
    assert drawn.environment == "CartPole-v1" and drawn.environment_kwargs == {"max_episode_steps": 30}
    assert drawn.returns.tolist() == drawn.lengths.tolist()
    assert np.array_equal(drawn.actions, record(model, env, 3, seed=0).actions)
    likeliest = record(model, env, 3, seed=0, deterministic=True)
    assert np.array_equal(likeliest.actions, model.predict(likeliest.observations, deterministic=True)[0])
    assert not np.array_equal(drawn.actions, model.predict(drawn.observations, deterministic=True)[0])
    check_spaces(drawn, env.observation_space, env.action_space)


def test_observations_are_those_of_the_environment_beneath_vec_normalize():
    plain = record(Echo(), counting(2), 4, seed=0, environment="Counting-v0")
    envs = VecNormalize(counting(2), clip_obs=0.5)
    envs.obs_rms.mean[:] = 1.0
    policy = Echo()
    made = record(policy, envs, 4, seed=0, environment="Counting-v0")
    assert np.array_equal(made.observations, plain.observations)
    assert np.array_equal(made.final_observations, plain.final_observations)
    assert np.abs(policy.seen).max() <= 0.5  # the policy sees what it was trained on
    assert made.rewards == pytest.approx(made.actions[:, 0])
    assert envs.obs_rms.mean.tolist() == [1, 1, 1] and envs.training
    assert isinstance(envs.venv, DummyVecEnv)


def test_images_keep_their_channels_where_the_environment_has_them():
    made = record(Echo(), VecTransposeImage(counting(1, picture=True)), 2, seed=0, environment="Counting-v0")
    assert made.observations["image"].shape == (5, 40, 36, 3) and made.observations["image"].dtype == np.uint8
    assert made.observations["image"][:, 0, 0, 0].tolist() == made.observations["state"][:, 0].tolist()
    assert made.final_observations["image"][:, 5, 5].tolist() == [[2, 0, 0], [3, 0, 0]]


def test_stacked_frames_are_recorded_as_the_policy_sees_them():
    made = record(Echo(), VecFrameStack(counting(1), 2), 2, seed=0, environment="Counting-v0")
    assert made.observations.shape == (5, 6)
    assert made.observations[1, [0, 3]].tolist() == [0, 1] and made.final_observations[0, [0, 3]].tolist() == [1, 2]


def test_codes_come_from_the_environment():
    made = record(Echo(), counting(2, codes=True), 7, seed=0, environment="Counting-v0")
    assert made.codes.tolist() == [0, 0, 1, 1, 2, 2, 0]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (lambda episode, step: step, "one info.* got 1 and 2 in trajectory 0"),
        (lambda episode, step: 0.5, "whole number in info.* got 0.5 in trajectory 0"),
        (lambda episode, step: None if episode else 1, "in every episode or in none, got it in 1 of 3"),
    ],
)
def test_codes_that_are_none_are_refused(code, message):
    class Labelled(Counting):
        def step(self, action):
            *rest, _ = super().step(action)
            return *rest, {"code": code(self.episode, self.step_number)}

    with pytest.raises(UserError, match=message):
        record(Echo(), Labelled(), 3, seed=0, environment="Counting-v0")


def test_a_random_policy_draws_from_the_space():
    env = gymnasium.make("CartPole-v1")
    made = record(RandomPolicy(env.action_space, 3), env, 50, seed=3)
    assert set(made.actions) == {0, 1} and 0.4 < made.actions.mean() < 0.6
    assert 15 < made.returns.mean() < 30
    again = record(RandomPolicy(env.action_space, 3), env, 50, seed=3)
    assert np.array_equal(made.actions, again.actions)
    pictured = RandomPolicy(Counting().action_space, 0).predict(counting(2, picture=True).reset())[0]
    assert pictured.shape == (2, 1)


def test_what_cannot_be_recorded_is_refused():
    with pytest.raises(UserError, match="1 trajectory or more to record, got 0"):
        record(Echo(), Counting(), 0, seed=0)
    with pytest.raises(UserError, match="knows its id, got one without: give environment"):
        record(Echo(), Counting(), 1, seed=0)

    class Alone(Echo):
        def predict(self, observation, state=None, episode_start=None, deterministic=False):
            return np.zeros((1, 1)), None

    with pytest.raises(UserError, match=r"an action for each of 2 observations, got an array of shape \(1, 1\)"):
        record(Alone(), counting(2), 1, seed=0, environment="Counting-v0")

    class Diverged(Echo):
        def predict(self, observation, state=None, episode_start=None, deterministic=False):
            return np.full((len(observation), 1), np.nan), None

    with pytest.raises(UserError, match="finite numbers in actions, got nan in row 0 of trajectory 0"):
        record(Diverged(), Counting(), 1, seed=0, environment="Counting-v0")
    with pytest.raises(UserError, match=r"finite numbers in actions, got \[nan\] in step 0"):
        play(Diverged(), counting(1), 1, seed=0)
