"""`genapps pixeldefend train-density` and `calibrate`: a density model with the scores of images held out from it.

For the likelihood ratio the background model is a density like any other, trained on mutated images
(`--mutation_rate`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from apps.common.building import build_model, names_class
from apps.common.machine import set_threads
from apps.common.training import conclude, fit_into, load_as_trained, number_held_out, of_data, open_run, summary_of
from core_models import zoo
from core_models.base import Autoregressive, GenerativeModel, Metrics, Objective, Scalar
from core_models.data import DataSet, to_floats
from core_models.data import load as load_data
from core_models.errors import UserError
from core_models.objectives import NegativeLogLikelihood
from core_models.training import PixelBatches, RunFolder, TensorBatches, TrainingConfig, held_out, resolve_device

from .detection import bits_per_dim, calibrate, mutate
from .detection.calibration import FILE_NAME
from .loading import load_density

ADAM = TrainingConfig(epochs=7, learning_rate=1.5e-3, warmup_steps=200, schedule="cosine", ema=0.999)

SMALL = {"filters": 32, "blocks": 2, "resolutions": 3, "dropout": 0.0, "weight_norm": False, "head": "softmax"}
"""The PixelCNN++ of a million parameters that ships for Fashion-MNIST: 100 minutes on one core there."""
SIZES = ("filters", "blocks", "resolutions")


class MutatedLikelihood(NegativeLogLikelihood):
    """Minus the log-likelihood of mutated images: what a background model minimises (Ren et al. 2019, section 3)."""

    def __init__(self, model: GenerativeModel, rate: float) -> None:
        assert isinstance(model, Autoregressive)
        super().__init__(model)
        self.rate, self.levels = rate, model.levels

    def forward(self, batch: Mapping[str, Any], generator: Generator | None = None) -> tuple[Scalar, Metrics]:
        """Returns the loss [nats] of a batch with images "x", mutated anew."""
        x = mutate(batch["x"], self.rate, levels=self.levels, generator=generator)
        return super().forward({**batch, "x": x}, generator)


def train_density(
    data: str,
    out: Path,
    model: str = "pixel-cnn-pp",
    model_config: dict[str, Any] | None = None,
    mutation_rate: float = 0.0,
    validation: int | None = None,
    batch_size: int = 32,
    training: TrainingConfig = ADAM,
    resume: bool = False,
    image_size: int | None = None,
) -> None:
    """Trains a density model, measures it on the test images and calibrates it on training images held out.

    Args:
        data: A data set by name (`genapps model list`), or the path of your own .npz or folder of images.
        out: The run folder: settings, metrics, checkpoint, weights, calibration.npz and summary.json.
        model: A registered autoregressive model, or the class path of your own.
        model_config: Fields of the model's configuration, e.g. {filters: 32, blocks: 2}; shape and levels come from the
            data where left out. On a CPU a pixel-cnn-pp of which no size is given is small, not the paper's.
        mutation_rate: Share of sub-pixels replaced by random levels in training, for a background model.
        validation: Training images to hold out for the calibration, by the seed. Left out, it is a tenth of them and at
            most 5,000.
        batch_size: Images in a batch.
        training: Settings of the training loop.
        resume: Go on from the run's last checkpoint, where there is one; a finished run is left as it is.
        image_size: Side to which the images of a folder are cut and resized [pixels].
    """
    if not 0 <= mutation_rate <= 1:
        raise UserError(f"--mutation_rate: expected a rate from 0 to 1, got {mutation_rate}")
    run = open_run(out, training, resume)
    data_set = load_data(data, image_size=image_size)
    if validation is None:
        validation = number_held_out(len(data_set.train_x))
    model_config = sized(model, model_config, resolve_device(training.device))
    net = build_model(model, model_config, data_set, training.seed)
    if not isinstance(net, Autoregressive):
        raise UserError(f"expected an autoregressive model, such as pixel-cnn-pp, got {type(net).__name__}")
    if getattr(net, "classes", 0):
        raise UserError("expected a density without classes: an image under test has none; leave classes out")
    kept, held = held_out(len(data_set.train_x), validation, training.seed)
    settings: dict[str, Any] = {
        **of_data(data, image_size), "model": model, "model_config": model_config, "mutation_rate": mutation_rate,
        "validation": validation, "batch_size": batch_size, "training": asdict(training),
    }  # fmt: skip
    objective: Objective = MutatedLikelihood(net, mutation_rate) if mutation_rate else NegativeLogLikelihood(net)
    tensors = TensorBatches({"x": data_set.train_x[kept]}, min(batch_size, len(kept)), training.seed)

    def validate(objective: Objective) -> dict[str, float]:
        scores = bits_per_dim(net, to_floats(data_set.train_x[held], data_set.levels))
        return {"validation_bits_per_dim": float(scores.mean())}

    writes = [run.path / FILE_NAME] if len(held) else []
    history = fit_into(
        run, net, objective, PixelBatches(tensors, data_set.levels), data_set, settings, training, name=model,
        resume=resume, validate=validate if len(held) else None, writes=writes,
    )  # fmt: skip
    if history is None:
        return
    scores = bits_per_dim(net, data_set.images("test"))
    if len(held):
        write_calibration(net, data_set, held, run.path)
    print(f"test images: {scores.mean():.4f} bits/dim ({len(scores):,} images)")
    told = {"model": model, "mutation_rate": mutation_rate}
    test = {"bits_per_dim": float(scores.mean()), "n": len(scores)}
    conclude(run, {**summary_of(net, data_set, history, training), **told, "test": test}, writes)


def calibrate_density(
    density: str, data: str, validation: int | None = None, seed: int | None = None, device: str = "auto",
    threads: int | None = None,
) -> None:  # fmt: skip
    """Calibrates a density that was trained by `genapps model train` on the training images that it held out.

    Args:
        density: The run folder.
        data: The data set that it was trained on.
        validation: How many training images that run held out, where its settings don't say.
        seed: The seed of that run, likewise.
        device: auto, cpu, cuda or cuda:N.
        threads: CPU threads.
    """
    set_threads(threads)
    if density.startswith(zoo.PREFIX) or names_class(density):
        raise UserError(
            f"--density {density}: expected a run folder, beside whose weights the scores are kept; detect takes "
            "images by --calibration_data, and what ships is calibrated"
        )
    model = load_density(density, device)
    validation, seed = _as_held_out(RunFolder(density), validation, seed)
    data_set = load_as_trained(data, density)
    if tuple(model.event_shape) != tuple(data_set.event_shape):
        raise UserError(f"expected images of {tuple(model.event_shape)}, {data} has {tuple(data_set.event_shape)}")
    _, held = held_out(len(data_set.train_x), validation, seed)
    write_calibration(model, data_set, held, Path(density))
    print(f"wrote {Path(density) / FILE_NAME}: {len(held):,} held-out images")


def _as_held_out(run: RunFolder, validation: int | None, seed: int | None) -> tuple[int, int]:
    """Returns how many training images a run held out, and by which seed.

    Raises:
        UserError: when it held out none, nobody says how many, or its settings say otherwise than what is given.
    """
    had = run.read_config()
    own = {"validation": had.get("validation"), "seed": (had.get("training") or {}).get("seed")}
    for name, given in (("validation", validation), ("seed", seed)):
        if None not in (own[name], given) and given != own[name]:
            raise UserError(f"--{name}: expected {own[name]}, as {run.path} was trained with, got {given}")
    held = validation if own["validation"] is None else own["validation"]
    if not held:
        raise UserError(
            f"{run.path}: expected a run that held out training images (--validation), got {held or 0} of them: those "
            "that a density was trained on look likelier than new ones"
        )
    return int(held), int(own["seed"] or seed or 0)


def sized(model: str, config: dict[str, Any] | None, device: torch.device) -> dict[str, Any] | None:
    """Returns a model's configuration, that of a small one where it has no size and would be trained on a CPU.

    The sizes that a PixelCNN++ has by default are the paper's: its 53 million parameters are for GPUs.
    """
    given = config or {}
    if device.type != "cpu" or model != "pixel-cnn-pp" or any(size in given for size in SIZES):
        return config
    told = ", ".join(f"{size} {SMALL[size]}" for size in SIZES)
    print(
        f"on a CPU, a small pixel-cnn-pp ({told}) where no size is given; the paper's, of 53 million parameters, by "
        "--model_config.filters 160 --model_config.blocks 5"
    )
    return {**SMALL, **given}


def write_calibration(model: GenerativeModel, data: DataSet, held: Tensor, folder: Path) -> None:
    """Scores held-out training images and writes the calibration beside the weights."""
    x = to_floats(data.train_x[held], data.levels)
    calibrate(model, x, data=data.name, split="valid").save(folder / FILE_NAME)
