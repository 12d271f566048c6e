"""The verb `predict`: labels a user's images with a trained run and writes a CSV."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np

from core_models.data import read_examples
from core_models.errors import UserError
from core_models.files import read_json, write_atomic
from core_models.training import RunFolder

from .estimator import load
from .methods import own_class


def predict(
    run: str,
    input: str,
    out: str = "predictions.csv",
    image_size: int | None = None,
    method: str | None = None,
) -> None:
    """Labels images with a trained run and writes one CSV row for each: name, label, probability of every class.

    Args:
        run: folder of the run.
        input: a .npz with `x`, or a folder of images.
        out: the CSV file.
        image_size: side to which the images of a folder are resized [pixels]; that of the training where left out.
        method: class path of the run's method where it is your own, e.g. my_methods.Mine; no run imports one by itself.
    """
    if method is not None:
        own_class(method)
    estimator = load(run)
    summary = RunFolder(run).summary
    if image_size is None and summary.is_file():
        image_size = read_json(summary).get("task", {}).get("image_size")
    shape = tuple(estimator.event_shape_)
    channels = shape[0] if len(shape) == 3 else None
    examples = read_examples(input, image_size=image_size, channels=channels)
    if tuple(examples.x.shape[1:]) != shape:
        got = " x ".join(map(str, examples.x.shape[1:]))
        want = " x ".join(map(str, shape))
        raise UserError(
            f"{input}: expected images of {want} (channels, height, width) as in training, got {got}: resize them, "
            "or give --image_size for a folder"
        )
    proba = estimator.predict_proba(examples.images().numpy())
    labels = estimator.classes_[proba.argmax(1)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "label", "probability", *(f"p({label})" for label in estimator.classes_)])
    for name, label, row in zip(examples.names, labels, proba, strict=True):
        writer.writerow([name, label, f"{row.max():.6g}", *(f"{p:.6g}" for p in row)])
    write_atomic(Path(out), text.getvalue())
    known, counts = np.unique(labels.astype(str), return_counts=True)
    shares = ", ".join(f"{label}: {count}" for label, count in zip(known, counts, strict=True))
    print(f"{len(labels)} images labelled ({shares}); {out}")
