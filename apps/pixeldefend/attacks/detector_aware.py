r"""An attack that hides from the density as well: fool the classifier, and stay likely.

.. math:: \max_{\|x' - x\|_\infty \le \epsilon} \ell(x') \text{ where } C(x') \ne y, \qquad
    \ell(x') = \frac{\log_2 p(x')}{D} = -\text{bits/dim}

by projected sign ascent, through the gradient of the density. Of the points that fool, the likeliest is kept. Steps are
selective: along the gradient of the classifier's loss where an image doesn't fool, along that of the likelihood where
it does. With a `weight` they are along the gradient of their sum :math:`L(C(x'), y) + \lambda\, \ell(x')` instead: on
an image classified with confidence the loss has next to no gradient, so that the likelihood alone decides, and one that
fools is driven on by its loss. Against a `Defended` the gradient of the loss is that of BPDA.

Sources: Bryniarski, Hingun, Pachuca, Wang and Carlini, "Evading adversarial example detection defenses with orthogonal
projected gradient descent", ICLR 2022, section 4.1 (selective steps); Carlini and Wagner, "Adversarial examples are not
easily detected", AISec 2017, section 2.3 (the detector's loss joins the attacker's). Here the detector is the density
of Song et al. (2018), section 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import log, prod
from typing import Any

import torch
from torch import Generator, Tensor, nn

from core_models.base import ExactLikelihood
from core_models.errors import UserError

from ..defended import Defended
from .ascent import Judged, Loss, ascend, loss_of, whole_step
from .box import Images, Labels
from .checks import check_positive
from .registry import register


def _step(eps: float, parameters: Mapping[str, Any]) -> int:
    return whole_step(eps, parameters["steps"])


@register(
    "detector-aware",
    title="Detector-aware",
    source="Bryniarski et al. 2022, section 4.1; Carlini and Wagner 2017 (AISec), section 2.3",
    derived={"step": _step},
    knows_defence=True,
    added=("restarts", "loss"),
)
def detector_aware(
    classifier: nn.Module,
    x: Images,
    y: Labels,
    *,
    eps: float,
    generator: Generator,
    density: nn.Module | None = None,
    weight: float | None = None,
    steps: int = 100,
    step: int | None = None,
    random_start: bool = False,
    restarts: int = 1,
    loss: Loss = "cross-entropy",
) -> Images:
    """Attacks a classifier, or a `Defended`, and a detector by likelihood together.

    Args:
        classifier: images in [0, 1] to logits; with a `Defended`, gradients go through it as in BPDA.
        x: 8-bit images.
        y: their classes.
        eps: half the side of the box [levels].
        generator: draws random starts.
        density: what the detector takes likelihoods from; by default that of a `Defended`. Its `log_prob` must have
            gradients in x.
        weight: lambda, what a bit/dim is worth [nats of the classifier's loss], for steps along the sum of both; of 0,
            the first point that fools is kept. By default steps are selective.
        steps: gradient steps.
        step: their length [levels]; by default 2.5 eps / steps, rounded, at least 1.
        random_start: whether to start from a random point of the box.
        restarts: runs in all, of which the likeliest point that fools is kept; those after the first start from random
            points.
        loss: the classifier's, cross-entropy or margin (the largest wrong logit less the right one).

    Raises:
        UserError: when there is no density, or it has no gradients.
    """
    assert step is not None
    check_positive(steps=steps, step=step, restarts=restarts)
    if weight is not None and not weight >= 0:
        raise UserError(f"expected weight of at least 0, got {weight!r}: likelihood can only be asked for")
    if density is None and isinstance(classifier, Defended):
        density = classifier.purifier.density
    if not isinstance(density, ExactLikelihood):
        came = "none" if density is None else type(density).__name__
        raise UserError(f"expected a density with a log_prob for detector-aware, got {came}: give density=")
    model = density
    if weight is None:
        _likely(model, x[:1])  # it may be asked for late, and shall be refused at once

    def judge(point: Images, labels: Labels) -> Judged:
        logits, climbed, gradient = _classified(classifier, point, labels, loss)
        fooled = logits.argmax(1) != labels
        if weight == 0:
            return Judged(fooled, torch.where(fooled, 0, climbed), gradient)
        if weight is None:
            if fooled.any():  # the density is asked for those alone: it is what takes the time
                likelihood, slope = _likely(model, point[fooled])
                climbed, gradient = climbed.clone(), gradient.clone()  # a gradient may be one number, shown many times
                climbed[fooled], gradient[fooled] = likelihood, slope
            return Judged(fooled, climbed, gradient)
        likelihood, slope = _likely(model, point)
        score = weight * likelihood + torch.where(fooled, 0, climbed)
        return Judged(fooled, score, gradient + weight * slope)

    return ascend(
        judge,
        x,
        y,
        eps,
        generator,
        steps=steps,
        step=step,
        starts_at_random=random_start,
        stops_when_fooled=weight == 0,
        restarts=restarts,
    )


def _classified(classifier: nn.Module, point: Images, labels: Labels, name: Loss) -> tuple[Tensor, Tensor, Images]:
    """Returns logits (n, classes), losses (n,) and their gradients in the image; BPDA's where it is purified."""
    seen = classifier.purifier.purify(point) if isinstance(classifier, Defended) else point.detach().clone()
    seen.requires_grad_()
    logits = classifier.classifier(seen) if isinstance(classifier, Defended) else classifier(seen)
    loss = loss_of(name, logits, labels)
    (gradient,) = torch.autograd.grad(loss.sum(), seen)
    return logits.detach(), loss.detach(), gradient


def _likely(density: ExactLikelihood, point: Images) -> tuple[Tensor, Images]:
    """Returns minus the bits/dim (n,) and their gradients in the image."""
    point = point.detach().clone().requires_grad_()
    log_prob = density.log_prob(point)
    if not log_prob.requires_grad:
        raise UserError(
            f"expected a density whose log_prob has gradients in x, got none from {type(density).__name__}: "
            "leave detector-aware out"
        )
    likelihood = log_prob / (prod(point.shape[1:]) * log(2))
    (slope,) = torch.autograd.grad(likelihood.sum(), point)
    return likelihood.detach().to(point), slope
