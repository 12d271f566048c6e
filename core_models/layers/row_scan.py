"""What a causal network remembers while an image is scanned row by row, and column by column within the row.

A network is written once, over its layers; each layer asks the scan for its own cache. The vertical layers, which see
whole rows above, are computed once a row; the horizontal ones as often as the caller changes its mind about the row:
once a column when pixels are chosen one at a time, a few times a row when a whole row is guessed and corrected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import ceil

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from .causal import CausalConv2d

Row = Float[Tensor, "columns n channels"]


class RowCache:
    """What one convolution keeps: the rows above that it reaches, the row under way, and what follows from the former.

    Args:
        layer: the convolution.
        width: columns of its input.
        n: images.
        like: a tensor of the scan's type and device.
    """

    def __init__(self, layer: CausalConv2d, width: int, n: int, like: Tensor) -> None:
        kernel = layer.kernel().detach().to(like)
        _, inputs, height, _ = kernel.shape
        self.width, self.left, self.padded = width, layer.left, width + layer.left + layer.right + layer.stride - 1
        above = min(layer.up, height)
        matrices = kernel.permute(2, 3, 1, 0)  # (height, width, inputs, outputs)
        self.above_taps = [(i, j, matrices[i, j].contiguous()) for i in range(above) for j in range(kernel.shape[3])]
        self.above_weight = matrices[:above].reshape(-1, kernel.shape[0])
        self.bias = layer.bias.detach().to(like)
        self.own_taps = [
            (j, matrices[-1, j].contiguous())
            for j in range(kernel.shape[3])
            if layer.reads_own_row and bool(layer.mask[-1, j])
        ]
        self.own_weight = matrices[-1, : len(self.own_taps)].reshape(-1, kernel.shape[0])
        self.previous = like.new_zeros(layer.up, self.padded, n, inputs)
        self.current = like.new_zeros(self.padded, n, inputs)
        self.above: Tensor | None = None
        self.touched = False
        self.reads_image = False
        self._all: Tensor | None = None

    def write(self, x: Row, start: int) -> None:
        """Keeps columns of the row under way."""
        self.current[self.left + start : self.left + start + len(x)] = x
        self.touched = True

    def select(self, kept: Int[Tensor, " kept"], images: Int[Tensor, " n"]) -> None:
        """Goes on with some of the images only; `images` are the numbers of those that it has now."""
        if self._all is None:
            self._all = self.current
        else:
            self._all[:, images] = self.current
        self.current = self.current[:, kept]
        if self.above is not None:
            self.above = self.above[:, kept]

    def restore(self, images: Int[Tensor, " n"]) -> None:
        """Takes all images up again."""
        if self._all is not None:
            self._all[:, images] = self.current
            self.current, self._all = self._all, None

    def end_row(self) -> None:
        """Moves on by one row, where this row was written."""
        if self.touched and len(self.previous):
            self.previous = torch.cat([self.previous[1:], self.current[None]])
        self.touched, self.above = False, None


class Upsampled:
    """What a doubling of both sides keeps: the coarse row, and the two fine rows that come of it."""

    def __init__(self, coarse: int, n: int, inputs: int, like: Tensor) -> None:
        self.coarse = like.new_zeros(coarse, n, inputs)
        self.fine: Tensor | None = None
        self._all: Tensor | None = None

    def select(self, kept: Tensor, images: Tensor) -> None:
        """Goes on with some of the images only."""
        if self._all is None:
            self._all = self.coarse
        else:
            self._all[:, images] = self.coarse
        self.coarse = self.coarse[:, kept]
        if self.fine is not None:
            self.fine = self.fine[:, kept]

    def restore(self, images: Tensor) -> None:
        """Takes all images up again."""
        if self._all is not None:
            self._all[:, images] = self.coarse
            self.coarse, self._all = self._all, None

    def end_row(self) -> None:
        """Forgets the fine row."""
        self.fine = None


class Constant:
    """A contribution to the row under way that doesn't change while the row does."""

    def __init__(self) -> None:
        self.value: Tensor | None = None

    def select(self, kept: Tensor, images: Tensor) -> None:
        """Goes on with some of the images only."""
        if self.value is not None:
            self.value = self.value[:, kept]

    def restore(self, images: Tensor) -> None:
        """Takes all images up again: the value isn't needed any more."""
        self.value = None

    def end_row(self) -> None:
        """Forgets the row's value."""
        self.value = None


