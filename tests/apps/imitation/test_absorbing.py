"""Absorbing states: one transition more for each episode that the environment ended, none else, and no reward."""

import numpy as np
import pytest
from tiny_control import demonstrate, linear_expert, point

from apps.imitation.learners.off_policy.absorbing import absorbing_transitions
from apps.imitation.learners.off_policy.dac import DAC
from core_models.errors import UserError


def test_one_transition_more_for_each_terminated_episode_and_none_for_a_truncated_one():
    seen = np.arange(6, dtype=np.float32).reshape(3, 2)
    after, actions = seen + 10, np.ones((3, 1), np.float32)
    rows = absorbing_transitions(seen, actions, np.array([1.0, 2, 3]), after, np.array([False, True, False]))
    expected_here = [[0, 1, 0], [2, 3, 0], [4, 5, 0], [0, 0, 1]]
    expected_there = [[10, 11, 0], [0, 0, 1], [14, 15, 0], [0, 0, 1]]
    assert rows.observations.tolist() == expected_here and rows.next_observations.tolist() == expected_there
    assert rows.actions[:, 0].tolist() == [1, 1, 1, 0] and rows.rewards.tolist() == [1, 2, 3, 0]


@pytest.fixture(scope="module")
def replayed():
    """A replay of random actions, beside what the environment itself returned."""
    env = point(size=2, edge=1.5, limit=8, noise=0.3)
    episodes, total, length = [], 0.0, 0

    class Watched(type(env)):
        """Notes the episodes."""

        def step(self, action):
            nonlocal total, length
            place, reward, terminated, truncated, info = super().step(action)
            total, length = total + reward, length + 1
            if terminated or truncated:
                episodes.append((total, length, terminated))
                total, length = 0.0, 0
            return place, reward, terminated, truncated, info

    learner = DAC(Watched(env.env, 8), demonstrate(env, 3, linear_expert), learning_starts=10_000)
    learner.learn(400)
    return learner, episodes


def test_the_true_return_of_what_is_stored_is_the_environments(replayed):
    learner, episodes = replayed
    rows = learner.replay.batch(learner.replay.rows[: len(learner.replay)])
    at = 0
    for total, length, terminated in episodes:
        own = slice(at, at + length + terminated)
        assert rows.rewards[own].sum() == pytest.approx(total, rel=1e-5)
        indicators = rows.observations[own, -1].tolist(), rows.next_observations[own, -1].tolist()
        assert indicators == (
            [0.0] * length + [1.0] * terminated,
            [0.0] * (length - 1) + [float(terminated)] * (1 + terminated),
        )
        at += length + terminated
    kinds = {terminated for _, _, terminated in episodes}
    assert kinds == {True, False} and len(learner.replay) == 400 + sum(t for *_, t in episodes)


def test_nothing_is_done_in_the_absorbing_state_and_every_transition_goes_on(replayed):
    rows = replayed[0].replay.batch(replayed[0].replay.rows[: len(replayed[0].replay)])
    absorbed = rows.observations[:, -1] == 1
    assert absorbed.any() and not rows.actions[absorbed].any() and rows.actions[~absorbed].all()
    assert (rows.going_on == 1).all()
    assert (rows.observations[absorbed] == rows.next_observations[absorbed]).all()
    assert not rows.observations[absorbed, :-1].any()


def test_the_experts_absorbing_pairs_have_the_share_that_they_had_before_rows_were_left_out():
    full = demonstrate(point(size=2, edge=0.9, limit=40, noise=0.4), 8, linear_expert)
    ended = int(full.terminated.sum())
    assert 0 < ended < 8
    for every in (1, 5):
        demonstrations = full.subsampled(every, seed=0)
        expert = DAC(point(size=2), demonstrations).expert
        absorbing = expert.pairs[:, 2] == 1
        assert int(absorbing.sum()) == ended and not expert.pairs[absorbing, 3:].any()
        expected = ended / every / (ended / every + len(demonstrations))
        assert float(expert.weights[absorbing].sum()) == pytest.approx(expected, rel=1e-6)


def test_the_absorbing_state_can_lie_farther_away():
    demonstrations = demonstrate(point(size=2, edge=0.9, limit=40, noise=0.4), 8, linear_expert)
    env = point(size=2, edge=1.5, limit=8, noise=0.3)
    learner = DAC(env, demonstrations, absorbing_distance=7.0, learning_starts=10_000).learn(400)
    stored = learner.replay.batch(learner.replay.rows[: len(learner.replay)])
    for indicators in (learner.expert.pairs[:, 2], stored.observations[:, -1], stored.next_observations[:, -1]):
        assert set(indicators.tolist()) == {0.0, 7.0}
    with pytest.raises(UserError, match="absorbing_distance: expected a number above 0, got 0"):
        DAC(env, demonstrations, absorbing_distance=0)


def test_the_distance_of_the_absorbing_state_is_kept_and_missed_by_no_run_that_has_the_published_one(tmp_path):
    demonstrations = demonstrate(point(size=2, edge=0.9, limit=40, noise=0.4), 8, linear_expert)
    far = DAC(point(size=2), demonstrations, absorbing_distance=7.0)
    assert far.settings["absorbing_distance"] == 7
    assert "absorbing_distance" not in DAC(point(size=2), demonstrations).settings
    far.save(tmp_path / "dac.zip")
    assert DAC.load(tmp_path / "dac.zip").absorbing_distance == 7
