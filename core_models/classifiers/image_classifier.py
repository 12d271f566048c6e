r"""What all image classifiers have in common: pixels in [0, 1] outside, standardised images inside.

.. math:: \tilde x = \frac{x - \mu}{\max(\sigma, 1 / \sqrt{D})}

with the mean and the standard deviation of the image's own :math:`D` sub-pixels, in 8-bit levels. An attack or a
defence outside sees pixels, and its gradient passes through the standardisation.

Source: Song, Kim, Nowozin, Ermon and Kushman, "PixelDefend", ICLR 2018, appendix B, and their public code.
"""

from __future__ import annotations

from abc import abstractmethod
from math import prod

import torch
from jaxtyping import Float
from torch import Size, Tensor, nn

from ..base import Classifier
from ..data.advice import shape_advice
from ..errors import UserError

Images = Float[Tensor, "n channels height width"]
Features = Float[Tensor, "n _c _h _w"]
Logits = Float[Tensor, "n classes"]


def standardise(x: Images) -> Images:
    """Gives every image mean 0 and standard deviation 1; a constant image becomes 0, with a gradient of 0.

    Args:
        x: pixels (n, channels, height, width) in [0, 1].
    """
    levels = x * 255
    centred = levels - levels.mean((1, 2, 3), keepdim=True)
    # the smallest deviation bounds the variance, not its root: the root of 0 has no gradient
    variance = centred.square().mean((1, 2, 3), keepdim=True).clamp(min=1 / prod(x.shape[1:]))
    return centred * variance.rsqrt()


class ImageClassifier(Classifier):
    """A network over standardised images.

    Args:
        event_shape: channels, height and width of an image [pixels].
        classes: number of classes.

    Raises:
        UserError: when the shape is no image's, or there are fewer than two classes.
    """

    def __init__(self, event_shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        if len(event_shape) != 3 or min(event_shape) < 1:
            raise UserError(f"expected an event_shape of channels, height and width, got {tuple(event_shape)}")
        if classes < 2:
            raise UserError(f"expected at least two classes, got classes = {classes}")
        self.event_shape = Size(event_shape)
        self.classes = classes

    def forward(self, x: Images) -> Logits:
        """Returns the logits (n, classes) of images (n, *event_shape) in [0, 1].

        Raises:
            UserError: when the images are of another shape.
        """
        if x.shape[1:] != self.event_shape:
            raise UserError(
                f"expected images of shape {tuple(self.event_shape)}, as {type(self).__name__} was made for, "
                f"got {tuple(x.shape[1:])}: {shape_advice(self.event_shape, x.shape)}"
            )
        return self.network(standardise(x))

    @abstractmethod
    def network(self, x: Images) -> Logits:
        """Returns the logits of standardised images."""


class ChannelsLast(nn.Module):
    """Lays features out with the channels of a pixel side by side, which makes convolutions on a CPU faster.

    The weights stay as they are: an optimiser's moments, read back from a file, must have the layout of the weights.
    """

    def forward(self, x: Features) -> Features:
        """Returns the same features in the other layout."""
        return x.contiguous(memory_format=torch.channels_last)


def draw_weights(module: nn.Module) -> None:
    """Draws weights as He et al. (ICCV 2015) do: of convolutions by their outputs, of linear layers by their inputs.

    Batch norm begins as the identity, biases at 0.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(part, nn.Linear):
            nn.init.kaiming_uniform_(part.weight, nonlinearity="linear")
        if isinstance(part, nn.Conv2d | nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)
