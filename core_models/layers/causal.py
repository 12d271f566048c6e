r"""Causal convolutions of images, whole and row by row.

A layer sees, from pixel (r, c), the pixels

.. math:: y_{r,c} = b + \sum_{i,j} W_{ij}\, x_{r + i - a_h,\; c + j - a_w}

of which none comes after (r, c) in raster order; the anchor (a_h, a_w) says how far up and left the kernel reaches:

- `down`: rows above and, unless strict, the own row, columns on both sides. Stacked, these see rows only, so that all
  of a row is known before its first pixel is (the vertical stack of van den Oord et al. 2016b; the down-shifted
  convolution of Salimans et al. 2017).
- `right`: rows above and the own row, columns up to the own one (excluded when strict): the down-right-shifted one.
- `masked`: the square kernel of van den Oord et al. 2016a without what comes later: mask B, or mask A when strict.

Images lie as (n, height, width, channels). While they are scanned a row lies as (columns, n, channels), so that any run
of its columns is one contiguous matrix, and a layer keeps what it has seen in a `RowCache`.

Sources: van den Oord, Kalchbrenner and Kavukcuoglu, "Pixel recurrent neural networks", ICML 2016, section 3.4; van den
Oord et al., "Conditional image generation with PixelCNN decoders", NIPS 2016, section 2.2; Salimans et al.,
"PixelCNN++", ICLR 2017, section 2.3; for the caches, Ramachandran et al., "Fast generation for convolutional
autoregressive models", ICLR 2017 workshop.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from .row_scan import RowCache, RowScan

Reach = Literal["down", "right", "masked"]
Image = Float[Tensor, "n height width channels"]
Row = Float[Tensor, "columns n channels"]


class CausalConv2d(nn.Module):
    """A convolution that never sees what comes later in raster order.

    Args:
        inputs: channels that come in.
        outputs: channels that go out.
        kernel: height and width [pixels]; of a `masked` one, the odd side of its square.
        reach: which neighbours it sees (module docstring).
        strict: whether the own pixel (`down`: the own row) is left out.
        stride: 1, or 2 to halve both sides, rounding up.
        weight_norm: whether weights are stored as directions and lengths (Salimans and Kingma 2016).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: tuple[int, int] | int,
        reach: Reach,
        *,
        strict: bool = False,
        stride: int = 1,
        weight_norm: bool = False,
    ) -> None:
        super().__init__()
        if reach == "masked":
            assert isinstance(kernel, int) and kernel % 2
            half = kernel // 2
            height, width, self.up, self.left = half + 1, kernel, half, half
        else:
            assert isinstance(kernel, tuple)
            height, width = kernel
            if reach == "down":
                self.up, self.left = height - 1 + strict, width // 2
            else:
                self.up, self.left = height - 1, width - 1 + strict
        self.reach, self.stride = reach, stride
        self.right = max(0, width - 1 - self.left)
        self.weight = nn.Parameter(torch.empty(outputs, inputs, height, width))
        self.bias = nn.Parameter(torch.zeros(outputs))
        mask = torch.ones(height, width)
        if reach == "masked":
            mask[-1, self.left + (not strict) :] = 0
        self.register_buffer("mask", mask, persistent=False)
        self.mask: Tensor
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)
        self.gain = nn.Parameter(self._length().detach()) if weight_norm else None

    def _length(self) -> Tensor:
        return (self.weight * self.mask).flatten(1).norm(dim=1)

    def kernel(self) -> Float[Tensor, "outputs inputs height width"]:
        """Returns the weights as they act: masked, and of their learned length."""
        weight = self.weight * self.mask if self.reach == "masked" else self.weight
        if self.gain is None:
            return weight
        return weight * (self.gain / self._length()).view(-1, 1, 1, 1)

    def forward(self, x: Tensor | None, scan: RowScan | None = None) -> Tensor:
        """Maps an image, or, in a scan, the columns of the row under way that came since the last call.

        Args:
            x: (n, height, width, inputs); in a scan (columns, n, inputs), or None where a strict `down` layer reads
                the image itself, whose row isn't known yet.
            scan: the scan under way.
        """
        if scan is not None:
            return self._whole_row(x, scan) if self.reach == "down" else self._columns(x, scan)
        assert x is not None
        _, height, width, _ = x.shape
        side = max(self.left, self.right)
        y = F.conv2d(x.permute(0, 3, 1, 2), self.kernel(), self.bias, self.stride, (self.up, side))
        first = side - self.left
        rows, columns = ceil(height / self.stride), ceil(width / self.stride)
        return y[:, :, :rows, first : first + columns].permute(0, 2, 3, 1)

    @property
    def reads_own_row(self) -> bool:
        """Whether the kernel reaches into the row of its output."""
        return self.weight.shape[2] > self.up

    def _tap(self, row: Tensor, column: int, start: int, stop: int) -> Tensor:
        """Returns what kernel column j reads of a padded row for the outputs [start, stop)."""
        first = start * self.stride + column
        return row[first : first + (stop - start - 1) * self.stride + 1 : self.stride]

    def _above(self, cache: RowCache, width: int) -> Tensor:
        """The part of a whole row of outputs that comes from the rows above."""
        n = cache.current.shape[1]
        if not cache.above_taps:
            return cache.bias.expand(width, n, -1)
        taps = [(self._tap(cache.previous[i], j, 0, width), weight) for i, j, weight in cache.above_taps]
        return _sum_of_products(cache.bias, taps, cache.above_weight).view(width, n, -1)

    def _whole_row(self, x: Tensor | None, scan: RowScan) -> Tensor:
        cache = scan.cache(self)
        width = ceil(cache.width / self.stride)
        if x is None:  # a strict layer: it reads the image, whose row is added when it is known
            cache.reads_image = True
            return self._above(cache, width)
        cache.write(x, 0)
        if not scan.starts_row(self.stride):
            return x[:0]
        n = cache.current.shape[1]
        y = self._above(cache, width).reshape(width * n, -1)
        taps = [(self._tap(cache.current, j, 0, width), weight) for j, weight in cache.own_taps]
        return _sum_of_products(y, taps, cache.own_weight).view(width, n, -1)

    def _columns(self, x: Tensor | None, scan: RowScan) -> Tensor:
        cache = scan.cache(self)
        start, stop = scan.window()
        if x is None:  # a strict layer: it reads the image, of which the columns before `stop` are known
            cache.reads_image = True
            cache.write(scan.pixels, 0)
        else:
            cache.write(x, start)
        start, stop = ceil(start / self.stride), ceil(stop / self.stride)
        if start == stop or not scan.starts_row(self.stride):
            return cache.current[:0]
        if cache.above is None:
            cache.above = self._above(cache, ceil(cache.width / self.stride))
        n = cache.current.shape[1]
        y = cache.above[start:stop].reshape((stop - start) * n, -1)
        taps = [(self._tap(cache.current, j, start, stop), weight) for j, weight in cache.own_taps]
        return _sum_of_products(y, taps, cache.own_weight).view(stop - start, n, -1)


