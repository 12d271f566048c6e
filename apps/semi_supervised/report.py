"""Figures and the page of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from sklearn.manifold import TSNE
from sklearn.metrics import confusion_matrix

from apps.common import figures
from apps.common.provenance import command_line
from apps.common.report import Headline, Picture, write_report
from core_models.errors import UserError
from core_models.files import read_json
from core_models.training import RunFolder

from . import estimator as estimators
from .estimator import SemiSupervisedClassifier
from .experiment import Task, make_task
from .generative import GenerativeClassifier
from .methods import own_class

KINGMA_TEST_IMAGES = (7910, 8150, 3623, 2645, 4066, 9660, 5083, 948, 2595, 2)
"""The MNIST test images whose analogies figure 1 of Kingma et al. (2014) shows."""

_TSNE_POINTS = 1000

_CAPTIONS = {
    "confusion.png": "Test images by true class (rows) and predicted class (columns).",
    "curves.png": "What training recorded, epoch by epoch. While the weight of a term is warmed up, losses may rise.",
    "analogies.png": "Analogies: each row takes its style from the image on the left and shows it in every class.",
    "samples.png": "Samples: a class a row, with styles drawn from the prior.",
    "manifold.png": "A slice of the space of styles in one class: the two latents that vary most, in equal steps of "
    "the prior's probability.",
    "tsne.png": "t-SNE of the latents of test images, coloured by true class. Styles z of M2 are meant to know little "
    "of the class; features of M1 to tell classes apart.",
}

_UNSCORED_TSNE = _CAPTIONS["tsne.png"].replace(
    "test images, coloured by true", "training images, coloured by predicted"
)

_UNSCORED = "The figures are of training images, by the class that is predicted, since there is no test split."


def draw_figures(estimator: SemiSupervisedClassifier, task: Task, predicted: np.ndarray, run: RunFolder) -> None:
    """Draws every figure that the method has into the run's folder.

    Args:
        estimator: fitted.
        task: what it was fitted to.
        predicted: its labels of the test images (n,).
        run: receives `figures/*.png`.
    """
    data, names = task.data, [str(name) for name in task.names]
    truth = data.test_y.numpy()
    known = truth >= 0
    if task.scored:
        counts = confusion_matrix(task.names[truth[known]].astype(str), predicted[known].astype(str), labels=names)
        figures.confusion_matrix(counts, run.figures / "confusion.png", classes=names)
    else:  # of the training images, which stand in for those of a test
        truth = np.array([names.index(str(label)) for label in predicted])
    metrics = run.read_metrics()
    if metrics:
        figures.learning_curves(metrics, run.figures / "curves.png")
    images = data.images("test").numpy()
    latents = estimator.transform(images[:_TSNE_POINTS]) if hasattr(estimator, "transform") else np.empty((0, 0))
    if min(latents.shape) > 1:  # a single latent or image spans no plane
        perplexity = min(30, (len(latents) - 1) / 3)
        points = TSNE(random_state=0, init="pca", perplexity=perplexity).fit_transform(latents)
        figures.scatter(points, truth[:_TSNE_POINTS], run.figures / "tsne.png", classes=names)
    if isinstance(estimator, GenerativeClassifier):
        own = [str(label) for label in estimator.classes_]
        sources = images[_sources(task, truth)]
        figures.analogies(
            _shown(sources), _shown(estimator.analogies(sources)), run.figures / "analogies.png", classes=own
        )
        figures.image_grid(_shown(estimator.sample(estimator.classes_, 10)), run.figures / "samples.png", columns=10)
        if estimator.latent > 1:
            middle = estimator.classes_[len(own) // 2]
            figures.manifold(_shown(estimator.manifold(middle)), run.figures / "manifold.png", title=f"class {middle}")


def _shown(images: np.ndarray) -> np.ndarray:
    """Means of a Gaussian may leave the range of pixels."""
    return np.clip(images, 0, 1)


def _sources(task: Task, truth: np.ndarray) -> list[int]:
    """Returns the test images whose styles the analogies take: the paper's for MNIST, else the first of each class."""
    if task.data.name == "mnist" and len(truth) == 10_000:
        return list(KINGMA_TEST_IMAGES)
    firsts = [np.flatnonzero(truth == code) for code in range(len(task.names))]
    return [int(found[0]) for found in firsts if len(found)][:10] or [0]


def _pictures(folder: Path, whose: str = "", *, scored: bool = True) -> list[Picture]:
    before = f"{whose}. " if whose else ""
    captions = _CAPTIONS if scored else {**_CAPTIONS, "tsne.png": _UNSCORED_TSNE}
    return [Picture(folder / name, before + text) for name, text in captions.items() if (folder / name).is_file()]


def write_run_report(run: RunFolder, summary: dict[str, Any], *, title: str | None = None) -> Path:
    """Writes `report.html` from the figures and the summary of a run."""
    error, of, notes = "not measured", "no image was held out", [_UNSCORED]
    if summary["n_test"]:
        error, of = f"{summary['test_error_percent']:.2f} %", f"{summary['error_count']} of {summary['n_test']}"
        notes = []
    headlines = [
        Headline("test error", error, of),
        Headline("labels", str(summary["labels"]), "" if summary["draw"] is None else f"draw {summary['draw']}"),
        Headline("time", f"{summary['seconds']:.0f} s", summary["device"]),
    ]
    if summary.get("pool_error_percent") is not None:
        headlines.insert(1, Headline("error on the unlabelled pool", f"{summary['pool_error_percent']:.2f} %"))
    return write_report(
        run.report,
        title=title or f"{summary['method']} on {summary['data']}",
        summary=f"{summary['labels']} labels of {summary['data']} ({summary['source']}).",
        headlines=headlines,
        figures=_pictures(run.figures, scored=summary["n_test"] > 0),
        configuration=None if not run.config.is_file() else {"config.yaml": run.config.read_text()},
        command=summary["command"],
        notes=notes,
    )


def write_comparison(path: Path, found: dict[str, dict[str, Any]], *, figures: Path, whose: str) -> Path:
    """Writes a page that sets the summaries of several methods side by side.

    Args:
        path: the page.
        found: summaries by the names of their methods.
        figures: the folder of those of one of them.
        whose: its name, which the captions begin with.
    """
    first = next(iter(found.values()))
    return write_report(
        path,
        title=f"{' beside '.join(found)} on {first['data']}",
        summary=f"The same {first['labels']} labels for each; the {first['n_test']} test images were scored once. "
        f"Data: {first['source']}.",
        headlines=[
            Headline(row, f"{s['test_error_percent']:.2f} %", f"test error, {s['seconds']:.0f} s on {s['device']}")
            for row, s in found.items()
        ],
        figures=_pictures(figures, whose),
        command=command_line(),
    )


def report(run: str, method: str | None = None) -> None:
    """Draws the figures and the page of a finished run again, from what the run holds.

    Args:
        run: folder of the run.
        method: class path of the run's method where it is your own, e.g. my_methods.Mine; no run imports one by itself.
    """
    folder = RunFolder(run)
    if not folder.summary.is_file():
        raise UserError(f"expected a finished run in {run}, found no summary.json: train first, or resume it")
    summary = read_json(folder.summary)
    if method is not None:
        own_class(method)
    estimator = estimators.load(run)
    task = make_task(**summary["task"], draws=folder.path / "draws")
    predicted = estimator.predict(task.data.images("test").numpy())
    draw_figures(estimator, task, predicted, folder)
    print(write_run_report(folder, summary))
