"""Demonstrations in memory: rows, trajectories, thinning, and what is refused."""

from types import SimpleNamespace

import numpy as np
import pytest
from demonstrations_made import counted, pictured

from apps.imitation.demonstrations import Demonstrations
from apps.imitation.demonstrations.summary import summary, summary_text
from core_models.errors import UserError


def test_rows_belong_to_trajectories():
    made = counted([3, 1, 2])
    assert (len(made), made.trajectories) == (6, 3)
    assert made.row_starts().tolist() == [0, 3, 4]
    assert made.trajectory_of_rows().tolist() == [0, 0, 0, 1, 2, 2]
    assert made.steps.tolist() == [3, 1, 2]


def test_what_came_next_is_the_next_row_or_the_final_observation():
    made = counted([3, 1, 2])
    assert made.next_observations()[:, 0].tolist() == [1, 2, 100, 101, 5, 102]
    next_of_dict = pictured([3, 1, 2]).next_observations()
    assert next_of_dict["state"][:, 0].tolist() == [1, 2, 100, 101, 5, 102]
    assert next_of_dict["image"].dtype == np.uint8
    assert made.observations[:, 0].tolist() == [0, 1, 2, 3, 4, 5]  # untouched


@pytest.mark.parametrize("make", [counted, pictured])
def test_select_and_take_pick_whole_trajectories(make):
    made = make([3, 1, 2])
    picked = made.select([2, 0])
    state = picked.observations["state"] if isinstance(picked.observations, dict) else picked.observations
    final = picked.final_observations["state"] if isinstance(picked.observations, dict) else picked.final_observations
    assert state[:, 0].tolist() == [4, 5, 0, 1, 2]
    assert final[:, 0].tolist() == [102, 100]
    assert picked.lengths.tolist() == [2, 3]
    assert picked.returns.tolist() == [2.0, 3.0]
    assert picked.codes.tolist() == [2, 0]
    assert picked.terminated.tolist() == [True, True]
    assert len(made.take(2)) == 4 and made.take(2).trajectories == 2


@pytest.mark.parametrize("n", [0, -1, 4])
def test_take_names_how_many_there_are(n):
    with pytest.raises(UserError, match=f"from 1 to 3.*got {n}"):
        counted([3, 1, 2]).take(n)


@pytest.mark.parametrize("indices", [[], [3], [-1], [0.5], [True, False, True]])
def test_select_refuses_what_is_no_trajectory(indices):
    with pytest.raises(UserError, match="trajectories"):
        counted([3, 1, 2]).select(indices)


def test_thinning_keeps_every_kth_row_of_each_trajectory():
    made = counted([100, 37, 4])
    thin = made.subsampled(10, seed=3)
    owner = np.repeat(np.arange(3), thin.lengths)
    for i, (start, length) in enumerate(zip(made.row_starts(), made.lengths, strict=True)):
        rows = thin.observations[owner == i, 0] - start
        assert 0 <= rows[0] < min(10, length)
        assert set(np.diff(rows)) <= {10}
        assert rows[-1] + 10 >= length  # nothing left out at the end
    assert thin.subsample == 10
    assert thin.returns.tolist() == made.returns.tolist()
    assert thin.steps.tolist() == [100, 37, 4] and thin.lengths[2] == 1
    assert thin.final_observations.tolist() == made.final_observations.tolist()


def test_offsets_are_drawn_for_each_trajectory_uniformly_and_by_the_seed():
    thin = counted([20] * 2000).subsampled(20, seed=0)
    assert (thin.lengths == 1).all()
    counts = np.bincount((thin.observations[:, 0] % 20).astype(int), minlength=20)
    assert counts.min() > 60 and counts.max() < 140  # 100 each, within 4 standard deviations
    again = counted([20] * 2000).subsampled(20, seed=0)
    other = counted([20] * 2000).subsampled(20, seed=1)
    assert np.array_equal(thin.observations, again.observations)
    assert not np.array_equal(thin.observations, other.observations)


def test_first_trajectories_keep_the_same_rows_however_many_there_are():
    made = counted([50, 7, 50, 30, 3])
    of_few, of_all = made.take(3).subsampled(9, seed=5), made.subsampled(9, seed=5).take(3)
    assert np.array_equal(of_few.observations, of_all.observations)


