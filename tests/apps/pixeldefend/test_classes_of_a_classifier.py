"""One's own labels as the classes of a classifier that was trained on other data."""

import numpy as np
import pytest
import torch

import core_models
from apps.pixeldefend.loading import class_names, codes_of_classifier
from core_models.classifiers import ResNet, ResNetConfig
from core_models.data import load_npz
from core_models.errors import UserError
from core_models.files import write_json

X = np.arange(24 * 64, dtype=np.uint8).reshape(24, 8, 8)


@pytest.fixture
def classifier(tmp_path):
    net = ResNet(ResNetConfig(event_shape=(1, 8, 8), classes=4, widths=(2, 2), units=1))
    core_models.save(net, tmp_path / "run")
    return net


def codes(tmp_path, net, names):
    np.savez(tmp_path / "own.npz", x=X, y=np.array(names)[np.arange(24) % len(names)])
    own = load_npz(tmp_path / "own.npz")
    return codes_of_classifier(str(tmp_path / "run"), net, own, torch.arange(len(names))).tolist()


def test_names_decide_where_the_run_tells_them(tmp_path, classifier):
    write_json(tmp_path / "run" / "summary.json", {"classes": ["cat", "ant", "dog", "bee"]})
    assert class_names(str(tmp_path / "run")) == ["cat", "ant", "dog", "bee"]
    assert codes(tmp_path, classifier, ["ant", "dog"]) == [1, 2]
    assert codes(tmp_path, classifier, [1, 3]) == [1, 3]  # numbers, as the classifier counts
    with pytest.raises(UserError, match=r"classes of .*\(cat, ant, dog, bee\), got 'emu' among 2"):
        codes(tmp_path, classifier, ["ant", "emu"])


def test_without_names_there_must_be_as_many_classes(tmp_path, classifier):
    assert codes(tmp_path, classifier, ["a", "b", "c", "d"]) == [0, 1, 2, 3]
    assert codes(tmp_path, classifier, [0, 2]) == [0, 2]
    with pytest.raises(UserError, match=r"\(4 of them\), got 'a' among 2"):
        codes(tmp_path, classifier, ["a", "b"])


def test_what_ships_knows_the_names_of_its_data():
    assert class_names("zoo:resnet_fashion_mnist")[:2] == ["T-shirt/top", "Trouser"]
