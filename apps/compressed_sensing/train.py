"""`genapps compressed-sensing train`: an uncertainty autoencoder, or a generative prior, into a run folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from apps.common.building import build_model
from apps.common.objectives import build_objective, choose_binarisation, default_estimator, density_over, spreads
from apps.common.training import conclude, fit_into, number_held_out, of_data, open_run, summary_of
from core_models.adversarial import WGANGP, WassersteinLoss
from core_models.base import Decodable, GenerativeModel, Objective
from core_models.data import Binarisation, DataSet, binarise, dequantise, to_floats
from core_models.data import load as load_data
from core_models.errors import UserError
from core_models.evaluation import per_event
from core_models.latent import SquaredRecoveryError, UAEConfig, UncertaintyAutoencoderModel
from core_models.seeding import seeded
from core_models.training import PixelBatches, RunFolder, TensorBatches, TrainingConfig, held_out, seed_of

from .diagnosis import nearest_latents, representation_error
from .metrics import summary
from .splits import places

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
    image_size: int | None = None,
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
        image_size: Side to which the images of a folder are cut and resized [pixels].
    """
    run = open_run(out, training, resume)
    data_set = load_data(data, image_size=image_size)
    config = UAEConfig(tuple(data_set.event_shape), m, tuple(hidden), noise, norm_matched, linear_path)
    with seeded(seed_of(training.seed, "initial weights")):
        model = UncertaintyAutoencoderModel(config)
    validation = _default_validation(data_set, validation)
    settings = {
        **of_data(data, image_size), "m": m, "noise": noise, "hidden": hidden, "norm_matched": norm_matched,
        "linear_path": linear_path, "validation": validation, "batch_size": batch_size, "training": asdict(training),
    }  # fmt: skip
    kept, held = _shared(data_set, validation, training.seed)

    def validate(objective: Objective) -> Mapping[str, float]:
        return {"validation_mse": float(_squared_errors(model, held, training.seed).mean())}

    history = fit_into(
        run, model, SquaredRecoveryError(model), _batches(data_set, kept, batch_size, training.seed), data_set,
        settings, training, name="uncertainty autoencoder", resume=resume, validate=validate,
    )  # fmt: skip
    if history is None:
        return
    test = summary(_squared_errors(model, data_set.images("test"), training.seed))
    norm = float(model.encoder().detach().norm())
    n = model.event_shape.numel()
    print(f"test images: mean squared error of a pixel {test['mean']:.5f} ± {test['half_width']:.2g}; encoder's norm "
          f"{norm:.4g}, a Gaussian matrix's {(m * n) ** 0.5:.4g}")  # fmt: skip
    told = {"test": {"mse": test}, "encoder_norm": norm, "gaussian_norm": (m * n) ** 0.5, "validation": validation}
    conclude(run, {**summary_of(model, data_set, history, training), **told})