def test_thinning_twice_counts_steps_of_the_episode():
    thin = counted([100, 60]).subsampled(5, seed=0).subsampled(4, seed=1)
    assert thin.subsample == 20
    assert thin.steps.tolist() == [100, 60]
    assert set(np.diff(thin.observations[: thin.lengths[0], 0])) == {20}


def test_thinned_demonstrations_do_not_know_what_came_next():
    made = counted([10, 10])
    assert made.subsampled(1, seed=0) is made
    with pytest.raises(UserError, match="one row in 5"):
        made.subsampled(5, seed=0).next_observations()
    with pytest.raises(UserError, match="k of 1 or more, got 0"):
        made.subsampled(0, seed=0)


def test_trajectories_that_hold_their_last_observation_are_taken_apart():
    made = pictured([3, 1, 2])
    seen, final = made.observations, made.final_observations
    cut = [{"TimeLimit.truncated": False}, {"TimeLimit.truncated": True}]
    whole = []
    for i, (start, length) in enumerate(zip(made.row_starts(), made.lengths, strict=True)):
        rows = slice(start, start + length)
        parts = {key: np.concatenate([seen[key][rows], final[key][i : i + 1]]) for key in seen}
        whole.append(SimpleNamespace(
            obs=parts["state"], acts=made.actions[rows], rews=made.rewards[rows], terminal=i != 1,
            infos=None if i < 2 else cut, parts=parts,
        ))  # fmt: skip
    found = Demonstrations.from_trajectories(whole, "Counted-v0", environment_kwargs={"wind": 2})
    np.testing.assert_array_equal(found.next_observations(), made.next_observations()["state"])
    np.testing.assert_array_equal(found.observations, seen["state"])
    np.testing.assert_array_equal(found.actions, made.actions)
    assert found.lengths.tolist() == [3, 1, 2] and found.returns.tolist() == [3, 1, 2]
    assert found.terminated is None  # of the first only infos could tell
    with pytest.raises(UserError, match="expected terminated in the demonstrations of Counted-v0, which they ask for"):
        found.needed("terminated", "they ask for")
    given = Demonstrations.from_trajectories(whole, "Counted-v0", terminated=np.array([True, False, False]))
    whole[0].infos = cut[:1] * 3
    found = Demonstrations.from_trajectories(whole, "Counted-v0", environment_kwargs={"wind": 2})
    for own in (given, found):  # a fragment has no end, and a time limit's is none
        assert own.terminated.tolist() == [True, False, False]
    assert (found.environment, found.environment_kwargs) == ("Counted-v0", {"wind": 2})
    for own in whole:  # of a Dict the library has a class of its own; rewards may be missing
        own.obs = SimpleNamespace(unwrap=lambda parts=own.parts: parts)
        del own.rews
    found = Demonstrations.from_trajectories(whole, "Counted-v0")
    np.testing.assert_array_equal(found.final_observations["image"], final["image"])
    assert found.rewards is None and found.observations["image"].dtype == np.uint8
    whole[1].parts["state"] = whole[1].parts["state"][:-1]
    with pytest.raises(UserError, match=r"one observation more than the 1 actions of trajectory 1.*got 1 in obs\['s"):
        Demonstrations.from_trajectories(whole, "Counted-v0")
    with pytest.raises(UserError, match="one or more trajectories, got none"):
        Demonstrations.from_trajectories([], "Counted-v0")


