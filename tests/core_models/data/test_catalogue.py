import numpy as np
import pytest
import torch

from core_models.data import DataSet, NoSourceError, digest, load, names
from core_models.errors import UserError


def test_digits_need_nothing():
    data = load("digits", root="no/such/folder")
    assert data.train_x.shape == (1437, 1, 8, 8)
    assert data.test_x.shape == (360, 1, 8, 8)
    assert data.levels == 17
    assert data.images("train").max() == 1
    assert data.train_y.bincount().min() > 130
    assert data.test_y.bincount().tolist() == [36, 37, 35, 37, 36, 36, 36, 36, 35, 36]
    assert torch.equal(data.test_x, load("digits").test_x)


def test_every_name_says_where_to_get_it_when_it_is_nowhere(tmp_path, monkeypatch):
    monkeypatch.setenv("GENAPPS_DATA", str(tmp_path))
    for name in set(names()) - {"digits"}:
        with pytest.raises(NoSourceError, match=r"get them from http.* and put them into") as caught:
            load(name, download=False)
        assert "\n" not in str(caught.value)


def test_an_unknown_name_is_refused_with_a_hint():
    with pytest.raises(UserError, match="got 'mnits', which is none; did you mean mnist"):
        load("mnits")
    with pytest.raises(UserError, match="found nothing at"):
        load("mine.npz")
    with pytest.raises(UserError, match="folder of images to go with image_size"):
        load("digits", image_size=8)


def test_splits_that_do_not_fit_are_refused():
    x, y = torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1, 0, -1])
    data = DataSet("d", x, y, x, y, ("a", "b"), "here")
    assert data.event_shape == (1, 2, 2)
    with pytest.raises(UserError, match="d has no valid split"):
        data.images("valid")
    for arguments, message in {
        (x, y[1:], x, y): "4 train images, 3 labels",
        (x, y, x[..., 1:], y): r"test images of shape \(1, 2, 2\), as in training, got \(1, 2, 1\)",
        (x, y + 1, x, y): "train labels from -1 to 1, got 0 to 2",
        (x, y, x, y - 1): "test labels from -1 to 1, got -2 to 0",
        (x, y, x[:0], y[:0]): "expected images in its test split, got none",
    }.items():
        with pytest.raises(UserError, match=message):
            DataSet("d", *arguments, ("a", "b"), "here")


def test_images_are_a_fresh_copy():
    data = load("digits")
    data.images("train").zero_()
    assert data.train_x.max() == 16
    assert np.isclose(data.images("train").mean(), data.train_x.float().mean() / 16)


def test_a_digest_tells_files_and_folders_of_one_name_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = [tmp_path / name for name in ("a.npz", "b.npz", "c.npz")]
    for path, content in zip(files, (b"0123", b"0123", b"0124"), strict=True):
        path.write_bytes(content)
    one, same, other = map(digest, files)
    assert one == same != other
    assert one is not None and len(one) == 12 and int(one, 16) >= 0
    assert digest("a.npz") == one  # where it lies plays no part
    found = []
    for place, content in (("x/1.png", b"ab"), ("x/1.png", b"ac"), ("x/deep/1.png", b"ac"), ("x/2.png", b"")):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_bytes(content)
        found.append(digest(tmp_path / "x"))
        assert digest("x") == digest("idx:x") == found[-1]
    assert len(set(found)) == 4 and None not in found
    (tmp_path / "x").rename(tmp_path / "y")
    assert digest("y") == found[-1]


def test_a_name_tells_enough_and_nothing_has_no_digest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "own").write_bytes(b"1")
    assert [digest(name) for name in names()] == [None] * len(names())
    assert digest("absent.npz") is None and digest("idx:absent") is None
    assert digest(tmp_path / "mnist") is not None


def test_a_digest_of_files_that_begin_alike_is_of_what_is_loaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = []
    for place, letters in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / place).mkdir()
        (tmp_path / place / "emnist-letters-train-images-idx3-ubyte").write_bytes(letters)
        found.append(digest(f"idx:{place}/emnist-letters"))
        (tmp_path / place / "emnist-digits-train-images-idx3-ubyte").write_bytes(place.encode())
        (tmp_path / place / "emnist-letters-mapping.txt").write_bytes(place.encode())  # no IDX file
        assert digest(f"idx:{place}/emnist-letters") == found[-1]
    assert None not in found and found[0] == found[1] != found[2]
    assert digest("idx:a/emnist-letters") != digest("idx:a/emnist-digits") != digest("idx:b/emnist-digits")
    assert digest("idx:a/kmnist") is None and digest("idx:none/emnist") is None
