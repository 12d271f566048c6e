"""The size of a density that `train-density` trains where none is asked for."""

import json

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import core_models
from apps.__main__ import main
from apps.common.presets import presets_folder
from apps.pixeldefend.density import SMALL as SMALL_DENSITY
from apps.pixeldefend.density import sized

CPU = ["--training.device", "cpu", "--training.threads", "1"]


@pytest.fixture
def call(capsys):
    def run(*argv):
        status = main(["pixeldefend", *map(str, argv)])
        out, error = capsys.readouterr()
        return status, out, error

    return run


def test_photos_on_a_cpu_get_a_network_that_a_cpu_can_train(call, tmp_path):
    rng = np.random.default_rng(0)
    for i in range(12):
        path = tmp_path / "photos" / "unlabelled" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    given = ["train-density", "--data", tmp_path / "photos", "--training.epochs", 1, *CPU]
    status, out, error = call(*given, "--out", tmp_path / "density")
    assert status == 0, error
    assert "on a CPU, a small pixel-cnn-pp (filters 32, blocks 2, resolutions 3)" in out
    summary = json.loads((tmp_path / "density" / "summary.json").read_text())
    assert summary["parameters"] < 1_100_000
    preset = yaml.safe_load((presets_folder() / "pixeldefend" / "density_fashion_mnist.yaml").read_text())
    assert preset["model_config"] == SMALL_DENSITY
    run = yaml.safe_load((tmp_path / "density" / "config.yaml").read_text())
    assert run["model_config"] == SMALL_DENSITY
    # what is asked for is what is trained
    own = ["--out", tmp_path / "own", "--model_config.filters", 2, "--model_config.head", "softmax"]
    status, out, _ = call(*given, *own)
    assert status == 0 and "on a CPU" not in out
    assert core_models.load(tmp_path / "own").config.blocks == 5
    assert sized("pixel-cnn-pp", None, torch.device("cuda")) is None
    assert sized("pixel-cnn-pp", {"head": "logistic"}, torch.device("cpu")) == {**SMALL_DENSITY, "head": "logistic"}