MISFITS = {
    "last observations among the others": (
        {"observations": np.zeros((9, 2))},
        "expected 6 entries in observations.*got 9, .*goes into final_observations",
    ),
    "actions too few": ({"actions": np.zeros(5, int)}, "expected 6 entries in actions.*got 5"),
    "rewards too many": ({"rewards": np.zeros(7)}, "expected 6 entries in rewards.*got 7"),
    "rewards of two numbers": ({"rewards": np.zeros((6, 2))}, "one number at a time in rewards"),
    "observations too few": ({"observations": np.zeros((4, 2))}, "expected 6 entries in observations.*got 4"),
    "returns too few": ({"returns": np.zeros(2)}, "expected 3 entries in returns"),
    "codes too few": ({"codes": np.zeros(2, int)}, "expected 3 entries in codes"),
    "a continuous code": ({"codes": np.array([0.0, 0.5, 1.0])}, "expected whole numbers in codes, got 0.5"),
    "no trajectory": ({"lengths": np.zeros(0, int)}, "expected one or more trajectories"),
    "zero length": ({"lengths": np.array([4, 0, 2])}, "one row or more, got 0 in trajectory 1"),
    "half a row": ({"lengths": np.array([3.5, 0.5, 2])}, "whole numbers in lengths, got 3.5"),
    "terminated twice": ({"terminated": np.array([0, 2, 1])}, "true or false in terminated, got 2"),
    "objects": ({"actions": np.array([{}] * 6)}, "numbers in actions, got Python objects"),
    "words": ({"actions": ["left"] * 6}, "numbers in actions, got <U4"),
    "ragged": ({"observations": [[1, 2], [3]] * 3}, "rows of different shapes"),
    "final of another shape": ({"final_observations": np.zeros((3, 5))}, r"of the same shape, got \(2,\) and \(5,\)"),
    "final with keys": ({"final_observations": {"state": np.zeros((3, 2))}}, "both with keys or both without"),
    "NaN": (
        {"observations": np.where(np.arange(12).reshape(6, 2) == 9, np.nan, 0)},
        "finite numbers in observations, got nan in row 0 of trajectory 2",
    ),
    "infinite reward": ({"rewards": [0, 0, np.inf, 0, 0, 0]}, "rewards, got inf in row 2 of trajectory 0"),
    "NaN at the end": (
        {"final_observations": np.array([[0, 0], [0, np.nan], [0, 0]])},
        "final_observations, got nan in trajectory 1",
    ),
    "NaN return": ({"returns": [0, np.nan, 0]}, "returns, got nan in trajectory 1"),
    "NaN length": ({"lengths": [3, np.nan, 2]}, "whole numbers in lengths, got nan"),
    "subsample": ({"subsample": 0}, "subsample to be a whole number of 1 or more, got 0"),
    "steps too few": (
        {"subsample": 2, "episode_lengths": np.array([6, 0, 4])},
        "as many steps as rows, got 0 for 1 in trajectory 1",
    ),
    "steps without thinning": ({"episode_lengths": np.array([3, 1, 9])}, r"\(subsample 1\), got 9 steps for 2 rows"),
    "no environment": ({"environment": ""}, "gymnasium id"),
}


@pytest.mark.parametrize("name", MISFITS)
def test_what_does_not_fit_is_named(name):
    change, message = MISFITS[name]
    with pytest.raises(UserError, match=message):
        counted([3, 1, 2], **change)


def test_keys_of_dict_observations_must_agree():
    with pytest.raises(UserError, match="same keys in observations and final_observations, got image, state and image"):
        made = pictured([3, 1, 2])
        Demonstrations(**{**vars(made), "final_observations": {"image": made.final_observations["image"]}})
    broken = dict(pictured([2]).observations, state=np.array([[0.0], [np.nan]]))
    with pytest.raises(UserError, match=r"observations.state, got nan in row 1 of trajectory 0"):
        Demonstrations(**{**vars(pictured([2])), "observations": broken})


def test_large_finite_numbers_are_no_fault():
    made = counted([3, 1, 2], observations=np.full((6, 2), np.finfo(np.float32).max, np.float32))
    assert np.isfinite(made.observations).all()


BARE = ("rewards", "returns", "terminated", "final_observations")


def test_what_a_log_does_not_tell_may_be_left_out(tmp_path):
    bare = counted([4, 3], **dict.fromkeys(BARE))
    assert bare.mean_return is None and bare.return_figures() == {}
    for made in (bare.take(1), bare.select([1, 0]), bare.subsampled(2, seed=0)):
        assert all(getattr(made, name) is None for name in BARE)
    bare.save(tmp_path / "bare.npz")
    again = Demonstrations.load(tmp_path / "bare.npz")
    assert all(getattr(again, name) is None for name in BARE) and np.array_equal(again.actions, bare.actions)
    with pytest.raises(UserError, match="expected final_observations in the demonstrations of Counted-v0"):
        bare.next_observations()
    told = summary_text(summary(bare))
    assert told.count("not known") == 2


def test_returns_are_the_sums_of_the_rewards_where_no_row_was_left_out():
    rewards = np.arange(7.0)
    assert counted([4, 3], rewards=rewards, returns=None).returns.tolist() == [6.0, 15.0]
    assert counted([4, 3], rewards=rewards).returns.tolist() == [4.0, 3.0]  # as given: what was recorded
    assert counted([4, 3], rewards=rewards, returns=None, subsample=2).returns is None
    assert counted([4, 3], rewards=rewards, returns=None).subsampled(2, seed=0).returns.tolist() == [6.0, 15.0]
