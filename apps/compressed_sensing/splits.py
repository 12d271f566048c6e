"""Which training images are held out: the same for training a prior, for choosing settings and for fitting."""

from __future__ import annotations

from functools import cache

from torch import Tensor

from core_models.data import load as load_data
from core_models.training import held_out

MOST, SHARE = 5000, 10
"""At most so many images are held out, and at most one in so many."""


def number_held_out(images: int) -> int:
    """Returns how many of so many training images are held out where nobody says otherwise."""
    return min(MOST, images // SHARE)


@cache
def training(data: str) -> tuple[Tensor, Tensor]:
    """Returns all training images of a data set, in [0, 1], and the places of those held out by seed 0."""
    images = load_data(data).images("train")
    return images, held_out(len(images), number_held_out(len(images)), 0)[1]
