"""`genapps pixeldefend train-classifier`: one network, one training defence, one run folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int, UInt8
from torch import Tensor, nn

from apps.common.importing import working_folder_importable
from apps.common.training import conclude, fit_into, number_held_out, of_data, open_run, summary_of
from core_models import registry
from core_models.base import Classifier, Objective
from core_models.data import DataSet
from core_models.data import load as load_data
from core_models.errors import UserError
from core_models.seeding import seeded
from core_models.training import PixelBatches, TensorBatches, TrainingConfig, held_out, seed_of

from .defences import Defence, defence

ByteImages = UInt8[Tensor, "n channels height width"]
Labels = Int[Tensor, " n"]

SGD = TrainingConfig(
    epochs=40, learning_rate=0.1, optimizer="sgd", weight_decay=5e-4, schedule="cosine", checkpoint_every_seconds=30.0
)


def train_classifier(
    data: str,
    out: Path,
    network: str = "resnet",
    network_config: dict[str, Any] | None = None,
    defence: Defence = "normal",
    eps: int = 8,
    steps: int = 7,
    step_size: int = 2,
    smoothing: float = 0.9,
    flip: bool = True,
    validation: int | None = None,
    batch_size: int = 128,
    training: TrainingConfig = SGD,
    resume: bool = False,
    image_size: int | None = None,
) -> None:
    """Trains a classifier, plainly or with a training defence, and measures it on clean test images.

    Args:
        data: A labelled data set by name, or the path of your own .npz or folder of images.
        out: The run folder: settings, metrics, checkpoint, weights and summary.json.
        network: resnet, vgg, or the class path of your own Classifier.
        network_config: Fields of the network's configuration, e.g. {widths: [4, 4, 8, 16]}; shape and number of classes
            come from the data where left out.
        defence: normal, label-smoothing, or training on adversarial images by fgsm, bim or madry.
        eps: Budget in 8-bit levels: standard deviation of those drawn for fgsm and bim, largest change for madry.
        steps: Steps of madry.
        step_size: Step of madry in 8-bit levels.
        smoothing: Probability that label-smoothing gives the true class.
        flip: Whether images are flipped left to right at random.
        validation: Training images to hold out, by the seed; 0 takes the data set's own validation split, if any. Left
            out, it is a tenth of them and at most 5,000.
        batch_size: Images in a batch.
        training: Settings of the training loop.
        resume: Go on from the run's last checkpoint, where there is one; a finished run is left as it is.
        image_size: Side to which the images of a folder are cut and resized [pixels].
    """
    run = open_run(out, training, resume)
    data_set = load_data(data, image_size=image_size)
    if validation is None:
        validation = number_held_out(len(data_set.train_y))
    settings: dict[str, Any] = {
        **of_data(data, image_size),
        "network": network,
        "network_config": network_config,
        "defence": defence,
        "eps": eps,
        "steps": steps,
        "step_size": step_size,
        "smoothing": smoothing,
        "flip": flip,
        "validation": validation,
        "batch_size": batch_size,
        "training": asdict(training),
    }
    net = build_classifier(network, network_config, data_set, training.seed)
    examples, held = splits(data_set, validation, training.seed)
    objective = make_objective(settings, net)
    batches = PixelBatches(TensorBatches(examples, batch_size, training.seed), data_set.levels)

    def validate(objective: Objective) -> dict[str, float]:
        assert held is not None
        return {"validation_accuracy_percent": accuracy(net, held["x"], held["y"], data_set.levels)}

    history = fit_into(
        run, net, objective, batches, data_set, settings, training, name=f"{network} ({defence})", resume=resume,
        validate=None if held is None else validate,
    )  # fmt: skip
    if history is None:
        return
    test = accuracy(net, data_set.test_x, data_set.test_y, data_set.levels)
    valid = None if held is None else accuracy(net, held["x"], held["y"], data_set.levels)
    aside = "" if valid is None else f", {valid:.2f} % of the images held out"
    print(f"classified rightly: {test:.2f} % of {len(data_set.test_y):,} test images{aside}")
    summary = {
        **summary_of(net, data_set, history, training),
        "classes": list(data_set.classes),
        "network": network,
        "defence": defence,
        "test": {"accuracy_percent": test, "n": len(data_set.test_y)},
        "validation": None if held is None else {"accuracy_percent": valid, "n": len(held["y"])},
    }
    conclude(run, summary)


def build_classifier(name: str, config: Mapping[str, Any] | None, data: DataSet, seed: int) -> Classifier:
    """Builds a classifier with weights drawn from a seed; its shape and classes are the data's where not given.

    Raises:
        UserError: when there is no such network, the data has no classes, or the network is made for other images.
    """
    working_folder_importable()
    if len(data.classes) < 2:
        raise UserError(f"expected images of at least two classes, {data.name} has {len(data.classes)}: label them")
    cls = registry.model_class(name, Classifier)
    config_class = registry.config_class(cls)
    shape: dict[str, Any] = {"event_shape": tuple(data.event_shape), "classes": len(data.classes)}
    if config_class is not None:
        shape = {field.name: shape[field.name] for field in fields(config_class) if field.name in shape}
    with seeded(seed_of(seed, "initial weights")):
        net = registry.build(name, {**shape, **(config or {})}, Classifier)
    if tuple(net.event_shape) != tuple(data.event_shape) or net.classes != len(data.classes):
        raise UserError(
            f"expected a network for images of shape {tuple(data.event_shape)} and {len(data.classes)} classes, as "
            f"{data.name} has, got {tuple(net.event_shape)} and {net.classes}: leave them out of network_config"
        )
    return net


def make_objective(settings: Mapping[str, Any], net: nn.Module) -> Objective:
    """Returns the objective of the defence that a run's settings name.

    Raises:
        UserError: when a setting is out of range.
    """
    names = ("eps", "steps", "step_size", "smoothing", "flip")
    return defence(settings["defence"], net, **{name: settings[name] for name in names})


def splits(data: DataSet, validation: int, seed: int) -> tuple[dict[str, Tensor], dict[str, Tensor] | None]:
    """Returns the images to train on and those to validate on, if any, each as bytes "x" and labels "y".

    Args:
        data: a labelled data set.
        validation: training images to hold out; 0 takes the set's own validation split.
        seed: decides which.

    Raises:
        UserError: when an image has no label, or there are not more images than are to be held out.
    """
    for split in ("train", "test"):
        unlabelled = int((data.labels(split) < 0).sum())
        if unlabelled:
            raise UserError(f"expected a class for every {split} image of {data.name}, {unlabelled} have none")
    kept, held = held_out(len(data.train_y), validation, seed)
    if validation:
        return {"x": data.train_x[kept], "y": data.train_y[kept]}, {"x": data.train_x[held], "y": data.train_y[held]}
    whole = {"x": data.train_x, "y": data.train_y}
    return whole, None if data.valid_x is None else {"x": data.valid_x, "y": data.labels("valid")}


@torch.no_grad()
def accuracy(classifier: nn.Module, x: ByteImages, y: Labels, levels: int = 256, *, batch_size: int = 500) -> float:
    """Returns the share of images that a classifier, in the mode that it is in, gives their class [%].

    Args:
        classifier: images in [0, 1] to logits.
        x: levels (n, channels, height, width), from 0 to `levels - 1`.
        y: classes (n,).
        levels: values that a sub-pixel can take.
        batch_size: images at a time.
    """
    place = next(classifier.parameters())
    right = 0
    for images, labels in zip(x.split(batch_size), y.split(batch_size), strict=True):
        pixels = images.to(place.device, place.dtype).div_(levels - 1)
        right += int((classifier(pixels).argmax(1).cpu() == labels.cpu()).sum())
    return 100 * right / len(y)
