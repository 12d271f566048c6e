"""`genapps model train`: one model, one data set, one run folder."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from apps.common.building import build_model
from apps.common.importing import working_folder_importable
from apps.common.objectives import build_objective, choose_binarisation, default_estimator, density_over
from apps.common.training import conclude, fit_into, of_data, open_run, summary_of
from core_models import registry
from core_models.base import Autoregressive, GenerativeModel, Objective
from core_models.data import Binarisation, DataSet
from core_models.data import load as load_data
from core_models.training import TrainingConfig

from .measuring import in_words, measure, record
from .pages import write_figures, write_page
from .pixels import Pixels, hold_out, prepare

CHECKED = 500
"""Test images whose values a model is shown before it is trained."""


def train(
    data: str,
    out: Path,
    model: str = "vae",
    model_config: dict[str, Any] | None = None,
    binarisation: Binarisation | None = None,
    validation: int = 0,
    importance_samples: int = 1,
    kl_warmup_epochs: int = 0,
    kl_weight: float = 1.0,
    batch_size: int = 200,
    training: TrainingConfig = TrainingConfig(epochs=100),  # noqa: B008
    resume: bool = False,
    image_size: int | None = None,
) -> None:
    """Trains a model on a data set into a run folder, then measures it on the test split.

    A model with an exact likelihood is trained by maximum likelihood, a variational one by its bound. Pixels are
    dequantised for a density over continuous values, a flow's or a Gaussian likelihood's, in training and measuring.

    Args:
        data: A data set by name (`genapps model list`), or the path of your own .npz or folder of images.
        out: The run folder: settings, metrics, checkpoint, weights, figures, summary.json and report.html.
        model: A registered model, or the class path of your own GenerativeModel: my_models.Mine.
        model_config: Fields of the model's configuration, e.g. {latent: 50, hidden: [600, 600]}; one at a time by
            --model_config.latent 50. Shape, levels and number of classes come from the data where left out.
        binarisation: How grey pixels become zeros and ones: dynamic draws them anew at every step, static once,
            threshold at one half. Left out, it is dynamic for a Bernoulli likelihood of greys and none otherwise.
            With it an autoregressive model has two levels.
        validation: Training images to hold out for validation, by the seed; 0 takes the data set's own validation
            split where it has one.
        importance_samples: k of the importance-weighted bound that is maximised; 1 is the evidence lower bound.
        kl_warmup_epochs: Epochs over which the weight of the KL term rises to kl_weight.
        kl_weight: Weight of the KL term in training, the beta of a beta-VAE; what is measured is the bound, at 1.
        batch_size: Images in a batch.
        training: Settings of the training loop.
        resume: Go on from the run's last checkpoint, where there is one; a finished run is left as it is.
        image_size: Side to which the images of a folder are cut and resized [pixels].
    """
    run = open_run(out, training, resume)
    data_set = load_data(data, image_size=image_size)
    net = build_model(model, _with_levels(model, model_config, binarisation), data_set, training.seed)
    chosen = choose_binarisation(binarisation, density_over(net), data_set)
    pixels, held_out = _splits(data_set, net, chosen, validation, training.seed)
    test = prepare(data_set, "test", net, chosen)
    if callable(start := getattr(net, "set_output_mean", None)):
        start(pixels.mean())
    if callable(check := getattr(net, "check_values", None)):  # as measuring will, after the whole training
        check(test.part(slice(CHECKED)).events(training.seed))
    batches = pixels.batches(batch_size, training.seed)
    objective = build_objective(
        net,
        "dynamic" if pixels.redraw else "none",
        importance_samples=importance_samples,
        kl_warmup_steps=kl_warmup_epochs * batches.steps_per_epoch,
        kl_weight=kl_weight,
        levels=pixels.levels,
        spread=pixels.spread,
    )
    settings: dict[str, Any] = {
        **of_data(data, image_size),
        "model": model,
        "model_config": model_config,
        "binarisation": chosen,
        "validation": validation,
        "importance_samples": importance_samples,
        "kl_warmup_epochs": kl_warmup_epochs,
        # only where it says something, so that all other settings, and their hashes, stay as they are
        **({} if kl_weight == 1 else {"kl_weight": kl_weight}),
        "batch_size": batch_size,
        "training": asdict(training),
    }
    history = fit_into(
        run, net, objective, batches, data_set, settings, training, name=model, resume=resume,
        validate=_validator(held_out, batch_size, training.seed), writes=[run.report],
    )  # fmt: skip
    if history is None:
        return
    found = record(measure(net, test, seed=training.seed, batch_size=batch_size), net, chosen, test.levels)
    summary = {
        **summary_of(net, data_set, history, training),
        "classes": list(data_set.classes),
        "binarisation": chosen,
        "model": model,
        "test": found,
    }
    write_page(run, summary, write_figures(run, net, test, training.seed), run.read_config())
    print(in_words(found, "test"))
    conclude(run, summary, writes=[run.report])


def _with_levels(
    model: str, model_config: dict[str, Any] | None, binarisation: Binarisation | None
) -> dict[str, Any] | None:
    """Returns the fields of a model's configuration: an autoregressive one has two levels where pixels become bits."""
    if binarisation in (None, "none"):
        return model_config
    working_folder_importable()
    cls = registry.model_class(model)
    known = inspect.signature(registry.config_class(cls) or cls).parameters
    two = {"levels": 2} if issubclass(cls, Autoregressive) and "levels" in known else {}
    return {**two, **(model_config or {})}


def _splits(
    data: DataSet, model: GenerativeModel, binarisation: Binarisation, validation: int, seed: int
) -> tuple[Pixels, Pixels | None]:
    """Returns what to train on, and what to validate on, if anything."""
    pixels = prepare(data, "train", model, binarisation)
    if validation:
        return hold_out(pixels, validation, seed)
    return pixels, None if data.valid_x is None else prepare(data, "valid", model, binarisation)


def _validator(held_out: Pixels | None, batch_size: int, seed: int) -> Callable[[Objective], dict[str, float]] | None:
    """Returns the validation of an objective's model: the same images, draws and noise every time."""
    if held_out is None:
        return None
    pixels = held_out

    def validate(objective: Objective) -> dict[str, float]:
        model = objective.model
        assert isinstance(model, GenerativeModel)
        estimate = measure(model, pixels, seed=seed, batch_size=batch_size)
        return {f"validation_{default_estimator(model)}_nats": estimate.nats}

    return validate