def train_prior(
    data: str,
    out: Path,
    model: str = "vae",
    model_config: dict[str, Any] | None = None,
    binarisation: Binarisation | None = None,
    validation: int | None = None,
    representation_images: int = 100,
    batch_size: int = 100,
    training: TrainingConfig = PRIOR_TRAINING,
    resume: bool = False,
    image_size: int | None = None,
) -> None:
    """Trains a generative prior, and says how near it comes to images held out: no recovery by CSGM does better.

    Args:
        data: A data set by name, or the path of your own .npz or folder of images.
        out: The run folder: settings, metrics, checkpoint, weights and summary.json.
        model: A registered model that decodes latents, or the class path of your own.
        model_config: Fields of the model's configuration, e.g. {latent: 20, hidden: [500, 500]}; the shape comes from
            the data.
        binarisation: How grey pixels become zeros and ones: dynamic draws them anew at every step, threshold cuts at
            one half, none leaves them. Left out, it is dynamic for a Bernoulli likelihood of greys and none otherwise.
        validation: Training images to hold out, by the seed. Left out, a tenth of them and at most 5,000.
        representation_images: How many of these the representation error is measured on; of Omniglot a fixed draw.
        batch_size: Images in a batch.
        training: Settings of the training loop.
        resume: Go on from the run's last checkpoint, where there is one; a finished run is left as it is.
        image_size: Side to which the images of a folder are cut and resized [pixels].
    """
    run = open_run(out, training, resume)
    data_set = load_data(data, image_size=image_size)
    net = build_model(model, model_config, data_set, training.seed)
    if not isinstance(net, Decodable):
        raise UserError(f"expected a model that decodes latents, such as a vae, got {type(net).__name__}")
    if getattr(net, "classes", 0):
        raise UserError("expected a prior without classes: signals to recover have none; leave classes out")
    scored = not isinstance(net, WGANGP)  # a GAN has no likelihood
    if not scored and training.early_stop is not None:
        raise UserError("early_stop: expected none for a GAN, which has no likelihood to watch: leave it out")
    chosen = _binarisation(binarisation, net, data_set, run)
    objective: Objective
    if isinstance(net, WGANGP):
        objective = WassersteinLoss(net)
    else:
        objective = build_objective(net, chosen, levels=data_set.levels)
    validation = _default_validation(data_set, validation)
    if not 1 <= representation_images <= validation:
        raise UserError(f"--representation_images: expected 1 to {validation}, the images held out, got "
                        f"{representation_images}")  # fmt: skip
    settings = {
        **of_data(data, image_size), "model": model, "model_config": model_config, "binarisation": chosen,
        "validation": validation, "representation_images": representation_images, "batch_size": batch_size,
        "training": asdict(training),
    }  # fmt: skip
    kept, held = _shared(data_set, validation, training.seed)
    if callable(start := getattr(net, "set_output_mean", None)):
        start(data_set.train_x[kept].to(torch.float32).mean(0) / (data_set.levels - 1))

    def validate(objective: Objective) -> Mapping[str, float]:
        return {"validation_nats": float(_bounds(net, held, chosen, data_set.levels, training.seed).mean())}

    history = fit_into(
        run, net, objective, _batches(data_set, kept, batch_size, training.seed), data_set, settings, training,
        name=model, resume=resume, validate=validate if scored else None,
    )  # fmt: skip
    if history is None:
        return
    net.cpu()
    x = held[places(data_set.name, len(held))[:representation_images]].to(next(net.parameters()).dtype)
    error = representation_error(net, x, nearest_latents(net, x, random_state=training.seed))
    nearest = {"mse": summary(error.square() / x[0].numel()), "l2": summary(error)}
    bound = summary(_bounds(net, held, chosen, data_set.levels, training.seed)) if scored else None
    told = f"bound {bound['mean']:.2f} ± {bound['half_width']:.2g} nats; " if bound else ""
    print(
        f"images held out: {told}representation error, mean square of a pixel, {nearest['mse']['mean']:.5f} ± "
        f"{nearest['mse']['half_width']:.2g} on {len(x)}"
    )
    found = {"validation_nats": bound, "representation_error": nearest, "validation": validation}
    conclude(run, {**summary_of(net, data_set, history, training), **found})


def _binarisation(asked: Binarisation | None, net: GenerativeModel, data_set: DataSet, run: RunFolder) -> Binarisation:
    """Returns how pixels become events: in a run that goes on as before, else as asked or as the density needs it.

    Raises:
        UserError: when a density over greys is asked for that of bits, or one draw is asked for of a whole split.
    """
    before: Binarisation | None = run.read_config().get("binarisation") if run.checkpoint().exists() else None
    if before is not None and asked in (None, before):
        return before
    if asked == "static":
        raise UserError("--binarisation: expected dynamic, threshold or none for a prior, got static")
    # grey pixels under a Bernoulli likelihood are how Bora et al. trained theirs
    return "none" if asked == "none" else choose_binarisation(asked, density_over(net), data_set)


def _default_validation(data_set: DataSet, validation: int | None) -> int:
    number = number_held_out(len(data_set.train_x)) if validation is None else validation
    if number < 1:
        raise UserError(f"--validation: expected at least 1 image to hold out, got {number}")
    return number


def _shared(data_set: DataSet, validation: int, seed: int) -> tuple[Tensor, Tensor]:
    """Returns the places of the images to train on, and those held out, (validation, c, h, w) in [0, 1]."""
    kept, held = held_out(len(data_set.train_x), validation, seed)
    return kept, to_floats(data_set.train_x[held], data_set.levels)


def _batches(data_set: DataSet, kept: Tensor, batch_size: int, seed: int) -> PixelBatches:
    tensors = TensorBatches({"x": data_set.train_x[kept]}, min(batch_size, len(kept)), seed)
    return PixelBatches(tensors, data_set.levels)


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


def _bounds(net: GenerativeModel, x: Tensor, binarisation: Binarisation, levels: int, seed: int) -> Tensor:
    """Returns the log-likelihood (n,) of images, or its bound [nats], by the same draws every time."""
    place = next(net.parameters())
    generator = Generator(place.device).manual_seed(seed_of(seed, "validation draws"))
    parts = []
    for own in x.split(CHUNK):
        own = binarise(own.to(place), binarisation, generator)
        own = dequantise(own, levels, generator) if spreads(net) else own
        parts.append(-per_event(net, own, estimator=default_estimator(net), generator=generator, batch_size=CHUNK))
    return torch.cat(parts)
