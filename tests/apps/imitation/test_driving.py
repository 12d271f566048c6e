"""Driving: the geometry of road, car and camera, its experts, and that frames don't give the modes away."""

import math

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import apps.imitation.environments  # noqa: F401  (registers)
from apps.imitation.environments import drawing
from apps.imitation.environments.demonstrating import expert_demonstrations
from apps.imitation.environments.difficulty import measure_difficulty
from apps.imitation.environments.driving import HORIZON, Driving, evaluate_mode
from apps.imitation.environments.experts import MODES, ScriptedDriver
from apps.imitation.environments.road import GRIP, HALF_WIDTH, LENGTH, SHARPEST, WIDTH, Car, Road
from apps.imitation.environments.scenery import KINDS, LINE, SKYLINE, Scenery
from core_models.errors import UserError

STRAIGHT = Road(0.0, 1000, 1001)
TASKS = list(MODES)


def drive(env, code, seed):
    """Returns the last observation, rewards, and the info of each frame of a scripted driver."""
    observation, info = env.reset(seed=seed, options={"code": code})
    driver, infos, rewards = ScriptedDriver(env.task, code, np.random.default_rng(seed)), [info], []
    for _ in range(HORIZON):
        observation, reward, terminated, truncated, info = env.step(driver.act(env.road, env.car))
        infos.append(info)
        rewards.append(reward)
        if terminated:
            break
    assert not truncated
    return observation, rewards, infos


@pytest.fixture(params=TASKS)
def env(request):
    return gymnasium.make("Driving-v0", task=request.param).unwrapped


@pytest.mark.parametrize("task", TASKS)
def test_it_passes_the_checker_of_gymnasium(task):
    check_env(gymnasium.make("Driving-v0", task=task, render_mode="rgb_array").unwrapped)


def test_the_checker_of_stable_baselines3_takes_it(env):
    from stable_baselines3.common.env_checker import check_env as check

    check(env)


# road and car


@pytest.mark.parametrize("side", [1, -1])
def test_the_centre_line_of_a_bend_is_a_circle_seen_from_the_car(side):
    radius, lateral, heading = 70.0, 1.5, 0.1
    road = Road(side / radius, -200, 1000)
    start, ahead, aside, headings = road.seen(30.4, lateral, heading, 5, 60)
    along = start + np.arange(65)
    assert start <= 30.4 - 5 < start + 1
    # the circle's middle lies to the car's side, its distance shorter by how far the car is from the centre line
    middle = (side * radius - lateral) * np.array([math.sin(heading), math.cos(heading)])
    assert np.hypot(ahead - middle[0], aside - middle[1]) == pytest.approx(radius, abs=0.02)
    assert headings == pytest.approx(side * (along - 30.4) / radius - heading, abs=1e-6)
    assert road.heading(50.0) - road.heading(30.4) == pytest.approx(side * 19.6 / radius, abs=1e-6)


def test_a_straight_road_lies_where_the_car_left_it():
    start, ahead, aside, headings = STRAIGHT.seen(12.25, -2.0, 0.0, 3, 20)
    assert ahead == pytest.approx(start + np.arange(23) - 12.25)
    assert aside == pytest.approx(2.0) and headings == pytest.approx(0)


def test_steering_with_the_road_keeps_the_place_across_it():
    road, lateral, speed = Road(1 / 70, -200, 1000), 3.0, 15.0
    own = 1 / (70 - lateral)
    car = Car(0.0, lateral, 0.0, speed, path_curvature=own)
    covered = sum(car.drive(road, own / SHARPEST, (speed / 30) ** 2) for _ in range(20))
    assert car.lateral == pytest.approx(lateral, abs=0.01) and car.heading == pytest.approx(0, abs=1e-3)
    assert covered == pytest.approx(speed * 2, rel=1e-3)
    assert car.progress == pytest.approx(covered * 70 / (70 - lateral), rel=1e-3)  # the inside is shorter


