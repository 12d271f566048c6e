"""Which images are held out, for training a prior, choosing settings and fitting alike, and which are measured on."""

from __future__ import annotations

from functools import cache

import torch
from torch import Generator, Tensor

from apps.common.training import number_held_out
from core_models.data import load as load_data
from core_models.training import held_out, seed_of

SORTED = ("omniglot",)
"""Data sets whose neighbours are alike: characters in the order of their alphabets, each in several drawings."""


@cache
def training(data: str) -> tuple[Tensor, Tensor]:
    """Returns all training images of a data set, in [0, 1], and the places of those held out by seed 0."""
    images = load_data(data).images("train")
    return images, held_out(len(images), number_held_out(len(images)), 0)[1]


def kept_images(data: str) -> Tensor:
    """Returns the training images of a data set that aren't held out, (n, *event_shape), in [0, 1]."""
    images, held = training(data)
    kept = torch.ones(len(images), dtype=torch.bool)
    kept[held] = False
    return images[kept]


def places(data: str, images: int) -> Tensor:
    """Returns in which order images are taken where fewer than all are: (images,).

    That of the data set, so that the first test images of MNIST are those of the papers; where neighbours are alike,
    the first would be of a few classes alone, and the order is drawn, the same each time.
    """
    if data not in SORTED:
        return torch.arange(images)
    return torch.randperm(images, generator=Generator().manual_seed(seed_of(0, data, "order", images)))
