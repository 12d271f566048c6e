r"""Projected sign ascent that stays on the 8-bit grid and keeps, for each image, the best point that it came by.

.. math:: x_{t+1} = \Pi \left( x_t + \alpha\, \mathrm{sign}\, g(x_t) \right)

with whole steps :math:`\alpha` [levels] and the projection on the box, cut off at 0 and 255. What is judged on the way
is then what is sent in the end: no rounding comes after.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from .box import LEVELS, Images, Labels, random_start, rounded


@dataclass(frozen=True, eq=False)
class Judged:
    """What is known of images at a point."""

    fooled: Bool[Tensor, " n"]
    """Whether they are classified wrongly."""
    score: Float[Tensor, " n"]
    """Among points that fool, or among those that don't, the one of the higher score is the better."""
    gradient: Images
    """Where to go."""


def ascend(
    judge: Callable[[Images, Labels], Judged],
    x: Images,
    y: Labels,
    eps: float,
    generator: Generator,
    *,
    steps: int,
    step: int,
    starts_at_random: bool,
    stops_when_fooled: bool,
) -> Images:
    """Returns the best points found in the boxes.

    Args:
        judge: what is known of images and classes at a point; called steps + 1 times, once more with a random start.
        x: 8-bit images, the first points.
        y: their classes.
        eps: half the side of the boxes [levels].
        generator: draws random starts.
        steps: moves, at most.
        step: length of a move [levels].
        starts_at_random: whether to go on from a random point of the box, once x is judged.
        stops_when_fooled: whether an image that fools is left alone.
    """
    best, point = x.clone(), x.clone()
    fooled = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    score = torch.full((len(x),), -torch.inf, device=x.device)
    active = torch.arange(len(x), device=x.device)
    start = random_start(x, eps, generator) if starts_at_random else None
    for t in range(steps + 1 + starts_at_random):
        judged = judge(point[active], y[active])
        better = torch.where(fooled[active] == judged.fooled, judged.score > score[active], judged.fooled)
        kept = active[better]
        best[kept], fooled[kept], score[kept] = point[kept], judged.fooled[better], judged.score[better]
        going = ~judged.fooled if stops_when_fooled else torch.ones_like(judged.fooled)
        active = active[going]
        if not len(active):
            break
        if t == 0 and start is not None:
            point = start
            continue
        moved = point[active] + judged.gradient[going].sign() * (step / LEVELS)
        point[active] = rounded(x[active], moved, eps)
    return best


def whole_step(eps: float, steps: int) -> int:
    """Returns a step [levels] by which the far side of the box is reached 2.5 times over, at least 1."""
    return max(1, round(2.5 * eps / max(steps, 1)))  # fewer than one are refused by the attack itself
