"""`genapps model list` and `train`, through the command line."""

import json
import os
import signal
import subprocess
import sys
from math import log, log2
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import core_models
from apps.common.presets import preset_names, presets_folder
from apps.models.pixels import PixelBatches

ROOT = Path(__file__).parents[3]
CPU = ["--training.device", "cpu", "--training.threads", "1"]
QUICK = [
    *CPU,
    "--training.epochs",
    "2",
    "--batch_size",
    "200",
    "--model_config.latent",
    "2",
    "--model_config.hidden",
    "[8]",
]

OWN = '''
import torch
from torch import nn
from core_models.base import ExactLikelihood, GenerativeModel

class Bits(GenerativeModel, ExactLikelihood):
    """Independent bits: the simplest exact likelihood."""

    density_over = "binary"

    def __init__(self, event_shape: tuple[int, ...], start: float = 0.0) -> None:
        super().__init__()
        self.config = {"event_shape": list(event_shape), "start": start}
        self.event_shape = torch.Size(event_shape)
        self.logits = nn.Parameter(torch.full(self.event_shape, start))

    def log_prob(self, x, y=None):
        return (x * self.logits - nn.functional.softplus(self.logits)).flatten(1).sum(1)

    def sample(self, n, y=None, *, generator=None):
        return torch.bernoulli(torch.sigmoid(self.logits).expand(n, *self.event_shape), generator=generator)
'''


