r"""BPDA against a purifier: attack the defended classifier as if the purifier's Jacobian were the identity.

.. math:: x_{t+1} = \Pi \left( x_t + \alpha\, \mathrm{sign}\, \nabla_z L(C(z), y)\big|_{z = P(x_t)} \right)

The forward pass purifies; the classifier's gradient at the purified image is passed back unchanged, for purification
changes little of what an image shows. An image is judged by the whole defence, after rounding to 8 bits; once it fools
it is kept, and purified no more.

Source: Athalye, Carlini and Wagner, "Obfuscated gradients give a false sense of security", ICML 2018, sections 4.1.1
and 5.3.2 (PixelDefend on CIFAR-10: 9 % accuracy left at 8/255).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Generator, nn

from core_models.errors import UserError

from ..defended import Defended
from .ascent import Judged, Loss, ascend, loss_of, whole_step
from .box import Images, Labels
from .checks import check_positive
from .registry import register


def _step(eps: float, parameters: Mapping[str, Any]) -> int:
    return whole_step(eps, parameters["steps"])


@register(
    "bpda",
    title="BPDA",
    source="Athalye et al. 2018, sections 4.1.1 and 5.3.2",
    derived={"step": _step},
    knows_defence=True,
    added=("restarts", "loss"),
)
def bpda(
    classifier: nn.Module,
    x: Images,
    y: Labels,
    *,
    eps: float,
    generator: Generator,
    steps: int = 100,
    step: int | None = None,
    random_start: bool = False,
    restarts: int = 1,
    loss: Loss = "cross-entropy",
) -> Images:
    """Attacks a purifier and a classifier together.

    With a step of one's own, a longer run repeats a shorter one and goes on from there: more steps never help the
    defence.

    Args:
        classifier: a `Defended`.
        x: 8-bit images; those that the defence classifies wrongly as they are stay so.
        y: their classes.
        eps: half the side of the box [levels].
        generator: draws random starts.
        steps: gradient steps, at most; each purifies the images that don't fool yet, once.
        step: their length [levels]; by default 2.5 eps / steps, rounded, at least 1.
        random_start: whether to start from a random point of the box.
        restarts: runs in all; those after the first start from random points, of the images that don't fool yet.
        loss: what is climbed, cross-entropy or margin (the largest wrong logit less the right one).

    Raises:
        UserError: when the classifier is no `Defended`.
    """
    if not isinstance(classifier, Defended):
        raise UserError(f"expected a Defended(purifier, classifier) for bpda, got {type(classifier).__name__}: use pgd")
    assert step is not None
    check_positive(steps=steps, step=step, restarts=restarts)
    defended = classifier

    def judge(point: Images, labels: Labels) -> Judged:
        # not through Defended's own backward, which the user may have cut
        purified = defended.purifier.purify(point).requires_grad_()
        logits = defended.classifier(purified)
        climbed = loss_of(loss, logits, labels)
        (gradient,) = torch.autograd.grad(climbed.sum(), purified)
        return Judged(logits.argmax(1) != labels, climbed.detach(), gradient)

    return ascend(
        judge,
        x,
        y,
        eps,
        generator,
        steps=steps,
        step=step,
        starts_at_random=random_start,
        stops_when_fooled=True,
        restarts=restarts,
    )
