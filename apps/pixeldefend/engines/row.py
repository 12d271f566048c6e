"""Purification row by row: rows one after the other from caches, a row's pixels as a fixed point.

What the rows above say is computed once; the pixels of the row are guessed all at once, starting from the input, and
corrected until nothing changes, from the first column that isn't final to the right. Images drop out as their row
converges.
"""

from __future__ import annotations

import torch
from torch import Tensor

from core_models.autoregressive import CausalImageModel, RowByRow

from ..greedy import Greedy
from .fixed_point import first

SHRINK = 0.8
"""Images go on in smaller caches once fewer than this share of them is under way: copying caches costs time too."""


def row(greedy: Greedy) -> Tensor:
    """Iterates row by row; returns levels."""
    model = greedy.model
    assert isinstance(model, CausalImageModel)
    levels = greedy.input.clone()
    n, _, height, width = levels.shape
    rows = RowByRow(model, n, greedy.y)
    # (rows, columns, n, channels), as a row lies in the caches
    low, high, image = (t.permute(2, 3, 0, 1).contiguous() for t in (greedy.low, greedy.high, levels))
    computed = 0
    for r in range(height):
        rows.begin_row()
        computed += _row(greedy, rows, low[r], high[r], image[r], levels, r)
        rows.end_row()
        levels[:, :, r] = image[r].permute(1, 2, 0)
    # at most: what the rows above say is computed once, however often the row is
    greedy.count.passes += computed / (height * width)
    return levels


def _row(greedy: Greedy, rows: RowByRow, low: Tensor, high: Tensor, image: Tensor, levels: Tensor, r: int) -> int:
    """Purifies one row of all images in place; returns how many pixels were computed, all images together."""
    model = greedy.model
    assert isinstance(model, CausalImageModel)
    width, n, channels = image.shape
    active = torch.arange(n, device=image.device)
    final = torch.zeros(n, dtype=torch.long, device=image.device)  # columns before this one are final, by image
    columns = torch.arange(width, device=image.device)[:, None]
    start = computed = rounds = 0
    present = image.clone()
    rows.write(0, present)
    while True:
        m = len(active)
        h = rows.features(start, width)
        computed += m * (width - start)
        rounds += 1
        chosen, close = greedy.pixels(
            model.head.parameters_of(h).flatten(0, 1),
            low[start:, active].flatten(0, 1),
            high[start:, active].flatten(0, 1),
        )
        chosen, close = chosen.view(width - start, m, channels), close.view(width - start, m)
        open_ = columns[start:] >= final
        now = present[start:]
        change = start + first(((chosen != now).any(-1) & open_).T)
        tie = start + first((close & open_).T)
        present[start:] = torch.where(open_[..., None], chosen, now)
        settle = (tie <= change) & (tie < width)
        if settle.any():
            some, at = active[settle], tie[settle]
            context = levels[some]
            context[:, :, r] = present[:, settle].permute(1, 2, 0)
            present[at, settle.nonzero()[:, 0]] = greedy.settle(context, some, torch.full_like(some, r), at)
        final = torch.where(settle, tie, change) + 1
        going = final <= width
        # where the row's last pixel was just decided nothing is left to compute, but caches want its value
        left = going.nonzero()[:, 0]
        rows.write(0, present)
        if len(left) < SHRINK * m:
            image[:, active] = present
            if not len(left):
                break
            rows.select(left)
            active, final, present = active[left], final[left], present[:, left]
        start = int(final.amin().clamp(max=width - 1))
    greedy.count.iterations.append(rounds)
    return computed
