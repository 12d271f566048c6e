"""What the verbs that train into a run folder share, through the command line, tiny."""

import json

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import core_models
from apps.__main__ import main
from apps.common.training import load_as_trained, number_held_out, of_data
from core_models.training import RunFolder

TINY = {
    "model": ["model", "train", "--model_config", "{latent: 2, hidden: [4]}"],
    "density": ["pixeldefend", "train-density", "--model", "pixel-cnn"],
    "classifier": ["pixeldefend", "train-classifier", "--network_config", "{widths: [2, 4], units: 1}"],
    "prior": ["compressed-sensing", "train", "prior", "--model_config", "{latent: 2, hidden: [4]}"],
    "uae": ["compressed-sensing", "train", "uae", "--m", "3", "--hidden", "[4]"],
}
TINY["density"] += ["--model_config", "{filters: 2, blocks: 1, features: 4}"]
TINY["prior"] += ["--validation", "2", "--representation_images", "1"]
QUICK = ["--training.epochs", "1", "--training.device", "cpu", "--training.threads", "1", "--batch_size", "4"]


@pytest.fixture
def call(capsys, monkeypatch):
    # a search of a second, of which nothing is asked here
    monkeypatch.setattr(
        "apps.compressed_sensing.train.nearest_latents", lambda net, x, **_: torch.zeros(len(x), *net.latent_shape)
    )

    def run(*argv):
        status = main(list(map(str, argv)))
        out, error = capsys.readouterr()
        return status, out, error

    return run


@pytest.fixture
def photos(tmp_path):
    """Twenty grey images of two classes and of two sizes."""
    drawn = np.random.default_rng(0)
    for place in range(20):
        path = tmp_path / "photos" / "ab"[place % 2] / f"{place:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(drawn.integers(0, 256, (6 + place % 3 // 2, 7), dtype=np.uint8)).save(path)
    return tmp_path / "photos"


@pytest.mark.parametrize("verb", TINY)
def test_photos_of_several_sizes_are_resized_where_asked_and_afterwards_too(call, photos, tmp_path, verb):
    run = tmp_path / "run"
    train = [*TINY[verb], "--data", photos, "--out", run, *QUICK]
    status, _, error = call(*train)
    assert status == 2 and "resize them, or give image_size (for instance 6), which verbs that train take" in error
    assert not run.exists()
    status, out, error = call(*train, "--image_size", 4)
    assert status == 0, error
    assert "images" in out and f"wrote {run}: weights, summary.json" in out
    assert yaml.safe_load((run / "config.yaml").read_text())["image_size"] == 4
    assert tuple(core_models.load(run).event_shape) == (1, 4, 4)
    told = json.loads((run / "summary.json").read_text())
    assert told.keys() >= {"data", "source", "class_path", "config", "stopped", "steps", "seconds", "device", "metrics",
                           "command", "commit"}  # fmt: skip
    # the settings that were kept are the verb's own, the size among them
    words = TINY[verb][: 3 if verb in ("prior", "uae") else 2]
    status, out, error = call(*words, "--config", run / "config.yaml", "--out", run, "--resume")
    assert status == 0 and "nothing left to do" in out, error
    # what takes data for that run reads them as it did
    again = {
        "model": ["model", "evaluate", "--run", run, "--device", "cpu"],
        "density": ["pixeldefend", "calibrate", "--density", run, "--data", photos, "--device", "cpu"],
        "classifier": ["pixeldefend", "attack", "--classifier", run, "--data", photos, "--attack", "rand",
                       "--out", tmp_path / "attacked.npz", "--device", "cpu"],
    }  # fmt: skip
    if verb in again:
        status, _, error = call(*again[verb])
        assert status == 0, error


def test_images_are_left_as_they_are_for_a_run_that_tells_no_size(tmp_path):
    RunFolder(tmp_path / "run").write_config(of_data("photos", None))
    assert RunFolder(tmp_path / "run").read_config() == {"data": "photos"}  # hashes of settings stay what they were
    for place in range(4):
        path = tmp_path / "photos" / "unlabelled" / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((6, 7), dtype=np.uint8)).save(path)
    for folder in (tmp_path / "run", tmp_path / "none", "zoo:vae_mnist"):
        assert load_as_trained(str(tmp_path / "photos"), folder).event_shape == (1, 6, 7)
    RunFolder(tmp_path / "run").write_config(of_data("photos", 5))
    assert load_as_trained(str(tmp_path / "photos"), tmp_path / "run").event_shape == (1, 5, 5)
    assert load_as_trained("digits", tmp_path / "run").event_shape == (1, 8, 8)  # no folder of images


@pytest.mark.parametrize(
    ("verb", "more", "words"),
    [
        ("density", ["--validation", 0], "early_stop watches 'x', but there is no validation"),
        ("prior", ["--model", "wgan-gp", "--model_config", "{latent: 2, hidden: [4]}"], "expected none for a GAN"),
    ],
)
def test_early_stopping_with_nothing_to_watch_is_refused_before_anything_is_written(call, tmp_path, verb, more, words):
    given = [*TINY[verb], "--data", "digits", "--out", tmp_path / "run", *QUICK, *more]
    status, _, error = call(*given, "--training.early_stop.metric", "x")
    assert status == 2 and words in error
    assert not (tmp_path / "run").exists()


def test_what_is_missing_of_a_finished_run_is_made_again(call, tmp_path):
    np.savez(tmp_path / "mine.npz", x=np.random.default_rng(0).integers(0, 256, (25, 4, 4), dtype=np.uint8))
    run = tmp_path / "run"
    train = [*TINY["density"], "--data", tmp_path / "mine.npz", "--out", run, *QUICK]
    assert call(*train)[0] == 0
    (run / "calibration.npz").unlink()
    status, out, _ = call(*train, "--resume")
    assert status == 0 and "wrote" in out and (run / "calibration.npz").is_file()
    assert "nothing left to do" in call(*train, "--resume")[1]


def test_a_tenth_and_at_most_5000_images_are_held_out():
    assert [number_held_out(n) for n in (9, 1437, 49_999, 60_000)] == [0, 143, 4999, 5000]
