r"""PixelCNN: one stack of masked convolutions.

.. math:: h \leftarrow h + W_3 * \rho(W_2 * \rho(W_1 * \rho(h))), \qquad \rho = \max(0, \cdot)

with W_2 a 3 x 3 convolution under mask B, W_1 and W_3 maps of single pixels that halve and double the channels; first
comes a 7 x 7 convolution under mask A. Stacked masks leave a blind spot up and to the right of a pixel: the gated
PixelCNN has none.

Source: van den Oord, Kalchbrenner and Kavukcuoglu, "Pixel recurrent neural networks", ICML 2016, section 3.4, table 1
and figure 5. The order of channels within a pixel is kept by the head (`heads`), not by masks.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import UserError
from ..layers.causal import CausalConv2d, Pointwise
from ..layers.row_scan import RowScan
from .heads import HeadName
from .image_model import CausalImageModel, ImageModelConfig


@dataclass(frozen=True)
class PixelCNNConfig(ImageModelConfig):
    """What a PixelCNN is made of; its defaults are those of the paper for CIFAR-10."""

    head: HeadName = "softmax"
    """Distribution of a pixel: a free probability for each level, or a mixture of discretised logistics."""
    filters: int = 128
    """Channels h within a block; between blocks there are twice as many."""
    blocks: int = 15
    """Residual blocks."""
    features: int = 1024
    """Channels of the two maps of single pixels after the last block."""


class MaskedBlock(nn.Module):
    """A residual block (figure 5, left)."""

    def __init__(self, config: PixelCNNConfig) -> None:
        super().__init__()
        h = config.filters
        self.narrow = Pointwise(2 * h, h)
        self.spread = CausalConv2d(h, h, 3, "masked")
        self.widen = Pointwise(h, 2 * h)
        self.of_class = nn.Embedding(config.classes, h) if config.classes else None

    def forward(self, x: Tensor, y: Tensor | None, scan: RowScan | None) -> Tensor:
        """Maps features, given classes y (n,)."""
        h = self.narrow(F.relu(x))
        if self.of_class is not None and y is not None:
            of_class = self.of_class(y)
            h = h + (of_class[:, None, None] if scan is None else of_class)
        return x + self.widen(F.relu(self.spread(F.relu(h), scan)))


class PixelCNN(CausalImageModel):
    """The PixelCNN of an image of any size, grey or in colour."""

    config: PixelCNNConfig

    def __init__(self, config: PixelCNNConfig) -> None:
        if min(config.filters, config.blocks, config.features) < 1:
            raise UserError(
                f"expected at least one filter, block and feature, got {config.filters}, {config.blocks} and "
                f"{config.features}"
            )
        super().__init__(config, features=config.features)
        self.first = CausalConv2d(config.event_shape[0] + 1, 2 * config.filters, 7, "masked", strict=True)
        self.blocks = nn.ModuleList(MaskedBlock(config) for _ in range(config.blocks))
        self.last = nn.ModuleList(
            [Pointwise(2 * config.filters, config.features), Pointwise(config.features, config.features)]
        )

    def rows_above(self, x: Tensor | None, y: Tensor | None, scan: RowScan | None) -> None:
        """There is one stream only: nothing to be said of the rows above alone."""

    def own_row(self, x: Tensor | None, above: None, y: Tensor | None, scan: RowScan | None) -> Tensor:
        """The one stream."""
        h = self.first(x, scan)
        for block in self.blocks:
            h = block(h, y, scan)
        for layer in self.last:
            h = layer(F.relu(h))
        return F.relu(h)
