"""Demonstrations in .npz files: what is written comes back, and what is damaged or foreign is one line."""

import io
import json
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from demonstrations_made import counted, pictured

from apps.imitation.demonstrations import Demonstrations
from core_models.errors import UserError


def same(first: Demonstrations, second: Demonstrations) -> bool:
    def equal(a: object, b: object) -> bool:
        if isinstance(a, dict) and isinstance(b, dict):
            return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
        if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
            return a.dtype == b.dtype and np.array_equal(a, b)
        return a == b

    return equal(vars(first), vars(second))


def rewritten(path: Path, **change: object) -> Path:
    """The file with some arrays changed, and those given as None left out."""
    with np.load(path) as loaded:
        arrays = {**dict(loaded), **change}
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return path


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "made.npz"
    counted([3, 1, 2]).save(path)
    return path


@pytest.mark.parametrize(
    "made",
    [
        counted([3, 1, 2], environment_kwargs={"use_contact_forces": True}, card={"who": "TRPO", "seed": 7}),
        counted([30, 10], codes=None).subsampled(4, seed=0),
        pictured([3, 1, 2]),
    ],
    ids=["card", "thinned", "dict"],
)
def test_what_is_saved_is_loaded(made, tmp_path):
    made.save(tmp_path / "made.npz")
    assert same(Demonstrations.load(tmp_path / "made.npz"), made)


def test_the_file_is_what_it_is_said_to_be(saved):
    with np.load(saved, allow_pickle=False) as loaded:
        assert set(loaded.files) == {
            "observations", "actions", "rewards", "lengths", "returns", "terminated", "final_observations",
            "environment", "codes", "version",
        }  # fmt: skip
        assert json.loads(str(loaded["environment"])) == {"id": "Counted-v0", "kwargs": {}, "subsample": 1}
        assert int(loaded["version"]) == 1
    first = saved.read_bytes()
    counted([3, 1, 2]).save(saved)
    assert saved.read_bytes() == first  # no time of writing in it


def test_a_file_without_version_is_read(saved):
    assert same(Demonstrations.load(rewritten(saved, version=None)), counted([3, 1, 2]))


@pytest.mark.data
@pytest.mark.skipif(not os.environ.get("GENAPPS_DATA"), reason="needs demonstrations in $GENAPPS_DATA")
def test_the_experts_of_the_paper_are_read():
    folder = Path(os.environ["GENAPPS_DATA"]) / "demonstrations"
    found = {path.stem: Demonstrations.load(path) for path in folder.glob("*.npz")}
    assert found["Reacher-v4"].trajectories == 18 and found["Reacher-v4"].subsample == 1
    assert found["Ant-v4"].environment_kwargs == {"use_contact_forces": True}
    humanoid = found["Humanoid-v4"]
    assert humanoid.subsample == 20
    assert np.array_equal(humanoid.steps[:3], [423, 293, 726])


BROKEN = {
    "newer": ({"version": np.array(2)}, "version 1, got 2: update genapps"),
    "version in words": ({"version": np.array("one")}, "one whole number in version"),
    "missing": ({"actions": None, "lengths": None}, "actions, lengths missing; found codes"),
    "no environment": ({"environment": None}, "environment missing; found"),
    "environment no JSON": ({"environment": np.array("Hopper-v4")}, "expected JSON in environment, got 'Hopper-v4'"),
    "environment a list": ({"environment": np.array("[1]")}, "JSON object in environment, got"),
    "environment without id": ({"environment": np.array("{}")}, "JSON with id, kwargs and subsample"),
    "card no JSON": ({"card": np.array("by me")}, "expected JSON in card, got 'by me'"),
    "does not fit": ({"actions": np.zeros(3, int)}, "expected 6 entries in actions"),
    "NaN": ({"rewards": np.array([0, 0, 0, np.nan, 0, 0])}, "rewards, got nan in row 0 of trajectory 1"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_is_no_demonstration_is_named_with_its_fault(name, saved):
    change, message = BROKEN[name]
    with pytest.raises(UserError, match=message) as raised:
        Demonstrations.load(rewritten(saved, **change))
    assert str(saved) in str(raised.value) and "\n" not in str(raised.value)


class Opened:
    """Unpickled, it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


def test_pickled_arrays_are_refused_unopened(saved, tmp_path):
    mark = tmp_path / "ran"
    rewritten(saved, observations=np.array([Opened(mark)] * 6, dtype=object))
    with pytest.raises(UserError, match="plain arrays, got Python objects in observations"):
        Demonstrations.load(saved)
    saved.write_bytes(pickle.dumps(Opened(mark)))
    with pytest.raises(UserError, match="pickled files are not opened"):
        Demonstrations.load(saved)
    assert not mark.exists()


def test_damaged_files_are_refused_wherever_the_damage_is(saved):
    whole = saved.read_bytes()
    for cut in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        saved.write_bytes(whole[:cut])
        with pytest.raises(UserError, match=r"whole \.npz file"):
            Demonstrations.load(saved)
    refused = 0
    for place in range(0, len(whole), 7):  # a byte of another value, anywhere in the file
        saved.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            loaded = Demonstrations.load(saved)
        except UserError as error:
            refused += "\n" not in str(error)
        else:  # in a time, an attribute or such: nothing that is read
            assert same(loaded, counted([3, 1, 2]))
    assert refused > 100


def test_other_files_are_refused(tmp_path):
    with pytest.raises(UserError, match="found no file"):
        Demonstrations.load(tmp_path / "none.npz")
    with pytest.raises(UserError, match="found no file"):
        Demonstrations.load(tmp_path)
    array = io.BytesIO()
    np.save(array, np.zeros(3))
    (tmp_path / "one.npz").write_bytes(array.getvalue())
    with pytest.raises(UserError, match=r"whole \.npz file of plain arrays, got something else"):
        Demonstrations.load(tmp_path / "one.npz")
    with zipfile.ZipFile(tmp_path / "notes.npz", "w") as archive:
        archive.writestr("notes.txt", "nothing")
    with pytest.raises(UserError, match=r"something else in notes\.txt"):
        Demonstrations.load(tmp_path / "notes.npz")


def test_what_cannot_be_written_leaves_no_file(tmp_path):
    path = tmp_path / "made.npz"
    with pytest.raises(UserError, match=r"plain values .* in card"):
        counted([2], card={"who": object()}).save(path)
    with pytest.raises(UserError, match=r"ends in \.npz, got .*made\.pkl"):
        counted([2]).save(tmp_path / "made.pkl")
    assert not list(tmp_path.iterdir())
