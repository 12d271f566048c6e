"""Data of one's own beside others of the same name, and options of the verbs that make no sense."""

import numpy as np
import pytest
from batch_targets import Bright, Smooth, attacked
from PIL import Image

import core_models
from apps.__main__ import main
from apps.common.cells import read_cells
from apps.pixeldefend.detection import bits_per_dim, calibrate
from apps.pixeldefend.detection.obtain import obtain_calibration
from core_models.autoregressive import PixelCNN, PixelCNNConfig
from core_models.data import digest, load
from core_models.training import RunFolder


def data(path, seed=5):
    """Writes a dozen labelled images and returns them in [0, 1]."""
    x, levels = attacked(12, seed)
    y = Bright()(x).argmax(1).numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, train_x=levels, train_y=y, test_x=levels, test_y=y)
    return x


@pytest.fixture
def run(capsys):
    def called(*argv):
        status = main(["pixeldefend", *map(str, argv), "--device", "cpu", "--threads", "1"])
        out, error = capsys.readouterr()
        return status, out, error

    return called


def density_table(models, folder, path, *more):
    given = ["benchmark", "--data", path, "--density", models / "density", "--tables", "[density]", "--images", 12]
    return [*given, "--knowing_images", 2, "--work", folder / "work", "--results", folder / "results", *more]


def test_cells_of_two_files_of_one_name_are_told_apart(tmp_path, models, run):
    for folder, seed in (("a", 1), ("b", 2)):
        path = tmp_path / folder / "mine.npz"
        x = data(path, seed)
        first = []
        if folder == "b":
            assert "one of other settings stands" in run(*density_table(models, tmp_path, path))[1]
            first = ["--again", "true"]
        for more, printed in ((first, 1), ([], 0)):  # what stands is not measured again
            status, out, error = run(*density_table(models, tmp_path, path, *more))
            assert status == 0, error
            assert out.count("bits/dim") == printed and "other settings" not in out
            (cell,) = read_cells(tmp_path / "results", app="pixeldefend")
            assert cell.value == pytest.approx(bits_per_dim(Smooth(), x).mean(), rel=1e-5)
            assert cell.extra["settings"]["digest"] == digest(path)


@pytest.mark.parametrize("name", ["fashion-mnist", "cifar10", "fashion_mnist"])
def test_data_of_ones_own_under_the_name_of_a_known_set_is_refused(tmp_path, models, run, name):
    path = tmp_path / "my" / f"{name}.npz"
    data(path)
    status, _, error = run(*density_table(models, tmp_path, path))
    assert (status, len(error.strip().splitlines())) == (2, 1)
    assert f"data {path}: expected data of your own under another name than {name.replace('_', '-')}" in error
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("verb", ["demo", "benchmark"])
def test_a_density_that_can_have_no_calibration_is_refused_at_once(verb, run):
    status, _, error = run(verb, "--data", "nowhere.npz", "--density", "my_models.Mine")
    assert (status, len(error.strip().splitlines())) == (2, 1)
    assert "--density my_models.Mine: expected a run folder with its calibration.npz, or zoo:NAME" in error


