r"""Pre-activation residual network.

.. math:: x_{l+1} = h(x_l) + F(x_l), \qquad F = W_2 * a(\mathrm{BN}(W_1 * a(\mathrm{BN}(x_l))))

with a leaky ReLU :math:`a`. Three stages, the second and third of which begin with a stride of 2; where a unit changes
the number of channels, its shortcut :math:`h` averages over the stride and pads with channels of zeros, half on either
side, and has no parameters. The first unit of all shares its activation with the shortcut.

Source: He, Zhang, Ren and Sun, "Identity mappings in deep residual networks", ECCV 2016; as the ResNet of Song et al.,
"PixelDefend", ICLR 2018, appendix B: 3 x 5 units (32 layers), widths 16, 16, 32, 64 for CIFAR-10 and a quarter of them
for Fashion-MNIST, slope 0.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch.nn.functional as F
from torch import nn

from ..errors import UserError
from .image_classifier import ChannelsLast, Features, ImageClassifier, Images, Logits, draw_weights


@dataclass(frozen=True)
class ResNetConfig:
    """What a residual network is made of."""

    event_shape: tuple[int, ...] = (3, 32, 32)
    """Channels, height and width of an image [pixels]."""
    classes: int = 10
    """Number of classes."""
    widths: tuple[int, ...] = (16, 16, 32, 64)
    """Channels of the first convolution and of each stage."""
    units: int = 5
    """Residual units of each stage, two convolutions each."""
    slope: float = 0.1
    """Slope of the activation below 0."""


class ResidualUnit(nn.Module):
    """Two convolutions beside a shortcut.

    Args:
        inputs: channels that come in.
        outputs: channels that go out.
        stride: of the first convolution.
        slope: of the activation below 0.
        shared: whether the shortcut takes the activated input rather than the input.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, slope: float, shared: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.stride, self.slope, self.shared = stride, slope, shared
        self.padding = outputs - inputs

    def forward(self, x: Features) -> Features:
        """Returns the features (n, outputs, height / stride, width / stride), rounded up."""
        active = F.leaky_relu(self.norm1(x), self.slope)
        shortcut = active if self.shared else x
        if self.stride > 1:
            # an odd side: the last window is of the pixels that there are, as the convolution's
            shortcut = F.avg_pool2d(shortcut, self.stride, ceil_mode=True)
        if self.padding:
            before = self.padding // 2
            shortcut = F.pad(shortcut, (0, 0, 0, 0, before, self.padding - before))
        hidden = F.leaky_relu(self.norm2(self.conv1(active)), self.slope)
        return shortcut + self.conv2(hidden)


class ResNet(ImageClassifier):
    """A pre-activation residual network.

    Raises:
        UserError: when the configuration is none of a network, channels that shrink from stage to stage among others.

    Example:
        >>> import torch
        >>> ResNet(ResNetConfig(event_shape=(1, 28, 28), widths=(4, 4, 8, 16)))(torch.rand(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__(config.event_shape, config.classes)
        widths = config.widths
        if len(widths) < 2 or widths[0] < 1 or list(widths) != sorted(widths):
            raise UserError(f"expected ascending widths of the first convolution and each stage, got {widths}")
        if config.units < 1:
            raise UserError(f"expected at least one unit a stage, got units = {config.units}")
        self.config = config
        self.first = nn.Conv2d(self.event_shape[0], widths[0], 3, padding=1, bias=False)
        self.layout = ChannelsLast()
        units = []
        for stage, (before, width) in enumerate(pairwise(widths)):
            for unit in range(config.units):
                begins = unit == 0
                stride = 2 if begins and stage > 0 else 1
                units.append(
                    ResidualUnit(before if begins else width, width, stride, config.slope, begins and stage == 0)
                )
        self.units = nn.Sequential(*units)
        self.norm = nn.BatchNorm2d(widths[-1])
        self.logits = nn.Linear(widths[-1], config.classes)
        draw_weights(self)

    def network(self, x: Images) -> Logits:
        """Returns the logits of standardised images."""
        x = self.units(self.layout(self.first(x)))
        return self.logits(F.leaky_relu(self.norm(x), self.config.slope).mean((2, 3)))
