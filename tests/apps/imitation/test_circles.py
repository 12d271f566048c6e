"""Circles: the geometry of its modes, its experts, and that labels stay labels."""

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import apps.imitation.environments
from apps.imitation.environments.circles import (
    HORIZON,
    NOISE,
    RADII,
    STEP,
    circle_expert,
    evaluate_mode,
    positions_of,
    radial_errors,
    turns,
)
from apps.imitation.environments.demonstrating import expert_demonstrations
from apps.imitation.environments.modes import matched_accuracy
from core_models.errors import UserError


def rollout(env, code, noise=0.0, label=True):
    """Returns the path of an expert, its rewards and the last info."""
    state, info = env.reset(seed=0, options={"code": code} if label else None)
    path, rewards = [positions_of(state)], []
    rng = np.random.default_rng(code)
    for _ in range(HORIZON):
        action = circle_expert(state, np.array(code), noise * rng.standard_normal())
        state, reward, terminated, truncated, info = env.step(action)
        assert not terminated and truncated == (len(path) == HORIZON)
        path.append(positions_of(state))
        rewards.append(reward)
    return np.array(path), np.array(rewards), info


def arc(radius, side, steps):
    angle = np.arange(steps) * STEP / radius
    return radius * np.stack([np.sin(angle), side * (1 - np.cos(angle))], axis=1)


def test_it_passes_the_checker_of_gymnasium():
    check_env(gymnasium.make("Circles-v0", render_mode="rgb_array").unwrapped)


@pytest.mark.parametrize("code", range(3))
def test_an_expert_without_noise_runs_its_circle_exactly(code):
    path, rewards, info = rollout(gymnasium.make("Circles-v0"), code)
    assert radial_errors(path)[code] < 1e-5
    assert abs(rewards).max() < 1e-5
    # a chord is a little shorter than its arc
    around = 2 * np.arcsin(STEP / 2 / RADII[code]) * HORIZON / (2 * np.pi)
    assert turns(path)[code] == pytest.approx(around, abs=1e-4)
    assert info["code"] == code
    assert np.allclose(np.linalg.norm(np.diff(path, axis=0), axis=1), STEP, atol=1e-5)


def test_the_first_states_of_the_modes_coincide_and_later_ones_do_not():
    env = gymnasium.make("Circles-v0")
    paths = np.array([rollout(env, code)[0] for code in range(3)])
    spread = np.linalg.norm(paths - paths.mean(0), axis=-1).max(0)
    assert spread[0] == 0 and spread[1] < 2 * STEP * NOISE and spread[10] > 5 * STEP


def test_the_reward_is_minus_the_distance_to_the_nearest_circle():
    env = gymnasium.make("Circles-v0")
    env.reset()
    for _ in range(10):
        state, reward, *_ = env.step(np.array([0.0, 0.3], np.float32))
    assert positions_of(state) == pytest.approx([0, 10 * STEP], abs=1e-6)
    # straight up: at 1.0 the top of the small circle, in the middle of the large one
    assert reward == pytest.approx(0, abs=1e-6)
    assert env.step(np.array([0.0, 1.0]))[1] == pytest.approx(-0.1, abs=1e-6)
    assert env.step(np.array([0.0, 0.0]))[1] == pytest.approx(-0.2, abs=1e-6)  # goes on


def test_the_state_is_the_last_five_positions_oldest_first():
    env = gymnasium.make("Circles-v0")
    env.reset()
    for _ in range(7):
        state = env.step(np.array([1.0, 0.0], np.float32))[0]
    assert state[0::2] == pytest.approx(STEP * np.arange(3, 8), abs=1e-6)
    assert not state[1::2].any()


def test_a_path_has_the_mode_of_the_circle_that_it_runs_round():
    for code, (radius, side) in enumerate(zip(RADII, (1, 1, -1), strict=True)):
        assert evaluate_mode(arc(radius, side, HORIZON + 1)) == code
        assert evaluate_mode(arc(radius, side, HORIZON + 1) * [-1, 1]) is None  # the wrong way round
        assert evaluate_mode(arc(radius, side, 11)) == code
    straight = np.stack([STEP * np.arange(HORIZON + 1), np.zeros(HORIZON + 1)], axis=1)
    assert evaluate_mode(straight) is None
    trembling = STEP * np.stack([np.arange(HORIZON + 1) % 2, np.zeros(HORIZON + 1)], axis=1)
    assert radial_errors(trembling).max() < 0.02
    assert evaluate_mode(trembling) is None
    between = arc(0.9, 1, HORIZON + 1)  # merged modes: near the large circle, and on none
    assert evaluate_mode(arc(0.7, 1, HORIZON + 1)) is None
    assert evaluate_mode(between) == 0


