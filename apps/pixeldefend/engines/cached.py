"""Purification from caches: each layer computes the new column only (Ramachandran et al. 2017).

About the arithmetic of one network pass in all, in as many small steps as there are pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from core_models.autoregressive import CausalImageModel, RowByRow

from ..greedy import Greedy


def cached(greedy: Greedy) -> Tensor:
    """Purifies in raster order; returns levels."""
    model = greedy.model
    assert isinstance(model, CausalImageModel)
    levels = greedy.input.clone()
    n, _, height, width = levels.shape
    rows = RowByRow(model, n, greedy.y)
    for row in range(height):
        rows.begin_row()
        for column in range(width):
            parameters = model.head.parameters_of(rows.features(column, column + 1)[0])
            chosen, close = greedy.pixels(parameters, greedy.low[:, :, row, column], greedy.high[:, :, row, column])
            if close.any():
                some = close.nonzero()[:, 0]
                place = torch.full_like(some, row), torch.full_like(some, column)
                chosen[some] = greedy.settle(levels[some], some, *place)
            levels[:, :, row, column] = chosen
            rows.write(column, chosen[None])
        rows.end_row()
    greedy.count.passes += n
    return levels