FEW = 256
"""Rows of a matrix below which one long product beats several short ones, although its factors must be copied."""


def _sum_of_products(y: Tensor, taps: list[tuple[Tensor, Tensor]], weight: Tensor) -> Tensor:
    """Returns y + sum of tap @ weight over the taps; `weight` holds their weights one below the other."""
    rows = taps[0][0].shape[0] * taps[0][0].shape[1]
    if rows < FEW and len(taps) > 1:
        return torch.addmm(y, torch.cat([tap for tap, _ in taps], -1).view(rows, -1), weight)
    for tap, own in taps:
        y = torch.addmm(y, tap.reshape(rows, -1), own)
    return y


class Pointwise(nn.Module):
    """A linear map of each pixel's channels, the last dimension.

    Args:
        inputs: channels that come in.
        outputs: channels that go out.
        weight_norm: whether weights are stored as directions and lengths.
    """

    def __init__(self, inputs: int, outputs: int, *, weight_norm: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)
        self.gain = nn.Parameter(self.weight.norm(dim=1).detach()) if weight_norm else None

    def forward(self, x: Tensor) -> Tensor:
        """Maps (..., inputs) to (..., outputs)."""
        weight = self.weight
        if self.gain is not None:
            weight = weight * (self.gain / weight.norm(dim=1))[:, None]
        return F.linear(x, weight, self.bias)
