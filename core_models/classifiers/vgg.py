"""VGG-16 with batch norm: five groups of 3 x 3 convolutions, a maximum over 2 x 2 after each, two linear layers.

Source: Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition", ICLR 2015,
table 1, column D; as the VGG of Song et al., "PixelDefend", ICLR 2018, appendix B: one hidden linear layer of 512 units
between two dropouts; for Fashion-MNIST a quarter of all widths, and no maximum after the last group, which is 1 x 1
already.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from ..errors import UserError
from .image_classifier import ChannelsLast, ImageClassifier, Images, Logits, draw_weights


@dataclass(frozen=True)
class VGGConfig:
    """What a VGG network is made of."""

    event_shape: tuple[int, ...] = (3, 32, 32)
    """Channels, height and width of an image [pixels]."""
    classes: int = 10
    """Number of classes."""
    widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    """Channels of each group."""
    depths: tuple[int, ...] = (2, 2, 3, 3, 3)
    """Convolutions of each group."""
    hidden: int = 512
    """Units of the linear layer before the logits."""
    dropout: float = 0.5
    """Share of that layer's inputs and outputs that is set to zero in a training step."""
    last_pool: bool = True
    """Whether the last group is followed by a maximum over 2 x 2 too."""


class VGG(ImageClassifier):
    """A VGG network with batch norm.

    Raises:
        UserError: when the configuration is none of a network, or the image is too small for its maxima.

    Example:
        >>> import torch
        >>> config = VGGConfig((1, 28, 28), widths=(16, 32, 64, 128, 128), hidden=128, last_pool=False)
        >>> VGG(config)(torch.rand(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """

    def __init__(self, config: VGGConfig) -> None:
        super().__init__(config.event_shape, config.classes)
        if len(config.widths) != len(config.depths) or not config.widths:
            raise UserError(f"expected a width and a depth for each group, got {config.widths} and {config.depths}")
        if min(*config.widths, *config.depths, config.hidden) < 1 or not 0 <= config.dropout < 1:
            raise UserError(f"expected widths, depths and hidden of at least 1 and a dropout in [0, 1), got {config}")
        self.config = config
        pools = len(config.widths) - (not config.last_pool)
        channels, *sides = self.event_shape
        if min(sides) >> pools < 1:
            raise UserError(
                f"expected images of at least {1 << pools} x {1 << pools} for {pools} maxima over 2 x 2, got "
                f"{sides[0]} x {sides[1]}: use fewer groups, or last_pool false"
            )
        layers: list[nn.Module] = []
        for group, (width, depth) in enumerate(zip(config.widths, config.depths, strict=True)):
            for _ in range(depth):
                # the norm takes the mean away, and a bias with it
                layers.append(nn.Conv2d(channels, width, 3, padding=1, bias=False))
                if len(layers) == 1:
                    layers.append(ChannelsLast())
                layers += [nn.BatchNorm2d(width), nn.ReLU()]
                channels = width
            if group < pools:
                layers.append(nn.MaxPool2d(2))
        self.convolutions = nn.Sequential(*layers)
        flat = channels * (sides[0] >> pools) * (sides[1] >> pools)
        self.linear = nn.Sequential(
            nn.Flatten(),
            nn.Dropout(config.dropout),
            nn.Linear(flat, config.hidden),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden, config.classes),
        )
        draw_weights(self)

    def network(self, x: Images) -> Logits:
        """Returns the logits of standardised images."""
        return self.linear(self.convolutions(x))
