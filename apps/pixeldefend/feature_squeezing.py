"""Feature squeezing: fewer levels a channel, then a median over 2 x 2 pixels, before a classifier.

The classifier is trained on plain images; squeezing is put before it when it is used. The rounding has no gradient of
its own and passes gradients on unchanged, so that an attack on the whole meets no wall: what is measured is the
squeezing and not a hidden gradient.

Source: Xu, Evans and Qi, "Feature squeezing: detecting adversarial examples in deep neural networks", NDSS 2018; 3 bits
for Fashion-MNIST and 5 for CIFAR-10 as in Song et al., "PixelDefend", ICLR 2018, appendix B.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from core_models.base import Classifier
from core_models.errors import UserError

Images = Float[Tensor, "n channels height width"]
Logits = Float[Tensor, "n classes"]


def reduce_bits(x: Images, bits: int) -> Images:
    """Rounds pixels in [0, 1] to the nearest of 2^bits even levels; the gradient is that of the identity."""
    top = 2**bits - 1
    return x + ((x * top).round() / top - x).detach()


def median_2x2(x: Images) -> Images:
    """Takes each pixel's median among itself and its neighbours above, to the left and above left.

    Of four values the median is the second largest. Beyond the border pixels are those at the border, as in the
    authors' program (scipy's `reflect`, which for one pixel is PyTorch's `replicate`).
    """
    padded = F.pad(x, (1, 0, 1, 0), mode="replicate")
    above, here = padded[..., :-1, :], padded[..., 1:, :]
    window = torch.stack([above[..., :-1], above[..., 1:], here[..., :-1], here[..., 1:]])
    return window.sort(0).values[2]


class FeatureSqueezing(Classifier):
    """A classifier of squeezed images.

    Args:
        classifier: any module that maps images in [0, 1] to logits.
        bits: bits that are kept of each sub-pixel, 1 to 8; by the paper 3 for grey images and 5 for colour.

    Raises:
        UserError: when bits is out of range.
    """

    def __init__(self, classifier: nn.Module, bits: int) -> None:
        super().__init__()
        if not 1 <= bits <= 8:
            raise UserError(f"expected bits from 1 to 8, got {bits}")
        self.classifier = classifier
        self.bits = bits
        for name in ("event_shape", "classes"):  # a plain module says neither
            if hasattr(classifier, name):
                setattr(self, name, getattr(classifier, name))

    def squeeze(self, x: Images) -> Images:
        """Returns what the classifier is shown of images in [0, 1]."""
        return median_2x2(reduce_bits(x, self.bits))

    def forward(self, x: Images) -> Logits:
        """Returns the logits (n, classes) of images in [0, 1]."""
        return self.classifier(self.squeeze(x))
