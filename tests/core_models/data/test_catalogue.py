import numpy as np
import pytest
import torch

from core_models.data import DataSet, NoSourceError, load, names
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
