"""Demonstrations held against an environment's spaces, and what a summary says of them."""

import numpy as np
import pytest
from demonstrations_made import counted, pictured
from gymnasium import spaces

from apps.imitation.demonstrations import check_spaces, summary, summary_text
from apps.imitation.demonstrations.checking import oddities
from core_models.errors import UserError

PLANE = spaces.Box(-np.inf, np.inf, (2,), np.float64)
PICTURE = spaces.Dict({"image": spaces.Box(0, 255, (4, 4, 3), np.uint8), "state": spaces.Box(-9, 9, (1,))})


def test_demonstrations_of_the_environment_pass():
    check_spaces(counted([3, 2]), PLANE, spaces.Discrete(2))
    check_spaces(pictured([3, 2]), PICTURE, spaces.Discrete(2))
    check_spaces(counted([3, 2], actions=np.ones((5, 1)) * 7.0), PLANE, spaces.Box(-1, 1, (1,)))
    check_spaces(counted([3, 2], actions=np.array([1, 2, 1, 2, 2])), PLANE, spaces.Discrete(2, start=1))
    check_spaces(counted([3, 2], actions=np.tile([2, 0], (5, 1))), PLANE, spaces.MultiDiscrete([3, 1]))
    check_spaces(counted([3, 2], actions=np.tile([1, 0, 1], (5, 1))), PLANE, spaces.MultiBinary(3))
    plain = {"observations": np.arange(5), "final_observations": np.array([3, 4])}
    check_spaces(counted([3, 2], **plain), spaces.Discrete(5), spaces.Discrete(2))


@pytest.mark.parametrize(
    ("change", "observation_space", "action_space", "message"),
    [
        ({}, spaces.Box(-1, 1, (3,)), None, r"observations of shape \(3,\) each, as Target-v0 has them \(Box\(3, "),
        ({}, PICTURE, None, r"observations as Target-v0 has them, the keys image, state, got one array of shape \(2,"),
        ({}, None, spaces.Box(-1, 1, (3,)), r"actions of shape \(3,\) each.*got \(\): these demonstrations are of Cou"),
        ({}, None, spaces.Discrete(1), r"actions within Discrete\(1\).*got 1 in row 1 of trajectory 0"),
        ({}, None, spaces.Discrete(3, start=1), r"Discrete\(3, start=1\).*got 0 in row 0 of trajectory 0"),
        ({"actions": np.zeros((5, 1), int)}, None, spaces.Discrete(2), r"actions of shape \(\) each.*got \(1,\)"),
        ({"actions": np.array([0.0, 1, 0, 0.5, 1])}, None, spaces.Discrete(2), r"whole numbers \(int64\) in actions"),
        ({"actions": np.tile([2, 1], (5, 1))}, None, spaces.MultiDiscrete([3, 1]), "got 1 in row 0 of trajectory 0"),
        ({"actions": np.tile([0, 2], (5, 1))}, None, spaces.MultiBinary(2), "got 2 in row 0 of trajectory 0"),
        ({}, spaces.Box(0, 255, (2,), np.uint8), None, r"whole numbers \(uint8\) in observations"),
        ({}, spaces.Tuple([PLANE]), None, "space of one array .*Target-v0 has Tuple"),
        (
            {"observations": np.array([0, 1, 2, 3, 5]), "final_observations": np.zeros(2, int)},
            spaces.Discrete(5),
            None,
            "observations within.*got 5 in row 1 of trajectory 1",
        ),
        (
            {"observations": np.zeros(5, int), "final_observations": np.array([0, 7])},
            spaces.Discrete(5),
            None,
            "final_observations within.*got 7 in trajectory 1",
        ),
    ],
)
def test_demonstrations_of_another_environment_are_refused(change, observation_space, action_space, message):
    with pytest.raises(UserError, match=message) as raised:
        check_spaces(
            counted([3, 2], **change), observation_space or PLANE, action_space or spaces.Discrete(2), "Target-v0"
        )
    assert "\n" not in str(raised.value)


