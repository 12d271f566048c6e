r"""DeepFool in its L-infinity form: step to the nearest boundary of the linearised classifier, until it is crossed.

With :math:`f_k` the lead of class k over the true class and :math:`w_k = \nabla f_k`, at every step

.. math:: l = \arg\min_k \frac{|f_k|}{\|w_k\|_1}, \qquad r \leftarrow r + \frac{|f_l|}{\|w_l\|_1} \mathrm{sign}(w_l)

and the classifier is asked at :math:`x + (1 + \eta)\, r`, with the overshoot :math:`\eta = 0.02`.

Source: Moosavi-Dezfooli, Fawzi and Frossard, "DeepFool: a simple and accurate method to fool deep neural networks",
CVPR 2016, section 3 and equations 11 and 12 (q = 1 for p = infinity). Two things are added: all images of a batch go
on together, those that fool dropping out, and x + r stays in [0, 1]. As in the tables of Song et al. (2018) the
smallest change is sought without a budget, and what exceeds the budget is clipped afterwards.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from core_models.errors import UserError

from .box import Images, Labels, rounded_to_fool
from .checks import check_positive
from .registry import register

# added to the length of a step [shares of the range], so that it ends beyond the boundary, not on it
BEYOND = 1e-6


@register("deepfool", title="DeepFool", source="Moosavi-Dezfooli et al. 2016, equations 11 and 12", budgetless=True)
def deepfool(
    classifier: nn.Module,
    x: Images,
    y: Labels,
    *,
    eps: float,
    generator: Generator,
    steps: int = 50,
    overshoot: float = 0.02,
    classes: int = 10,
) -> Images:
    """Looks for the smallest change of the largest sub-pixel change that fools, and clips it to the budget.

    Args:
        classifier: images in [0, 1] to logits.
        x: 8-bit images.
        y: their classes; an image that is classified otherwise stays as it is.
        eps: half the side of the box [levels].
        generator: not drawn from.
        steps: linearisations, at most.
        overshoot: share by which a change is made larger than what the linear classifier needs.
        classes: the likeliest classes, the true one among them, that are looked at.
    """
    check_positive(steps=steps)
    if classes < 2:
        raise UserError(f"expected classes of 2 or more, got {classes!r}")
    change = torch.zeros_like(x)
    others = _rivals(classifier, x, y, classes)
    active = torch.arange(len(x), device=x.device)
    for _ in range(steps):
        point = (x[active] + (1 + overshoot) * change[active]).clamp(0, 1)
        lead, gradient, fooled = _linearised(classifier, point, y[active], others[active])
        active, lead, gradient = active[~fooled], lead[~fooled], gradient[~fooled]
        if not len(active):
            break
        norm = gradient.flatten(2).abs().sum(2)
        # a class whose lead has no gradient is out of reach
        distance = torch.where(norm > 0, lead.abs() / norm.clamp(min=1e-30), torch.inf)
        length, nearest = distance.min(1)
        length = length.clamp(max=1.0) + BEYOND
        direction = gradient[torch.arange(len(active), device=x.device), nearest].sign()
        moved = change[active] + length[:, None, None, None] * direction
        change[active] = (x[active] + moved).clamp(0, 1) - x[active]
    found = (x + (1 + overshoot) * change).clamp(0, 1)
    return rounded_to_fool(classifier, x, found, y, eps)


@torch.no_grad()
def _rivals(classifier: nn.Module, x: Images, y: Labels, classes: int) -> Int[Tensor, "n rivals"]:
    """Returns the likeliest classes other than the true one."""
    logits = classifier(x).scatter(1, y[:, None], -torch.inf)
    return logits.topk(min(classes, logits.shape[1]) - 1, 1).indices


def _linearised(
    classifier: nn.Module, point: Images, y: Labels, others: Int[Tensor, "n rivals"]
) -> tuple[Float[Tensor, "n rivals"], Float[Tensor, "n rivals channels height width"], Tensor]:
    """Returns the leads of the rivals over the true class, their gradients, and which images fool already."""
    point = point.detach().requires_grad_()
    logits = classifier(point)
    lead = logits.gather(1, others) - logits.gather(1, y[:, None])
    last = others.shape[1] - 1
    # one backward pass a class for the whole batch: images don't see one another
    parts = [torch.autograd.grad(lead[:, k].sum(), point, retain_graph=k < last)[0] for k in range(last + 1)]
    return lead.detach(), torch.stack(parts, 1), logits.argmax(1) != y
