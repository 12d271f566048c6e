"""`genapps model train`: one model, one data set, one run folder."""

from __future__ import annotations

import inspect
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Generator

import core_models
from apps.common.cli import command_line
from apps.common.provenance import commit, device_words
from core_models import registry
from core_models.base import ExactLikelihood, GenerativeModel, Objective, Variational
from core_models.data import Binarisation, DataSet
from core_models.data import load as load_data
from core_models.errors import UserError
from core_models.evaluation import Estimate
from core_models.evaluation import evaluate as average
from core_models.files import read_json
from core_models.latent import NegativeELBO
from core_models.objectives import NegativeLogLikelihood
from core_models.training import History, RunFolder, TrainingConfig, fit, resolve_device, seed_of

from .pages import write_figures, write_page
from .pixels import Pixels, choose_binarisation, classes_of, density_over, hold_out, prepare
from .user_models import importable
from .words import figure_in_words


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
        model_config: Fields of the model's configuration, e.g. {latent: 50, hidden: [600, 600]}; on the command line
            also --model_config.latent 50. Shape, levels and number of classes come from the data.
        binarisation: How grey pixels become zeros and ones: dynamic draws them anew at every step, static once,
            threshold at one half. Left out, it is dynamic for a Bernoulli likelihood and none for others.
        validation: Training images to hold out for validation, by the seed; 0 takes the data set's own validation
            split where it has one.
        importance_samples: k of the importance-weighted bound that is maximised; 1 is the evidence lower bound.
        kl_warmup_epochs: Epochs over which the weight of the KL term rises to 1.
        batch_size: Images in a batch.
        training: Settings of the training loop.
        resume: Go on from the run's last checkpoint, where there is one; a finished run is left as it is.
    """
    run = RunFolder(out)
    if not resume and run.checkpoint().exists():
        raise UserError(f"{run.path} already holds a run: add --resume to go on, or choose another folder")
    set_ = load_data(data)
    net = build_model(model, model_config, set_, training)
    chosen = choose_binarisation(binarisation, density_over(net), set_)
    pixels, held = _splits(set_, net, chosen, validation, training.seed)
    if hasattr(net, "set_output_mean"):
        net.set_output_mean(to_mean(pixels))
    batches = pixels.batches(batch_size, training.seed)
    objective = build_objective(
        net,
        redraw=pixels.redraw,
        importance_samples=importance_samples,
        kl_warmup_steps=kl_warmup_epochs * batches.steps_per_epoch,
    )
    settings = {
        "model": model,
        "model_config": model_config,
        "data": data,
        "binarisation": chosen,
        "validation": validation,
        "importance_samples": importance_samples,
        "kl_warmup_epochs": kl_warmup_epochs,
        "batch_size": batch_size,
        "training": _plain(asdict(training)),
    }
    fresh = not run.checkpoint().exists()
    if fresh:
        run.write_config(settings)
    parameters = sum(p.numel() for p in net.parameters())
    print(
        f"{model} ({parameters:,} parameters) on {set_.name} ({set_.source}): {len(pixels):,} images, "
        f"binarisation {chosen}, {device_words(resolve_device(training.device), training.threads)}"
    )
    history = fit(
        objective, batches, training, run=run, resume=resume, validate=_validator(held, batch_size, training.seed)
    )
    if resume and _finished(run, history):
        print(f"{run.path} is finished: nothing left to do")
        return
    if not fresh:
        run.write_config(settings)
    net.eval()
    core_models.save(net, run.path)
    print(f"training {history.stopped} after {history.steps:,} steps, {history.seconds:.0f} s")
    test = measure(net, prepare(set_, "test", net, chosen), batch_size, training.seed)
    summary = {
        "data": set_.name,
        "source": set_.source,
        "binarisation": chosen,
        "model": model,
        **registry.describe(net),
        "parameters": parameters,
        "stopped": history.stopped,
        "steps": history.steps,
        "epochs": len(history.metrics),
        "seconds": round(history.seconds, 1),
        "device": device_words(resolve_device(training.device), training.threads),
        "metrics": history.metrics[-1] if history.metrics else {},
        "test": figures_of(test, net, chosen),
        "command": command_line(),
        "commit": commit(),
    }
    print(figure_in_words("test", summary["test"]))
    captions = write_figures(run, net, set_, prepare(set_, "test", net, chosen), training.seed)
    write_page(run, summary, captions, settings)
    run.write_summary(summary)
    if history.stopped == "time limit":
        print(f"stopped by the time limit: the same command with --resume goes on; the weights so far are in {run.path}")
    print(f"wrote {run.report}")


def build_model(name: str, config: Mapping[str, Any] | None, data: DataSet, training: TrainingConfig) -> GenerativeModel:
    """Builds a model with weights drawn from the seed, its shape, levels and classes filled in from the data."""
    importable(name)
    cls = registry.model_class(name)
    given = dict(config or {})
    config_class = registry.config_class(cls)
    if config_class is not None:
        known = {field.name: field.default for field in fields(config_class)}
    else:
        known = {key: p.default for key, p in inspect.signature(cls.__init__).parameters.items()}
    from_data: dict[str, Any] = {"event_shape": tuple(data.event_shape), "levels": data.levels}
    if known.get("classes"):  # a model that is conditioned on classes unless told otherwise
        from_data["classes"] = len(data.classes)
    filled = {key: value for key, value in from_data.items() if key in known and key not in given}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(training.seed, "initial weights"))
        return registry.build(name, {**filled, **given})