def test_demonstrations_are_what_the_environment_would_have_done():
    found = expert_demonstrations("Circles-v0", trajectories=7, seed=3)
    assert found.codes.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert (found.lengths == HORIZON).all() and not found.terminated.any()
    env = gymnasium.make("Circles-v0")
    row = 0
    for trajectory in range(found.trajectories):
        state, _ = env.reset()
        for _ in range(HORIZON):
            np.testing.assert_allclose(found.observations[row], state, atol=1e-5)
            state, reward, *_ = env.step(found.actions[row])
            assert found.rewards[row] == pytest.approx(reward, abs=1e-5)
            row += 1
        np.testing.assert_allclose(found.final_observations[trajectory], state, atol=1e-5)
    again = expert_demonstrations("Circles-v0", trajectories=3, seed=3)
    np.testing.assert_array_equal(again.actions, found.take(3).actions)
    assert (expert_demonstrations("Circles-v0", trajectories=3, seed=4).actions != again.actions).any()


def test_experts_with_noise_keep_to_their_circles():
    found = expert_demonstrations("Circles-v0", trajectories=60, seed=0)
    paths = positions_of(found.observations).reshape(60, HORIZON, 2)
    errors = radial_errors(paths)
    own = errors[np.arange(60), found.codes]
    assert own.max() < 0.05 and own.mean() > 0.01
    assert np.sort(errors, axis=1)[:, 1].min() > 0.25
    modes = [evaluate_mode(path) for path in paths]
    assert modes == found.codes.tolist()
    assert matched_accuracy([(mode + 1) % 3 for mode in modes], found.codes) == 1


def test_the_label_changes_nothing_but_the_info():
    env = gymnasium.make("Circles-v0")
    action = np.array([0.3, -0.5], np.float32)
    runs = []
    for options in (None, {"code": 0}, {"code": 2}):
        first, info = env.reset(seed=5, options=options)
        assert info == (options or {})
        steps = [env.step(action) for _ in range(5)]
        assert all(own[4].get("code") == (options or {}).get("code") for own in steps)
        runs.append(np.concatenate([first, *(own[0] for own in steps), [own[1] for own in steps]]))
    np.testing.assert_array_equal(runs[0], runs[1])
    np.testing.assert_array_equal(runs[0], runs[2])


def test_mistakes_are_named():
    env = gymnasium.make("Circles-v0").unwrapped
    for options in ({"code": 3}, {"code": True}, {"mode": 1}, {"code": 1.5}):
        with pytest.raises(UserError, match="a whole number from 0 to 2"):
            env.reset(options=options)
    env.reset()
    with pytest.raises(UserError, match="two finite numbers, got nan"):
        env.step(np.array([np.nan, 1]))
    with pytest.raises(UserError, match="Circles-v0 or Driving-v0, got 'CartPole-v1'"):
        expert_demonstrations("CartPole-v1")
    with pytest.raises(UserError, match="task of Circles-v0 to be None, got 'turn'"):
        expert_demonstrations("Circles-v0", "turn")
    with pytest.raises(UserError, match="1 trajectory or more, got 0"):
        expert_demonstrations("Circles-v0", trajectories=0)


def test_the_picture_shows_path_and_circles():
    env = gymnasium.make("Circles-v0", render_mode="rgb_array")
    rollout(env, 1)
    image = env.render()
    assert image.shape == (160, 160, 3) and image.dtype == np.uint8
    blue = np.argwhere((image == (0, 114, 178)).all(-1))
    # 40 pixels a unit: the small circle is 40 across, its lowest point at the start, row 90
    assert np.ptp(blue, axis=0) == pytest.approx([40, 40], abs=5)
    assert blue.max(0)[0] == pytest.approx(90, abs=2)


def test_clusters_are_matched_one_to_one():
    codes = np.array([0, 0, 1, 1, 2, 2])
    assert matched_accuracy([5, 5, 3, 3, 0, 0], codes) == 1
    assert matched_accuracy([0, 0, 0, 0, 0, 0], codes) == pytest.approx(1 / 3)
    assert matched_accuracy([0, 1, 2, 3, 4, 5], codes) == 0.5  # three clusters too many
    assert matched_accuracy([None, -1, 1, 1, 2, 2], codes) == pytest.approx(4 / 6)
    assert matched_accuracy([None] * 6, codes) == 0
    with pytest.raises(UserError, match="got 2 for 6"):
        matched_accuracy([0, 1], codes)


def test_importing_the_package_registers():
    assert apps.imitation.environments.__name__ and {"Circles-v0", "Driving-v0"} <= set(gymnasium.registry)
