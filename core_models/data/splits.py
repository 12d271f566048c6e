"""Which examples have labels: seeded, class-balanced draws, kept as index files so that everyone has the same ones.

The seed of a draw is its own: it is not the seed of a model's weights. Draws use numpy's `RandomState`, whose stream is
frozen for good, so that an index file can be made again on any machine.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np
from jaxtyping import Int, Int64
from torch import Tensor

from ..errors import UserError
from ..files import write_atomic

Targets = Int[np.ndarray, " n"] | Int[Tensor, " n"]
Indices = Int64[np.ndarray, " _m"]


def balanced_draw(y: Targets, labels: int, *, seed: int, classes: int | None = None) -> Indices:
    """Draws the same number of examples of each class; returns their places in `y`, in ascending order.

    A draw of more labels holds every smaller draw of the same seed. Examples labelled -1 are never drawn.

    Args:
        y: the class of each example, from 0 to `classes - 1`, or -1.
        labels: how many to draw in all.
        seed: of the draw.
        classes: how many classes there are; by default up to the largest in `y`.

    Raises:
        UserError: when the labels can't be shared out evenly, or there are too few of them.
    """
    y = np.asarray(y)
    classes = int(y.max(initial=-1)) + 1 if classes is None else classes
    counts = np.bincount(y[y >= 0], minlength=max(classes, 1))
    if classes < 1:
        raise UserError("expected labelled examples to draw from, got none: label at least one example of each class")
    if labels > counts.sum():
        raise UserError(f"expected at most {counts.sum()} labels, as many as exist, got {labels}: ask for fewer")
    if labels < classes or labels % classes:
        raise UserError(
            f"expected a number of labels that is a multiple of the {classes} classes, got {labels}: "
            f"try {max(labels // classes, 1) * classes}"
        )
    share = labels // classes
    short = int(counts[:classes].argmin())
    if counts[short] < share:
        raise UserError(
            f"expected {share} labelled examples of each class for {labels} labels, class {short} has {counts[short]}: "
            f"ask for at most {classes * counts[short]} labels"
        )
    drawn = [_shuffled(np.flatnonzero(y == c), seed, c)[:share] for c in range(classes)]
    return np.sort(np.concatenate(drawn)).astype(np.int64)


def kept_draw(dataset_name: str, y: Targets, labels: int, seed: int, folder: Path | str) -> Indices:
    """Returns the draw kept in `<folder>/<dataset>_<labels>_<seed>.txt`, making it first where there is none.

    The file has one comment line, which holds a hash of all labels, and one index per line.

    Raises:
        UserError: when the draw can't be made, or the file is not a balanced draw of these very labels.
    """
    y = np.asarray(y)
    path = Path(folder) / f"{re.sub(r'[^A-Za-z0-9.-]+', '-', dataset_name)}_{labels}_{seed}.txt"
    mark = hashlib.sha256(y.astype("<i8").tobytes()).hexdigest()[:12]
    header = f"# {labels} of {len(y)} labels of {dataset_name}, seed {seed}, hash of all labels {mark}"
    if not path.exists():
        indices = balanced_draw(y, labels, seed=seed)
        write_atomic(path, "\n".join([header, *map(str, indices)]) + "\n")
        return indices
    try:
        first, *lines = path.read_text().splitlines()
        indices = np.array([int(line) for line in lines], dtype=np.int64)
    except (ValueError, OverflowError, OSError) as error:
        raise UserError(
            f"{path}: expected a comment and one index per line ({error}); remove it to draw anew"
        ) from error
    if first != header:
        raise UserError(f"{path}: expected the first line {header!r}, got {first!r}: a draw of other labels; remove it")
    if len(indices) != labels or (np.diff(indices) <= 0).any() or indices[0] < 0 or indices[-1] >= len(y):
        raise UserError(
            f"{path}: expected {labels} ascending indices below {len(y)}, got others; remove it to draw anew"
        )
    counts = np.bincount(y[indices] + 1, minlength=int(y.max()) + 2)
    if counts[0] or (counts[1:] != labels // (len(counts) - 1)).any():
        raise UserError(
            f"{path}: expected as many labels of each class, got {counts[1:].tolist()}; remove it to draw anew"
        )
    return indices


def holdout(y: Targets, fraction: float = 0.2, *, seed: int = 0) -> tuple[Indices, Indices]:
    """Shares examples out into training and test, class by class; returns the places of both, ascending.

    The test split has ceil(fraction x labelled) examples, shared among the classes by largest remainder, and at least
    one example of each class stays for training. Unlabelled examples (-1) stay too, unless there are no others.
    """
    y = np.asarray(y)
    groups = [np.flatnonzero(y == c) for c in np.unique(y[y >= 0])] or [np.arange(len(y))]
    sizes = np.array([len(group) for group in groups])
    quota = fraction * sizes
    take = np.floor(quota).astype(int)
    for c in np.argsort(take - quota, kind="stable")[: int(np.ceil(fraction * sizes.sum())) - take.sum()]:
        take[c] += 1
    take = np.minimum(take, sizes - 1)
    held = [_shuffled(g, seed, i)[:n] for i, (g, n) in enumerate(zip(groups, take, strict=True))]
    test = np.sort(np.concatenate(held)).astype(np.int64)
    return np.setdiff1d(np.arange(len(y), dtype=np.int64), test), test


def _shuffled(indices: np.ndarray, seed: int, stream: int) -> np.ndarray:
    if not 0 <= seed < 2**32:
        raise UserError(f"expected a seed from 0 to {2**32 - 1}, got {seed}")
    return np.random.RandomState([seed, stream]).permutation(indices)
