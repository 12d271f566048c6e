"""The verb `train`: fits one method to a data set with few labels."""

from __future__ import annotations

from typing import Any, Literal

from apps.common.provenance import command_line, configuration, device_words
from core_models.errors import UserError
from core_models.files import read_json
from core_models.training import RunFolder, resolve_device
from core_models.training.config import FREE_ON_RESUME

from .estimator import OutOfTime, SemiSupervisedClassifier
from .experiment import Task, make_task, run_task
from .report import draw_figures, write_run_report


def train(
    method: SemiSupervisedClassifier,
    data: str = "digits",
    labels: int | Literal["auto"] | None = "auto",
    draw: int = 0,
    out: str = "runs/semi_supervised",
    resume: bool = False,
    image_size: int | None = None,
    test_fraction: float | None = None,
) -> None:
    """Fits a method to a data set with few labels; writes the model, its test error, figures and a report.

    Args:
        method: an estimator and its arguments, e.g. --method M2 --method.epochs 10, or a preset's.
        data: name of a data set, or path of a user's .npz or folder of images (a sub-folder per class; images without
            a label in `unlabelled/`).
        labels: labels shown, the same number of each class; null shows all that the data set has. Left out, it is
            five of each class, or all that there are where the data have unlabelled images of their own.
        draw: seed of the draw of labels.
        out: folder of the run.
        resume: go on with a stopped run.
        image_size: side to which the images of a folder are resized [pixels].
        test_fraction: share of the labelled images that is held out for the test where your data have no test split; 0
            trains on all of them and measures no test error; a fifth where left out.
    """
    run = RunFolder(out)
    if not resume and (run.summary.exists() or run.stages()):
        raise UserError(
            f"{out} already holds a run: add --resume to go on with it, or choose another folder with --out"
        )
    if resume and labels == "auto":  # as many as the run was begun with: what is left out may have come to mean others
        labels = run.read_config().get("labels", "auto")
    task = make_task(data, labels, draw, draws=run.path / "draws", image_size=image_size, test_fraction=test_fraction)
    shape = " x ".join(map(str, task.data.event_shape))
    print(
        f"{task.data.name} ({task.data.source}): {len(task.x)} images of {shape}, {task.labels} labelled, "
        f"{len(task.data.test_x) if task.scored else 'none'} for test",
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
    if "labels" in settings:
        settings["labels"] = task.asked["labels"]  # the number that "auto" stands for
    if isinstance(settings.get("method"), dict):  # the parser may give a class by the package that exports it
        kind = type(estimator)
        settings["method"] = {**settings["method"], "class_path": f"{kind.__module__}.{kind.__qualname__}"}
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
    scored = f"test error {outcome.error_percent:.2f} % ({outcome.errors} of {outcome.n_test})"
    if not task.scored:
        scored = "no test error, since no image was held out"
    print(
        f"{summary['method']} with {task.labels} labels: {scored}, {outcome.seconds:.0f} s; {run.report}",
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
        if there.get(name, "None") != here.get(name, "None")  # an option may be younger than the run
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
