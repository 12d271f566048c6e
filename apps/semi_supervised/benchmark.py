"""The table of the paper: methods x numbers of labels x draws of labels, one result cell each.

Protocol 1: the pool is all 60,000 training images of MNIST, of which the labelled ones are a balanced draw kept as an
index file; draw seed and weight seed are apart; M1 is trained once, without any label, and shared by every method and
draw that asks for the same one; no validation labels and no augmentation; nothing is chosen by the test set, which is
scored once, with the weights that training ends with.

Source of the table: Kingma, Rezende, Mohamed and Welling, "Semi-supervised learning with deep generative models",
NIPS 2014, table 1.
"""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf, isinf
from pathlib import Path
from typing import Any

import torch

import core_models
from apps.common.cells import Cell, told_to_stand, write_cell
from apps.common.intervals import of_share
from apps.common.machine import set_threads
from apps.common.options import at_least
from apps.common.provenance import device_words
from core_models.data import digest, require_own_name
from core_models.errors import UserError
from core_models.files import hash_of
from core_models.training import Interrupted, RunFolder, resolve_device
from core_models.training.config import FREE_ON_RESUME

from .estimator import OutOfTime, SemiSupervisedClassifier
from .experiment import Task, fit_task, make_task, score
from .features import FeatureLearner
from .generative import GenerativeClassifier
from .methods import METHODS, Method, build, find_method, specification
from .stacked import fit_stacked

PROTOCOL = "1"
APP = "semi_supervised"

# arguments that change how long a result takes, or what is shown, but not what is measured
_FREE = ("m1", "verbose", *FREE_ON_RESUME)

# arguments that came after cells stood, each with the value that leaves what those measured as it was
_LATER = {
    "finite_difference": None,
    "normalise_logits": True,
    "hidden_dropout": 0.0,
    "labelled_landmarks": 0.5,
    "hessian": 0.0,
    "hessian_noise": 0.1,
    "hessian_draws": 4,
}


@dataclass(frozen=True)
class Entry:
    """A cell to fill."""

    method: Method
    labels: int
    draw: int

    def __str__(self) -> str:
        return f"{self.method.row}, {self.labels} labels, draw {self.draw}"


@dataclass(frozen=True)
class Grid:
    """What all cells of a call share."""

    data: str
    results: Path
    work: Path
    settings: dict[str, Any]
    device: str
    compile: bool
    threads: int | None
    deadline: float
    again: bool

    @cached_property
    def told(self) -> dict[str, str]:
        """What `told_apart` says of the data, whose files it reads."""
        return told_apart(self.data)

    @property
    def table(self) -> str:
        """Name of the table: that of the data set."""
        return Path(self.data).stem.replace("-", "_")

    @property
    def left(self) -> float | None:
        """Time left [s], None for no limit."""
        return None if isinf(self.deadline) else max(0.1, self.deadline - time.monotonic())

    def estimator(self, entry: Entry) -> SemiSupervisedClassifier:
        """Builds the estimator of a cell from its preset and the settings of the call."""
        spec = specification(entry.method, entry.labels, self.data)
        known = build(spec)._get_param_names()
        values = {**self.settings, "device": self.device, "compile": self.compile, "threads": self.threads}
        values |= {"time_limit": self.left, "verbose": True, "random_state": entry.draw}
        return build(spec, **{key: value for key, value in values.items() if key in known})

    def config(self, entry: Entry) -> dict[str, Any]:
        """Returns what a cell's number depends on."""
        return cell_config(self.estimator(entry), self.told, entry.labels)

    def stands(self, entry: Entry) -> bool:
        """Says, and prints, whether a cell stands, of this configuration or another, which isn't replaced."""
        if self.again:
            return False
        found = told_to_stand(
            self.results,
            str(entry),
            app=APP,
            table=self.table,
            row=entry.method.row,
            column=str(entry.labels),
            draw=entry.draw,
            config_hash=hash_of(self.config(entry)),
            protocol=PROTOCOL,
        )
        return found is not None

    def command(self, entry: Entry) -> str:
        """Returns what makes a cell again, with what may change its last digits."""
        data = Path(self.data).name if Path(self.data).is_absolute() else self.data
        known = build(specification(entry.method, entry.labels, self.data))._get_param_names()
        settings = {key: value for key, value in self.settings.items() if key in known}
        method = entry.method.class_path or entry.method.row
        words = [
            f"genapps semi-supervised benchmark --methods {shlex.quote(f'[{method}]')}",
            f"--labels {shlex.quote(f'[{entry.labels}]')}",
            f"--draws 1 --first_draw {entry.draw}",
            "" if data == "mnist" else f"--data {shlex.quote(data)}",
            f"--settings {shlex.quote(json.dumps(settings))}" if settings else "",
            "--compile true" if self.compile else "",
            f"--threads {self.threads}" if self.threads else "",
        ]
        return " ".join(word for word in words if word)

    def task(self, entry: Entry) -> Task:
        """Returns the data with the labels of a draw."""
        return make_task(self.data, entry.labels, entry.draw, draws=self.results / APP / "draws")