def test_positive_steering_goes_right_up_to_the_grip_of_the_tyres():
    for speed in (5.0, 28.0):
        car = Car(0.0, 0.0, 0.0, speed, path_curvature=SHARPEST)
        car.drive(STRAIGHT, 1.0, (speed / 30) ** 2)
        assert car.lateral > 0
        assert car.heading / 0.1 * speed == pytest.approx(min(SHARPEST * speed**2, GRIP), rel=1e-3)


def test_full_throttle_and_brake():
    car = Car(0.0, 0.0, 0.0, 10.0)
    for _ in range(600):
        car.drive(STRAIGHT, 0.0, 1.0)
    assert car.speed == pytest.approx(30, abs=0.1)
    for _ in range(40):
        car.drive(STRAIGHT, 0.0, -1.0)
    assert car.speed == 0


# the camera


@pytest.mark.parametrize("lateral", [0.0, 3.5, -3.5])
def test_the_painted_edge_is_where_a_pinhole_camera_sees_it(lateral):
    scenery = Scenery(np.random.default_rng(0))
    start, ahead, aside, headings = STRAIGHT.seen(0.0, lateral, 0.0, drawing.BEHIND, drawing.AHEAD)
    at = np.interp(drawing.DISTANCES, ahead + drawing.BACK, np.arange(len(ahead)))
    kinds = drawing._ground_of(scenery, start, at, aside, headings) - scenery.table_rows
    assert kinds.min() >= 0 and kinds.max() < KINDS
    checked = 0
    for row in range(12, 46):
        distance = drawing.FOCAL * drawing.HEIGHT / (row + 0.5)
        for edge in (-HALF_WIDTH + 0.3, HALF_WIDTH - 0.3):
            column = 32 + drawing.FOCAL * (edge - lateral) / distance - 0.5
            if 1 < column < 62:
                found = np.flatnonzero(kinds[row] == LINE)
                assert abs(found - column).min() <= 0.5 + drawing.FOCAL / distance / 8
                checked += 1
    assert checked >= 10


def test_the_other_car_is_seen_where_it_is():
    env = Driving("pass")
    env.reset(seed=0)
    env.car.lateral, env.car.heading = 0.0, 0.0
    env.road = STRAIGHT
    for lateral, gap in ((-4.0, 15.0), (0.0, 20.0), (3.0, 12.0)):
        env.other.lateral, env.other.progress = lateral, env.car.progress + gap
        alone, both = (drawing.draw(env.scenery, env.road, env.car, other) for other in (None, env.other))
        rows, columns = np.nonzero((alone != both).any(-1))
        scale = drawing.FOCAL / (gap + drawing.BACK - LENGTH / 2)
        assert columns.mean() == pytest.approx(31.5 + scale * lateral, abs=1)
        assert np.ptp(columns) + 1 == pytest.approx(scale * WIDTH, abs=2)
        assert rows.max() == pytest.approx(SKYLINE + scale * drawing.HEIGHT, abs=1.5)
    for gap in (300.0, -50.0):
        env.other.progress = env.car.progress + gap
        assert (drawing.draw(env.scenery, env.road, env.car, env.other) == alone).all()


def test_a_turn_of_the_car_moves_the_hills():
    env = Driving("turn")
    env.reset(seed=1)
    env.road = STRAIGHT
    env.scenery._trees = (np.zeros((0, 2)), np.zeros(0), np.zeros(0, np.uint32))
    ahead = drawing.draw(env.scenery, env.road, env.car, None)
    env.car.heading += 10 / 44
    right = drawing.draw(env.scenery, env.road, env.car, None)
    assert (ahead[:SKYLINE, 10:] == right[:SKYLINE, :-10]).all()
    assert (ahead[:SKYLINE] != right[:SKYLINE]).any()


# the environment


