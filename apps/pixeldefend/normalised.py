r"""A classifier that was trained on normalised images, as one of images in [0, 1], which is what everything here takes.

.. math:: \text{Normalised}(x) = C\left(\frac{x - \text{mean}}{\text{std}}\right)

Budgets are in levels of the image: an attack on the normalised image itself would have another budget in each channel.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from core_models.base import Classifier
from core_models.data.advice import range_advice
from core_models.errors import UserError

Images = Float[Tensor, "n channels height width"]
PerChannel = float | Sequence[float] | Tensor


class Normalised(Classifier):
    """Takes the mean from images in [0, 1], divides by the standard deviation, and hands them to a classifier.

    Args:
        classifier: any module from normalised images to logits (n, classes).
        mean: of each channel, or of all, in units of [0, 1].
        std: of each channel, or of all, in units of [0, 1].

    Raises:
        UserError: when the classifier is no module, or the two are no such numbers.

    Example:
        >>> net = Normalised(nn.Flatten(), mean=[0.5, 0.25, 0.0], std=[0.25, 0.25, 0.5])
        >>> net(torch.full((1, 3, 1, 1), 0.75))
        tensor([[1.0000, 2.0000, 1.5000]])
    """

    mean: Tensor
    std: Tensor

    def __init__(self, classifier: nn.Module, mean: PerChannel, std: PerChannel) -> None:
        super().__init__()
        if not isinstance(classifier, nn.Module):
            raise UserError(f"expected a classifier that is a torch.nn.Module, got {type(classifier).__name__}")
        for name, given in (("mean", mean), ("std", std)):
            try:
                values = torch.as_tensor(given, dtype=torch.float32)
            except (TypeError, ValueError, RuntimeError):  # text, None, a ragged list: refused in words of our own
                values = torch.empty(0)
            flat = sum(side > 1 for side in values.shape) < 2  # a picture of means is none of each channel
            values = values.reshape(-1, 1, 1)
            if (
                not flat
                or not len(values)
                or not torch.isfinite(values).all()
                or (name == "std" and not (values > 0).all())
            ):
                above = " above 0" if name == "std" else ""
                raise UserError(f"expected {name} as a number{above} of each channel, got {given!r}")
            self.register_buffer(name, values)
        self.classifier = classifier
        for name in ("event_shape", "classes"):  # a plain module says neither
            if hasattr(classifier, name):
                setattr(self, name, getattr(classifier, name))

    def forward(self, x: Images) -> Float[Tensor, "n classes"]:
        """Returns the logits (n, classes) of images (n, channels, height, width) in [0, 1].

        Raises:
            UserError: when they have other channels than the mean and the standard deviation.
        """
        for values in (self.mean, self.std):
            if len(values) not in (1, x.shape[1]):
                raise UserError(f"expected images of {len(values)} channels, as mean and std have, got {x.shape[1]}")
        return self.classifier((x - self.mean) / self.std)


def unit_advice(low: float, high: float) -> str:
    """Returns what to do about images that should lie in [0, 1], from the lowest and the highest of their values.

    Where some are below 0 they may be normalised for the classifier: moved into [0, 1] they would mislead it.
    """
    if low >= 0:
        return range_advice(low, high)
    return (
        "if they are normalised for the classifier, give them as they were before, and as the classifier "
        "apps.pixeldefend.Normalised(classifier, mean, std); else rescale them into [0, 1]"
    )
