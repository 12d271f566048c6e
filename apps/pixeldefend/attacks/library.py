"""The attacks that torchattacks has: FGSM, BIM, PGD, EOT-PGD, Square and AutoAttack, with budgets in 8-bit levels.

Its DeepFool and CW are not among them: both measure changes in L2, DeepFool takes one image at a time, and its CW never
moves a sub-pixel that is exactly 0 or 1. See `deepfool` and `carlini_wagner`.

Source: Kim, "Torchattacks: a PyTorch repository for adversarial attacks", 2020, version 3.3.0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Generator, nn

from core_models.errors import UserError
from core_models.seeding import seeded

from .box import LEVELS, Images, Labels, rounded_to_fool
from .checks import check_positive
from .registry import register


class _WithParameter(nn.Module):
    """A classifier that has a parameter: torchattacks asks the first one for the device."""

    def __init__(self, classifier: nn.Module, x: Images) -> None:
        super().__init__()
        self.classifier = classifier
        self.anchor = nn.Parameter(x.new_zeros(()), requires_grad=False)

    def forward(self, x: Images) -> torch.Tensor:
        return self.classifier(x)


@contextmanager
def _global_draws(generator: Generator, device: torch.device) -> Iterator[None]:
    """Lets torch's global state go on from a generator's, and then the generator from there; gives the global back."""
    # drawn before the generator's state is lent out: else it would come back as it was, and each batch draw the same
    with seeded(_seed(generator) if device.type == "cuda" else 0, device):
        torch.default_generator.set_state(generator.get_state())
        yield
        generator.set_state(torch.default_generator.get_state())


def _seed(generator: Generator) -> int:
    return int(torch.randint(2**31, (), generator=generator))


def _run(
    name: str,
    classifier: nn.Module,
    x: Images,
    y: Labels,
    generator: Generator,
    *,
    parts: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Images:
    """Runs an attack of torchattacks; `parts` are what it doesn't let us set of those that AutoAttack is made of."""
    # imported here: it takes seconds, and many who import this package only want its names
    import torchattacks

    model = classifier if any(True for _ in classifier.parameters()) else _WithParameter(classifier, x).eval()
    attack = getattr(torchattacks, name)(model, **settings)
    for part in attack._autoattack.attacks if name == "AutoAttack" else ():
        vars(part).update({key: value for key, value in (parts or {}).items() if hasattr(part, key)})
    with _global_draws(generator, x.device):
        return attack(x, y)


def _bim_steps(eps: float, _: Mapping[str, Any]) -> int:
    # 16 / 255 * 255 can be below 16 in floats: torchattacks, told steps=0, can count one step less
    return int(min(eps + 4, 1.25 * eps))


def _pgd_step(eps: float, parameters: Mapping[str, Any]) -> float:
    return 2.5 * eps / parameters["steps"]


@register("fgsm", title="FGSM", source="Goodfellow et al. 2015, section 4")
def fgsm(classifier: nn.Module, x: Images, y: Labels, *, eps: float, generator: Generator) -> Images:
    """The fast gradient sign method: one step of eps along the sign of the loss's gradient."""
    return _run("FGSM", classifier, x, y, generator, eps=eps / LEVELS)


@register("bim", title="BIM", source="Kurakin et al. 2017, section 2.2", derived={"steps": _bim_steps})
def bim(
    classifier: nn.Module,
    x: Images,
    y: Labels,
    *,
    eps: float,
    generator: Generator,
    steps: int | None = None,
    step: float = 1.0,
) -> Images:
    """The basic iterative method: small steps of FGSM within the box.

    Args:
        classifier: images in [0, 1] to logits.
        x: 8-bit images.
        y: their classes.
        eps: half the side of the box [levels].
        generator: not drawn from.
        steps: gradient steps; by default int(min(eps + 4, 1.25 eps)).
        step: their length [levels].
    """
    assert steps is not None
    if eps < 1 and steps == 0:
        return x  # the rule gives none: the box holds no other 8-bit image
    check_positive(steps=steps, step=step)
    return _run("BIM", classifier, x, y, generator, eps=eps / LEVELS, alpha=step / LEVELS, steps=steps)


@register("pgd", title="PGD", source="Madry et al. 2018, section 2", derived={"step": _pgd_step})
def pgd(
    classifier: nn.Module,
    x: Images,
    y: Labels,
    *,
    eps: float,
    generator: Generator,
    steps: int = 40,
    step: float | None = None,
    random_start: bool = True,
) -> Images:
    """Projected gradient descent: BIM from a random point of the box.

    Args:
        classifier: images in [0, 1] to logits.
        x: 8-bit images.
        y: their classes.
        eps: half the side of the box [levels].
        generator: draws the start.
        steps: gradient steps.
        step: their length [levels]; by default 2.5 eps / steps.
        random_start: whether to start from a random point.
    """
    assert step is not None
    check_positive(steps=steps, step=step)
    settings: dict[str, Any] = {"alpha": step / LEVELS, "steps": steps, "random_start": random_start}
    return _run("PGD", classifier, x, y, generator, eps=eps / LEVELS, **settings)