def test_dict_observations_of_another_environment_are_refused():
    with pytest.raises(UserError, match=r"Target-v0 has them, one array, got the keys image, state"):
        check_spaces(pictured([3]), PLANE, spaces.Discrete(2), "Target-v0")
    more = spaces.Dict({**PICTURE.spaces, "speed": PLANE})
    with pytest.raises(UserError, match=r"keys image, speed, state, as the environment has them, got image, state"):
        check_spaces(pictured([3]), more, spaces.Discrete(2))
    larger = spaces.Dict({**PICTURE.spaces, "image": spaces.Box(0, 255, (8, 8, 3), np.uint8)})
    with pytest.raises(UserError, match=r"observations\.image of shape \(8, 8, 3\) each.*got \(4, 4, 3\)"):
        check_spaces(pictured([3]), larger, spaces.Discrete(2))


def test_a_return_that_is_not_the_sum_of_rewards_is_told():
    assert not [line for line in oddities(counted([3, 2])) if "returns" in line]
    told = oddities(counted([3, 2], returns=np.array([3.0, 2.1])))
    assert told == ["returns differ from the sum of rewards in 1 of 2 trajectories: 2.1 and 2 in trajectory 1"]
    # where rows were left out their rewards are missing from the sum
    assert not oddities(counted([30, 20]).subsampled(3, seed=0))
    # float32 rewards add up to what float64 ones did, but for rounding
    rewards = np.random.default_rng(0).normal(size=1000) * 1e3
    rounded = counted([1000], rewards=rewards.astype(np.float32), returns=np.array([rewards.sum()]))
    assert not oddities(rounded)


def test_repeated_trajectories_and_blank_images_are_told():
    twice = counted([3, 2]).select([0, 1, 0])
    assert oddities(twice) == [
        "1 of 3 trajectories repeat an earlier one row by row, such as 0 and 2: were they recorded with one seed?"
    ]
    blank = pictured([3, 2])
    blank.observations["image"][:] = 0
    assert oddities(blank) == ["observations.image are the same in every row: was nothing rendered?"]


def test_numbers_beyond_their_bounds_are_counted():
    made = counted([3, 2], actions=np.array([[0.0], [0.5], [1.0], [1.5], [-2.0]]))
    told = oddities(made, spaces.Box(-4, 3, (2,)), spaces.Box(-1, 1, (1,)))
    assert told == [
        "40.00% of the numbers in actions lie beyond the bounds of their space",
        "10.00% of the numbers in observations lie beyond the bounds of their space",
    ]


def test_summary_says_what_there_is():
    made = counted([40, 20], environment_kwargs={"wind": 2}, card={"who": "PPO", "seed": 3}).subsampled(10, seed=0)
    found = summary(made)
    assert found["trajectories"] == 2 and found["rows"] == 6 and found["subsample"] == 10
    assert found["steps"] == {"sum": 60, "min": 20, "max": 40}
    assert found["returns"] == {"mean": 30.0, "std": 10.0, "min": 20.0, "max": 40.0}
    assert found["observations"] == {"shape": [2], "dtype": "float32"}
    assert sum(found["actions"]["counts"].values()) == 6
    assert found["codes"] == {"0": 1, "1": 1} and found["terminated"] == 1
    text = summary_text(found)
    for words in ("Counted-v0 (wind=2)", "2 of 20 to 40 steps; 6 rows, one in 10 of 60 steps", "30.00 ± 10.00 (std)",
                  "1 by the environment, 1 by time", "(2) float32", "card: who:", "PPO"):  # fmt: skip
        assert words in text
    told = summary_text(summary(counted([3, 2], returns=np.array([3.0, 9.0]))))
    assert "warning: returns differ" in told


def test_summary_of_images_and_of_continuous_actions():
    found = summary(pictured([3, 2]))
    assert found["observations"]["image"] == {"shape": [4, 4, 3], "dtype": "uint8"}
    assert "image (4, 4, 3) uint8, state (1) float32" in summary_text(found)
    found = summary(counted([2], actions=np.array([[0.25, -1.0], [0.5, 2.0]]), codes=None))
    assert (found["actions"]["min"], found["actions"]["max"]) == (-1.0, 2.0)
    assert "(2) float64, -1 to 2" in summary_text(found) and "codes" not in summary_text(found)
