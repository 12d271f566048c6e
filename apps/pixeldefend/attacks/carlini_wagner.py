r"""The attack of Carlini and Wagner in its L-infinity form: fewer and fewer levels, as long as it still fools.

With the margin :math:`f(x') = \max(0, Z_y(x') - \max_{k \ne y} Z_k(x'))` of the logits Z, minimise

.. math:: c\, f(x + d) + \sum_i \max(0, |d_i| - \tau)

by Adam from the best change known; when a point is found that fools with every :math:`|d_i| \le \tau`, that is the best
change now, and :math:`\tau` becomes 0.9 of its largest :math:`|d_i|`; else c grows, up to a limit.

Source: Carlini and Wagner, "Towards evaluating the robustness of neural networks", S&P 2017, section VI.C; the
constants are those of Song et al., "PixelDefend", ICLR 2018, appendix. Three things differ. The sub-pixels are clipped
to [0, 1] after each step, where the authors write them as a tanh, whose gradient vanishes at 0 and 1: half of the
sub-pixels of Fashion-MNIST would never move. What is minimised is divided by c, which changes no minimum and keeps it
above the floor of Adam's denominator. And each image of a batch has its own tau and c.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from core_models.errors import UserError

from .box import LEVELS, Images, Labels, rounded_to_fool
from .checks import check_positive
from .registry import register

BETAS = (0.9, 0.999)
ADAM_EPS = 1e-8
# float32 sums of levels / 255 are this exact
TOLERANCE = 1e-6


@register("cw", title="CW", source="Carlini and Wagner 2017 (S&P), section VI.C", budgetless=True)
def carlini_wagner(
    classifier: nn.Module,
    x: Images,
    y: Labels,
    *,
    eps: float,
    generator: Generator,
    steps: int = 100,
    learning_rate: float = 5e-3,
    first_c: float = 1e-5,
    largest_c: float = 1e-3,
    c_factor: float = 10.0,
    tau_factor: float = 0.9,
) -> Images:
    """Looks for the smallest change of the largest sub-pixel change that fools, and clips it to the budget.

    Args:
        classifier: images in [0, 1] to logits.
        x: 8-bit images.
        y: their classes; an image that is classified otherwise stays as it is.
        eps: half the side of the box [levels].
        generator: not drawn from.
        steps: of Adam, for one tau and c.
        learning_rate: of Adam [shares of the range].
        first_c: the weight c of the margin, at first.
        largest_c: the largest c that is tried.
        c_factor: what c is multiplied by where it was too small.
        tau_factor: what the largest change that fools is multiplied by for the next tau.
    """
    check_positive(steps=steps, learning_rate=learning_rate, first_c=first_c)
    if not c_factor > 1:
        raise UserError(f"expected c_factor above 1, got {c_factor!r}")
    if not 0 < tau_factor < 1:
        raise UserError(f"expected tau_factor between 0 and 1, got {tau_factor!r}")
    best = x.clone()
    tau = torch.ones(len(x), device=x.device)
    c = torch.full_like(tau, first_c)
    active = torch.arange(len(x), device=x.device)
    while len(active):
        start, middle = best[active], x[active]
        found, point = _minimise(classifier, middle, y[active], start, tau[active], c[active], steps, learning_rate)
        won, lost = active[found], active[~found]
        best[won] = point[found]
        # at first every change is allowed: what does not fool then has nothing better to show than where it came to
        hopeless = (tau[active] == 1) & ~found
        best[active[hopeless]] = point[hopeless]
        tau[won] = tau_factor * (best[won] - x[won]).abs().amax((1, 2, 3))
        c[lost] *= c_factor
        # of less than a level nothing is left on the 8-bit grid
        going = torch.where(found, tau[active] >= 1 / LEVELS, c[active] <= largest_c * (1 + TOLERANCE))
        active = active[going]
    return rounded_to_fool(classifier, x, best, y, eps)


def _minimise(
    classifier: nn.Module,
    x: Images,
    y: Labels,
    start: Images,
    tau: Tensor,
    c: Tensor,
    steps: int,
    learning_rate: float,
) -> tuple[Tensor, Images]:
    """Runs Adam for one tau and c an image, until it fools within tau.

    Returns:
        Whether a point (n,) was found, and the points: those found, else the last.
    """
    point = start.clone()
    found = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    first, second = torch.zeros_like(x), torch.zeros_like(x)
    active = torch.arange(len(x), device=x.device)
    for t in range(steps + 1):
        here = point[active].requires_grad_()
        logits = classifier(here)
        labels = y[active, None]
        margin = logits.gather(1, labels) - logits.scatter(1, labels, -torch.inf).amax(1, keepdim=True)
        (gradient,) = torch.autograd.grad(margin.clamp(min=0).sum(), here)
        change = here.detach() - x[active]
        done = (logits.argmax(1) != y[active]) & (change.abs().amax((1, 2, 3)) <= tau[active] + TOLERANCE)
        found[active[done]] = True
        active, change, gradient = active[~done], change[~done], gradient[~done]
        if t == steps or not len(active):
            break
        outside = change.abs() > tau[active, None, None, None]
        gradient = gradient + change.sign() * outside / c[active, None, None, None]
        first[active] = BETAS[0] * first[active] + (1 - BETAS[0]) * gradient
        second[active] = BETAS[1] * second[active] + (1 - BETAS[1]) * gradient.square()
        mean, square = first[active] / (1 - BETAS[0] ** (t + 1)), second[active] / (1 - BETAS[1] ** (t + 1))
        point[active] = (point[active] - learning_rate * mean / (square.sqrt() + ADAM_EPS)).clamp(0, 1)
    return found, point
