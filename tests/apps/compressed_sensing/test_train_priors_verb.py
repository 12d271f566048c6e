"""`train uae` and `train prior` through the command line."""

from functools import partial

import pytest
import torch
from verb_targets import summary_of

import core_models
from apps.compressed_sensing import train
from apps.compressed_sensing.diagnosis import nearest_latents, representation_error
from apps.compressed_sensing.generative.uncertainty_autoencoder import (
    UncertaintyAutoencoder,
    UncertaintyAutoencoderModel,
)
from core_models.data import dequantise, load
from core_models.training import RunFolder, held_out, seed_of

UAE = ["train", "uae", "--data", "digits", "--m", 10, "--hidden", "[16]", "--training.learning_rate", 0.003]
PRIOR = ["train", "prior", "--data", "digits", "--model_config.latent", 4, "--model_config.hidden", "[32]",
         "--validation", 50, "--representation_images", 10]  # fmt: skip


@pytest.fixture
def quick(monkeypatch):
    """Cuts the search for the nearest latents short, which takes longer than the training."""
    monkeypatch.setattr(train, "nearest_latents", partial(nearest_latents, steps=20))


def test_an_autoencoder_learns_and_is_loaded_again(tmp_path, call):
    status, out, error = call(*UAE, "--out", "uae", "--training.epochs", 12)
    assert status == 0, error
    found = [line["validation_mse"] for line in RunFolder(tmp_path / "uae").read_metrics()]
    assert len(found) == 12 and found[-1] < 0.6 * found[0]
    told = summary_of(tmp_path / "uae")
    assert told["encoder_norm"] == pytest.approx(told["gaussian_norm"], rel=1e-5) == pytest.approx(640**0.5, rel=1e-5)
    model = core_models.load(tmp_path / "uae")
    assert isinstance(model, UncertaintyAutoencoderModel) and not model.training
    x, method = load("digits").images("test"), UncertaintyAutoencoder(model)
    y = method.acquire(x, generator=torch.Generator().manual_seed(0))
    mse = float((method.reconstruct(y) - x).square().mean())
    assert told["test"]["mse"]["mean"] == pytest.approx(mse, rel=0.05)
    assert "test images: mean squared error" in out


def test_training_goes_on_where_it_stopped(tmp_path, call, refused):
    flat = ["--training.schedule", "constant", "--training.checkpoint_every_seconds", 0]
    assert call(*UAE, *flat, "--out", "whole", "--training.epochs", 3)[0] == 0
    assert call(*UAE, *flat, "--out", "part", "--training.epochs", 2)[0] == 0
    assert "already holds a run: add --resume" in refused(*UAE, *flat, "--out", "part", "--training.epochs", 3)
    assert call(*UAE, *flat, "--out", "part", "--training.epochs", 3, "--resume")[0] == 0
    whole, part = (core_models.load(tmp_path / name).state_dict() for name in ("whole", "part"))
    for name, tensor in whole.items():
        torch.testing.assert_close(part[name], tensor, rtol=0, atol=0)
    assert "nothing left to do" in call(*UAE, *flat, "--out", "part", "--training.epochs", 3, "--resume")[1]


def test_a_prior_tells_its_representation_error_on_images_held_out(tmp_path, call):
    assert call(*PRIOR, "--out", "vae", "--training.epochs", 3)[0] == 0
    told, lines = summary_of(tmp_path / "vae"), RunFolder(tmp_path / "vae").read_metrics()
    assert lines[-1]["validation_nats"] > lines[0]["validation_nats"]
    assert told["validation_nats"]["mean"] == pytest.approx(lines[-1]["validation_nats"], rel=1e-5)
    prior, digits = core_models.load(tmp_path / "vae"), load("digits")
    _, places = held_out(len(digits.train_x), 50, 0)
    x = digits.images("train")[places][:10]
    error = representation_error(prior, x, nearest_latents(prior, x)).square() / 64
    assert told["representation_error"]["mse"]["mean"] == pytest.approx(float(error.mean()), rel=1e-3)
    assert told["representation_error"]["mse"]["n"] == 10


