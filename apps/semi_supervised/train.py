"""Verbs that fit one method: `train`, and `demo`, which sets M1+M2 beside its supervised baseline."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from apps.common.provenance import command_line, configuration, device_words
from core_models.data import NoSourceError, load
from core_models.errors import UserError
from core_models.files import read_json
from core_models.training import RunFolder, resolve_device
from core_models.training.config import FREE_ON_RESUME, multiplies_in_bfloat16

from .estimator import OutOfTime, SemiSupervisedClassifier
from .experiment import Task, make_task, run_task
from .methods import build, find_method, specification
from .report import draw_figures, write_run_report


def train(
    method: SemiSupervisedClassifier,
    data: str = "digits",
    labels: int | None = 50,
    draw: int = 0,
    out: str = "runs/semi_supervised",
    resume: bool = False,
    image_size: int | None = None,
) -> None:
    """Fits a method to a data set with few labels; writes the model, its test error, figures and a report.

    Args:
        method: an estimator and its arguments, e.g. --method M2 --method.epochs 10, or a preset's.
        data: name of a data set, or path of a user's .npz or folder of images (a sub-folder per class; images without
            a label in `unlabelled/`).
        labels: labels shown, the same number of each class; null shows all that the data set has.
        draw: seed of the draw of labels.
        out: folder of the run.
        resume: go on with a stopped run.
        image_size: side to which the images of a folder are resized [pixels].
    """
    run = RunFolder(out)
    if not resume and (run.summary.exists() or run.stages()):
        raise UserError(
            f"{out} already holds a run: add --resume to go on with it, or choose another folder with --out"
        )
    task = make_task(data, labels, draw, draws=run.path / "draws", image_size=image_size)
    shape = " x ".join(map(str, task.data.event_shape))
    print(
        f"{task.data.name} ({task.data.source}): {len(task.x)} images of {shape}, {task.labels} labelled, "
        f"{len(task.data.test_x)} for test",
        flush=True,
    )
    fit_and_report(method, task, run, resume=resume)


def fit_and_report(
    estimator: SemiSupervisedClassifier, task: Task, run: RunFolder, *, resume: bool = False, title: str | None = None
) -> dict[str, Any] | None:
    """Fits an estimator in a run folder and writes all that belongs there.

    Returns the summary, or None when a time limit came first.

    A run that has ended already is not fitted again.
    """
    settings = configuration() or {"method": type(estimator).__name__, **_plain(estimator)}
    if resume:
        check_same_run(run, settings)
    if resume and run.summary.exists():
        print(f"{run.path} has ended: its figures stand in summary.json")
        summary: dict[str, Any] = read_json(run.summary)
        return summary
    run.write_config(settings)
    try:
        outcome, predicted = run_task(estimator, task, run=run, resume=resume)
    except OutOfTime as stopped:
        print(f"{stopped}: the same command with --resume goes on", flush=True)
        return None
    estimator.save(run.path)
    device = resolve_device(getattr(estimator, "device", "cpu"))
    summary = {
        "method": type(estimator).__name__,
        "data": task.data.name,
        "source": task.data.source,
        "labels": task.labels,
        "draw": task.draw,
        "event_shape": list(task.data.event_shape),
        "classes": list(task.data.classes),
        **outcome.as_dict(),
        "task": task.asked,
        "device": device_words(device, getattr(estimator, "threads", None)),
        "command": command_line(),
    }
    draw_figures(estimator, task, predicted, run)
    write_run_report(run, summary, title=title)
    run.write_summary(summary)  # last: it says that the run has ended
    print(
        f"{summary['method']} with {task.labels} labels: test error {outcome.error_percent:.2f} % "
        f"({outcome.errors} of {outcome.n_test}), {outcome.seconds:.0f} s; {run.report}",
        flush=True,
    )
    return summary


# options that change how long a run takes, where it is or what it shows, but not what it finds
_FREE = ("out", "resume", "verbose", *FREE_ON_RESUME)


def check_same_run(run: RunFolder, settings: dict[str, Any]) -> None:
    """Holds the settings of a call against those that a run folder was begun with.

    Raises:
        UserError: when they differ; names the first options that do, each with both values.
    """
    there, here = _flat(run.read_config()), _flat(settings)
    if not there:
        return
    if here.get("method.init_args.schedule") == "constant" and not run.summary.exists():
        there.pop("method.init_args.epochs", None), here.pop("method.init_args.epochs", None)  # it may go on for longer
    different = [
        f"{name.replace('init_args.', '').replace('method.class_path', 'method')} "
        f"({there.get(name, 'nothing')} there, {here.get(name, 'nothing')} here)"
        for name in sorted({**there, **here})
        if there.get(name) != here.get(name)
    ]
    if different:
        more = f" and {len(different) - 3} more" if len(different) > 3 else ""
        raise UserError(
            f"{run.path} is of another run: {', '.join(different[:3])}{more}; resume with the same, or choose another "
            "folder with --out"
        )


def _flat(settings: Any, prefix: str = "") -> dict[str, str]:
    """Returns nested settings as dotted names with their values in words, without those that are free."""
    flat: dict[str, str] = {}
    for name, value in (settings if isinstance(settings, dict) else {}).items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        elif name not in _FREE:
            flat[prefix + name] = str(list(value) if isinstance(value, tuple) else value)
    return flat


def _plain(estimator: SemiSupervisedClassifier) -> dict[str, Any]:
    values = estimator.get_params(deep=False)
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


def demo(out: str = "runs/demo", data: str = "auto", draw: int = 0, threads: int | None = None) -> None:
    """Trains M1+M2 and its supervised baseline on a handful of labels, in minutes, and compares them.

    Args:
        out: folder of the run; what stands there from an earlier call is kept and only completed.
        data: mnist, digits, or auto: MNIST where its files are found or can be fetched, else the 8 x 8 digits that
            come with scikit-learn.
        draw: seed of the draw of labels.
        threads: CPU threads.
    """
    if data not in ("auto", "mnist", "digits"):
        raise UserError(f"expected data to be auto, mnist or digits, got {data!r}")
    if data == "auto":
        try:
            load("mnist")
            data = "mnist"
        except NoSourceError as error:
            print(f"MNIST is out of reach ({error}); using the 8 x 8 digits instead", file=sys.stderr)
            data = "digits"
    labels = 100 if data == "mnist" else 50
    root = Path(out)
    task = make_task(data, labels, draw, draws=root / "draws")
    print(f"data: {task.data.name} ({task.data.source}), {len(task.x)} training images, {labels} labels shown")
    found: dict[str, dict[str, Any]] = {}
    for row, name in (("NN", "demo_nn"), ("M1+M2", "demo_m1_m2")):
        spec = specification(find_method(row), labels, data, preset=name)
        estimator = build(spec)
        shown: dict[str, Any] = {"threads": threads, "verbose": True}
        if not multiplies_in_bfloat16(resolve_device("auto")):
            shown["precision"] = "32-true"  # else it would not be done in minutes
        estimator.set_params(**{k: v for k, v in shown.items() if k in estimator.get_params()})
        run = RunFolder(root / ("baseline" if row == "NN" else "m1_m2"))
        summary = fit_and_report(estimator, task, run, resume=True)
        assert summary is not None  # the demo sets no time limit
        found[row] = summary
    write_demo_page(root, found)


def write_demo_page(root: Path, found: dict[str, dict[str, Any]]) -> None:
    """Writes and prints the comparison."""
    from .report import write_comparison

    write_comparison(root / "report.html", found, figures=root / "m1_m2" / "figures", whose="M1+M2")
    width = max(map(len, found))
    first = next(iter(found.values()))
    print(f"\ntest error on {first['data']} with {first['labels']} labels, of {first['n_test']} images:")
    for row, summary in found.items():
        print(f"  {row:<{width}}  {summary['test_error_percent']:6.2f} %   {summary['seconds']:.0f} s")
    print(f"report: {root / 'report.html'}")
