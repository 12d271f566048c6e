r"""PixelCNN++: two causal streams of gated residual blocks at three resolutions.

A vertical stream sees the rows above, a horizontal one the rows above and the pixels to the left; the latter takes in
the former at every block. On the way down each block's output is kept, sides are halved between stages, and on the way
up the same numbers of blocks take the kept outputs in again:

.. math:: h \leftarrow h + a \odot \sigma(b), \qquad (a, b) = W_2 * \phi(W_1 * \phi(h) + V \phi(u)), \qquad
    \phi(h) = \mathrm{elu}([h, -h])

Source: Salimans, Karpathy, Chen and Kingma, "PixelCNN++: improving the PixelCNN with discretized logistic mixture
likelihood and other modifications", ICLR 2017, section 2, and its figure 2. Weight normalisation starts from the
lengths of freshly drawn weights, not from a first batch of data.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import UserError
from ..layers.causal import CausalConv2d, Pointwise, Reach
from ..layers.causal_upsample import CausalUpsample
from ..layers.row_scan import RowScan
from .image_model import CausalImageModel, ImageModelConfig


@dataclass(frozen=True)
class PixelCNNPlusPlusConfig(ImageModelConfig):
    """What a PixelCNN++ is made of; its defaults are those of the paper for CIFAR-10."""

    filters: int = 160
    """Channels of both streams."""
    blocks: int = 5
    """Gated residual blocks of a stage, on the way down; as many, or one more, on the way up."""
    resolutions: int = 3
    """Stages; each further one has half the height and width."""
    dropout: float = 0.5
    """Share of a block's hidden values that is dropped in training."""
    weight_norm: bool = True
    """Whether weights are stored as directions and lengths (Salimans and Kingma 2016)."""


def concat_elu(x: Tensor) -> Tensor:
    """Returns elu of x and of -x, side by side: a rectifier that loses no sign."""
    return F.elu(torch.cat([x, -x], -1))


class GatedBlock(nn.Module):
    """A gated residual block (figure 2): two convolutions, the second of which also makes the gate.

    Args:
        filters: channels.
        reach: `down` for the vertical stream, `right` for the horizontal one.
        vertical: whether it takes in the vertical stream.
        skip: whether it takes in a kept output.
        classes: classes that it is conditioned on; 0 for none.
    """

    def __init__(
        self,
        config: PixelCNNPlusPlusConfig,
        reach: Reach,
        *,
        vertical: bool = False,
        skip: bool = False,
    ) -> None:
        super().__init__()
        filters, norm = config.filters, config.weight_norm
        kernel = (2, 3) if reach == "down" else (2, 2)
        self.first = CausalConv2d(2 * filters, filters, kernel, reach, weight_norm=norm)
        self.second = CausalConv2d(2 * filters, 2 * filters, kernel, reach, weight_norm=norm)
        self.vertical = Pointwise(2 * filters, filters, weight_norm=norm) if vertical else None
        self.skip = Pointwise(2 * filters, filters, weight_norm=norm) if skip else None
        self.of_class = nn.Embedding(config.classes, 2 * filters) if config.classes else None
        self.dropout = nn.Dropout(config.dropout)
        with torch.no_grad():  # each block starts near the identity
            scale = 0.1
            (self.second.weight if self.second.gain is None else self.second.gain).mul_(scale)

    def forward(
        self, x: Tensor, u: Tensor | None, skip: Tensor | None, y: Tensor | None, scan: RowScan | None
    ) -> Tensor:
        """Maps the stream's x, given the vertical stream u, a kept output and classes y (n,)."""
        h = self.first(concat_elu(x), scan)
        if self.vertical is not None:
            assert u is not None
            link, seen = self.vertical, u
            h = h + (link(concat_elu(seen)) if scan is None else scan.constant(link, lambda: link(concat_elu(seen))))
        if self.skip is not None:
            assert skip is not None
            h = h + self.skip(concat_elu(skip))
        h = self.second(self.dropout(concat_elu(h)), scan)
        if self.of_class is not None:
            assert y is not None
            of_class = self.of_class(y)
            h = h + (of_class[:, None, None] if scan is None else of_class)
        value, gate = h.chunk(2, -1)
        return x + value * torch.sigmoid(gate)


@dataclass
class Outputs:
    """What the blocks of a stage gave, on the way down, at the coarser resolutions, and on the way up."""

    down: list[Tensor] = field(default_factory=list)
    inner: Outputs | None = None
    up: list[Tensor] = field(default_factory=list)


