"""What clean images score: the small file that p-values and thresholds are taken from.

A calibration belongs to one model: it carries the SHA-256 of its weights and is refused beside others. It says which
data and split it was made of. Training images and test images are not exchangeable once a model overfits, so p-values
against the training split, the paper's way, come out too small for clean images; a held-out split has no such bias.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float64
from torch import Tensor, nn

from apps.common.streaming.npz import BROKEN
from core_models.errors import UserError
from core_models.files import atomic
from core_models.persistence import fingerprint

from .complexity import codecs as available_codecs
from .scores import SCORES, as_images, scores_of

FILE_NAME = "calibration.npz"
"""What the calibration of a model is called beside its weights."""

_ABOUT = ("data", "split", "fingerprint", "background", "codecs")


@dataclass(frozen=True, eq=False)
class Calibration:
    """The scores of clean images under one model."""

    scores: dict[str, Float64[np.ndarray, " n"]]
    """By name, as in `SCORES`, each in ascending order [bits/dim]."""
    data: str
    """The data set that the images are of."""
    split: str
    """Which part of it, in a word: `train`, or `test` or `valid` for held-out images."""
    fingerprint: str
    """SHA-256 of the weights of the density."""
    background: str = ""
    """SHA-256 of the weights of the background model; empty where there was none."""
    codecs: tuple[str, ...] = ()
    """The compressors of the complexity."""

    def __post_init__(self) -> None:
        """Refuses what is no calibration."""
        count = {len(values) for values in self.scores.values()}
        if "bits_per_dim" not in self.scores or len(count) != 1 or 0 in count or not set(self.scores) <= set(SCORES):
            raise UserError(f"expected as many scores of each kind, bits_per_dim among them, got {sorted(self.scores)}")
        if any(np.isnan(values).any() or (np.diff(values) < 0).any() for values in self.scores.values()):
            raise UserError("expected the scores of a calibration in ascending order and none NaN, got others")

    def __len__(self) -> int:
        """The number of images."""
        return len(self.scores["bits_per_dim"])

    def __str__(self) -> str:
        """What p-values and thresholds are taken from, in words."""
        kind = "training images" if self.split == "train" else f"held-out images ({self.split} split)"
        return f"{len(self):,} {kind} of {self.data}"

    def check(self, density: nn.Module, background: nn.Module | None = None) -> None:
        """Refuses models that the calibration was not made with.

        Raises:
            UserError: when the weights of the density, or of a background model, are others.
        """
        found = fingerprint(density)
        if found != self.fingerprint:
            raise UserError(
                f"expected a calibration of these weights ({found[:12]}), got one of others ({self.fingerprint[:12]}): "
                "calibrate this model"
            )
        if background is not None and (found := fingerprint(background)) != self.background:
            made = f"with others ({self.background[:12]})" if self.background else "without one"
            raise UserError(
                f"expected a calibration made with this background model ({found[:12]}), got one made {made}: "
                "calibrate again with it"
            )

    def save(self, path: Path | str) -> None:
        """Writes the calibration as a .npz, whole or not at all."""
        about = {name: getattr(self, name) for name in _ABOUT}
        with atomic(path) as temporary, temporary.open("wb") as file:
            np.savez(file, about=np.array(json.dumps(about)), **self.scores)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: Path | str) -> Calibration:
        """Reads a calibration.

        Raises:
            UserError: when the file is missing, damaged or holds something else.
        """
        path = Path(path)
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as loaded:
                arrays = {name: loaded[name] for name in loaded.files}
            about = json.loads(str(arrays.pop("about")))
            scores = {name: np.asarray(values, dtype=np.float64) for name, values in arrays.items()}
            return cls(scores, **{**about, "codecs": tuple(about["codecs"])})
        except FileNotFoundError as error:
            raise UserError(
                f"expected a calibration at {path}, found nothing: make one with --calibration_data"
            ) from error
        except (*BROKEN, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path}: expected a calibration file ({error}): make it again") from error


def calibrate(
    density: nn.Module,
    x: Float[Tensor, "n c h w"] | np.ndarray,
    *,
    data: str,
    split: str,
    background: nn.Module | None = None,
    codecs: Sequence[str] | None = None,
    batch_size: int = 64,
    on_batch: Callable[[int], None] | None = None,
) -> Calibration:
    """Scores clean images.

    Args:
        density: the model.
        x: clean images (n, c, h, w) in [0, 1], of 256 levels, a tensor or an array.
        data: the data set that they are of.
        split: which part of it; `train` where the model was trained on them.
        background: the model for the likelihood ratio; none where None.
        codecs: the compressors of the complexity; all that there are where None.
        batch_size: images at a time.
        on_batch: called after each batch with the images done.

    Raises:
        UserError: when there is no image, or a model has no exact likelihood.
    """
    x = as_images(x)
    if not len(x):
        raise UserError("expected at least one image to calibrate with, got none")
    chosen = available_codecs() if codecs is None else tuple(codecs)
    found = scores_of(density, x, background=background, codecs=chosen, batch_size=batch_size, on_batch=on_batch)
    return Calibration(
        {name: np.sort(values) for name, values in found.items()},
        data,
        split,
        fingerprint(density),
        "" if background is None else fingerprint(background),
        chosen,
    )
