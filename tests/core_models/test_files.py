"""Files written whole or not at all."""

import errno
import json

import numpy as np
import pytest

from core_models.errors import UserError
from core_models.files import atomic_folder, read_json, write_json


def test_numbers_and_arrays_of_numpy_are_written_as_pythons_own(tmp_path):
    value = {"n": np.int64(3), "rate": np.float32(0.5), "is": np.bool_(True), "sizes": np.array([[1, 2], [3, 4]])}
    write_json(tmp_path / "a.json", {"settings": [value, np.uint8(7)], "text": np.str_("b")})
    plain = {"n": 3, "rate": 0.5, "is": True, "sizes": [[1, 2], [3, 4]]}
    assert read_json(tmp_path / "a.json") == {"settings": [plain, 7], "text": "b"}
    write_json(tmp_path / "b.json", {"settings": [plain, 7], "text": "b"})
    assert (tmp_path / "a.json").read_text() == (tmp_path / "b.json").read_text()


def test_what_is_no_json_is_refused_and_leaves_the_file_as_it_was(tmp_path):
    write_json(tmp_path / "a.json", [1])
    with pytest.raises(TypeError, match="expected numbers, text, lists and dicts, got object"):
        write_json(tmp_path / "a.json", [object()])
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert json.loads((tmp_path / "a.json").read_text()) == [1]


def test_a_folder_is_there_whole_or_not_at_all(tmp_path):
    path = tmp_path / "some" / "folder"
    with pytest.raises(KeyError), atomic_folder(path) as half:
        (half / "a").write_text("1")
        raise KeyError
    assert list(path.parent.iterdir()) == []
    with atomic_folder(path) as whole:
        (whole / "a").write_text("1")
        assert not path.exists()
    assert [found.name for found in path.parent.iterdir()] == ["folder"] and (path / "a").read_text() == "1"
    other = tmp_path / "plain"
    other.mkdir()
    assert path.stat().st_mode == other.stat().st_mode  # open to whom the user opens folders
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"could not write .*below: "), atomic_folder(tmp_path / "file" / "below"):
        pass
    with pytest.raises(UserError, match="the disk is full"), atomic_folder(tmp_path / "more"):
        raise OSError(errno.ENOSPC, "No space left on device")
