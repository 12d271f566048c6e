"""Where the calibration of a pass over images comes from: a file, the model's own folder, or a data set scored now."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import nn

from apps.common.options import at_least
from apps.common.training import load_as_trained
from core_models.data import Split, digest
from core_models.errors import UserError
from core_models.training.progress import Progress

from .calibration import FILE_NAME, Calibration, calibrate


def obtain_calibration(
    density: nn.Module,
    model_folder: Path,
    *,
    file: Path | None = None,
    data: str | None = None,
    split: Split = "test",
    images: int = 1000,
    background: nn.Module | None = None,
    batch_size: int = 64,
    keep: Path | None = None,
) -> Calibration | None:
    """Returns the calibration of a density: from a file, of a data set, or the one beside its weights, if any.

    Args:
        density: the model.
        model_folder: where its weights are; `calibration.npz` there is taken when neither file nor data is given.
        file: a calibration file.
        data: a data set by name, or the user's .npz or folder, whose images are scored.
        split: which part of it.
        images: how many of its images, the first ones.
        background: the model for the likelihood ratio.
        batch_size: images at a time.
        keep: where to keep what was computed, and to find it when it was before.

    Raises:
        UserError: when both file and data are given, either can't be read, or the calibration is of other weights.
    """
    if file is not None and data is not None:
        raise UserError("expected --calibration or --calibration_data, got both: give one")
    if data is not None:
        return _scored(density, model_folder, data, split, images, background, batch_size, keep)
    beside = model_folder / FILE_NAME
    if file is None and not beside.is_file():
        return None
    found = Calibration.load(file or beside)
    found.check(density, background)
    return found


def described(calibration: Calibration | None) -> dict[str, Any] | None:
    """Returns plain values that say which calibration it is."""
    if calibration is None:
        return None
    digest = hashlib.sha256()
    for name, values in sorted(calibration.scores.items()):
        digest.update(name.encode() + values.tobytes())
    about = {"data": calibration.data, "split": calibration.split, "images": len(calibration)}
    return {**about, "scores": digest.hexdigest()[:16]}


def _scored(
    density: nn.Module,
    model_folder: Path,
    data: str,
    split: Split,
    images: int,
    background: nn.Module | None,
    batch_size: int,
    keep: Path | None,
) -> Calibration:
    at_least(1, calibration_images=images)
    data_set = load_as_trained(data, model_folder)
    shape = tuple(getattr(density, "event_shape", data_set.event_shape))
    if tuple(data_set.event_shape) != shape:
        raise UserError(
            f"--calibration_data {data}: expected images of {shape}, as the model was "
            f"trained on, got {tuple(data_set.event_shape)}: choose another data set"
        )
    if data_set.levels != 256:
        raise UserError(f"--calibration_data {data}: expected 8-bit images, got {data_set.levels} levels: use others")
    # converted after the first ones are taken: the whole split in floats is four times its bytes
    levels = getattr(data_set, f"{split}_x")
    x = data_set.images(split)[:0] if levels is None else levels[:images].to(torch.float32).div_(255)
    name = " ".join(filter(None, (data_set.name, digest(data))))  # one's own data may be others of the same name
    if keep is not None and keep.exists():
        before = Calibration.load(keep)
        if (before.data, before.split, len(before)) == (name, split, len(x)):
            before.check(density, background)
            return before
    with Progress("calibrating", len(x), unit="image") as shown:
        found = calibrate(
            density,
            x,
            data=name,
            split=split,
            background=background,
            batch_size=batch_size,
            on_batch=lambda done: shown.update(done, last=done == len(x)),
        )
    if keep is not None:
        found.save(keep)
    return found