def test_the_same_seed_gives_the_same_frames_and_another_one_other_frames(env):
    first, again, other = (drive(env, 0, seed)[0] for seed in (3, 3, 4))
    for key in ("image", "state"):
        np.testing.assert_array_equal(first[key], again[key])
        assert (first[key] != other[key]).any()


def test_the_label_changes_nothing_but_the_info(env):
    runs = []
    for options in (None, {"code": 0}, {"code": 1}):
        observation, info = env.reset(seed=5, options=options)
        assert info.get("code") == (options or {}).get("code")
        told = [env.step(np.array([0.1, 0.2], np.float32)) for _ in range(5)]
        assert all(own[4].get("code") == (options or {}).get("code") for own in told)
        images = [observation["image"], *(own[0]["image"] for own in told)]
        runs.append((np.stack(images), told[-1][0]["state"], [own[1] for own in told]))
    for run in runs[1:]:
        for found, expected in zip(run, runs[0], strict=True):
            np.testing.assert_array_equal(found, expected)


def test_only_the_image_says_where_the_car_is(env):
    env.reset(seed=6)
    still = np.zeros(2, np.float32)
    seen = []
    for lateral in (-3.0, 3.0):
        env.car.lateral, env.car.heading = lateral, 0.0
        speed, env.car.speed = env.car.speed, 0.0
        env.step(still)
        seen.append(env.step(still)[0])
        env.car.speed = speed
    np.testing.assert_array_equal(seen[0]["state"], seen[1]["state"])
    assert (seen[0]["image"] != seen[1]["image"]).mean() > 0.1


def test_the_state_is_the_speed_and_the_last_two_actions():
    env = Driving("turn")
    env.reset(seed=0)
    for action in ((0.1, 0.5), (-0.2, 3.0), (0.3, -0.25)):  # 3.0 is cut to the bounds
        observation = env.step(np.array(action, np.float32))[0]
    assert observation["state"] == pytest.approx([env.car.speed / 30, 0.3, -0.25, -0.2, 1.0])


@pytest.mark.parametrize("code", [0, 1])
def test_experts_do_what_their_code_says_and_arrive(env, code):
    for seed in range(12):
        _, rewards, infos = drive(env, code, seed)
        assert len(rewards) == HORIZON and not infos[-1]["collided"] and not infos[-1]["offroad"]
        assert infos[-1]["distance"] == pytest.approx(sum(rewards)) and 185 < sum(rewards) < 215
        assert evaluate_mode(infos) == code == infos[-1]["code"]
        places = [info["lateral"] for info in infos]
        assert abs(places[0]) < 1.3 and max(map(abs, places)) < 5.2
    right = {"turn": "inside", "pass": "right"}[env.task]
    assert (places[-1] > 0) == (MODES[env.task][code] == right)


def test_leaving_the_road_ends_the_episode(env):
    env.reset(seed=0)
    for _ in range(HORIZON):
        _, reward, terminated, _, info = env.step(np.array([-1.0, 0.5], np.float32))
        if terminated:
            break
    assert info["offroad"] and not info["collided"] and info["lateral"] < -HALF_WIDTH
    assert evaluate_mode([info]) is None
    before = info["distance"]
    _, reward, terminated, _, info = env.step(np.array([0.0, 1.0], np.float32))
    assert (reward, terminated, info["distance"]) == (0.0, True, before)


def test_running_into_the_other_car_ends_the_episode():
    env = Driving("pass")
    _, info = env.reset(seed=0)
    driver, infos = ScriptedDriver("pass", None, np.random.default_rng(0)), [info]
    while not info["collided"]:
        _, _, terminated, _, info = env.step(driver.act(env.road, env.car))
        infos.append(info)
        assert len(infos) < HORIZON
    assert terminated and 0 < info["gap"] < LENGTH
    assert evaluate_mode(infos) is None


