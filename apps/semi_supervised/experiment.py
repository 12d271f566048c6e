"""One experiment: a data set of which few labels are shown, an estimator that learns from it, its test score."""

from __future__ import annotations

import time
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Any, Literal

import numpy as np

from core_models.data import DataSet, balanced_draw, kept_draw, load
from core_models.errors import UserError
from core_models.training import RunFolder

from .estimator import SemiSupervisedClassifier

DRAWS = Path("docs") / "results" / "semi_supervised" / "draws"
"""Where the index files of the labelled draws are kept."""


@dataclass(frozen=True, eq=False)
class Task:
    """A data set with the labels that are shown."""

    data: DataSet
    """All images and labels, the hidden ones too: for scoring only."""
    x: np.ndarray
    """Training images (n, c, h, w), float32 in [0, 1]."""
    y: np.ndarray
    """Codes (n,), -1 where the label is hidden."""
    labels: int
    """Number of labels shown."""
    draw: int | None
    """Which draw of labels; None where the data set came with its own unlabelled rows."""
    asked: dict[str, Any]
    """The arguments of `make_task` that make it again."""

    @property
    def scored(self) -> bool:
        """Whether there is a test image with a label."""
        return bool((self.data.test_y >= 0).any())

    @property
    def names(self) -> np.ndarray:
        """The label of each code: the class names, as integers where they all are."""
        # "007" is a name: as a number it would come back as 7
        if all(name.isdecimal() and str(int(name)) == name for name in self.data.classes):
            return np.array([int(name) for name in self.data.classes])
        return np.array(self.data.classes, dtype=object)

    def targets(self) -> np.ndarray:
        """Returns `y` in terms of `names`, with the integer -1 where the label is hidden, as estimators take it."""
        shown = np.full(len(self.y), -1, dtype=self.names.dtype)
        shown[self.y >= 0] = self.names[self.y[self.y >= 0]]
        return shown


def make_task(
    data: str | DataSet,
    labels: int | Literal["auto"] | None,
    draw: int,
    *,
    draws: Path | str = DRAWS,
    image_size: int | None = None,
    test_fraction: float | None = None,
) -> Task:
    """Loads a data set and hides all labels but a balanced draw of them.

    Args:
        data: name of a data set, path of a user's `.npz` or folder, or a data set.
        labels: how many labels to show, the same number of each class; None shows all that the data set has; "auto" is
            None where it has unlabelled rows of its own, else five of each class.
        draw: seed of the draw.
        draws: folder of the index files that keep the draws.
        image_size: side to which a folder's images are resized [pixels].
        test_fraction: share held out for the test of one's own data without a test split; see `core_models.data.load`.

    Raises:
        UserError: when the labels asked for can't be had.
    """
    named = isinstance(data, str)
    name = data if isinstance(data, str) else data.name
    if isinstance(data, str):
        data = load(data, image_size=image_size, test_fraction=test_fraction)
    y = data.train_y.numpy()
    if labels == "auto":
        labels = None if (y < 0).any() else 5 * len(data.classes)
    asked = {"data": name, "labels": labels, "draw": draw, "image_size": image_size, "test_fraction": test_fraction}
    if not data.classes:
        raise UserError(f"expected a data set with labels, {data.name} has none: name classes (see the README)")
    shown = np.full_like(y, -1)
    if labels is None:
        shown = y.copy()
        missing = sorted(set(range(len(data.classes))) - set(y[y >= 0].tolist()))
        if missing:
            raise UserError(
                f"{data.name}: class {data.classes[missing[0]]!r} has no labelled example: label at least one"
            )
        return Task(data, data.images("train").numpy(), shown, int((shown >= 0).sum()), None, asked)
    if 0 <= labels < len(data.classes):
        raise UserError(
            f"expected at least one label for each of the {len(data.classes)} classes of {data.name}, got {labels}"
        )
    if named and (y < 0).any():  # where `train` was called: the benchmark knows no null
        try:
            balanced_draw(y, labels, seed=draw)
        except UserError as error:
            raise UserError(f"{error}, or train with --labels null, which shows all {int((y >= 0).sum())}") from error
    chosen = kept_draw(data.name, y, labels, draw, draws)
    shown[chosen] = y[chosen]
    return Task(data, data.images("train").numpy(), shown, labels, draw, asked)


@dataclass(frozen=True)
class Outcome:
    """What a fitted estimator scores on the test set, looked at once."""

    errors: int
    """Test images put in a wrong class."""
    n_test: int
    """Test images."""
    seconds: float
    """Time of fitting [s]."""
    pool_errors: int
    """Unlabelled training images put in a wrong class (their labels are used for nothing else)."""
    n_pool: int
    """Unlabelled training images whose label is known."""

    @property
    def error_percent(self) -> float:
        """Test error [%]; NaN where there is no test image with a label."""
        return 100 * self.errors / self.n_test if self.n_test else nan

    def as_dict(self) -> dict[str, Any]:
        """Returns the figures for a JSON file."""
        return {
            "test_error_percent": self.error_percent if self.n_test else None,
            "error_count": self.errors,
            "n_test": self.n_test,
            "pool_error_percent": 100 * self.pool_errors / self.n_pool if self.n_pool else None,
            "seconds": self.seconds,
        }


def fit_task(
    estimator: SemiSupervisedClassifier, task: Task, *, run: RunFolder | None = None, resume: bool = False
) -> float:
    """Fits an estimator; returns the time of training [s], that of M1 included.

    Where the method keeps a `history_`, that is the time of all resumed parts; of the others, this part's.
    """
    start = time.perf_counter()
    estimator.fit(task.x, task.targets(), run=run, resume=resume)
    history = getattr(estimator, "history_", None)
    if history is None:
        return time.perf_counter() - start
    return history.seconds + getattr(estimator, "m1_seconds_", 0.0)


def score(estimator: SemiSupervisedClassifier, task: Task, seconds: float) -> tuple[Outcome, np.ndarray]:
    """Scores a fitted estimator on the test set, once; returns the outcome and the test predictions."""
    truth, test_truth = task.data.train_y.numpy(), task.data.test_y.numpy()
    predicted = estimator.predict(task.data.images("test").numpy())
    known = test_truth >= 0
    hidden = (task.y < 0) & (truth >= 0)
    outcome = Outcome(
        errors=int((predicted[known] != task.names[test_truth[known]]).sum()),
        n_test=int(known.sum()),
        seconds=seconds,
        pool_errors=int((estimator.transduction_[hidden] != task.names[truth[hidden]]).sum()),
        n_pool=int(hidden.sum()),
    )
    return outcome, predicted


def run_task(
    estimator: SemiSupervisedClassifier, task: Task, *, run: RunFolder | None = None, resume: bool = False
) -> tuple[Outcome, np.ndarray]:
    """Fits an estimator and scores it."""
    return score(estimator, task, fit_task(estimator, task, run=run, resume=resume))
