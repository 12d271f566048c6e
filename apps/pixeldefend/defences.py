r"""What a classifier is trained for: plainly, with smoothed labels, or on adversarial images made along the way.

All take batches of 8-bit images "x" in [0, 1] and labels "y", flip each image left to right with probability 1/2 (drawn
from the generator handed in) and count budgets in 8-bit levels. Adversarial images are made while batch norm uses its
running statistics, as an attacker would meet the network, and leave them as they are; the loss is taken in training
mode, over clean and adversarial images together. Steps are whole levels, so every image stays on the 8-bit grid.

Sources: Song, Kim, Nowozin, Ermon and Kushman, "PixelDefend", ICLR 2018, appendix B, and their public code (the split
of the batch, the weights, the budgets); Goodfellow, Shlens and Szegedy, "Explaining and harnessing adversarial
examples", ICLR 2015 (FGSM); Kurakin, Goodfellow and Bengio, "Adversarial machine learning at scale", ICLR 2017 (BIM,
and FGSM against the predicted label, which does not leak the true one); Madry, Makelov, Schmidt, Tsipras and Vladu,
"Towards deep learning models resistant to adversarial attacks", ICLR 2018 (PGD); Warde-Farley and Goodfellow,
"Adversarial perturbations of deep neural networks", 2016 (label smoothing as a defence).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from math import erf, sqrt
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from core_models.base import Metrics, Objective, Scalar
from core_models.errors import UserError
from core_models.modes import evaluating

Images = Float[Tensor, "n channels height width"]
Labels = Int[Tensor, " n"]
Budgets = Float[Tensor, " n"]

Defence = Literal["normal", "label-smoothing", "fgsm", "bim", "madry"]
"""How a classifier is trained. Feature squeezing is put before a trained one: `FeatureSqueezing`."""

CLEAN_WEIGHT, ADVERSARIAL_WEIGHT = 2 / 1.3, 0.6 / 1.3
TRUNCATION = 2.0
"""Standard deviations after which the normal distribution of budgets is cut off."""


def defence(
    name: Defence,
    classifier: nn.Module,
    *,
    eps: int = 8,
    steps: int = 7,
    step_size: int = 2,
    smoothing: float = 0.9,
    flip: bool = True,
) -> Objective:
    """Makes the objective of a training defence.

    Args:
        name: which one.
        classifier: what is trained: images in [0, 1] to logits.
        eps: the budget [levels]: the standard deviation of those drawn for fgsm and bim, the largest change for madry.
        steps: of madry.
        step_size: of madry [levels].
        smoothing: probability that label smoothing gives the true class.
        flip: whether images are flipped left to right at random.

    Raises:
        UserError: when there is no such defence or a setting is out of range.
    """
    if name == "normal":
        return CrossEntropy(classifier, flip=flip)
    if name == "label-smoothing":
        return CrossEntropy(classifier, smoothing=smoothing, flip=flip)
    if name == "fgsm":
        return AdversarialFGSM(classifier, deviation=eps, flip=flip)
    if name == "bim":
        return AdversarialBIM(classifier, deviation=eps, flip=flip)
    if name == "madry":
        return MadryPGD(classifier, eps=eps, steps=steps, step_size=step_size, flip=flip)
    raise UserError(f"expected a defence among {', '.join(get_args(Defence))}, got {name!r}")


class CrossEntropy(Objective):
    """The cross-entropy of a classifier.

    Args:
        classifier: images in [0, 1] to logits.
        smoothing: probability of the true class in the target, the others sharing the rest; 1 for plain labels.
        flip: whether images are flipped left to right at random.
    """

    def __init__(self, classifier: nn.Module, *, smoothing: float = 1.0, flip: bool = True) -> None:
        super().__init__()
        if not 0 < smoothing <= 1:
            raise UserError(f"expected a probability of the true class above 0 and at most 1, got {smoothing}")
        self.classifier = classifier
        self.smoothing = smoothing
        self.flip = flip

    def forward(self, batch: Mapping[str, Tensor], generator: Generator | None = None) -> tuple[Scalar, Metrics]:
        """Returns the loss [nats] and the accuracy [%] on the images that it is taken of."""
        x, y = batch["x"], batch["y"]
        if self.flip:
            x = flipped(x, generator)
        return self.loss(x, y, generator)

    def loss(self, x: Images, y: Labels, generator: Generator | None) -> tuple[Scalar, Metrics]:
        """Returns the loss [nats] of images as they are, and the accuracy [%]."""
        logits = self.classifier(x)
        return smoothed_cross_entropy(logits, y, self.smoothing).mean(), {"accuracy_percent": accuracy(logits, y)}


class _HalfAdversarial(CrossEntropy):
    """The first half of a batch clean, the second adversarial, in one pass and with a weight each.

    Args:
        classifier: images in [0, 1] to logits.
        deviation: standard deviation [levels] of the normal distribution whose size is the budget.
        flip: whether images are flipped left to right at random.
    """

    def __init__(self, classifier: nn.Module, *, deviation: float = 8.0, flip: bool = True) -> None:
        super().__init__(classifier, flip=flip)
        if not 0 < TRUNCATION * deviation <= 255:
            raise UserError(f"expected a deviation above 0 and at most {255 / TRUNCATION} levels, got {deviation}")
        self.deviation = float(deviation)

    @abstractmethod
    def attack(self, x: Images, y: Labels, generator: Generator | None) -> Images:
        """Makes adversarial images on the 8-bit grid."""

    def loss(self, x: Images, y: Labels, generator: Generator | None) -> tuple[Scalar, Metrics]:
        """Returns the weighted loss [nats] and both accuracies [%]."""
        half = len(x) // 2
        x = torch.cat([x[:half], self.attack(x[half:], y[half:], generator)])
        logits = self.classifier(x)
        each = F.cross_entropy(logits, y, reduction="none")
        total = CLEAN_WEIGHT * each[:half].sum() + ADVERSARIAL_WEIGHT * each[half:].sum()
        metrics = {
            "accuracy_percent": accuracy(logits[:half], y[:half]),
            "adversarial_accuracy_percent": accuracy(logits[half:], y[half:]),
        }
        return total / len(x), metrics


class AdversarialFGSM(_HalfAdversarial):
    """Adversarial training on FGSM, each image with a budget of its own, against the class that is predicted."""

    def attack(self, x: Images, y: Labels, generator: Generator | None) -> Images:
        """Takes one step of the whole budget."""
        eps = budgets(len(x), self.deviation, generator, x)
        with evaluating(self.classifier):
            with torch.no_grad():
                predicted = self.classifier(x).argmax(1)
            return ascend(self.classifier, x, x, predicted, eps, eps, 1)


class AdversarialBIM(_HalfAdversarial):
    """Adversarial training on BIM, one budget a batch, against the true class.

    Steps of one level, int(min(eps + 4, 1.25 eps)) of them, kept within the budget as the attack of the tables is
    (the public code lets the images of training drift on, by up to a quarter of it).
    """

    def attack(self, x: Images, y: Labels, generator: Generator | None) -> Images:
        """Takes the steps of a budget."""
        eps = budgets(1, self.deviation, generator, x)
        steps = int(min(eps.item() + 4, 1.25 * eps.item()))
        with evaluating(self.classifier):
            return ascend(self.classifier, x, x, y, eps.expand(len(x)), torch.ones_like(eps).expand(len(x)), steps)


class MadryPGD(CrossEntropy):
    """Adversarial training on projected gradient steps from a random start, all of the batch adversarial.

    Args:
        classifier: images in [0, 1] to logits.
        eps: the largest change of a sub-pixel [levels].
        steps: of the attack.
        step_size: [levels].
        flip: whether images are flipped left to right at random.
    """

    def __init__(
        self, classifier: nn.Module, *, eps: int = 8, steps: int = 7, step_size: int = 2, flip: bool = True
    ) -> None:
        super().__init__(classifier, flip=flip)
        if not 1 <= eps <= 255 or steps < 1 or not 1 <= step_size <= 255:
            raise UserError(
                f"expected eps and step_size from 1 to 255 levels and at least one step, got eps = {eps}, "
                f"step_size = {step_size}, steps = {steps}"
            )
        self.eps, self.steps, self.step_size = eps, steps, step_size

    def loss(self, x: Images, y: Labels, generator: Generator | None) -> tuple[Scalar, Metrics]:
        """Returns the loss [nats] and the accuracy [%] on adversarial images."""
        eps = x.new_full((len(x),), self.eps)
        noise = torch.randint(-self.eps, self.eps + 1, x.shape, generator=generator, device=x.device)
        start = ((x * 255).round() + noise).clamp(0, 255) / 255
        with evaluating(self.classifier):
            x = ascend(self.classifier, start, x, y, eps, x.new_full((len(x),), self.step_size), self.steps)
        logits = self.classifier(x)
        return F.cross_entropy(logits, y), {"adversarial_accuracy_percent": accuracy(logits, y)}


def flipped(x: Images, generator: Generator | None) -> Images:
    """Flips each image left to right with probability 1/2."""
    chosen = torch.rand(len(x), generator=generator, device=x.device) < 0.5
    return torch.where(chosen.view(-1, 1, 1, 1), x.flip(3), x)


def smoothed_cross_entropy(logits: Float[Tensor, "n classes"], y: Labels, smoothing: float) -> Float[Tensor, " n"]:
    """Returns the cross-entropy [nats] with a target of `smoothing` at the true class, the rest shared by the others.

    torch's own `label_smoothing` shares the rest among all classes, the true one included.
    """
    log_p = logits.log_softmax(1)
    true = log_p.gather(1, y[:, None]).squeeze(1)
    others = (log_p.sum(1) - true) / (logits.shape[1] - 1)
    return -smoothing * true - (1 - smoothing) * others


def accuracy(logits: Float[Tensor, "n classes"], y: Labels) -> Scalar:
    """Returns the share of images that are classified rightly [%]."""
    return 100 * (logits.detach().argmax(1) == y).float().mean()


def budgets(n: int, deviation: float, generator: Generator | None, like: Tensor) -> Budgets:
    """Draws n budgets, the sizes of normal numbers cut off at `TRUNCATION` deviations, in whole levels."""
    u = torch.rand(n, generator=generator, device=like.device)
    sizes = torch.erfinv(u * erf(TRUNCATION / sqrt(2))) * sqrt(2)
    return (deviation * sizes).round().to(like.dtype)


def ascend(
    classifier: nn.Module, start: Images, x: Images, y: Labels, eps: Budgets, step_size: Budgets, steps: int
) -> Images:
    """Raises the cross-entropy by signed steps of whole levels, within a box around x.

    Args:
        classifier: images in [0, 1] to logits.
        start: where to begin (n, channels, height, width), on the 8-bit grid.
        x: the middle of the box, rounded to the grid.
        y: the classes to move away from (n,).
        eps: half the side of the box (n,) [levels].
        step_size: of each image (n,) [levels].
        steps: how many.

    Returns:
        Images on the 8-bit grid, detached.
    """
    eps, step_size = eps.view(-1, 1, 1, 1), step_size.view(-1, 1, 1, 1)
    middle = (x.detach() * 255).round()
    low, high = (middle - eps).clamp(min=0), (middle + eps).clamp(max=255)
    levels = (start.detach() * 255).round()
    for _ in range(steps):
        pixels = (levels / 255).requires_grad_()
        with torch.enable_grad():
            loss = F.cross_entropy(classifier(pixels), y, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, pixels)
        levels = torch.minimum(torch.maximum(levels + step_size * gradient.sign(), low), high)
    return levels / 255