class RowScan:
    """A pass over n images of one size, row by row; a network's layers keep their caches in it.

    Args:
        n: images.
        size: channels, height and width of an image [pixels].
        like: a tensor of the type and device of the network's weights.
    """

    def __init__(self, n: int, size: tuple[int, int, int], like: Tensor) -> None:
        channels, self.height, self.width = size
        self.n, self.like = n, like
        self.row = 0
        self.level = 0
        self.columns = (0, self.width)
        self.images = torch.arange(n, device=like.device)
        self.pixels = like.new_zeros(self.width, n, channels)
        """The row under way, scaled as the network takes it."""
        self._all_pixels: Tensor | None = None
        self._horizontal: dict[nn.Module, RowCache] = {}
        self._vertical: dict[nn.Module, RowCache] = {}
        self._upsampled: dict[nn.Module, Upsampled] = {}
        self._rows_upsampled: dict[nn.Module, Upsampled] = {}
        self._constants: dict[nn.Module, Constant] = {}

    @contextmanager
    def coarser(self) -> Iterator[None]:
        """Inside, rows and columns are those of images with half the sides."""
        self.level += 1
        try:
            yield
        finally:
            self.level -= 1

    def starts_row(self, stride: int = 1) -> bool:
        """Whether this row, at the present level, begins a row of an image `stride` times coarser."""
        return (self.row >> self.level) % stride == 0

    def window(self) -> tuple[int, int]:
        """The columns that are computed, at the present level."""
        scale = 1 << self.level
        return ceil(self.columns[0] / scale), ceil(self.columns[1] / scale)

    def level_width(self, level: int | None = None) -> int:
        """Columns of the image at a level; at the present one unless told otherwise."""
        return ceil(self.width / (1 << (self.level if level is None else level)))

    def cache(self, layer: CausalConv2d) -> RowCache:
        """Returns a convolution's cache."""
        caches = self._vertical if layer.reach == "down" else self._horizontal
        if layer not in caches:
            caches[layer] = RowCache(layer, self.level_width(), self.n, self.like)
        return caches[layer]

    def upsampled(self, layer: nn.Module, inputs: int) -> Upsampled:
        """Returns the cache of a layer that doubles the sides."""
        caches = self._rows_upsampled if layer.reach == "down" else self._upsampled
        if layer not in caches:
            caches[layer] = Upsampled(self.level_width(self.level + 1), self.n, inputs, self.like)
        return caches[layer]

    def constant(self, layer: nn.Module, compute: Callable[[], Row]) -> Row:
        """Returns the columns under way of what `compute` returns for the whole row, asked once a row."""
        constant = self._constants.setdefault(layer, Constant())
        if constant.value is None:
            constant.value = compute()
        start, stop = self.window()
        return constant.value[start:stop]

    def write(self, start: int, pixels: Row) -> None:
        """Sets pixels of the row under way, scaled as the network takes them, from a column on."""
        self.pixels[start : start + len(pixels)] = pixels

    def select(self, kept: Int[Tensor, " kept"]) -> None:
        """Goes on with some of the images until the row ends; `kept` are positions among the present ones."""
        for part in self._parts():
            part.select(kept, self.images)
        if self._all_pixels is None:
            self._all_pixels = self.pixels
        else:
            self._all_pixels[:, self.images] = self.pixels
        self.pixels, self.images = self.pixels[:, kept], self.images[kept]

    def end_row(self) -> None:
        """Takes the row as final, for all images, and moves to the next."""
        if self._all_pixels is not None:
            self._all_pixels[:, self.images] = self.pixels
            for part in self._parts():
                part.restore(self.images)
            self.pixels, self._all_pixels = self._all_pixels, None
            self.images = torch.arange(self.n, device=self.like.device)
        for cache in (*self._vertical.values(), *self._horizontal.values()):
            if cache.reads_image:  # only now is all of its row known
                cache.write(self.pixels, 0)
        for cache in self._vertical.values():
            cache.end_row()
        for part in self._parts():
            part.end_row()
        self.row += 1
        self.columns = (0, self.width)
        self.pixels = torch.zeros_like(self.pixels)

    def _parts(self) -> Iterator[RowCache | Upsampled | Constant]:
        yield from self._horizontal.values()
        yield from self._upsampled.values()
        yield from self._constants.values()