def test_the_whole_of_it_as_a_user_types_it(tmp_path):
    words = ["model", "train", "--config", "core_models/vae_digits", "--out", "runs/x", *QUICK]
    done = subprocess.run(
        [sys.executable, "-m", "apps", *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr.count("Traceback")) == (0, 0), done.stderr
    assert "step 14 of 14 (100 %)" in done.stderr
    assert "estimator elbo, binarisation dynamic, 360 images" in done.stdout
    assert (tmp_path / "runs" / "x" / "report.html").is_file()


def test_list_names_models_presets_and_data(model):
    status, out, error = model("list")
    assert (status, error) == (0, "")
    for known in ("vae ", "conditional-vae ", "core_models/vae_mnist", "digits", "cifar10"):
        assert known in out
    records = json.loads(model("list", "--json")[1])
    assert {"name": "vae", "class_path": "core_models.latent.VAE"}.items() <= {r["name"]: r for r in records}[
        "vae"
    ].items()


def test_help_and_mistaken_verbs(model, refused):
    assert "evaluate" in model("--help")[1]
    assert "--training.epochs" in model("train", "--help")[1]
    assert "did you mean train?" in refused("trian")


def test_a_run_folder_holds_what_it_should(trained):
    found = {path.relative_to(trained).as_posix() for path in trained.rglob("*") if path.is_file()}
    assert {
        "config.yaml",
        "metrics.jsonl",
        "checkpoint/state.safetensors",
        "model.safetensors",
        "model.json",
        "figures/learning_curves.png",
        "figures/samples.png",
        "figures/reconstructions.png",
        "summary.json",
        "report.html",
    } <= found
    summary = json.loads((trained / "summary.json").read_text())
    assert summary["data"] == "digits"
    assert summary["source"]
    assert summary["config"]["event_shape"] == [1, 8, 8]
    assert summary["config"]["levels"] == 17
    assert summary["parameters"] == sum(p.numel() for p in core_models.load(trained).parameters())
    assert (summary["stopped"], summary["epochs"], summary["steps"]) == ("finished", 2, 14)
    assert summary["test"].keys() >= {"nats", "standard_error", "bits_per_dim"}
    assert summary["test"]["bits_per_dim"] == pytest.approx(summary["test"]["nats"] / 64 / log(2))
    assert (summary["test"]["estimator"], summary["test"]["binarisation"]) == ("elbo", "dynamic")
    assert summary["test"]["nats"] < 64 * log(2)  # better than fair coins: the decoder starts at the mean image
    assert summary["command"].startswith("genapps model train --data digits --out runs/vae")
    assert str(ROOT) not in (trained / "summary.json").read_text()
    page = (trained / "report.html").read_text()
    assert page.count("data:image/png;base64") == 3
    assert f"{summary['test']['nats']:.2f} nats" in page


def test_a_run_can_be_made_again_from_its_config(trained, model, tmp_path):
    status, _, error = model("train", "--config", trained / "config.yaml", "--out", tmp_path / "again")
    assert status == 0, error
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()
    assert yaml.safe_load((tmp_path / "again" / "config.yaml").read_text()) == yaml.safe_load(
        (trained / "config.yaml").read_text()
    )


def test_the_seed_decides_the_weights(trained, model, tmp_path):
    model("train", "--config", trained / "config.yaml", "--training.seed", 1, "--out", tmp_path / "other")
    assert (tmp_path / "other" / "model.safetensors").read_bytes() != (trained / "model.safetensors").read_bytes()


def test_a_finished_run_is_neither_written_over_nor_trained_again(trained, model, refused):
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    options = ["--config", trained / "config.yaml", "--out", trained]
    assert "already holds a run: add --resume to go on, or choose another folder" in refused("train", *options)
    status, out, _ = model("train", *options, "--resume")
    assert status == 0
    assert out.endswith("is finished: there is nothing left to do\n")
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*")} == before
    error = model("train", *options, "--resume", "--model_config.activation", "tanh")[2]
    assert "is of another model: model model.activation (silu there, tanh here)" in error
    error = model("train", *options, "--resume", "--model_config.latent", 3)[2]
    assert "is of another model" in error
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*")} == before


def test_a_run_stopped_by_its_time_limit_ends_as_one_that_never_was(trained, model, tmp_path):
    options = ["--config", trained / "config.yaml", "--out", tmp_path / "x"]
    status, out, _ = model("train", *options, "--training.time_limit", 1e-9)
    assert status == 0
    assert "stopped by the time limit at step 1: the same command with --resume goes on" in out
    assert json.loads((tmp_path / "x" / "summary.json").read_text())["stopped"] == "time limit"
    assert model("train", *options, "--resume")[0] == 0
    for name in ("model.safetensors", "metrics.jsonl"):
        assert (tmp_path / "x" / name).read_bytes() == (trained / name).read_bytes()
    mine, theirs = (json.loads((folder / "summary.json").read_text())["test"] for folder in (tmp_path / "x", trained))
    assert mine == theirs


def test_ctrl_c_saves_and_says_how_to_go_on(trained, model, refused, tmp_path, monkeypatch):
    batch = PixelBatches.batch

    def interrupted(self, epoch, step):
        if (epoch, step) == (1, 2):
            os.kill(os.getpid(), signal.SIGINT)
        return batch(self, epoch, step)

    monkeypatch.setattr(PixelBatches, "batch", interrupted)
    options = ["--config", trained / "config.yaml", "--out", tmp_path / "x"]
    status, _, error = model("train", *options)
    assert status == 130
    assert "interrupted at step 10 of 14" in error
    assert "--resume" in error
    assert not (tmp_path / "x" / "model.safetensors").exists()
    assert "its training has not ended" in refused("evaluate", "--run", tmp_path / "x")
    monkeypatch.undo()
    assert model("train", *options, "--resume")[0] == 0
    assert (tmp_path / "x" / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()


def test_a_loss_that_is_no_number_names_the_step(model, tmp_path):
    options = ["--model_config.likelihood", "gaussian", "--training.learning_rate", 1e30, "--training.epochs", 20]
    status, _, error = model("train", "--data", "digits", "--out", tmp_path / "x", *QUICK, *options)
    assert status == 2
    assert "at step" in error
    assert "lower learning_rate" in error
    assert not (tmp_path / "x" / "model.safetensors").exists()


def test_validation_holds_images_out_and_the_bound_can_warm_up(model, tmp_path):
    options = ["--validation", 237, "--kl_warmup_epochs", 1, "--training.early_stop.metric", "validation_elbo_nats"]
    status, out, error = model("train", "--data", "digits", "--out", tmp_path / "x", *QUICK, *options)
    assert status == 0, error
    assert "1,200 images" in out
    lines = [json.loads(line) for line in (tmp_path / "x" / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 2
    assert all(line["validation_elbo_nats"] > 0 for line in lines)
    assert lines[1]["step"] == 12


def test_importance_weighted_training_in_double_precision(model, tmp_path):
    options = ["--importance_samples", 3, "--training.precision", "64-true", "--binarisation", "static"]
    status, out, error = model("train", "--data", "digits", "--out", tmp_path / "x", *QUICK, *options)
    assert status == 0, error
    assert "binarisation static" in out
    assert core_models.load(tmp_path / "x").sample(2).dtype == torch.float32


def test_classes_come_from_the_data(conditional):
    summary = json.loads((conditional / "summary.json").read_text())
    assert summary["config"]["classes"] == 10
    assert summary["classes"] == [str(i) for i in range(10)]
    assert summary["binarisation"] == "none"
    assert core_models.load(conditional).classes == 10


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module of the user's own in the working folder."""
    (tmp_path / "own_bits.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield "own_bits.Bits"
    sys.modules.pop("own_bits", None)


def test_a_model_of_ones_own_trains_by_its_class_path(own, model, tmp_path):
    fast = [*CPU, "--training.epochs", 30, "--training.learning_rate", 0.1, "--batch_size", 200]
    options = ["--model", own, "--model_config.start", 0.5, "--binarisation", "threshold"]
    status, out, error = model("train", "--data", "digits", "--out", "runs/x", *options, *fast)
    assert status == 0, error
    assert "estimator exact, binarisation threshold" in out
    loaded = core_models.load("runs/x")
    assert type(loaded).__name__ == "Bits"
    assert loaded.config == {"event_shape": [1, 8, 8], "start": 0.5}
    summary = json.loads(Path("runs/x/summary.json").read_text())
    from core_models.data import load

    x = (load("digits").images("train") > 0.5).float()
    p = x.mean(0).clamp(1e-4, 1 - 1e-4)  # independent bits can do no better than the entropy of each pixel
    entropy = -(p * p.log() + (1 - p) * (1 - p).log()).sum().item()
    assert summary["metrics"]["negative_log_likelihood_nats"] == pytest.approx(entropy, abs=0.3)
    assert model("evaluate", "--run", "runs/x")[1].startswith("digits test: ")
    assert model("sample", "--run", "runs/x", "--out", "s.npz", "--n", 5)[0] == 0
    assert np.load("s.npz")["x"].shape == (5, 1, 8, 8)
    assert (
        "is trained by its exact likelihood"
        in model("train", "--data", "digits", "--out", "y", *options, "--kl_warmup_epochs", 1)[2]
    )


def test_ones_own_images(model, refused, tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "mine.npz", x=rng.integers(0, 256, (40, 6, 6), dtype=np.uint8))
    options = [*QUICK, "--batch_size", 10, "--model_config.likelihood", "gaussian"]
    status, out, error = model("train", "--data", tmp_path / "mine.npz", "--out", tmp_path / "x", *options)
    assert status == 0, error
    assert ", at most " in out  # the bits of a density over real numbers are a bound, whatever the estimator
    assert core_models.load(tmp_path / "x").event_shape == (1, 6, 6)
    why = refused(
        "train", "--data", tmp_path / "mine.npz", "--out", tmp_path / "y", "--model", "conditional-vae", *QUICK
    )
    assert "class" in why
    assert not (tmp_path / "y").exists()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (
            ["--model", "vea"],
            "vae, wgan-gp or a class path, got 'vea'; did you mean vae?",
        ),
        (["--data", "minst"], "did you mean mnist?"),
        (["--model_config.latnt", "2"], "VAEConfig has no field 'latnt'; did you mean latent?"),
        (["--model_config.latent", "two"], "VAEConfig.latent: expected a whole number, got 'two'"),
        (
            ["--model_config.event_shape", "[1, 4, 4]"],
            "expected images of shape (1, 4, 4), as the model's, digits has (1, 8, 8)",
        ),
        (
            ["--model_config.network", "conv", "--model_config.channels", "[2,2,2,2]"],
            "expected image sides divisible by 16",
        ),
        (["--binarisation", "none"], "expected zeros and ones for a Bernoulli likelihood, digits has 17 grey levels"),
        (["--binarisation", "dynamic", "--model_config.likelihood", "gaussian"], "expected pixels as they are"),
        (["--model", "wgan-gp", "--model_config", "{latent: 2, hidden: [4]}"], "a GAN has no likelihood"),
        (["--validation", "1437"], "expected a validation set smaller than the 1437 training images, got 1437"),
        (["--model_config.classes", "3"], "expected a model of 10 classes, as digits has, got 3"),
        (["--importance_samples", "0"], "expected importance_samples of at least 1, got 0"),
        (["--training.epochs", "0"], "epochs: expected at least 1, got 0"),
        (["--epochs", "3"], "--epochs"),
        (
            ["--model_config.likelihood", "discretised-logistic", "--model_config.levels", "256"],
            "expected values on the 256 levels of a discretised logistic",
        ),
        (["--training.early_stop.metric", "x"], "early_stop watches 'x', but there is no validation"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(refused, tmp_path, options, why):
    words = ["train", "--data", "digits", "--out", tmp_path / "x", *QUICK, *options]
    assert why in refused(*words)
    assert not (tmp_path / "x").exists()


def test_presets_say_what_they_yield_and_are_understood(model, tmp_path):
    names = [name for name in preset_names() if name.startswith("core_models/")]
    assert {"core_models/vae_digits", "core_models/vae_mnist", "core_models/vae_conv_cifar10"} <= set(names)
    for name in names:
        assert (presets_folder() / f"{name}.yaml").read_text().startswith("# ")
        status, out, error = model("train", "--config", name, "--out", tmp_path / "x", "--print_config")
        assert status == 0, error
        assert "model_config:" in out


def test_list_says_what_is_trained_elsewhere(model):
    lines = {line.split()[0]: line for line in model("list")[1].splitlines() if line.startswith("  ")}
    assert lines["wgan-gp"].endswith("; trained by genapps compressed-sensing train")
    assert "trained by" not in lines["vae"]
    records = {record["name"]: record for record in json.loads(model("list", "--json")[1])}
    assert records["vae"]["trained_by"] == "genapps model train"


def test_bits_make_an_autoregressive_model_of_two_levels(model, refused, tmp_path, monkeypatch):
    monkeypatch.setattr("apps.models.train.write_figures", lambda *given: [])  # 100 samples, a pixel at a time
    np.savez(tmp_path / "mine.npz", x=np.random.default_rng(0).integers(0, 256, (40, 4, 4), dtype=np.uint8))
    options = ["--model", "pixel-cnn", "--data", tmp_path / "mine.npz", "--training.epochs", 1, *CPU]
    for name, value in {"filters": 4, "blocks": 1, "features": 8}.items():
        options += [f"--model_config.{name}", value]
    options += ["--binarisation", "dynamic"]
    status, out, error = model("train", *options, "--out", tmp_path / "x")
    assert status == 0, error
    assert core_models.load(tmp_path / "x").levels == 2
    assert "levels" not in yaml.safe_load((tmp_path / "x" / "config.yaml").read_text())["model_config"]
    found = json.loads((tmp_path / "x" / "summary.json").read_text())["test"]
    assert found["bits_per_dim"] == pytest.approx(found["nats"] / 16 / log(2))
    assert "nats = " in out and "bits/dim" in (tmp_path / "x" / "report.html").read_text()
    why = refused("train", *options, "--out", tmp_path / "y", "--model_config.levels", 17)
    assert "not over zeros and ones, got binarisation dynamic" in why


def test_a_gaussian_likelihood_is_of_dequantised_pixels_and_its_bits_are_a_bound(model, tmp_path):
    options = ["--data", "digits", *QUICK, "--model_config.likelihood", "gaussian"]
    status, out, error = model("train", *options, "--kl_weight", 2, "--out", tmp_path / "x")
    assert status == 0, error
    assert "nats, at most " in out
    found = json.loads((tmp_path / "x" / "summary.json").read_text())["test"]
    assert found["dequantisation"] == "uniform"
    assert found["bits_per_dim"] == pytest.approx(found["nats"] / 64 / log(2) + log2(17))
    assert yaml.safe_load((tmp_path / "x" / "config.yaml").read_text())["kl_weight"] == 2