@register(
    "eot-pgd",
    title="EOT-PGD",
    source="Athalye et al. 2018, section 4.1.2",
    derived={"step": _pgd_step},
    any_batch_size=False,
)
def eot_pgd(
    classifier: nn.Module,
    x: Images,
    y: Labels,
    *,
    eps: float,
    generator: Generator,
    steps: int = 40,
    step: float | None = None,
    draws: int = 4,
    random_start: bool = True,
) -> Images:
    """PGD on the expected loss of a classifier that draws random numbers; on any other it is PGD, `draws` times over.

    The classifier's draws and the next batch's start come from one stream, so that another batch size gives other
    images.

    Args:
        classifier: images in [0, 1] to logits.
        x: 8-bit images.
        y: their classes.
        eps: half the side of the box [levels].
        generator: draws the start, and what the classifier draws from torch's global state on the CPU.
        steps: gradient steps.
        step: their length [levels]; by default 2.5 eps / steps.
        draws: gradients that are added up for a step.
        random_start: whether to start from a random point.
    """
    assert step is not None
    check_positive(steps=steps, step=step, draws=draws)
    settings: dict[str, Any] = {"alpha": step / LEVELS, "steps": steps, "random_start": random_start}
    return _run("EOTPGD", classifier, x, y, generator, eps=eps / LEVELS, eot_iter=draws, **settings)


@register("square", title="Square", source="Andriushchenko et al. 2020, section 3", any_batch_size=False)
def square(
    classifier: nn.Module,
    x: Images,
    y: Labels,
    *,
    eps: float,
    generator: Generator,
    queries: int = 5000,
    restarts: int = 1,
    first_share: float = 0.8,
) -> Images:
    """A black-box search that tries squares of one colour, and needs no gradient.

    The images of a batch share their squares, so that another batch size gives other images.

    Args:
        classifier: images in [0, 1] to logits.
        x: 8-bit images.
        y: their classes.
        eps: half the side of the box [levels].
        generator: draws a seed for the batch.
        queries: logits that are asked for an image, at most.
        restarts: searches, for the images that the ones before did not fool with.
        first_share: share of an image that the first square covers.
    """
    check_positive(queries=queries, restarts=restarts, first_share=first_share)
    if first_share > 1:
        raise UserError(f"expected first_share from 0 to 1, got {first_share!r}")
    settings: dict[str, Any] = {"n_queries": queries, "n_restarts": restarts, "p_init": first_share}
    return _run("Square", classifier, x, y, generator, eps=eps / LEVELS, seed=_seed(generator), **settings)


@register("autoattack", title="AutoAttack", source="Croce and Hein 2020, section 6", any_batch_size=False, revision=2)
def autoattack(
    classifier: nn.Module,
    x: Images,
    y: Labels,
    *,
    eps: float,
    generator: Generator,
    version: Literal["standard", "plus", "rand"] = "standard",
    steps: int = 100,
    queries: int = 5000,
) -> Images:
    """APGD on the cross-entropy, targeted APGD, targeted FAB and Square, each on what the ones before left.

    APGD and FAB make 100 steps here, as in the authors' own program; left alone, torchattacks has them make 10. Those
    that are targeted aim at the nine likeliest wrong classes, as there. Their random starts depend on which images are
    in a batch.

    Args:
        classifier: images in [0, 1] to logits of at least 4 classes.
        x: 8-bit images.
        y: their classes.
        eps: half the side of the box [levels].
        generator: draws a seed for the batch.
        version: standard; plus, with untargeted attacks and restarts; rand, for a classifier that draws random numbers.
        steps: gradient steps of APGD and FAB.
        queries: logits that Square asks for, at most.
    """
    check_positive(steps=steps, queries=queries)
    with torch.no_grad():
        classes = classifier(x[:1]).shape[1]
    if classes < 4:
        raise UserError(
            f"expected at least 4 classes, which AutoAttack's loss needs, got {classes}: use pgd and square"
        )
    settings = {"eps": eps / LEVELS, "version": version, "n_classes": classes, "seed": _seed(generator)}
    # torchattacks aims at every wrong class, the authors' program at the nine most likely ones
    parts = {"steps": steps, "n_queries": queries, "n_target_classes": min(9, classes - 1)}
    found = _run("AutoAttack", classifier, x, y, generator, parts=parts, **settings)
    return rounded_to_fool(classifier, x, found, y, eps)  # FAB ends just beyond the boundary
