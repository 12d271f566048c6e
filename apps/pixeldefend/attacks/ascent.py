r"""Projected sign ascent that stays on the 8-bit grid and keeps, for each image, the best point that it came by.

.. math:: x_{t+1} = \Pi \left( x_t + \alpha\, \mathrm{sign}\, g(x_t) \right)

with whole steps :math:`\alpha` [levels] and the projection on the box, cut off at 0 and 255. What is judged on the way
is then what is sent in the end: no rounding comes after.

The loss that is climbed is the cross-entropy, or the margin :math:`\max_{k \ne y} z_k - z_y` of the logits z, whose
gradient is no smaller where a classifier is sure of itself (Carlini and Wagner, "Towards evaluating the robustness of
neural networks", S&P 2017, section V.A, their f6; Croce and Hein 2020 divide it by a range of logits).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor
from torch.nn import functional as F

from .box import LEVELS, Images, Labels, random_start, rounded

Loss = Literal["cross-entropy", "margin"]


def loss_of(name: Loss, logits: Float[Tensor, "n classes"], labels: Labels) -> Float[Tensor, " n"]:
    """Returns what an attacker climbs: the cross-entropy [nats], or the margin of the best wrong logit."""
    if name == "cross-entropy":
        return F.cross_entropy(logits, labels, reduction="none")
    own = labels[:, None]
    return logits.scatter(1, own, -torch.inf).amax(1) - logits.gather(1, own)[:, 0]


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
    restarts: int = 1,
) -> Images:
    """Returns the best points found in the boxes.

    Args:
        judge: what is known of images and classes at a point; called steps + 1 times a run, once more with a random
            start.
        x: 8-bit images, the first points.
        y: their classes.
        eps: half the side of the boxes [levels].
        generator: draws random starts.
        steps: moves, at most.
        step: length of a move [levels].
        starts_at_random: whether to go on from a random point of the box, once x is judged.
        stops_when_fooled: whether an image that fools is left alone.
        restarts: runs in all; those after the first start from random points of the boxes.
    """
    best = x.clone()
    fooled = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    score = torch.full((len(x),), -torch.inf, device=x.device)
    # all of an image's at once, so that the batch size doesn't change them
    drawn = restarts - 1 + starts_at_random
    starts = random_start(x.repeat_interleave(drawn, 0), eps, generator).view(len(x), drawn, *x.shape[1:])

    def climb(point: Images, moves: int) -> None:
        active = (~fooled if stops_when_fooled else torch.ones_like(fooled)).nonzero()[:, 0]
        for t in range(moves + 1):
            if not len(active):
                return
            judged = judge(point[active], y[active])
            better = torch.where(fooled[active] == judged.fooled, judged.score > score[active], judged.fooled)
            kept = active[better]
            best[kept], fooled[kept], score[kept] = point[kept], judged.fooled[better], judged.score[better]
            if t == moves:
                return
            going = ~judged.fooled if stops_when_fooled else torch.ones_like(judged.fooled)
            active = active[going]
            moved = point[active] + judged.gradient[going].sign() * (step / LEVELS)
            point[active] = rounded(x[active], moved, eps)

    climb(x.clone(), 0 if starts_at_random else steps)
    for start in starts.unbind(1):
        climb(start.clone(), steps)
    return best


def whole_step(eps: float, steps: int) -> int:
    """Returns a step [levels] by which the far side of the box is reached 2.5 times over, at least 1."""
    return max(1, round(2.5 * eps / max(steps, 1)))  # fewer than one are refused by the attack itself
