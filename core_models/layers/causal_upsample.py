"""Doubling of both sides of an image for causal networks, whole and row by row.

The transposed convolutions of stride 2 of Salimans et al. 2017, section 2.3: fine rows 2R and 2R + 1 come from coarse
row R alone; fine columns 2C and 2C + 1 from coarse column C, and in the `down` stream 2C + 1 from C + 1 as well.
"""

from __future__ import annotations

from math import ceil
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .row_scan import RowScan


class CausalUpsample(nn.Module):
    """A transposed convolution of stride 2 that keeps the order of pixels.

    Args:
        inputs: channels that come in.
        outputs: channels that go out.
        reach: `down` (kernel 2 x 3) or `right` (2 x 2), as of `CausalConv2d`.
        weight_norm: whether weights are stored as directions and lengths.
    """

    def __init__(self, inputs: int, outputs: int, reach: Literal["down", "right"], *, weight_norm: bool = False):
        super().__init__()
        self.reach = reach
        self.weight = nn.Parameter(torch.empty(inputs, outputs, 2, 3 if reach == "down" else 2))
        self.bias = nn.Parameter(torch.zeros(outputs))
        bound = (inputs * (1.5 if reach == "down" else 1)) ** -0.5
        nn.init.uniform_(self.weight, -bound, bound)
        self.gain = nn.Parameter(self._length().detach()) if weight_norm else None

    def _length(self) -> Tensor:
        return self.weight.transpose(0, 1).flatten(1).norm(dim=1)

    def kernel(self) -> Tensor:
        """Returns the weights as they act, (inputs, outputs, height, width)."""
        return self.weight if self.gain is None else self.weight * (self.gain / self._length()).view(1, -1, 1, 1)

    def forward(self, x: Tensor, size: tuple[int, int], scan: RowScan | None = None) -> Tensor:
        """Maps (n, height, width, inputs) to (n, *size, outputs), where height and width are half of `size`.

        In a scan, at the level of the fine image, x holds the coarse columns that came since the last call, perhaps
        none, and the fine columns under way come back.
        """
        if scan is not None:
            return self._whole_row(x, scan) if self.reach == "down" else self._columns(x, scan)
        y = F.conv_transpose2d(x.permute(0, 3, 1, 2), self.kernel(), self.bias, 2)
        first = 1 if self.reach == "down" else 0
        return y[:, :, : size[0], first : first + size[1]].permute(0, 2, 3, 1)

    def _fine(self, coarse: Tensor, row: int) -> Tensor:
        """Returns the fine columns of the upper (0) or lower (1) of two rows, two for each coarse column."""
        weight = self.kernel()[:, :, row]  # (inputs, outputs, width)
        columns, n, _ = coarse.shape
        if self.reach == "right":
            even, odd = coarse @ weight[:, :, 0] + self.bias, coarse @ weight[:, :, 1] + self.bias
        else:
            even, odd = coarse @ weight[:, :, 1] + self.bias, coarse @ weight[:, :, 2] + self.bias
            odd[:-1] += coarse[1:] @ weight[:, :, 0]
        return torch.stack([even, odd], 1).view(2 * columns, n, -1)

    def _whole_row(self, x: Tensor, scan: RowScan) -> Tensor:
        cache = scan.upsampled(self, self.weight.shape[0])
        lower = not scan.starts_row(2)
        if not lower:
            cache.coarse = x
        return self._fine(cache.coarse, int(lower))[: scan.level_width()]

    def _columns(self, x: Tensor, scan: RowScan) -> Tensor:
        cache = scan.upsampled(self, self.weight.shape[0])
        start, stop = scan.window()
        if not scan.starts_row(2):
            if cache.fine is None:
                cache.fine = self._fine(cache.coarse, 1)
            return cache.fine[start:stop]
        first, last = ceil(start / 2), ceil(stop / 2)
        if cache.fine is None:
            cache.fine = x.new_zeros(2 * len(cache.coarse), x.shape[1], self.weight.shape[1])
        if last > first:
            cache.coarse[first:last] = x
            cache.fine[2 * first : 2 * last] = self._fine(x, 0)
        return cache.fine[start:stop]