class Stage(nn.Module):
    """One resolution of one stream, and within it the coarser ones."""

    def __init__(self, config: PixelCNNPlusPlusConfig, reach: Reach, level: int) -> None:
        super().__init__()
        horizontal = reach == "right"
        deepest = level == config.resolutions - 1
        filters, norm = config.filters, config.weight_norm
        self.down = nn.ModuleList(GatedBlock(config, reach, vertical=horizontal) for _ in range(config.blocks))
        self.up = nn.ModuleList(
            GatedBlock(config, reach, vertical=horizontal, skip=True) for _ in range(config.blocks + (not deepest))
        )
        self.inner: Stage | None = None
        if not deepest:
            kernel = (2, 3) if reach == "down" else (2, 2)
            self.shrink = CausalConv2d(filters, filters, kernel, reach, stride=2, weight_norm=norm)
            self.inner = Stage(config, reach, level + 1)
            self.grow = CausalUpsample(filters, filters, "right" if horizontal else "down", weight_norm=norm)

    def forward(
        self, x: Tensor, vertical: Outputs | None, y: Tensor | None, scan: RowScan | None
    ) -> tuple[Tensor, Outputs]:
        """Maps the stream's x; returns what comes out, and the output of every block.

        Args:
            x: the stream at this resolution.
            vertical: for the horizontal stream, the outputs of the vertical one.
            y: classes (n,).
            scan: the scan under way.
        """
        kept, outputs = [x], Outputs()
        for i, block in enumerate(self.down):
            x = block(x, vertical and vertical.down[i], None, y, scan)
            outputs.down.append(x)
            kept.append(x)
        if self.inner is None:
            x = kept.pop()
        else:
            size = (x.shape[1], x.shape[2])
            coarse = self.shrink(x, scan)
            # in a scan, not every row or column begins one of the coarser image
            if scan is None or (scan.starts_row(2) and len(coarse)):
                with nullcontext() if scan is None else scan.coarser():
                    coarse, outputs.inner = self.inner(coarse, vertical and vertical.inner, y, scan)
            x = self.grow(coarse, size, scan)
        for i, block in enumerate(self.up):
            x = block(x, vertical and vertical.up[i], kept.pop(), y, scan)
            outputs.up.append(x)
        return x, outputs


class PixelCNNPlusPlus(CausalImageModel):
    """The PixelCNN++ of an image of any size, grey or in colour.

    Example:
        >>> config = PixelCNNPlusPlusConfig(event_shape=(1, 6, 5), levels=4, filters=4, blocks=1, head="softmax")
        >>> PixelCNNPlusPlus(config).log_prob(torch.zeros(2, 1, 6, 5)).shape
        torch.Size([2])
    """

    config: PixelCNNPlusPlusConfig

    def __init__(self, config: PixelCNNPlusPlusConfig) -> None:
        if min(config.filters, config.blocks, config.resolutions) < 1:
            raise UserError(
                f"expected at least one filter, block and resolution, got {config.filters}, {config.blocks} and "
                f"{config.resolutions}"
            )
        if not 0 <= config.dropout < 1:
            raise UserError(f"expected dropout from 0 to below 1, got {config.dropout}")
        super().__init__(config, features=config.filters)
        channels, filters, norm = config.event_shape[0] + 1, config.filters, config.weight_norm
        self.rows = CausalConv2d(channels, filters, (2, 3), "down", strict=True, weight_norm=norm)
        self.above = CausalConv2d(channels, filters, (1, 3), "down", strict=True, weight_norm=norm)
        self.beside = CausalConv2d(channels, filters, (2, 1), "right", strict=True, weight_norm=norm)
        self.vertical = Stage(config, "down", 0)
        self.horizontal = Stage(config, "right", 0)

    def rows_above(self, x: Tensor | None, y: Tensor | None, scan: RowScan | None) -> tuple[Tensor, Outputs]:
        """The vertical stream."""
        _, outputs = self.vertical(self.rows(x, scan), None, y, scan)
        return self.above(x, scan), outputs

    def own_row(
        self, x: Tensor | None, above: tuple[Tensor, Outputs], y: Tensor | None, scan: RowScan | None
    ) -> Tensor:
        """The horizontal stream."""
        start, outputs = above
        if scan is not None:
            start = scan.constant(self.above, lambda: above[0])
        x, _ = self.horizontal(self.beside(x, scan) + start, outputs, y, scan)
        return F.elu(x)