def test_who_keeps_to_the_middle_of_a_turn_has_chosen_neither():
    env = Driving("turn")
    _, info = env.reset(seed=1)
    driver, infos = ScriptedDriver("turn", None, np.random.default_rng(0)), [info]
    driver.target = 0.0
    for _ in range(HORIZON):
        infos.append(env.step(driver.act(env.road, env.car))[4])
    assert sum(info["bend"] for info in infos) > 30 and evaluate_mode(infos) is None
    shifted = [{**info, "lateral": info["lateral"] + 2} for info in infos]
    assert evaluate_mode(shifted) == 0
    # who leaves the road in the bend has chosen nothing, who does so after it has
    assert evaluate_mode([info | {"offroad": True} for info in shifted if info["bend"]]) is None
    assert evaluate_mode([*shifted[:-1], shifted[-1] | {"offroad": True}]) == 0
    assert evaluate_mode(shifted[: sum(not info["bend"] for info in infos[:60])]) is None  # hardly begun


def test_demonstrations_are_balanced_and_replayable():
    found = expert_demonstrations("Driving-v0", "pass", 3, seed=1)
    assert found.codes.tolist() == [0, 1, 0] and (found.lengths == HORIZON).all()
    assert (found.environment, found.environment_kwargs) == ("Driving-v0", {"task": "pass"})
    assert found.observations["image"].shape == (300, 64, 64, 3)
    again = expert_demonstrations("Driving-v0", "pass", 2, seed=1)
    np.testing.assert_array_equal(again.actions, found.take(2).actions)
    np.testing.assert_array_equal(again.observations["image"], found.take(2).observations["image"])
    env = gymnasium.make("Driving-v0", task="pass")
    world = int(np.random.default_rng(1).integers(2**31, size=(1, 2))[0, 0])
    observation, _ = env.reset(seed=world)
    for row in range(HORIZON):
        np.testing.assert_array_equal(observation["image"], found.observations["image"][row])
        np.testing.assert_array_equal(observation["state"], found.observations["state"][row])
        observation, reward, _, truncated, _ = env.step(found.actions[row])
        assert reward == pytest.approx(found.rewards[row], rel=1e-6)
    assert truncated
    np.testing.assert_array_equal(observation["image"], found.final_observations["image"][0])
    with pytest.raises(UserError, match="turn or pass, got None"):
        expert_demonstrations("Driving-v0")


@pytest.mark.parametrize("task", TASKS)
def test_pixels_hide_the_modes_and_labels_show_them(task):
    found = measure_difficulty(expert_demonstrations("Driving-v0", task, 40, seed=0), every=12, epochs=6)
    assert found.frames == 334
    assert max(found.kmeans, found.pca) <= 0.70
    assert found.cnn > 0.8
    assert found.svm > 0.6


def test_difficulty_needs_images_and_labels():
    circles = expert_demonstrations("Circles-v0", trajectories=3)
    with pytest.raises(UserError, match="with images, as Driving-v0 has them, got Circles-v0"):
        measure_difficulty(circles)
    with pytest.raises(UserError, match=r"two or more trajectories of each of two modes, .* got \[2, 1\]"):
        measure_difficulty(expert_demonstrations("Driving-v0", "turn", 3))


def test_mistakes_are_named():
    with pytest.raises(UserError, match="turn, pass, got 'overtake'"):
        Driving("overtake")
    env = Driving("turn")
    with pytest.raises(UserError, match="from 0 to 1"):
        env.reset(options={"code": 2})
    env.reset(seed=0)
    with pytest.raises(UserError, match="finite steering and throttle, got nan, 0"):
        env.step(np.array([np.nan, 0]))


def test_a_picture_is_the_frame_four_times_as_large():
    env = Driving("turn", render_mode="rgb_array")
    observation, _ = env.reset(seed=0)
    image = env.render()
    assert image.shape == (256, 256, 3)
    np.testing.assert_array_equal(image[::4, ::4], observation["image"])
    assert Driving("turn").render() is None
