"""Images as frozen features: what they are trained to tell, and environments seen through them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from stable_baselines3.common.env_util import make_vec_env
from tiny_environments import Sides, demonstrate

from apps.imitation.environments.demonstrating import expert_demonstrations
from apps.imitation.environments.making import vector_env
from apps.imitation.environments.road import FRAME, SHARPEST, TOP_SPEED
from apps.imitation.learners import InfoGAIL
from apps.imitation.tables.pixel_features import (
    TRUSTED,
    UNITS,
    Drives,
    FeaturesVecEnv,
    dead_reckoning,
    neighbouring_actions,
    pixels,
    recoloured,
    train_features,
    wander,
)
from core_models.errors import UserError


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def drives(actions, trajectory, speed=0.6):
    n = len(trajectory)
    states = np.tile(np.array([speed, 0, 0, 0, 0], np.float32), (n, 1))
    return Drives(np.zeros((n, 8, 8, 3), np.uint8), states, np.asarray(actions, np.float32), np.array(trajectory))


def envs(task="pass", n=2, seed=0):
    return vector_env("Driving-v0", {"task": task}, environments=n, seed=seed)


def test_dead_reckoning_is_the_path_of_a_car_on_a_plane():
    steer, n = 0.25, TRUSTED + 5
    made = drives([[steer, 0.3]] * n + [[0.0, 0.3]] * 3, [4] * n + [7] * 3)
    told, trusted = dead_reckoning(made)
    told = told.numpy() * np.array(UNITS)
    # a circle of this radius, covered so far
    radius, covered = 1 / (SHARPEST * steer), 0.6 * TOP_SPEED * FRAME * np.arange(n)
    np.testing.assert_allclose(told[:n, 0], covered / radius, rtol=1e-5)
    np.testing.assert_allclose(told[:n, 1], radius * (1 - np.cos(covered / radius)), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(told[:n, 2], covered, rtol=1e-5)
    assert (told[n:, :2] == 0).all() and told[n, 2] == 0
    assert trusted.tolist() == [True] * TRUSTED + [False] * 5 + [True] * 3


def test_actions_around_a_row_are_those_of_its_trajectory():
    actions = np.stack([np.arange(40.0), np.zeros(40)], 1)
    told, known = neighbouring_actions(drives(actions, [0] * 15 + [1] * 25))
    scale = np.arange(40.0).std(ddof=1)
    places = np.arange(-12, 13, 2)
    for row in (0, 13, 15, 39):
        inside = (row + places >= (0 if row < 15 else 15)) & (row + places < (15 if row < 15 else 40))
        assert known[row].tolist() == inside.tolist()
        expected = (row + places[inside] - 19.5) / scale
        np.testing.assert_allclose(told[row, torch.from_numpy(inside), 0].numpy(), expected, rtol=1e-5)
    assert (told[..., 1] == 0).all()


def test_drives_with_a_wandering_hand_are_whole_from_their_start_and_seeded():
    first, again, other = (wander(envs(), 60, seed=seed) for seed in (1, 1, 2))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert (first.images != other.images).any() and len(first.trajectory) == 60
    assert (np.diff(first.trajectory) >= 0).all() and first.trajectory[0] == 0
    # what a state says of the last action is what was done
    same = first.trajectory[1:] == first.trajectory[:-1]
    np.testing.assert_allclose(first.states[1:, 1:3][same], first.actions[:-1][same], atol=1e-6)


def test_other_light_keeps_what_is_where():
    images = pixels(np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3)).astype(np.uint8))
    changed = recoloured(images, torch.Generator().manual_seed(0))
    for before, after in zip(images, changed, strict=True):
        for own, other in zip(before, after, strict=True):
            assert np.corrcoef(own.flatten(), other.flatten())[0, 1] > 0.95
    assert (changed.mean((1, 2, 3)) - images.mean((1, 2, 3))).abs().max() > 0.03


def test_features_are_seeded_and_take_no_label():
    given = expert_demonstrations("Driving-v0", "turn", 2, seed=0)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    features = train_features(given, envs("turn"), size=3, explored=40, epochs=1)
    assert torch.equal(torch.get_rng_state(), before)
    other = train_features(replace(given, codes=given.codes[::-1].copy()), envs("turn"), size=3, explored=40, epochs=1)
    for name, weights in features.state_dict().items():
        assert torch.equal(weights, other.state_dict()[name]), name


def test_features_tell_where_the_car_is():
    given = expert_demonstrations("Driving-v0", "pass", 2, seed=0)
    features = train_features(given, envs(n=4), size=8, explored=1000, epochs=4, batch_size=32)
    seen = wander(envs(n=4, seed=50), 300, seed=50)
    told, trusted = dead_reckoning(seen)
    aside = told[trusted][:, 1].numpy()
    found = features.of({"image": seen.images, "state": seen.states})[trusted.numpy()][:, :8]
    columns = np.c_[found, np.ones(len(found))]
    half = len(columns) // 2
    weights = np.linalg.lstsq(columns[:half], aside[:half], rcond=None)[0]
    assert np.corrcoef(columns[half:] @ weights, aside[half:])[0, 1] > 0.6


def test_an_environment_is_seen_through_features():
    given = expert_demonstrations("Driving-v0", "pass", 2, seed=0)
    features = train_features(given, envs(), size=3, explored=40, epochs=1)
    plain, seen = envs(seed=5), FeaturesVecEnv(envs(seed=5), features)
    assert seen.observation_space.shape == (3,)
    raw, told = plain.reset(), seen.reset()
    hard = np.array([[1.0, 0.5], [0.0, 0.5]], np.float32)
    ended = 0
    for _ in range(45):
        np.testing.assert_allclose(told, features.of(raw), rtol=1e-5, atol=1e-5)
        raw, _, dones, infos = plain.step(hard)
        told, _, also, others = seen.step(hard)
        assert (dones == also).all()
        for i in np.flatnonzero(dones):
            last = {key: part[None] for key, part in infos[i]["terminal_observation"].items()}
            np.testing.assert_allclose(others[i]["terminal_observation"], features.of(last)[0], rtol=1e-5, atol=1e-5)
            ended += 1
    assert ended
    coded = features.encoded(given)
    assert coded.observations.shape == (200, 3) and coded.final_observations.shape == (2, 3)
    np.testing.assert_array_equal(coded.codes, given.codes)


def test_demonstrations_without_images_are_refused():
    with pytest.raises(UserError, match="with images and values beside them, as Driving-v0 has them, got Circles-v0"):
        train_features(expert_demonstrations("Circles-v0", trajectories=3), envs(), explored=10)


def test_a_wasserstein_critic_is_zero_on_the_expert_and_every_step_is_worth_survival():
    for survival, weight in ((0.0, 1.0), (2.0, 0.25)):
        learner = InfoGAIL(
            make_vec_env(Sides, n_envs=1, seed=0), demonstrate(Sides()), steps=200, cloning_epochs=0, hidden=(8,),
            judge_hidden=(8,), survival=survival, critic_weight=weight, information=0.0,
        ).learn(200)  # fmt: skip
        told = learner.history[0]
        assert told["learnt_reward"] == pytest.approx(survival - weight * told["critic_gap"], abs=1e-5)


def test_actions_are_spread_after_cloning():
    given = demonstrate(Sides())
    made = [
        InfoGAIL(make_vec_env(Sides, n_envs=1), given, steps=200, hidden=(8,), cloning_epochs=60, spread=spread)
        for spread in (0.0, 0.9)
    ]
    narrow, wide = (float(learner.policy.log_std.detach().exp()) for learner in made)
    assert narrow < 0.9 and wide == pytest.approx(0.9)


def test_a_posterior_can_be_kept_from_the_actions():
    given = demonstrate(Sides())
    for told in (True, False):
        learner = InfoGAIL(
            make_vec_env(Sides, n_envs=1), given, steps=200, hidden=(8,), cloning_epochs=0, posterior_actions=told
        )
        observations = torch.zeros(2, 1)
        with torch.no_grad():
            same = learner.judges.posterior(observations, torch.tensor([[0.0], [1.0]]))
            critic = learner.judges.discriminator(observations, torch.tensor([[0.0], [1.0]]))
        assert torch.equal(same[0], same[1]) == (not told) and critic[0] != critic[1]
