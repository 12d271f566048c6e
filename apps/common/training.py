"""Training one model into a run folder, as every verb that does so: the same refusals, files and words.

A verb calls `open_run`, `fit_into`, measures what it is about, and ends with `conclude`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

import core_models
from core_models import registry, zoo
from core_models.base import Classifier, GenerativeModel, Objective
from core_models.data import DataSet, names
from core_models.data import load as load_data
from core_models.errors import UserError
from core_models.training import History, PixelBatches, RunFolder, TrainingConfig, fit, resolve_device
from core_models.training.trainer import Validate

from .machine import set_threads
from .provenance import command_line, commit, device_words

MOST, SHARE = 5000, 10
"""At most so many images are held out, and at most one in so many."""


def number_held_out(images: int) -> int:
    """Returns how many of so many training images are held out where nobody says otherwise."""
    return min(MOST, images // SHARE)


def of_data(data: str, image_size: int | None) -> dict[str, Any]:
    """Returns the settings of a run that say which images it is trained on.

    A size stands there only where one was given, so that all other settings, and their hashes, stay as they are.
    """
    return {"data": data} if image_size is None else {"data": data, "image_size": image_size}


def load_as_trained(data: str, folder: Path | str) -> DataSet:
    """Loads a data set for a trained model: a folder's images are resized as those that it was trained on were.

    Args:
        data: a data set by name or path.
        folder: the model's run folder, or `zoo:NAME`; one that tells no size leaves images as they are.
    """
    own = data not in names() and Path(data).is_dir()
    size = RunFolder(zoo.located(folder)).read_config().get("image_size") if own else None
    return load_data(data, image_size=size)


def open_run(out: Path, training: TrainingConfig, resume: bool) -> RunFolder:
    """Sets the CPU threads and returns the folder of a run, which may have been begun.

    Raises:
        UserError: when it holds a run that is not to be resumed.
    """
    set_threads(training.threads)
    run = RunFolder(out)
    if run.checkpoint().exists() and not resume:
        raise UserError(f"{run.path} already holds a run: add --resume to go on, or choose another folder")
    return run


def fit_into(
    run: RunFolder,
    model: GenerativeModel | Classifier,
    objective: Objective,
    batches: PixelBatches,
    data_set: DataSet,
    settings: Mapping[str, Any],
    training: TrainingConfig,
    *,
    name: str,
    resume: bool,
    validate: Validate | None = None,
    writes: Sequence[Path] = (),
) -> History | None:
    """Trains a model into a run folder and saves it there, in evaluation mode; or goes on with a run that was begun.

    Args:
        run: the folder.
        model: what is saved.
        objective: what trains it.
        batches: of training images.
        data_set: where these come from.
        settings: the verb's, plain values, for config.yaml.
        training: settings of the loop.
        name: what is trained, in words.
        resume: whether to go on from a checkpoint.
        validate: metrics of images held out; None where there are none.
        writes: files that the verb writes beside the weights and the summary: without one of them a run isn't finished.

    Returns:
        What was done; None for a run that was finished before.

    Raises:
        UserError: when early stopping has no validation to watch, before anything is written.
    """
    if training.early_stop is not None and validate is None:
        metric = training.early_stop.metric
        raise UserError(f"early_stop watches {metric!r}, but there is no validation: hold images out by --validation")
    number = batches.batches.examples
    held = len(data_set.train_x) - number
    images = f"{number:,} images" + (f", {held:,} held out" if held else "")
    print(f"{name}, {_parameters(model):,} parameters; {data_set.name}, {images}; {_device(training)}")
    print(f"data: {data_set.source}")
    going_on = run.checkpoint().exists()
    plain = json.loads(json.dumps(settings))  # YAML has no tuples
    if not going_on:
        run.write_config(plain)
    history = fit(objective, batches, training, run=run, resume=resume, validate=validate)
    ended = going_on and run.was_summed_up(history.stopped, history.steps)
    if ended and all(path.exists() for path in writes):
        print(f"{run.path} is finished: there is nothing left to do")
        return None
    run.write_config(plain)
    core_models.save(model.eval(), run.path)
    return history


def summary_of(
    model: GenerativeModel | Classifier, data_set: DataSet, history: History, training: TrainingConfig
) -> dict[str, Any]:
    """Returns what every run tells of itself, for summary.json: data, model, training, machine, command."""
    return {
        "data": data_set.name,
        "source": data_set.source,
        **registry.describe(model),
        "parameters": _parameters(model),
        "stopped": history.stopped,
        "epochs": len(history.metrics),
        "steps": history.steps,
        "seconds": round(history.seconds, 1),
        "device": _device(training),
        "metrics": history.metrics[-1] if history.metrics else {},
        "command": command_line(),
        "commit": commit(),
    }


def conclude(run: RunFolder, summary: Mapping[str, Any], writes: Sequence[Path] = ()) -> None:
    """Writes summary.json, last of all, since it says that a run has ended; and tells what was written.

    Args:
        run: the folder.
        summary: `summary_of` the run, and what was measured.
        writes: the verb's files, as in `fit_into`.
    """
    run.write_summary(summary)
    if summary["stopped"] == "time limit":
        print(f"stopped by the time limit at step {summary['steps']:,}: the same command with --resume goes on")
    print(f"wrote {run.path}: {', '.join(['weights', run.summary.name, *(path.name for path in writes)])}")


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _device(training: TrainingConfig) -> str:
    return device_words(resolve_device(training.device), training.threads)
