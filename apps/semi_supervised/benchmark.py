"""The table of the paper: methods x numbers of labels x draws of labels, one result cell each.

Protocol 1: the pool is all 60,000 training images of MNIST, of which the labelled ones are a balanced draw kept as an
index file; draw seed and weight seed are apart; M1 is trained once, without any label, and shared by every method and
draw that asks for the same one; no validation labels and no augmentation; nothing is chosen by the test set, which is
scored once, with the weights that training ends with.

Source of the table: Kingma, Rezende, Mohamed and Welling, "Semi-supervised learning with deep generative models",
NIPS 2014, table 1.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import core_models
from apps.common.cells import Cell, find_cell, write_cell
from apps.common.provenance import device_words
from core_models.errors import UserError
from core_models.files import hash_of
from core_models.training import RunFolder, resolve_device

from .estimator import OutOfTime, SemiSupervisedClassifier
from .experiment import Task, make_task, run_task
from .features import FeatureLearner
from .methods import METHODS, Method, build, find_method, specification

PROTOCOL = "1"
APP = "semi_supervised"

# arguments that change how long a result takes, or what is shown, but not what is measured
_FREE = ("device", "threads", "time_limit", "verbose", "m1")


@dataclass(frozen=True)
class Entry:
    """A cell to fill."""

    method: Method
    labels: int
    draw: int


def benchmark(
    methods: list[str] | None = None,
    labels: list[int] | None = None,
    draws: int = 10,
    first_draw: int = 0,
    data: str = "mnist",
    results: str = "docs/results",
    work: str = "runs/benchmark",
    settings: dict[str, Any] | None = None,
    device: str = "auto",
    threads: int | None = None,
    time_limit: float | None = None,
    again: bool = False,
) -> None:
    """Fills the result cells of a grid of methods x numbers of labels x draws; cells that stand are left alone.

    A stopped grid goes on where it stopped: finished cells are kept, and the cell under way resumes from its
    checkpoint below `work`.

    Args:
        methods: rows of the table, e.g. [M2, M1+M2]; all where left out.
        labels: numbers of labels shown, e.g. [100, 600]; the four of the paper where left out.
        draws: draws of labels per cell.
        first_draw: number of the first draw.
        data: name of a data set, or path of a .npz or folder of images.
        results: folder of the result cells.
        work: folder of checkpoints and of the trained M1.
        settings: arguments of the estimators that replace those of the presets, e.g. {"epochs": 3}; an argument that a
            method lacks is left out for it.
        device: auto, cpu, cuda or cuda:N.
        threads: CPU threads.
        time_limit: time after which to stop [s], leaving the rest for the next call.
        again: whether to fill cells anew that stand already.
    """
    chosen = [find_method(row) for row in (methods or METHODS)]
    if draws < 1:
        raise UserError(f"expected at least one draw, got draws = {draws}")
    _check_settings(chosen, settings or {})
    grid = [
        Entry(method, n, draw)
        for n in (labels or [100, 600, 1000, 3000])
        for method in chosen
        for draw in range(first_draw, first_draw + draws)
    ]
    start = time.monotonic()
    for position, entry in enumerate(grid):
        left = None if time_limit is None else time_limit - (time.monotonic() - start)
        if left is not None and left <= 0:
            print(f"time limit: {len(grid) - position} of {len(grid)} cells left; the same command goes on", flush=True)
            return
        _fill(
            entry, data, Path(results), Path(work), settings or {}, device=device, threads=threads, left=left,
            again=again, where=f"[{position + 1}/{len(grid)}]",
        )  # fmt: skip


def _check_settings(methods: Sequence[Method], settings: dict[str, Any]) -> None:
    known = {key for m in methods for key in type(build(specification(m, 100, "mnist")))._get_param_names()}
    for key in settings:
        if key not in known:
            raise UserError(f"settings: none of the methods {', '.join(m.row for m in methods)} has {key!r}")


def _fill(
    entry: Entry,
    data: str,
    results: Path,
    work: Path,
    settings: dict[str, Any],
    *,
    device: str,
    threads: int | None,
    left: float | None,
    again: bool,
    where: str,
) -> None:
    """Measures one cell, unless it stands."""
    table = Path(data).stem.replace("-", "_")
    spec = specification(entry.method, entry.labels, data)
    plain = build(spec)
    known = plain._get_param_names()
    overrides = {key: value for key, value in settings.items() if key in known}
    common = {"device": device, "threads": threads, "time_limit": left, "verbose": True, "random_state": entry.draw}
    estimator = build(spec, **overrides, **{key: value for key, value in common.items() if key in known})
    config = cell_config(estimator, data, entry.labels)
    config_hash = hash_of(config)
    name = f"{where} {entry.method.row}, {entry.labels} labels, draw {entry.draw}"
    row, column = entry.method.row, str(entry.labels)
    found = find_cell(
        results, app=APP, table=table, row=row, column=column, draw=entry.draw, config_hash=config_hash,
        protocol=PROTOCOL,
    )  # fmt: skip
    if found and not again:
        print(f"{name}: stands, {found.value:.2f} {found.unit}", flush=True)
        return
    print(f"{name} ...", file=sys.stderr, flush=True)
    task = make_task(data, entry.labels, entry.draw, draws=results / APP / "draws")
    m1_seconds = 0.0
    if isinstance(estimator, FeatureLearner) and estimator.m1 is None:
        shared, m1_seconds = shared_m1(estimator, task, work)
        if shared is None:
            return  # the time limit fell within M1; the next call goes on
        estimator.m1 = str(shared)
    run = RunFolder(work / f"{table}_{entry.method.preset}_{entry.labels}_{entry.draw}_{config_hash}")
    if again:
        _forget(run)
    try:
        outcome, _ = run_task(estimator, task, run=run, resume=True)
    except OutOfTime as stopped:
        print(f"{name}: {stopped}; the same command goes on", flush=True)
        return
    history = getattr(estimator, "history_", None)
    words = device_words(resolve_device(device), threads)
    cell = Cell(
        app=APP,
        table=table,
        row=row,
        column=column,
        value=outcome.error_percent,
        unit="%",
        better="lower",
        draw=entry.draw,
        seed=entry.draw,
        config_hash=config_hash,
        protocol=PROTOCOL,
        device=words,
        seconds=history.seconds if history is not None else outcome.seconds,
        command=f"genapps semi-supervised benchmark --methods [{row}] --labels [{column}] --draws 1 "
        f"--first_draw {entry.draw}" + (f" --data {table}" if data != "mnist" else ""),
        extra={
            **outcome.as_dict(),
            "pool": len(task.y),
            "transductive": entry.method.transductive,
            "validation_labels": 0,
            "augmentation": False,
            "m1_seconds": m1_seconds or None,
            "config": config,
        },
    )
    write_cell(results, cell)
    print(
        f"{name}: {outcome.error_percent:.2f} % ({outcome.errors} of {outcome.n_test}), {cell.seconds:.0f} s",
        flush=True,
    )


def cell_config(estimator: SemiSupervisedClassifier, data: str, labels: int) -> dict[str, Any]:
    """Returns what a cell's number depends on: the method's arguments without its seed, the data and the labels."""
    arguments = {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in estimator.get_params(deep=False).items()
        if key not in _FREE and key != "random_state"
    }
    return {"method": type(estimator).__name__, **arguments, "data": Path(data).stem, "labels": labels}


def shared_m1(estimator: FeatureLearner, task: Task, work: Path) -> tuple[Path | None, float]:
    """Trains the M1 that an estimator asks for, unless it stands, with seed 0 whatever the draw.

    Returns:
        The folder of the model and the time that it took [s] (0 where it stood); None when a time limit fell within.
    """
    config = {key: value for key, value in vars(estimator).items() if key.startswith("m1_")}
    config |= {"data": task.data.name, "rows": len(task.x), "scale": "none"}
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


def _forget(run: RunFolder) -> None:
    for stage in run.stages():
        run.checkpoint(stage).unlink()
