"""`genapps compressed-sensing train`: an uncertainty autoencoder, or a generative prior, into a run folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

import core_models
from apps.common.building import build_model
from apps.common.machine import set_threads
from apps.common.provenance import command_line, commit, device_words
from core_models import registry
from core_models.adversarial import WGANGP, WassersteinLoss
from core_models.base import Decodable, ExactLikelihood, GenerativeModel, Objective, Variational
from core_models.data import Binarisation, DataSet, binarise
from core_models.data import load as load_data
from core_models.data.pixels import dequantise
from core_models.errors import UserError
from core_models.latent import NegativeELBO, RecoveryError, UAEConfig, UncertaintyAutoencoderModel
from core_models.objectives import NegativeLogLikelihood
from core_models.training import (
    PixelBatches,
    RunFolder,
    TensorBatches,
    TrainingConfig,
    fit,
    held_out,
    resolve_device,
    seed_of,
)
from core_models.training.trainer import Validate

from .diagnosis import nearest_latents, representation_error
from .metrics import summary
from .splits import number_held_out, places

CHUNK = 1000
UAE_TRAINING = TrainingConfig(epochs=100, learning_rate=1e-3, schedule="cosine")
PRIOR_TRAINING = TrainingConfig(epochs=100)


def train_uae(
    data: str,
    m: int,
    out: Path,
    noise: float = 0.1,
    hidden: tuple[int, ...] = (500, 500),
    norm_matched: bool = True,
    linear_path: bool = True,
    validation: int | None = None,
    batch_size: int = 100,
    training: TrainingConfig = UAE_TRAINING,
    resume: bool = False,
) -> None:
    """Trains an uncertainty autoencoder: measurements, and what recovers signals from them.

    Args:
        data: A data set by name, or the path of your own .npz or folder of images.
        m: Measurements of a signal.
        out: The run folder: settings, metrics, checkpoint, weights and summary.json.
        noise: Standard deviation of each measurement's noise, for an encoder with entries of mean square 1.
        hidden: Units of the decoder's hidden layers.
        norm_matched: Hold the encoder's norm at that of a random Gaussian matrix; else it grows to drown the noise.
        linear_path: Add a linear map of the measurements to the decoder's network; the paper's has none.
        validation: Training images to hold out, by the seed. Left out, a tenth of them and at most 5,000.
        batch_size: Images in a batch.
        training: Settings of the training loop.
        resume: Go on from the run's last checkpoint, where there is one; a finished run is left as it is.
    """
    run, going_on = _open_run(out, training, resume)
    data_set = load_data(data)
    config = UAEConfig(tuple(data_set.event_shape), m, tuple(hidden), noise, norm_matched, linear_path)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(training.seed, "initial weights"))
        model = UncertaintyAutoencoderModel(config)
    validation = _default_validation(data_set, validation)
    settings = {"data": data, **asdict(config), "validation": validation, "batch_size": batch_size,
                "training": asdict(training)}  # fmt: skip
    held = _held(data_set, validation, training.seed)

    def validate(objective: Objective) -> Mapping[str, float]:
        return {"validation_mse": float(_squared_errors(model, held, training.seed).mean())}

    history = _fit(
        RecoveryError(model), data_set, run, settings, validation, batch_size, training, going_on, resume, validate
    )
    if history is None:
        return
    test = summary(_squared_errors(model, data_set.images("test"), training.seed))
    norm = float(model.encoder().detach().norm())
    n = model.event_shape.numel()
    print(f"test images: mean squared error of a pixel {test['mean']:.5f} ± {test['half_width']:.2g}; encoder's norm "
          f"{norm:.4g}, a Gaussian matrix's {(m * n) ** 0.5:.4g}")  # fmt: skip
    told = {"test": {"mse": test}, "encoder_norm": norm, "gaussian_norm": (m * n) ** 0.5}
    _finish(model, data_set, run, settings, history, training, told)


def train_prior(
    data: str,
    out: Path,
    model: str = "vae",
    model_config: dict[str, Any] | None = None,
    binarisation: Binarisation = "dynamic",
    validation: int | None = None,
    representation_images: int = 100,
    batch_size: int = 100,
    training: TrainingConfig = PRIOR_TRAINING,
    resume: bool = False,
) -> None:
    """Trains a generative prior, and says how near it comes to images held out: no recovery by CSGM does better.

    Args:
        data: A data set by name, or the path of your own .npz or folder of images.
        out: The run folder: settings, metrics, checkpoint, weights and summary.json.
        model: A registered model that decodes latents, or the class path of your own.
        model_config: Fields of the model's configuration, e.g. {latent: 20, hidden: [500, 500]}; the shape comes from
            the data.
        binarisation: How grey pixels become zeros and ones: dynamic draws them anew at every step; none leaves them.
        validation: Training images to hold out, by the seed. Left out, a tenth of them and at most 5,000.
        representation_images: How many of these the representation error is measured on; of Omniglot a fixed draw.
        batch_size: Images in a batch.
        training: Settings of the training loop.
        resume: Go on from the run's last checkpoint, where there is one; a finished run is left as it is.
    """
    run, going_on = _open_run(out, training, resume)
    data_set = load_data(data)
    net = build_model(model, model_config, data_set, training.seed)
    if not isinstance(net, Decodable):
        raise UserError(f"expected a model that decodes latents, such as a vae, got {type(net).__name__}")
    if getattr(net, "classes", 0):
        raise UserError("expected a prior without classes: signals to recover have none; leave classes out")
    objective: Objective
    levels = 0  # to dequantise
    if isinstance(net, Variational):
        objective = NegativeELBO(net, binarisation=binarisation)
    elif isinstance(net, WGANGP):
        objective = WassersteinLoss(net)
    elif isinstance(net, ExactLikelihood):
        levels = data_set.levels if getattr(net, "density_over", None) == "continuous" else 0
        objective = NegativeLogLikelihood(net, binarisation=binarisation, dequantise=levels)
    else:
        raise UserError(f"expected a model with a likelihood or a bound to train by, got {type(net).__name__}")
    validation = _default_validation(data_set, validation)
    if not 1 <= representation_images <= validation:
        raise UserError(f"--representation_images: expected 1 to {validation}, the images held out, got "
                        f"{representation_images}")  # fmt: skip
    settings = {
        "data": data, "model": model, "model_config": model_config, "binarisation": binarisation,
        "validation": validation, "representation_images": representation_images, "batch_size": batch_size,
        "training": asdict(training),
    }  # fmt: skip
    held = _held(data_set, validation, training.seed)
    if callable(start := getattr(net, "set_output_mean", None)):
        kept, _ = held_out(len(data_set.train_x), validation, training.seed)
        start(data_set.train_x[kept].to(torch.float32).mean(0) / (data_set.levels - 1))

    def validate(objective: Objective) -> Mapping[str, float]:
        return {"validation_nats": float(_bounds(net, held, binarisation, levels, training.seed).mean())}

    scored = not isinstance(net, WGANGP)  # a GAN has no likelihood
    history = _fit(
        objective, data_set, run, settings, validation, batch_size, training, going_on, resume,
        validate if scored else None,
    )  # fmt: skip
    if history is None:
        return
    net.cpu().eval()
    x = held[places(data_set.name, len(held))[:representation_images]].to(next(net.parameters()).dtype)
    error = representation_error(net, x, nearest_latents(net, x, random_state=training.seed))
    nearest = {"mse": summary(error.square() / x[0].numel()), "l2": summary(error)}
    bound = summary(_bounds(net, held, binarisation, levels, training.seed)) if scored else None
    told = f"bound {bound['mean']:.2f} ± {bound['half_width']:.2g} nats; " if bound else ""
    print(
        f"images held out: {told}representation error, mean square of a pixel, {nearest['mse']['mean']:.5f} ± "
        f"{nearest['mse']['half_width']:.2g} on {len(x)}"
    )
    _finish(
        net, data_set, run, settings, history, training, {"validation_nats": bound, "representation_error": nearest}
    )


def _open_run(out: Path, training: TrainingConfig, resume: bool) -> tuple[RunFolder, bool]:
    set_threads(training.threads)
    run = RunFolder(out)
    going_on = run.checkpoint().exists()
    if going_on and not resume:
        raise UserError(f"{run.path} already holds a run: add --resume to go on, or choose another folder")
    return run, going_on


def _default_validation(data_set: DataSet, validation: int | None) -> int:
    number = number_held_out(len(data_set.train_x)) if validation is None else validation
    if number < 1:
        raise UserError(f"--validation: expected at least 1 image to hold out, got {number}")
    return number


def _held(data_set: DataSet, validation: int, seed: int) -> Tensor:
    """Returns the images held out, (validation, c, h, w) in [0, 1]."""
    _, own = held_out(len(data_set.train_x), validation, seed)
    return data_set.train_x[own].to(torch.float32).div_(data_set.levels - 1)


def _fit(
    objective: Objective, data_set: DataSet, run: RunFolder, settings: dict[str, Any], validation: int, batch_size: int,
    training: TrainingConfig, going_on: bool, resume: bool, validate: Validate | None,
) -> Any:  # fmt: skip
    """Trains; returns the history, or None for a run that had ended before."""
    kept, _ = held_out(len(data_set.train_x), validation, training.seed)
    tensors = TensorBatches({"x": data_set.train_x[kept]}, min(batch_size, len(kept)), training.seed)
    parameters = sum(parameter.numel() for parameter in objective.parameters())
    words = device_words(resolve_device(training.device), training.threads)
    print(f"{parameters:,} parameters; {data_set.name}, {len(kept):,} images, {validation:,} held out; {words}")
    plain = json.loads(json.dumps(settings))  # YAML has no tuples
    if not going_on:
        run.write_config(plain)
    history = fit(
        objective, PixelBatches(tensors, data_set.levels), training, run=run, resume=resume, validate=validate
    )
    if going_on and run.was_summed_up(history.stopped, history.steps):
        print(f"{run.path} is finished: there is nothing left to do")
        return None
    run.write_config(plain)
    return history


def _finish(
    model: GenerativeModel, data_set: DataSet, run: RunFolder, settings: Mapping[str, Any], history: Any,
    training: TrainingConfig, told: Mapping[str, Any],
) -> None:  # fmt: skip
    core_models.save(model.cpu().eval(), run.path)
    run.write_summary({
        "data": data_set.name, "source": data_set.source, **registry.describe(model), **told,
        "validation": settings["validation"], "stopped": history.stopped, "steps": history.steps,
        "seconds": round(history.seconds, 1), "metrics": history.metrics[-1] if history.metrics else {},
        "device": device_words(resolve_device(training.device), training.threads),
        "command": command_line(), "commit": commit(),
    })  # fmt: skip
    if history.stopped == "time limit":
        print(f"stopped by the time limit at step {history.steps:,}: the same command with --resume goes on")
    print(f"wrote {run.path}: weights, summary.json")


@torch.no_grad()
def _squared_errors(model: UncertaintyAutoencoderModel, x: Tensor, seed: int) -> Tensor:
    """Returns the mean squared error (n,) of images measured with the same noise every time."""
    place = model.raw.device
    generator = Generator(place).manual_seed(seed_of(seed, "validation noise"))
    parts = []
    for own in x.split(CHUNK):
        own = own.to(model.raw)
        found = model.decode_measurements(model.measure(own, generator)).clamp(0, 1)
        parts.append((found - own).square().flatten(1).mean(1).cpu())
    return torch.cat(parts)


@torch.no_grad()
def _bounds(net: GenerativeModel, x: Tensor, binarisation: Binarisation, levels: int, seed: int) -> Tensor:
    """Returns the log-likelihood (n,) of images, or its bound [nats], by the same draws every time."""
    place = next(net.parameters()).device
    generator = Generator(place).manual_seed(seed_of(seed, "validation draws"))
    parts = []
    for own in x.split(CHUNK):
        own = binarise(own.to(next(net.parameters())), binarisation, generator)
        own = dequantise(own, levels, generator) if levels else own
        score = net.elbo(own, generator=generator) if isinstance(net, Variational) else net.log_prob(own)  # type: ignore[operator]
        parts.append(score.cpu())
    return torch.cat(parts)
