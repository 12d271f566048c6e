r"""Gated PixelCNN: a vertical and a horizontal stack, and no blind spot.

.. math:: y = \tanh(W_f * x + V_f^\top s) \odot \sigma(W_g * x + V_g^\top s)

The vertical stack sees all rows above, the horizontal one its own row to the left and, through a map of single pixels,
what the vertical stack saw; s is the class. The horizontal stack has residual connections.

Source: van den Oord, Kalchbrenner, Vinyals, Espeholt, Graves and Kavukcuoglu, "Conditional image generation with
PixelCNN decoders", NIPS 2016, sections 2.1 to 2.3 and figure 2. The order of channels in a pixel is kept by the head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import UserError
from ..layers.causal import CausalConv2d, Pointwise
from ..layers.row_scan import RowScan
from .heads import HeadName
from .image_model import CausalImageModel, ImageModelConfig


@dataclass(frozen=True)
class GatedPixelCNNConfig(ImageModelConfig):
    """What a gated PixelCNN is made of."""

    head: HeadName = "softmax"
    """Distribution of a pixel: a free probability for each level, or a mixture of discretised logistics."""
    filters: int = 128
    """Channels p of both stacks."""
    layers: int = 15
    """Gated layers."""
    kernel: int = 3
    """Side of a layer's kernel [pixels], odd; the first layer's is 7."""
    features: int = 256
    """Channels of the map of single pixels after the last layer."""


def gate(x: Tensor) -> Tensor:
    """Returns tanh of the first half of the channels times the logistic of the second (equation 2)."""
    value, valve = x.chunk(2, -1)
    return torch.tanh(value) * torch.sigmoid(valve)


class GatedLayer(nn.Module):
    """One layer of both stacks (figure 2); the first reads the image and excludes the own row, or the own pixel."""

    def __init__(self, config: GatedPixelCNNConfig, inputs: int, kernel: int, *, first: bool) -> None:
        super().__init__()
        p, half = config.filters, kernel // 2
        self.first = first
        self.vertical = CausalConv2d(inputs, 2 * p, (half + (not first), kernel), "down", strict=first)
        self.link = Pointwise(2 * p, 2 * p)
        self.horizontal = CausalConv2d(inputs, 2 * p, (1, half + (not first)), "right", strict=first)
        self.out = Pointwise(p, p)
        self.of_class = nn.Embedding(config.classes, 4 * p) if config.classes else None

    def _of_class(self, y: Tensor | None, part: int, scan: RowScan | None) -> Tensor | float:
        if self.of_class is None or y is None:
            return 0.0
        found = self.of_class(y).chunk(2, -1)[part]
        return found[:, None, None] if scan is None else found

    def rows(self, v: Tensor | None, y: Tensor | None, scan: RowScan | None) -> Tensor:
        """Returns the vertical stack's values before the gate."""
        return self.vertical(v, scan) + self._of_class(y, 0, scan)

    def own(self, h: Tensor | None, seen: Tensor, y: Tensor | None, scan: RowScan | None) -> Tensor:
        """Returns the horizontal stack's values, given the vertical ones before their gate."""
        link = self.link
        linked = link(seen) if scan is None else scan.constant(link, lambda: link(seen))
        out = self.out(gate(self.horizontal(h, scan) + linked + self._of_class(y, 1, scan)))
        return out if self.first or h is None else h + out


class GatedPixelCNN(CausalImageModel):
    """The gated PixelCNN of an image of any size, grey or in colour."""

    config: GatedPixelCNNConfig

    def __init__(self, config: GatedPixelCNNConfig) -> None:
        if min(config.filters, config.layers, config.features) < 1:
            raise UserError(
                f"expected at least one filter, layer and feature, got {config.filters}, {config.layers} and "
                f"{config.features}"
            )
        if config.kernel < 3 or config.kernel % 2 == 0:
            raise UserError(f"expected an odd kernel of at least 3 pixels, got {config.kernel}")
        super().__init__(config, features=config.features)
        channels = config.event_shape[0] + 1
        self.layers: Sequence[GatedLayer] = nn.ModuleList(  # type: ignore[assignment]
            GatedLayer(config, config.filters if i else channels, config.kernel if i else 7, first=not i)
            for i in range(config.layers)
        )
        self.last = Pointwise(config.filters, config.features)

    def rows_above(self, x: Tensor | None, y: Tensor | None, scan: RowScan | None) -> list[Tensor]:
        """The vertical stack: each layer's values before the gate."""
        v, seen = x, []
        for layer in self.layers:
            seen.append(layer.rows(v, y, scan))
            v = gate(seen[-1])
        return seen

    def own_row(self, x: Tensor | None, above: list[Tensor], y: Tensor | None, scan: RowScan | None) -> Tensor:
        """The horizontal stack."""
        h = x
        for layer, seen in zip(self.layers, above, strict=True):
            h = layer.own(h, seen, y, scan)
        assert h is not None
        return F.relu(self.last(F.relu(h)))
