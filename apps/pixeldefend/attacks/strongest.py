"""What is left of an accuracy when the attacker may choose: the best attack of all, and the best for each image.

Song et al., "PixelDefend", ICLR 2018, report the first (their column "Strongest Attack"). The second is stricter: an
image counts only where the classifier withstands every attack on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from core_models.errors import UserError
from core_models.modes import evaluating

from .box import Images, Labels
from .checks import answered, check_labels, check_module, check_range


@dataclass(frozen=True, eq=False)
class Strongest:
    """The strongest of several attacks on the same images."""

    name: str
    """The attack under which the accuracy is lowest; of several, the first."""
    accuracy: float
    """The accuracy under that attack, from 0 to 1."""
    worst_case: Bool[Tensor, " n"]
    """Which images are classified correctly under every attack."""

    @property
    def worst_case_accuracy(self) -> float:
        """Share of the images that are classified correctly under every attack, from 0 to 1."""
        return float(self.worst_case.float().mean())


@torch.no_grad()
def correct(classifier: nn.Module, x: Images, y: Labels, *, batch_size: int = 256) -> Bool[Tensor, " n"]:
    """Returns which images are classified as y, on the device of x; the classifier is in evaluation mode for it.

    Args:
        classifier: images in [0, 1] to logits (n, classes).
        x: images (n, channels, height, width) in [0, 1].
        y: their classes (n,).
        batch_size: images at a time.

    Raises:
        UserError: when they are no such images and classes, or the classifier doesn't take them.
    """
    check_module(classifier)
    x = check_range(x)
    y = check_labels(y, len(x))
    with evaluating(classifier):
        found = [answered(classifier, part, y).argmax(1).to(x.device) for part in x.split(batch_size)]
    return torch.cat(found) == y.to(x.device)


def strongest(correct: Mapping[str, Bool[Tensor, " n"]]) -> Strongest:
    """Finds the strongest attack.

    Args:
        correct: for each attack by name, which images are classified correctly under it, the same images in each.

    Raises:
        UserError: when there is no attack, or their numbers of images differ.

    Example:
        >>> fgsm, bim = torch.tensor([True, False, True, True]), torch.tensor([False, True, True, False])
        >>> found = strongest({"fgsm": fgsm, "bim": bim})
        >>> found.name, found.accuracy, found.worst_case_accuracy
        ('bim', 0.5, 0.25)
    """
    sizes = {name: len(found) for name, found in correct.items()}
    if not sizes or min(sizes.values()) < 1 or len(set(sizes.values())) > 1:
        raise UserError(f"expected one attack at least, each on the same images, got {sizes or 'none'}")
    accuracy = {name: float(found.float().mean()) for name, found in correct.items()}
    name = min(accuracy, key=accuracy.__getitem__)
    return Strongest(name, accuracy[name], torch.stack(list(correct.values())).all(0))
