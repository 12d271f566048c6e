"""The box of an attack: the 8-bit images that differ from a given one by at most so many levels in each sub-pixel."""

from __future__ import annotations

from math import floor

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

Images = Float[Tensor, "n channels height width"]
Labels = Int[Tensor, " n"]

LEVELS = 255
"""The highest 8-bit level."""


def whole_levels(eps: float) -> int:
    """Returns the whole levels within a budget: an 8-bit image can't use the rest of it."""
    return floor(eps + 1e-6)


def rounded(x: Images, adversarial: Images, eps: float) -> Images:
    """Returns the 8-bit images of the box around x that are nearest to the adversarial ones.

    Args:
        x: 8-bit images in [0, 1], the middles of the boxes.
        adversarial: any images of that shape.
        eps: half the side of the boxes [levels].
    """
    middle = (x * LEVELS).round()
    return _within((adversarial * LEVELS).round(), middle, eps)


def rounded_outwards(x: Images, adversarial: Images, eps: float) -> Images:
    """Returns the adversarial images with every change from x made up to a whole level, within the box."""
    middle = (x * LEVELS).round()
    change = (adversarial * LEVELS) - middle
    # float32 holds a level to about 1e-5 of it: what is that close to a whole one is whole
    away = change.sign() * (change.abs() - 1e-3).ceil()
    return _within(middle + away, middle, eps)


def random_start(x: Images, eps: float, generator: torch.Generator) -> Images:
    """Draws 8-bit images uniformly from the boxes; of a box that leaves [0, 1] what is cut off is moved to its side."""
    reach = whole_levels(eps)
    # drawn on the CPU and in the order of the images, so that neither device nor batch size changes them
    draw = torch.rand(x.shape, generator=generator, dtype=torch.float64)
    change = (draw * (2 * reach + 1)).floor() - reach
    middle = (x * LEVELS).round()
    return _within(middle + change.to(x), middle, eps)


@torch.no_grad()
def rounded_to_fool(classifier: nn.Module, x: Images, adversarial: Images, y: Labels, eps: float) -> Images:
    """Rounds what an attack of least change found so that it still fools the classifier, where one of two ways does.

    Such an attack stops just beyond the decision boundary, and the nearest 8-bit image can lie before it: there, every
    change is made up to the next whole level instead.
    """
    near = rounded(x, adversarial, eps)
    far = rounded_outwards(x, adversarial, eps)
    missed = fails(classifier, near, y)
    near[missed] = far[missed]
    return near


def fails(classifier: nn.Module, x: Images, y: Labels) -> Bool[Tensor, " n"]:
    """Returns which images are still classified as y: where the attack fails."""
    return classifier(x).argmax(1) == y


def _within(levels: Tensor, middle: Tensor, eps: float) -> Images:
    reach = whole_levels(eps)
    low, high = (middle - reach).clamp(min=0), (middle + reach).clamp(max=LEVELS)
    return torch.minimum(torch.maximum(levels, low), high) / LEVELS