def benchmark(
    methods: list[str] | None = None,
    labels: list[int] | None = None,
    draws: int = 10,
    first_draw: int = 0,
    data: str = "mnist",
    results: str = "docs/results",
    work: str = "runs/benchmark",
    settings: dict[str, Any] | None = None,
    stack: bool | None = None,
    device: str = "auto",
    compile: bool = False,
    threads: int | None = None,
    time_limit: float | None = None,
    again: bool = False,
) -> None:
    """Fills the result cells of a grid of methods x numbers of labels x draws; cells that stand are left alone.

    A stopped grid goes on where it stopped: finished cells are kept, and the cell under way resumes from its
    checkpoint below `work`.

    Args:
        methods: rows of the table, e.g. [M2, M1+M2], all where left out; or class paths of your own methods, e.g.
            [my_methods.Mine], whose rows have the names of the classes.
        labels: numbers of labels shown, e.g. [100, 600]; the four of the paper where left out.
        draws: draws of labels per cell.
        first_draw: number of the first draw.
        data: name of a data set, or path of a .npz or folder of images.
        results: folder of the result cells.
        work: folder of checkpoints and of the trained M1.
        settings: arguments of the estimators that replace those of the presets, e.g. {"epochs": 3}; an argument that a
            method lacks is left out for it.
        stack: whether the draws of M2 and M1+M2 are trained as one stack; where left out, on a GPU only, since a
            processor gains little by it.
        device: auto, cpu, cuda or cuda:N.
        compile: whether torch compiles training: the same numbers up to rounding; sooner with softplus and for the
            ladder network, not for M2 with ReLU.
        threads: CPU threads.
        time_limit: time after which to stop [s], leaving the rest for the next call. NN, CNN, CAE and the SVMs, of
            minutes, are not stopped within a cell.
        again: whether to fill cells anew that stand already, each call from the start.
    """
    require_own_name(data)
    chosen = [find_method(row) for row in (methods or METHODS)]
    at_least(1, draws=draws)
    _check_settings(chosen, settings or {})
    set_threads(threads)  # for the methods too that take no such argument
    deadline = time.monotonic() + (inf if time_limit is None else time_limit)
    grid = Grid(data, Path(results), Path(work), settings or {}, device, compile, threads, deadline, again)
    later = "with --again it begins anew" if again else "the same command goes on"
    together = resolve_device(device).type == "cuda" if stack is None else stack
    for n in labels or [100, 600, 1000, 3000]:
        for method in chosen:
            entries = [Entry(method, n, draw) for draw in range(first_draw, first_draw + draws)]
            entries = [entry for entry in entries if not grid.stands(entry)]
            stacked = together and len(entries) > 1 and isinstance(grid.estimator(entries[0]), GenerativeClassifier)
            for group in [entries] if stacked else [[entry] for entry in entries]:
                try:
                    done = time.monotonic() < deadline and _fill(group, grid)
                except Interrupted as stop:
                    raise KeyboardInterrupt(f"{group[0]}: interrupted at step {stop.step}; {later}") from None
                if not done:
                    print(f"time limit: {later}", flush=True)
                    return


def _check_settings(methods: Sequence[Method], settings: dict[str, Any]) -> None:
    known = {key for m in methods for key in type(build(specification(m, 100, "mnist")))._get_param_names()}
    for key in settings:
        if key == "m1":
            raise UserError("settings: m1 is the benchmark's own, trained once and shared: no cell would tell another")
        if key not in known:
            raise UserError(f"settings: none of the methods {', '.join(m.row for m in methods)} has {key!r}")