@pytest.mark.parametrize(
    ("model", "config", "scored"),
    [("real-nvp", "{couplings: 2, hidden: [8]}", True), ("wgan-gp", "{latent: 4, hidden: [8, 8]}", False)],
)
def test_flows_and_gans_are_priors_too(tmp_path, call, quick, model, config, scored):
    out = tmp_path / "prior"
    given = ["train", "prior", "--data", "digits", "--model", model, "--model_config", config]
    status, told, error = call(*given, "--training.epochs", 1, "--representation_images", 5, "--out", out)
    assert status == 0, error
    assert RunFolder(out).read_config()["binarisation"] == "none"
    summary = summary_of(out)
    assert summary["representation_error"]["mse"]["mean"] > 0
    assert (summary["validation_nats"] is not None) == scored == ("bound" in told)
    assert core_models.load(out).decode(torch.zeros(2, *core_models.load(out).latent_shape)).shape == (2, 1, 8, 8)


@pytest.mark.parametrize(
    ("more", "chosen"),
    [
        ([], "dynamic"),
        (["--binarisation", "none"], "none"),  # grey pixels under a Bernoulli likelihood, as in Bora et al.
        (["--model_config.likelihood", "gaussian"], "none"),
        (["--model_config.likelihood", "discretised-logistic"], "none"),
    ],
)
def test_pixels_are_what_the_density_is_over_unless_asked_otherwise(tmp_path, call, quick, more, chosen):
    status, _, error = call(*PRIOR, *more, "--training.epochs", 1, "--out", tmp_path / "out")
    assert status == 0, error
    assert RunFolder(tmp_path / "out").read_config()["binarisation"] == chosen


def test_a_run_goes_on_with_the_pixels_that_it_was_begun_with(tmp_path, call, quick, refused):
    out = ["--out", tmp_path / "out"]
    assert call(*PRIOR, *out, "--training.epochs", 1, "--binarisation", "threshold")[0] == 0
    status, _, error = call(*PRIOR, *out, "--training.epochs", 2, "--resume")
    assert status == 0, error
    assert RunFolder(tmp_path / "out").read_config()["binarisation"] == "threshold"
    words = refused(*PRIOR, *out, "--training.epochs", 2, "--resume", "--binarisation", "none")
    assert "binarisation (threshold there, none here)" in words


def test_the_bound_of_images_held_out_is_that_of_their_draws(tmp_path, call, quick):
    config = "{couplings: 2, hidden: [8]}"
    given = ["train", "prior", "--data", "digits", "--model", "real-nvp", "--model_config", config, "--validation", 50]
    assert call(*given, "--representation_images", 1, "--training.epochs", 1, "--out", tmp_path / "out")[0] == 0
    prior, digits = core_models.load(tmp_path / "out"), load("digits")
    x = digits.images("train")[held_out(len(digits.train_x), 50, 0)[1]]
    spread = dequantise(x, 17, torch.Generator().manual_seed(seed_of(0, "validation draws")))
    told = summary_of(tmp_path / "out")["validation_nats"]
    assert told["mean"] == pytest.approx(float(prior.log_prob(spread).detach().mean()), rel=1e-5) and told["n"] == 50


@pytest.mark.parametrize("given", [UAE, PRIOR], ids=["uae", "prior"])
def test_training_in_double_precision(tmp_path, call, quick, given):
    status, _, error = call(
        *given, "--training.epochs", 1, "--training.precision", "64-true", "--out", tmp_path / "out"
    )
    assert status == 0, error
    assert summary_of(tmp_path / "out")["metrics"]


def test_mistakes_in_training(tmp_path, refused):
    assert "at least one measurement" in refused(*UAE, "--m", 0, "--out", "no", "--training.epochs", 1)
    assert "noise of 0 or more" in refused(*UAE, "--noise", -1, "--out", "no", "--training.epochs", 1)
    assert "decodes latents" in refused(*PRIOR[:4], "--model", "pixel-cnn", "--out", "no", "--training.epochs", 1)
    error = refused(*PRIOR, "--representation_images", 60, "--out", "no", "--training.epochs", 1)
    assert "expected 1 to 50, the images held out, got 60" in error
    grey = ["--model_config.likelihood", "gaussian", "--binarisation", "dynamic"]
    error = refused(*PRIOR, *grey, "--out", "no", "--training.epochs", 1)
    assert "got binarisation dynamic: leave it out, or choose a Bernoulli likelihood" in error
    error = refused(*PRIOR, "--binarisation", "static", "--out", "no", "--training.epochs", 1)
    assert error == "--binarisation: expected dynamic, threshold or none for a prior, got static"
    assert "at least 1 image" in refused(*PRIOR, "--validation", 0, "--out", "no", "--training.epochs", 1)
    assert not (tmp_path / "no").exists()
