"""Demonstrations to and from Minari's data sets, as minari itself reads and writes them."""

import json
import shutil
import sys

import gymnasium
import minari
import numpy as np
import pytest
from demonstrations_made import counted
from gymnasium import spaces
from minari.data_collector import EpisodeBuffer
from minari.dataset.minari_storage import MinariStorage

from apps.imitation.demonstrations import RandomPolicy, read_minari, record, write_minari
from core_models.errors import UserError

NAME = "CartPole/random-v0"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Minari's data sets in a folder of the test's own."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "sets"))
    return tmp_path / "sets"


@pytest.fixture(scope="module")
def recorded():
    env = gymnasium.make("CartPole-v1", max_episode_steps=15)
    return record(RandomPolicy(env.action_space, 0), env, 6, seed=0, card={"who": "random", "seed": 0})


def foreign(folder, episodes, observation_space, action_space, **metadata):
    """A data set written by minari alone."""
    (folder / "foreign-v0").mkdir(parents=True)
    storage = MinariStorage.new(folder / "foreign-v0" / "data", observation_space, action_space)
    storage.update_metadata({"dataset_id": "foreign-v0", "minari_version": minari.__version__, **metadata})
    storage.update_episodes(episodes)
    return folder / "foreign-v0"


def episode(observations, actions, end="terminations", **more):
    n = len(actions)
    flags = {"terminations": np.zeros(n, bool), "truncations": np.zeros(n, bool)}
    if end:
        flags[end][-1] = True
    return EpisodeBuffer(
        observations=observations, actions=np.asarray(actions), rewards=np.ones(n), **{**flags, **more}
    )


PLANE, PUSH = spaces.Box(-9, 9, (2,), np.float64), spaces.Box(-1, 1, (1,))


def test_minari_reads_what_is_written(recorded, folder):
    assert write_minari(recorded, NAME, author="somebody") == folder / NAME
    data = minari.load_dataset(NAME)
    assert data.total_episodes == 6 and data.total_steps == len(recorded)
    assert data.spec.env_spec.id == "CartPole-v1" and data.spec.env_spec.max_episode_steps == 15
    starts = recorded.row_starts()
    for i, own in enumerate(data.iterate_episodes()):
        rows = slice(starts[i], starts[i] + recorded.lengths[i])
        assert np.array_equal(own.observations[:-1], recorded.observations[rows])
        assert np.array_equal(own.observations[-1], recorded.final_observations[i])
        assert np.array_equal(own.actions, recorded.actions[rows])
        assert own.terminations.sum() == recorded.terminated[i] == own.terminations[-1]
        assert own.truncations.sum() == 1 - recorded.terminated[i] == own.truncations[-1]
    assert 0 < recorded.terminated.sum() < 6  # both ends occur
    assert list(minari.list_local_datasets()) == [NAME]
    assert [path.name for path in (folder / "CartPole").iterdir()] == ["random-v0"]


def test_what_is_written_is_read(recorded, folder):
    written = write_minari(recorded, NAME)
    for source in (NAME, written, written / "data"):
        read = read_minari(source)
        for name in ("observations", "actions", "rewards", "lengths", "terminated", "final_observations"):
            assert np.array_equal(getattr(read, name), getattr(recorded, name)), name
        assert read.returns == pytest.approx(recorded.returns)
        assert (read.environment, read.environment_kwargs) == ("CartPole-v1", {"max_episode_steps": 15})
        assert read.card == {"who": "random", "seed": 0, "minari": NAME} and read.codes is None
    assert read_minari(NAME, trajectories=2).lengths.tolist() == recorded.lengths[:2].tolist()


def test_what_minari_wrote_is_read(folder):
    first = episode(np.arange(6.0).reshape(3, 2), [[0.5], [-0.5]])
    second = episode(np.arange(8.0).reshape(4, 2) + 10, [[0.1], [0.2], [0.3]], end="truncations")
    third = episode(np.arange(4.0).reshape(2, 2) + 20, [[0.7]], end=None)
    foreign(folder, [first, second, third], PLANE, PUSH, algorithm_name="SAC", author={"b", "a"}, description="walks")
    read = read_minari("foreign-v0", environment="Plane-v0")
    assert read.observations.tolist() == [[0, 1], [2, 3], [10, 11], [12, 13], [14, 15], [20, 21]]
    assert read.final_observations.tolist() == [[4, 5], [16, 17], [22, 23]]
    assert read.actions[:, 0] == pytest.approx([0.5, -0.5, 0.1, 0.2, 0.3, 0.7])
    assert read.observations.dtype == np.float32
    assert read.lengths.tolist() == [2, 3, 1] and read.returns.tolist() == [2, 3, 1]
    assert read.terminated.tolist() == [True, False, False]
    assert read.card == {"algorithm_name": "SAC", "author": "a, b", "description": "walks", "minari": "foreign-v0"}
    with pytest.raises(UserError, match="the gymnasium id of its environment, found none: give --environment"):
        read_minari("foreign-v0")


