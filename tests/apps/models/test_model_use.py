"""`genapps model evaluate` and `sample`, through the command line."""

import json
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import core_models
from apps.common.cells import read_cells
from core_models import zoo
from core_models.autoregressive import PixelCNN, PixelCNNConfig
from core_models.data import load
from core_models.flows import RealNVP, RealNVPConfig
from core_models.latent import ConditionalVAE, ConditionalVAEConfig

ON_CPU = ["--device", "cpu", "--threads", "1"]


def nats(out: str) -> float:
    return float(out.split("test: ")[1].split(" ±")[0])


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the tiny run, to write into."""
    return shutil.copytree(trained, tmp_path / "run")


def test_the_figure_names_estimator_and_binarisation(run, model):
    status, out, _ = model("evaluate", "--run", run, *ON_CPU)
    assert status == 0
    assert "nats = " in out
    assert (
        "bits/dim (upper bound on the negative log-likelihood, estimator elbo, binarisation dynamic, 360 images" in out
    )
    summary = json.loads((run / "summary.json").read_text())
    assert nats(out) == pytest.approx(summary["test"]["nats"], abs=0.5)
    tighter = model("evaluate", "--run", run, *ON_CPU, "--estimator", "iwae-20", "--binarisation", "threshold")[1]
    assert "estimator iwae-20, binarisation threshold" in tighter


def test_a_tighter_bound_is_lower_and_a_limit_takes_the_first_images(run, model):
    few = ["--limit", 40, "--batch_size", 10]
    loose = nats(model("evaluate", "--run", run, *ON_CPU, *few, "--estimator", "iwae-1")[1])
    out = model("evaluate", "--run", run, *ON_CPU, *few, "--estimator", "iwae-200")[1]
    assert nats(out) < loose
    assert "40 images" in out


def test_what_was_computed_is_kept_and_goes_on_with_the_same_numbers(run, model, monkeypatch):
    options = ["evaluate", "--run", run, *ON_CPU, "--estimator", "iwae-3", "--batch_size", 20]
    whole = model(*options, "--limit", 100)[1]
    shutil.rmtree(run / "evaluations")

    from apps.models import evaluate as module

    computed, per_event = [], module.per_event

    def counted(model_, x, *rest, **more):
        if len(computed) == 3:
            raise KeyboardInterrupt
        computed.append(len(x))
        return per_event(model_, x, *rest, **more)

    monkeypatch.setattr(module, "per_event", counted)
    status, _, error = model(*options, "--limit", 100)
    assert status == 130
    assert "interrupted at image 60 of 100: the same command goes on" in error
    monkeypatch.setattr(module, "per_event", lambda *a, **k: computed.append(len(a[1])) or per_event(*a, **k))
    assert model(*options, "--limit", 100)[1] == whole
    assert computed == [20] * 5
    assert model(*options, "--limit", 100)[1] == whole  # read back
    assert computed == [20] * 5
    model(*options, "--limit", 100, "--again")
    assert computed == [20] * 10
    assert len(list((run / "evaluations").iterdir())) == 1
    # a model trained further is another one
    path = run / "model.safetensors"
    other = core_models.load(run)
    other.decoder.stem[1].bias.data += 1
    core_models.save(other, run)
    assert model(*options, "--limit", 100)[1] != whole
    assert path.exists()
    assert computed == [20] * 15


def test_a_damaged_file_of_values_is_computed_again(run, model):
    options = ["evaluate", "--run", run, *ON_CPU]
    out = model(*options)[1]
    (kept,) = (run / "evaluations").iterdir()
    kept.write_bytes(kept.read_bytes()[:50])
    assert model(*options)[1] == out


def test_a_figure_can_be_kept_as_a_cell(run, model, tmp_path):
    results = tmp_path / "results"
    status, out, error = model("evaluate", "--run", run, *ON_CPU, "--cell", "--results", results)
    assert status == 0, error
    (cell,) = read_cells(results)
    assert cell.key == ("models", "density", "VAE", "digits elbo dynamic")
    assert cell.value == pytest.approx(nats(out), abs=0.005)
    assert (cell.unit, cell.better, cell.draw) == ("nats", "lower", 0)
    assert cell.extra["n"] == 360
    half = 1.96 * cell.extra["standard_error"]
    assert cell.interval == pytest.approx((cell.value - half, cell.value + half))
    assert cell.extra["binarisation"] == "dynamic"
    assert cell.extra["trained_by"].startswith("genapps model train")
    assert cell.command.startswith("genapps model evaluate --run")
    model("evaluate", "--run", run, *ON_CPU, "--cell", "--results", results, "--row", "mine")
    assert {cell.row for cell in read_cells(results)} == {"VAE", "mine"}


def test_a_cell_is_of_the_test_images_alone(run, refused, tmp_path):
    options = ["--cell", "--split", "train", "--results", tmp_path / "results"]
    words = "--cell: expected --split test, since cells hold figures of test images, got train"
    assert refused("evaluate", "--run", run, *ON_CPU, *options) == words
    assert not (tmp_path / "results").exists()


def test_the_seconds_of_a_cell_count_every_call_that_computed_its_figure(run, model, tmp_path, monkeypatch):
    from apps.models import evaluate as module

    now, per_event = [0.0], module.per_event

    def slow(*given, **more):
        now[0] += 7
        return per_event(*given, **more)

    monkeypatch.setattr(module, "per_event", slow)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    options = ["evaluate", "--run", run, *ON_CPU, "--batch_size", 20, "--cell", "--results", tmp_path / "results"]
    trained = json.loads((run / "summary.json").read_text())["seconds"]
    # the second call computes 20 images more, the third reads them all
    for limit, seconds, again in ((40, 14, []), (60, 21, []), (60, 21, []), (40, 14, ["--again"])):
        assert model(*options, "--limit", limit, *again)[0] == 0
        (cell,) = read_cells(tmp_path / "results")
        assert cell.seconds == pytest.approx(trained + seconds)


def test_images_of_other_classes_are_evaluated_anew(model, tmp_path):
    torch.manual_seed(0)
    made = ConditionalVAE(ConditionalVAEConfig((1, 4, 4), latent=2, hidden=(4,), classes=2, likelihood="gaussian"))
    core_models.save(made, tmp_path / "run")
    x, y = np.random.default_rng(0).integers(0, 256, (20, 1, 4, 4), np.uint8), np.arange(20) % 2
    found = []
    for labels in (y, 1 - y, y):
        np.savez(tmp_path / "own.npz", train_x=x, train_y=y, test_x=x, test_y=labels)
        options = ["evaluate", "--run", tmp_path / "run", "--data", tmp_path / "own.npz", *ON_CPU]
        found.append(model(*options)[1])
        assert model(*options, "--again")[1] == found[-1]
    assert found[0] == found[2] != found[1]


def test_bits_of_a_density_over_numbers_that_are_not_whole_are_a_bound(model, tmp_path):
    core_models.save(RealNVP(RealNVPConfig((1, 8, 8), couplings=1, hidden=(4,))), tmp_path / "flow")
    out = model("evaluate", "--run", tmp_path / "flow", "--data", "digits", *ON_CPU, "--limit", 20)[1]
    assert re.search(r"nats, at most \d+\.\d{4} bits/dim \(negative log-likelihood, estimator exact, ", out)


def test_a_model_saved_alone_needs_to_be_told_the_data(run, model, refused, tmp_path):
    core_models.save(core_models.load(run), tmp_path / "alone")
    assert "expected --data" in refused("evaluate", "--run", tmp_path / "alone")
    status, out, _ = model(
        "evaluate", "--run", tmp_path / "alone", "--data", "digits", "--split", "train", "--limit", 9
    )
    assert status == 0
    assert out.startswith("digits train: ")
    assert "binarisation dynamic, 9 images" in out


def test_a_conditional_model_is_given_its_labels(conditional, model):
    out = model("evaluate", "--run", conditional, *ON_CPU)[1]
    assert "binarisation none" in out
    assert "bits/dim" in out


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--estimator", "iwae-0"], "expected an estimator exact, elbo or iwae-k with k of at least 1, got 'iwae-0'"),
        (["--estimator", "exact"], "VAE has no exact likelihood: use elbo or iwae-5000"),
        (["--limit", "0"], "--limit: expected 1 or more, got 0"),
        (["--batch_size", "0"], "--batch_size: expected 1 or more, got 0"),
        (["--threads", "0"], "--threads: expected 1 or more, got 0"),
        (["--split", "valid"], "digits has no valid split"),
        (["--split", "tset"], "--split"),
        (["--device", "tpu"], "device"),
        (["--binarisation", "none"], "expected zeros and ones for a Bernoulli likelihood"),
    ],
)
def test_mistaken_evaluations_are_one_line(trained, refused, options, why):
    assert why in refused("evaluate", "--run", trained, *options)


def test_no_model_where_there_is_none(refused, tmp_path):
    assert "expected a model in" in refused("evaluate", "--run", tmp_path)
    (tmp_path / "file").write_text("")
    assert "is a file" in refused("sample", "--run", tmp_path / "file")


def test_samples_as_a_picture_and_as_arrays(trained, model, tmp_path):
    assert model("sample", "--run", trained, "--out", tmp_path / "s.png", "--n", 9, "--device", "cpu")[0] == 0
    with Image.open(tmp_path / "s.png") as picture:
        assert picture.size[0] > 100
    for name in ("a", "b"):
        model("sample", "--run", trained, "--out", tmp_path / f"{name}.npz", "--n", 30, "--device", "cpu")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as first, np.load(tmp_path / "b.npz") as second:
        assert (first["x"] == second["x"]).all()
        assert first["x"].shape == (30, 1, 8, 8)
        assert first["x"].dtype == np.float32
        assert set(np.unique(first["x"])) == {0, 1}
        assert "y" not in first
    model("sample", "--run", trained, "--out", tmp_path / "m.npz", "--n", 30, "--mean", "--device", "cpu")
    assert len(np.unique(np.load(tmp_path / "m.npz")["x"])) > 100
    assert load(tmp_path / "m.npz").event_shape == (1, 8, 8)  # what is written can be trained on


def test_samples_of_a_class(conditional, model, refused, tmp_path):
    out = tmp_path / "s.npz"
    model("sample", "--run", conditional, "--out", out, "--n", 12)
    assert np.load(out)["y"].tolist() == [*range(10), 0, 1]
    model("sample", "--run", conditional, "--out", out, "--n", 3, "--label", 7)
    assert np.load(out)["y"].tolist() == [7, 7, 7]
    levels = np.load(out)["x"] * 16
    assert np.allclose(levels, levels.round(), atol=1e-4)
    assert "expected one of 0, 1, 2" in refused("sample", "--run", conditional, "--label", "ten")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--out", "x.jpg"], "--out: expected a name that ends in .png or .npz, got 'x.jpg'"),
        (["--n", "0"], "--n: expected 1 or more, got 0"),
        (["--label", "3"], "--label: expected none, since vae has no classes, got"),
    ],
)
def test_mistaken_samples_are_one_line(trained, refused, options, why):
    assert why in refused("sample", "--run", trained, *options)


def test_a_model_of_the_zoo_is_used_by_its_name_and_its_package_left_alone(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = sorted(path.name for path in zoo.folder("vae_mnist").iterdir())
    assert model("sample", "--run", "zoo:vae_mnist", "--n", 4, "--out", "s.png")[0] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["s.png"]
    np.savez("grey.npz", x=np.random.default_rng(0).integers(0, 256, (20, 28, 28), np.uint8), y=np.arange(20) % 2)
    assert model("evaluate", "--run", "zoo:vae_mnist", "--data", "grey.npz", *ON_CPU)[0] == 0
    assert len(list((tmp_path / "runs" / "zoo" / "vae_mnist" / "evaluations").iterdir())) == 1
    assert sorted(path.name for path in zoo.folder("vae_mnist").iterdir()) == before
    status, _, err = model("sample", "--run", "zoo:vae_minst")
    assert status == 2 and "did you mean vae_mnist?" in err


def test_an_autoregressive_model_has_bits_and_is_of_its_levels(model, refused, tmp_path):
    config = PixelCNNConfig((1, 8, 8), levels=17, filters=4, blocks=1)
    core_models.save(PixelCNN(config), tmp_path / "run")
    options = ["evaluate", "--run", tmp_path / "run", "--data", "digits", *ON_CPU, "--limit", 20]
    out = model(*options, "--cell", "--results", tmp_path / "results")[1]
    assert re.search(r"nats = \d+\.\d{4} bits/dim \(negative log-likelihood, estimator exact, binarisation none, ", out)
    (cell,) = read_cells(tmp_path / "results")
    assert cell.extra["bits_per_dim"] == pytest.approx(cell.value / 64 / np.log(2))
    why = "expected pixels as they are for this model's density, which is not over zeros and ones, got binarisation"
    assert why in refused(*options, "--binarisation", "threshold")


def test_samples_are_drawn_in_blocks_from_one_generator(trained, conditional, model, tmp_path):
    def drawn(run, *options):
        assert model("sample", "--run", run, "--out", tmp_path / "s.npz", "--device", "cpu", *options)[0] == 0
        return np.load(tmp_path / "s.npz")

    whole = drawn(trained, "--n", 20)["x"]
    assert (drawn(trained, "--n", 20, "--batch_size", 20)["x"] == whole).all()
    blocks = drawn(trained, "--n", 50, "--batch_size", 20)["x"]
    assert blocks.shape == (50, 1, 8, 8)
    assert (blocks[:20] == whole).all() and not (blocks[20:40] == whole).all()
    labelled = drawn(conditional, "--n", 12, "--batch_size", 5, "--mean")
    assert labelled["y"].tolist() == [*range(10), 0, 1] and len(labelled["x"]) == 12