def test_demo_and_benchmark_read_photos_in_the_size_that_the_density_was_trained_on(tmp_path, run, monkeypatch):
    drawn = np.random.default_rng(0)
    for place in range(20):
        path = tmp_path / "photos" / f"kind{place % 2}" / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(drawn.integers(0, 256, (8 + place, 9), dtype=np.uint8)).save(path)
    density = PixelCNN(PixelCNNConfig(event_shape=(1, 8, 8), filters=2, blocks=1, features=4)).eval()
    core_models.save(density, tmp_path / "density")
    RunFolder(tmp_path / "density").write_config({"image_size": 8})
    x = load(tmp_path / "photos", image_size=8).images("test")
    calibrate(density, x, data="photos", split="test").save(tmp_path / "density" / "calibration.npz")
    core_models.save(Bright((1, 8, 8)), tmp_path / "classifier")
    given = ["--data", tmp_path / "photos", "--density", tmp_path / "density", "--images", len(x)]
    table = ["--tables", "[density]", "--knowing_images", 1, "--work", tmp_path / "work", "--results", tmp_path / "r"]
    assert run("benchmark", *given, *table)[0] == 0
    (cell,) = read_cells(tmp_path / "r", app="pixeldefend")
    assert cell.value == pytest.approx(bits_per_dim(density, x).mean(), rel=1e-5)
    small = ["--attacks", "[rand]", "--bpda_images", 1, "--bpda_steps", 1, "--classifier", tmp_path / "classifier"]
    monkeypatch.setattr("apps.pixeldefend.demo.draw_figures", lambda *_: [])  # of too few images for a figure
    status, _, error = run("demo", *given, *small, "--out", tmp_path / "demo")
    assert status == 0, error


def test_a_kept_calibration_is_not_taken_for_other_data_of_the_same_name(tmp_path, monkeypatch):
    names = []
    for folder, seed in (("a", 1), ("b", 2)):
        path = tmp_path / folder / "clean.npz"
        x = data(path, seed)
        found = obtain_calibration(Smooth(), tmp_path, data=str(path), keep=tmp_path / "kept.npz")
        np.testing.assert_allclose(found.scores["bits_per_dim"], np.sort(bits_per_dim(Smooth(), x)))
        names.append(found.data)
    assert names[0] != names[1] and all(name.startswith("clean ") for name in names)
    monkeypatch.delattr("apps.pixeldefend.detection.obtain.calibrate")  # that of the same file is not made again
    again = obtain_calibration(Smooth(), tmp_path, data=str(path), keep=tmp_path / "kept.npz")
    np.testing.assert_array_equal(again.scores["bits_per_dim"], found.scores["bits_per_dim"])


def test_a_calibration_reads_photos_in_the_size_that_the_density_was_trained_on(tmp_path):
    drawn = np.random.default_rng(0)
    for place in range(10):
        path = tmp_path / "photos" / "unlabelled" / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(drawn.integers(0, 256, (8 + place, 9), dtype=np.uint8)).save(path)
    RunFolder(tmp_path / "run").write_config({"image_size": 5})
    density = PixelCNN(PixelCNNConfig(event_shape=(1, 5, 5), filters=2, blocks=1, features=4)).eval()
    found = obtain_calibration(density, tmp_path / "run", data=str(tmp_path / "photos"))
    x = load(tmp_path / "photos", image_size=5).images("test")
    np.testing.assert_allclose(found.scores["bits_per_dim"], np.sort(bits_per_dim(density, x)), rtol=1e-6)


def test_options_that_make_no_sense_are_one_line(tmp_path, models, run):
    path, out, images = (tmp_path / f"{name}.npz" for name in ("mine", "out", "images"))
    np.savez(images, x=(data(path) * 255).round().byte().numpy())
    attack = ["attack", "--data", path, "--classifier", models / "classifier", "--out", out]
    detect = ["detect", "--input", images, "--density", models / "density", "--calibration_data", path]
    for given, words in (
        ([*attack, "--threshold", 3], "--threshold: expected a density beside it, whose bits/dim it is of"),
        ([*attack, "--images", 0, "--data", tmp_path / "none.npz"], "--images: expected 1 or more, got 0"),
        ([*attack, "--batch_size", 0], "--batch_size: expected 1 or more, got 0"),
        (density_table(models, tmp_path, path, "--batch_size", 0), "--batch_size: expected 1 or more, got 0"),
        ([*detect, "--out", tmp_path / "out", "--batch_size", 0], "batch_size: expected 1 or more, got 0"),
    ):
        status, _, error = run(*given)
        lines = [line for line in error.splitlines() if line.startswith("genapps: error: ")]
        assert (status, len(lines), error.splitlines()[-1:]) == (2, 1, lines), error
        assert words in lines[0]
    assert not out.exists()
