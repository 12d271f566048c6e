"""Purification by its definition: one pass of the whole network for each pixel. The reference; slow."""

from __future__ import annotations

import torch
from torch import Tensor

from core_models.autoregressive import CausalImageModel

from ..greedy import Greedy, conditional_scores


def naive(greedy: Greedy) -> Tensor:
    """Purifies in raster order; returns levels.

    A model whose conditionals are all that is known of it is run once for each sub-pixel.
    """
    levels, model = greedy.input.clone(), greedy.model
    n, channels, height, width = levels.shape
    images = torch.arange(n, device=levels.device)
    for position in range(height * width):
        row, column = divmod(position, width)
        low, high = greedy.low[:, :, row, column], greedy.high[:, :, row, column]
        if isinstance(model, CausalImageModel):
            h = model.features(levels, greedy.y)[:, row, column]
            greedy.count.passes += n
            levels[:, :, row, column], close = greedy.pixels(model.head.parameters_of(h), low, high)
        else:
            close = torch.zeros(n, dtype=torch.bool, device=levels.device)
            for c in range(channels):
                scores = conditional_scores(model, levels, greedy.y)[:, c, row, column]
                scores = scores.gather(-1, greedy.asked(low[:, c]))
                greedy.count.passes += n
                levels[:, c, row, column], tie = greedy.best(scores, low[:, c], high[:, c])
                close |= tie
        if close.any():
            some = images[close]
            place = torch.full_like(some, row), torch.full_like(some, column)
            levels[some, :, row, column] = greedy.settle(levels[some], some, *place)
    return levels