def _fill(entries: list[Entry], grid: Grid) -> bool:
    """Measures cells that differ in their draw alone, as a stack where there are several.

    Returns whether there was time enough.
    """
    print(
        f"{entries[0]} ..." if len(entries) == 1 else f"{entries[0]} and {len(entries) - 1} more ...", file=sys.stderr
    )
    first = entries[0]
    tasks = [grid.task(entry) for entry in entries]
    estimators = [grid.estimator(entry) for entry in entries]
    m1_seconds = 0.0
    if isinstance(estimators[0], FeatureLearner) and estimators[0].m1 is None:
        shared, m1_seconds = shared_m1(estimators[0], tasks[0], grid.work, grid.told)
        if shared is None:
            return False
        if grid.left is not None and time.monotonic() >= grid.deadline:  # M1 took what there was
            print("M1 is trained", flush=True)
            return False
        for estimator in estimators:
            assert isinstance(estimator, FeatureLearner)
            estimator.set_params(m1=str(shared), time_limit=grid.left)
    config = grid.config(first)
    name = "-".join(str(entry.draw) for entry in entries)
    run = RunFolder(grid.work / f"{grid.table}_{first.method.preset}_{first.labels}_{name}_{hash_of(config)}")
    if grid.again:
        for stage in run.stages():
            run.checkpoint(stage).unlink()
    try:
        if len(entries) > 1:
            stack = [estimator for estimator in estimators if isinstance(estimator, GenerativeClassifier)]
            fit_stacked(stack, tasks[0].x, [task.targets() for task in tasks], run=run, resume=True)
            seconds = [estimator.history_.seconds / len(entries) for estimator in stack]
        else:
            seconds = [fit_task(estimators[0], tasks[0], run=run, resume=True)]
    except OutOfTime as stopped:
        print(stopped, flush=True)
        return False
    for entry, estimator, task, time_taken in zip(entries, estimators, tasks, seconds, strict=True):
        outcome, _ = score(estimator, task, time_taken)
        extra = {
            **outcome.as_dict(),
            "interval": of_share(outcome.errors, outcome.n_test),
            "pool": len(task.y),
            "transductive": entry.method.transductive,
            "validation_labels": 0,
            "augmentation": False,
            "m1_seconds": m1_seconds or None,
            "stacked_draws": len(entries),
            "config": config,
        }
        cell = Cell(
            app=APP,
            table=grid.table,
            row=entry.method.row,
            column=str(entry.labels),
            value=outcome.error_percent,
            unit="%",
            better="lower",
            draw=entry.draw,
            seed=entry.draw,
            config_hash=hash_of(config),
            protocol=PROTOCOL,
            device=device_words(resolve_device(grid.device), grid.threads),
            seconds=time_taken,
            command=grid.command(entry),
            extra=extra,
        )
        write_cell(grid.results, cell)
        print(
            f"{entry}: {outcome.error_percent:.2f} % ({outcome.errors} of {outcome.n_test}), {time_taken:.0f} s",
            flush=True,
        )
    return True


def cell_config(estimator: SemiSupervisedClassifier, data: Mapping[str, str], labels: int) -> dict[str, Any]:
    """Returns what a cell's number depends on: the method's arguments without its seed, the data and the labels.

    `data` is what `told_apart` says.
    """
    arguments = {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in estimator.get_params(deep=False).items()
        if key not in _FREE and key != "random_state"
    }
    if arguments.get("m1_precision") in (None, arguments.get("precision")):
        arguments.pop("m1_precision", None)  # one arithmetic for both, whether it is said twice or once
    kind = type(estimator)
    ours = kind.__module__.startswith(f"{__package__}.")  # of others, the name alone may be that of several
    if ours:
        for key, value in _LATER.items():
            if key in arguments and arguments[key] == value:
                del arguments[key]
    name = kind.__name__ if ours else f"{kind.__module__}.{kind.__name__}"
    return {"method": name, **arguments, **data, "labels": labels}


def told_apart(data: str) -> dict[str, str]:
    """Returns a data set's name, and of one's own what tells it from another file of that name."""
    own = digest(data)
    return {"data": Path(data).stem} | ({} if own is None else {"digest": own})


def shared_m1(estimator: FeatureLearner, task: Task, work: Path, data: Mapping[str, str]) -> tuple[Path | None, float]:
    """Trains the M1 that an estimator asks for, unless it stands, with seed 0 whatever the draw.

    Returns:
        The folder of the model and the time that it took [s] (0 where it stood); None when a time limit fell within.
    """
    config = {key: v for key, v in vars(estimator).items() if key.startswith("m1_") and key != "m1_precision"}
    if estimator.scale not in ("auto", "none"):
        raise UserError(f"settings: expected scale auto or none for a shared M1, got {estimator.scale!r}: leave it out")
    config |= {**data, "data": task.data.name, "rows": len(task.x)}
    config |= {"precision": estimator.precision_of_m1()}
    folder = work / f"m1_{hash_of(config)}"
    if (folder / "model.json").is_file():
        return folder, 0.0
    start = time.perf_counter()
    run = RunFolder(folder)
    run.write_config({key: list(v) if isinstance(v, tuple) else v for key, v in config.items()})
    model, history = estimator.train_m1(torch.from_numpy(task.x), 0, run=run, resume=True)
    if history.stopped == "time limit":
        print("M1: time limit; the same command goes on", flush=True)
        return None, 0.0
    core_models.save(model.cpu(), folder)
    return folder, time.perf_counter() - start
