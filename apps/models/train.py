"""`genapps model train`: one model, one data set, one run folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import core_models
from apps.common.building import build_model
from apps.common.cli import command_line
from apps.common.machine import set_threads
from apps.common.provenance import commit, device_words
from core_models import registry
from core_models.base import GenerativeModel, Objective
from core_models.data import Binarisation, DataSet
from core_models.data import load as load_data
from core_models.errors import UserError
from core_models.training import RunFolder, TrainingConfig, fit, resolve_device

from .building import build_objective
from .measuring import default_estimator, in_words, measure, record
from .pages import write_figures, write_page
from .pixels import Pixels, choose_binarisation, density_over, hold_out, prepare


def train(
    data: str,
    out: Path,
    model: str = "vae",
    model_config: dict[str, Any] | None = None,
    binarisation: Binarisation | None = None,
    validation: int = 0,
    importance_samples: int = 1,
    kl_warmup_epochs: int = 0,
    batch_size: int = 200,
    training: TrainingConfig = TrainingConfig(epochs=100),  # noqa: B008
    resume: bool = False,
) -> None:
    """Trains a model on a data set into a run folder, then measures it on the test split.

    A model with an exact likelihood is trained by maximum likelihood, a variational one by its bound.

    Args:
        data: A data set by name (`genapps model list`), or the path of your own .npz or folder of images.
        out: The run folder: settings, metrics, checkpoint, weights, figures, summary.json and report.html.
        model: A registered model, or the class path of your own GenerativeModel: my_models.Mine.
        model_config: Fields of the model's configuration, e.g. {latent: 50, hidden: [600, 600]}; one at a time by
            --model_config.latent 50. Shape, levels and number of classes come from the data where left out.
        binarisation: How grey pixels become zeros and ones: dynamic draws them anew at every step, static once,
            threshold at one half. Left out, it is dynamic for a Bernoulli likelihood of greys and none otherwise.
        validation: Training images to hold out for validation, by the seed; 0 takes the data set's own validation
            split where it has one.
        importance_samples: k of the importance-weighted bound that is maximised; 1 is the evidence lower bound.
        kl_warmup_epochs: Epochs over which the weight of the KL term rises to 1.
        batch_size: Images in a batch.
        training: Settings of the training loop.
        resume: Go on from the run's last checkpoint, where there is one; a finished run is left as it is.
    """
    set_threads(training.threads)
    run = RunFolder(out)
    going_on = run.checkpoint().exists()
    if going_on and not resume:
        raise UserError(f"{run.path} already holds a run: add --resume to go on, or choose another folder")
    data_set = load_data(data)
    net = build_model(model, model_config, data_set, training.seed)
    chosen = choose_binarisation(binarisation, density_over(net), data_set)
    pixels, held_out = _splits(data_set, net, chosen, validation, training.seed)
    test = prepare(data_set, "test", net, chosen)
    if callable(start := getattr(net, "set_output_mean", None)):
        start(pixels.mean())
    batches = pixels.batches(batch_size, training.seed)
    objective = build_objective(
        net,
        "dynamic" if pixels.redraw else "none",
        importance_samples=importance_samples,
        kl_warmup_steps=kl_warmup_epochs * batches.steps_per_epoch,
        levels=pixels.levels,
    )
    settings: dict[str, Any] = {
        "data": data,
        "model": model,
        "model_config": model_config,
        "binarisation": chosen,
        "validation": validation,
        "importance_samples": importance_samples,
        "kl_warmup_epochs": kl_warmup_epochs,
        "batch_size": batch_size,
        "training": asdict(training),
    }
    settings = json.loads(json.dumps(settings))  # YAML has no tuples
    device = device_words(resolve_device(training.device), training.threads)
    parameters = sum(parameter.numel() for parameter in net.parameters())
    validate = _validator(held_out, batch_size, training.seed)
    if training.early_stop is not None and validate is None:
        metric = training.early_stop.metric
        raise UserError(f"early_stop watches {metric!r}, but there is no validation: hold images out by --validation")
    print(f"{model}, {parameters:,} parameters; {data_set.name}, {len(pixels):,} images; {device}")
    print(f"data: {data_set.source}")
    if not going_on:
        run.write_config(settings)
    history = fit(objective, batches, training, run=run, resume=resume, validate=validate)
    if going_on and run.report.exists() and run.was_summed_up(history.stopped, history.steps):
        print(f"{run.path} is finished: there is nothing left to do")
        return
    run.write_config(settings)
    core_models.save(net.eval(), run.path)
    found = record(measure(net, test, seed=training.seed, batch_size=batch_size), net, chosen, test.levels)
    summary = {
        "data": data_set.name,
        "source": data_set.source,
        "classes": list(data_set.classes),
        "binarisation": chosen,
        "model": model,
        **registry.describe(net),
        "parameters": parameters,
        "stopped": history.stopped,
        "epochs": len(history.metrics),
        "steps": history.steps,
        "seconds": round(history.seconds, 1),
        "device": device,
        "metrics": history.metrics[-1] if history.metrics else {},
        "test": found,
        "command": command_line(),
        "commit": commit(),
    }
    write_page(run, summary, write_figures(run, net, test, training.seed), settings)
    run.write_summary(summary)
    print(in_words(found, "test"))
    if history.stopped == "time limit":
        print(f"stopped by the time limit at step {history.steps:,}: the same command with --resume goes on")
    print(f"wrote {run.path}: weights, summary.json, {run.report.name}")


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
