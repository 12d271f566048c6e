"""Purification as a fixed point: all pixels chosen at once from the present image, until nothing changes.

Pixel i depends on the pixels before it only, so the one fixed point of the map is the answer of the sequence, and after
k rounds at least the first k pixels have their final values (Song, Meng, Liao and Ermon 2021, section 4.1).
"""

from __future__ import annotations

import torch
from torch import Tensor

from core_models.autoregressive import CausalImageModel

from ..greedy import Greedy, conditional_scores


def first(where: Tensor) -> Tensor:
    """Returns the index of the first True of each row (m, k) -> (m,), and k where there is none."""
    index = torch.arange(where.shape[1], device=where.device)
    return torch.where(where, index, where.shape[1]).amin(1)


def fixed_point(greedy: Greedy) -> Tensor:
    """Iterates on the whole image, dropping images as they converge; returns levels."""
    levels = greedy.input.clone()
    n, channels, height, width = levels.shape
    size = height * width
    active = torch.arange(n, device=levels.device)
    final = torch.zeros(n, dtype=torch.long, device=levels.device)  # pixels before this one have their final values
    iterations = torch.zeros(n, dtype=torch.long)
    whole_pixels = channels == 1 or isinstance(greedy.model, CausalImageModel)
    positions = torch.arange(size, device=levels.device)
    while len(active):
        present = levels[active]
        chosen, close = all_pixels(greedy, present, active)
        greedy.count.passes += len(active)
        iterations[active.cpu()] += 1
        now = present.permute(0, 2, 3, 1).reshape(len(active), size, channels)
        open_ = positions >= final[active, None]
        change = first((chosen != now).any(-1) & open_)
        tie = first(close & open_)
        now = torch.where(open_[..., None], chosen, now)
        # everything before the first change was right, and so is the first change, unless a tie comes before it
        settle = (tie <= change) & (tie < size)
        if settle.any():
            some, at = active[settle], tie[settle]
            decided = greedy.settle(present[settle], some, at // width, at % width)
            now[settle.nonzero()[:, 0], at] = decided
        # without a head's help the later channels of a changed pixel were chosen from its old ones
        done = change + 1 if whole_pixels else torch.where(change < size, change, size + 1)
        final[active] = torch.where(settle, tie + 1, done)
        levels[active] = now.view(len(active), height, width, channels).permute(0, 3, 1, 2)
        active = active[final[active] <= size]
    greedy.count.iterations += iterations.tolist()
    return levels


def all_pixels(greedy: Greedy, levels: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """Chooses every pixel from what now lies before it: levels (m, pixels, channels), near-ties (m, pixels)."""
    model, y = greedy.model, greedy.classes(images)
    m, channels = levels.shape[:2]
    low, high = (t[images].permute(0, 2, 3, 1).reshape(-1, channels) for t in (greedy.low, greedy.high))
    if isinstance(model, CausalImageModel):
        h = model.features(levels, y)
        chosen, close = greedy.pixels(model.head.parameters_of(h).flatten(0, 2), low, high)
    else:
        scores = conditional_scores(model, levels, y).permute(0, 2, 3, 1, 4).flatten(0, 2)
        picked = [
            greedy.best(scores[:, c].gather(-1, greedy.asked(low[:, c])), low[:, c], high[:, c])
            for c in range(channels)
        ]
        chosen = torch.stack([value for value, _ in picked], -1)
        close = torch.stack([tie for _, tie in picked], -1).any(-1)
    return chosen.view(m, -1, channels), close.view(m, -1)