def test_dict_observations_images_and_codes_go_there_and_back(folder):
    class Pictured(gymnasium.Env):
        observation_space = spaces.Dict({"image": spaces.Box(0, 255, (40, 36, 3), np.uint8), "state": PLANE})
        action_space = PUSH

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.at = 0
            return self.observation_space.sample(), {}

        def step(self, action):
            self.at += 1
            return self.observation_space.sample(), 1.0, self.at == 3, False, {"code": 2}

    gymnasium.register("Pictured-v0", Pictured)
    try:
        env = gymnasium.make("Pictured-v0", disable_env_checker=True)
        made = record(RandomPolicy(env.action_space, 0), env, 2, seed=0)
        write_minari(made, "pictured-v0")
    finally:
        gymnasium.registry.pop("Pictured-v0")
    read = read_minari("pictured-v0")
    assert read.environment == "Pictured-v0"  # although its class has no import path that gymnasium could write
    assert read.codes.tolist() == [2, 2]
    assert np.array_equal(read.observations["image"], made.observations["image"])  # no JPEG
    assert np.array_equal(read.observations["state"], made.observations["state"])
    assert np.array_equal(read.final_observations["image"], made.final_observations["image"])


def test_what_minari_cannot_keep_is_refused(recorded, folder, monkeypatch):
    with pytest.raises(UserError, match="complete trajectories, as Minari keeps them, got one row in 3"):
        write_minari(recorded.subsampled(3, seed=0), NAME)
    for name in ("CartPole", "CartPole-v", "../up-v0", "a b-v0", "/root-v0", ""):
        with pytest.raises(UserError, match="data set's name as Minari has them"):
            write_minari(recorded, name)
    with pytest.raises(UserError, match=r"expected the id of a gymnasium environment, got 'Counted-v0': "):
        write_minari(counted([2]), NAME)
    with pytest.raises(UserError, match=r"shape \(4,\) each, as CartPole-v1 has them"):
        write_minari(counted([2], environment="CartPole-v1"), NAME)
    assert not folder.exists()
    write_minari(recorded, NAME)
    with pytest.raises(UserError, match="is there already: choose another name or version"):
        write_minari(recorded, NAME)

    def fails(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(MinariStorage, "update_metadata", fails)
    with pytest.raises(UserError, match=r"could not write .*random-v1: the disk is full"):
        write_minari(recorded, "CartPole/random-v1")
    assert [path.name for path in (folder / "CartPole").iterdir()] == ["random-v0"]


def test_data_sets_that_cannot_be_read_are_one_line(recorded, folder):
    with pytest.raises(UserError, match=r"found none at D4RL/pen/expert-v2 nor in .*nothing is downloaded"):
        read_minari("D4RL/pen/expert-v2")
    written = write_minari(recorded, NAME)
    with pytest.raises(UserError, match="expected 1 to 6 episodes, got 7"):
        read_minari(NAME, trajectories=7)
    data, metadata = written / "data" / "main_data.hdf5", written / "data" / "metadata.json"
    whole, said = data.read_bytes(), json.loads(metadata.read_text())
    for cut in (0, len(whole) // 2):
        data.write_bytes(whole[:cut])
        with pytest.raises(UserError, match="expected a whole Minari data set"):
            read_minari(NAME)
    data.write_bytes(whole)
    metadata.write_text(json.dumps({**said, "minari_version": "9.0.0"}))
    with pytest.raises(UserError, match=r"does not support the dataset generated by Minari 9\.0\.0"):
        read_minari(NAME)
    del said["action_space"]
    metadata.write_text(json.dumps(said))
    with pytest.raises(UserError, match="that says its spaces, found none"):
        read_minari(NAME)
    metadata.write_text("{")
    with pytest.raises(UserError, match="expected a Minari data set"):
        read_minari(NAME)
    shutil.rmtree(written / "data")
    with pytest.raises(UserError, match="expected a Minari data set, found none"):
        read_minari(NAME)


def test_episodes_that_are_no_demonstrations_are_named(folder):
    short = [episode(np.zeros((3, 2)), [[0.0]] * 2), episode(np.zeros((2, 2)), [[0.0]] * 2)]
    where = foreign(folder, short, PLANE, PUSH)
    with pytest.raises(UserError, match=r"foreign-v0: expected one more observation than the 2 steps of episode 1"):
        read_minari("foreign-v0", environment="Plane-v0")
    shutil.rmtree(where)
    nan = episode(np.array([[0.0, 1], [np.nan, 0], [0, 0]]), [[0.0]] * 2)
    where = foreign(folder, [nan], PLANE, PUSH)
    with pytest.raises(UserError, match="foreign-v0: expected finite numbers in observations, got nan in row 1 of"):
        read_minari("foreign-v0", environment="Plane-v0")
    shutil.rmtree(where)
    pair = spaces.Tuple([PLANE, PLANE])
    where = foreign(folder, [episode((np.zeros((2, 2)), np.zeros((2, 2))), [[0.0]])], pair, PUSH)
    with pytest.raises(UserError, match="an array or a dict of arrays in the observations of episode 0, got tuple"):
        read_minari("foreign-v0", environment="Plane-v0")
    shutil.rmtree(where)
    foreign(folder, [], PLANE, PUSH)
    with pytest.raises(UserError, match="expected episodes, got none"):
        read_minari("foreign-v0", environment="Plane-v0")


def test_without_minari_a_line_says_how_to_get_it(recorded, monkeypatch):
    monkeypatch.setitem(sys.modules, "minari", None)
    for ask in (lambda: write_minari(recorded, NAME), lambda: read_minari(NAME)):
        with pytest.raises(UserError, match=r"found none: pip install 'genapps\[minari\]'"):
            ask()
