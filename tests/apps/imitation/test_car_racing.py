"""The scripted driver of CarRacing, without its images, which take most of a step."""

from dataclasses import replace

import gymnasium
import numpy as np
import pytest
from tiny_environments import Line, demonstrate

from apps.common.cells import read_cells
from apps.imitation.demonstrations import record
from apps.imitation.environments import car_racing
from apps.imitation.environments.demonstrating import expert_demonstrations
from apps.imitation.environments.making import make_env
from apps.imitation.tables import gail
from core_models.errors import UserError


@pytest.fixture
def blind(monkeypatch):
    """CarRacing that draws nothing."""
    make_env("CarRacing-v3").close()  # imports Box2D, quietly
    from gymnasium.envs.box2d.car_racing import CarRacing

    monkeypatch.setattr(CarRacing, "_render", lambda self, mode: np.zeros((96, 96, 3), np.uint8))


def test_the_driver_goes_round_most_of_the_track_and_far_more_than_chance(blind):
    driven = expert_demonstrations("CarRacing-v3", trajectories=2, seed=0)
    assert driven.trajectories == 2 and driven.codes is None and driven.actions.shape[1:] == (3,)
    # 1000 for the whole track, less 0.1 a frame; random actions get -32
    assert driven.returns.min() > 850
    assert set(np.sign(driven.actions[:, 0])) == {-1.0, 1.0} and driven.actions[:, 1:].min() >= 0


def test_first_laps_are_the_same_however_many_there_are(blind):
    one, two = (expert_demonstrations("CarRacing-v3", trajectories=n, seed=3) for n in (1, 2))
    np.testing.assert_array_equal(two.take(1).actions, one.actions)


def test_the_hand_steers_otherwise_than_it_is_told_and_what_was_told_is_recorded(blind):
    class Straight:
        def predict(self, *args, **kwargs):
            return np.array([[0.0, 0.1, 0.0]], np.float32), None

    env = make_env("CarRacing-v3")
    hand = car_racing.UnsteadyHand(env, seed=0)
    told = np.array([0.0, 0.1, 0.0], np.float32)
    steered = np.array([hand.action(told) for _ in range(20_000)])
    np.testing.assert_array_equal(steered[:, 1:], np.tile(told[1:], (len(steered), 1)))
    steer = steered[:, 0]
    assert steer.std() == pytest.approx(car_racing.UNSTEADY, rel=0.1) and abs(steer.mean()) < 0.02
    assert np.corrcoef(steer[:-1], steer[1:])[0, 1] == pytest.approx(car_racing.LASTING, abs=0.02)
    driven = record(Straight(), hand, 1, seed=0)
    np.testing.assert_array_equal(driven.actions, np.tile(told, (len(driven), 1)))
    env.close()


def test_a_driver_that_steers_the_other_way_leaves_the_track(blind):
    class Mirrored(car_racing.TrackDriver):
        def predict(self, *args, **kwargs):
            action, state = super().predict(*args, **kwargs)
            return action * [-1, 1, 1], state

    env = make_env("CarRacing-v3")
    assert record(Mirrored(env), env, 1, seed=0).returns[0] < 200
    env.close()


def test_curvature_of_a_circle_and_of_a_line():
    angles = np.linspace(0, 1, 19)
    circle = 20 * np.stack([np.cos(angles), np.sin(angles)], 1)
    assert car_racing.sharpest(circle) == pytest.approx(1 / 20, rel=2e-3)
    assert car_racing.sharpest(np.stack([angles, 2 * angles], 1)) == pytest.approx(0, abs=1e-9)


def test_another_environment_has_no_track():
    with pytest.raises(UserError, match=r"a track and a car, CarRacing-v3"):
        car_racing.TrackDriver(gymnasium.make("CartPole-v1"))


def test_the_table_makes_the_demonstrations_itself(blind, tmp_path, monkeypatch):
    monkeypatch.setitem(gail.TASKS, "CarRacing", replace(gail.TASKS["CarRacing"], trajectories=(1,)))
    found = gail._expert("CarRacing", 1, "published", None)
    assert found is not None and found[1] == "scripted expert" and found[0].trajectories == 1
    assert gail._expert("CarRacing", 1, "published", tmp_path) is None  # the user's folder, which holds none


def test_what_a_scripted_expert_returns_does_not_depend_on_the_columns_that_are_asked_for(tmp_path, monkeypatch):
    task = gail.Task("TinyLine-v0", 1, 10_000, trajectories=(2, 4), scripted=True, episodes=1)
    monkeypatch.setitem(gail.TASKS, "Line", task)
    monkeypatch.setattr(gail, "random_return", lambda env_id, kwargs: -10.0)
    monkeypatch.setattr(gail, "_learn", lambda *given: None)  # what is reached doesn't matter here
    monkeypatch.setattr(gail, "expert_demonstrations", lambda env_id, trajectories: demonstrate(Line(), trajectories))
    found = []
    for i, asked in enumerate((None, [2], [4, 2], [2, 6])):
        gail.benchmark(["Line"], ["BC"], asked, results=tmp_path / str(i))
        found.append({cell.column: cell for cell in read_cells(tmp_path / str(i))})
    assert [set(cells) for cells in found] == [{"Line 2"}, {"Line 2"}, {"Line 2", "Line 4"}, {"Line 2", "Line 6"}]
    experts = [cell.extra["expert"] for cells in found for cell in cells.values()]
    assert experts == pytest.approx([demonstrate(Line(), 4).returns.mean()] * 6)
    twos = [cells["Line 2"] for cells in found]
    assert len({(cell.value, cell.config_hash) for cell in twos}) == 1  # one that stands is measured once
    assert found[3]["Line 6"].extra["rows"] == 6 * 20
