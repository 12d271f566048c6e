"""From a data set to what a model is shown: binarised or not, on the device as bytes, in batches.

Images lie in memory as the bytes they came as and become floats a batch at a time: a quarter of the memory, and less
to fetch, for the same numbers as `DataSet.images`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from apps.common.objectives import classes_of, density_over
from core_models.base import GenerativeModel
from core_models.data import Binarisation, DataSet, Split, binarise, dequantise, to_floats
from core_models.errors import UserError
from core_models.training import PixelBatches, TensorBatches, held_out


@dataclass(frozen=True)
class Pixels:
    """Images of one split as a model is shown them."""

    x: Tensor
    """Levels, uint8 (n, *event_shape)."""
    y: Tensor | None
    """Classes (n,), for a class-conditional model."""
    levels: int
    """Number of levels: a pixel is level / (levels - 1)."""
    redraw: bool
    """Whether zeros and ones are still to be drawn, anew at every step."""
    spread: bool = False
    """Whether levels are still to be dequantised, anew at every step."""

    def __len__(self) -> int:
        return len(self.x)

    def part(self, index: Tensor | slice) -> Pixels:
        """Returns some of the images."""
        return Pixels(self.x[index], None if self.y is None else self.y[index], self.levels, self.redraw, self.spread)

    def mean(self) -> Tensor:
        """Returns the mean image, in [0, 1]."""
        # summed as integers: no copy of the images as floats
        return self.x.sum(0, dtype=torch.int64).to(torch.float32) / (len(self) * (self.levels - 1))

    def floats(self) -> Tensor:
        """Returns the images in [0, 1]."""
        return to_floats(self.x, self.levels)

    def events(self, seed: int) -> Tensor:
        """Returns what the likelihood is taken of: the images, with one seeded draw where they are to be drawn."""
        x = self.floats()
        if self.spread:
            return dequantise(x, self.levels, Generator().manual_seed(seed))
        return binarise(x, "dynamic", Generator().manual_seed(seed)) if self.redraw else x

    def batches(self, batch_size: int, seed: int) -> PixelBatches:
        """Returns shuffled batches for training."""
        tensors = {"x": self.x} if self.y is None else {"x": self.x, "y": self.y}
        return PixelBatches(TensorBatches(tensors, min(batch_size, len(self)), seed), self.levels)


def prepare(data: DataSet, split: Split, model: GenerativeModel, binarisation: Binarisation) -> Pixels:
    """Returns a split as a model is shown it.

    Raises:
        UserError: when the images are of another shape, or a class-conditional model meets an image without a class.
    """
    x = getattr(data, f"{split}_x")
    if x is None:
        raise UserError(f"{data.name} has no {split} split: use train or test")
    if x.shape[1:] != model.event_shape and x[0].numel() == model.event_shape.numel():
        x = x.view(-1, *model.event_shape)  # a model of vectors is shown images as vectors
    if x.shape[1:] != model.event_shape:
        raise UserError(
            f"expected images of shape {tuple(model.event_shape)}, as the model's, {data.name} has {tuple(x.shape[1:])}"
        )
    levels = data.levels
    if binarisation in ("static", "threshold"):
        # a whole split at once: a static draw depends on an image's place in it
        x, levels = binarise(to_floats(x, levels), binarisation).to(torch.uint8), 2
    spread = density_over(model) == "continuous"
    return Pixels(x, _labels(data, split, classes_of(model)), levels, binarisation == "dynamic", spread)


def _labels(data: DataSet, split: Split, classes: int) -> Tensor | None:
    if not classes:
        return None
    y = data.labels(split)
    if classes != len(data.classes):
        raise UserError(f"expected a model of {len(data.classes)} classes, as {data.name} has, got {classes}")
    if bool((y < 0).any()):
        raise UserError(
            f"expected a class for every {split} image of {data.name}, {int((y < 0).sum())} have none: "
            "label them, or choose a model without classes"
        )
    return y


def hold_out(pixels: Pixels, n: int, seed: int) -> tuple[Pixels, Pixels]:
    """Shares training images out into those to train on and n to validate on, by a seed."""
    kept, held = held_out(len(pixels), n, seed)
    return pixels.part(kept), pixels.part(held)
