"""The attacks by name: what is true of all of them happens here, once, before and after the attack's own function.

Before: images, labels, budget, parameters and classifier are checked; the classifier goes into evaluation mode. After:
what came back is clipped to the box and rounded to 8 bits within it, since no other image can be sent to anyone. The
classifier is left as it was found, and so is torch's global random state.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, get_type_hints

import torch
from torch import Generator, Tensor, nn

from core_models.errors import UserError, suggestion
from core_models.fields import checked
from core_models.modes import steady
from core_models.seeding import seeded
from core_models.training import seed_of

from .box import LEVELS, Images, Labels, rounded
from .checks import check_classifier, check_eps, check_images, check_labels, check_module, device_of

Derived = Mapping[str, Callable[[float, Mapping[str, Any]], Any]]

# what the registry hands to every attack; an attack's other parameters are its own
HANDED = ("classifier", "x", "y", "eps", "generator")


@dataclass(frozen=True)
class Attack:
    """A registered attack."""

    name: str
    title: str
    """Its name in the tables."""
    source: str
    """Authors, year and section."""
    function: Callable[..., Tensor]
    derived: Derived = field(default_factory=dict)
    """Parameters that follow from the budget, and the ones given, where they are left at None."""
    knows_defence: bool = False
    """Whether it is made against a defence, and not against the classifier alone."""
    budgetless: bool = False
    """Whether it looks for the least change without a budget; what exceeds the budget is clipped afterwards."""
    any_batch_size: bool = True
    """Whether its random draws are the same however the images are cut into batches: those made on the CPU; PGD's
    starts are drawn where the images are. The last bits of a network's arithmetic can differ with the batch
    all the same, and with them the sign of a gradient near 0."""
    revision: int = 1
    """Raised where it comes to give other images: beside a result it tells them apart."""
    added: tuple[str, ...] = ()
    """Parameters that came to it later: told beside a result only where they differ from their defaults, with which
    its images are what they were before."""

    def parameters(self, eps: float | None = None, **given: Any) -> dict[str, Any]:
        """Returns all of its own parameters: those given, else their defaults, else what follows from `eps`.

        Raises:
            UserError: when one given is unknown or of the wrong type.
        """
        own = _own_parameters(self)
        defaults = {k: p.default for k, p in inspect.signature(own).parameters.items() if p.default is not p.empty}
        values = checked(own, defaults | given)
        if eps is not None:
            for key, rule in self.derived.items():
                if values[key] is None:
                    values[key] = rule(eps, values)
        return values


def _own_parameters(attack: Attack) -> Callable[..., None]:
    """Returns a function of the attack's own parameters alone, for `checked` to look at."""

    def own() -> None: ...

    signature = inspect.signature(attack.function)
    kept = [p.replace(kind=p.KEYWORD_ONLY) for key, p in signature.parameters.items() if key not in HANDED]
    hints = get_type_hints(attack.function)
    own.__name__ = f"attack {attack.name}"
    own.__signature__ = signature.replace(parameters=kept)  # type: ignore[attr-defined]
    own.__annotations__ = {p.name: hints.get(p.name, Any) for p in kept}
    return own


_ATTACKS: dict[str, Attack] = {}


def register(
    name: str,
    *,
    title: str,
    source: str,
    derived: Derived | None = None,
    knows_defence: bool = False,
    budgetless: bool = False,
    any_batch_size: bool = True,
    revision: int = 1,
    added: tuple[str, ...] = (),
) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Makes a function known as an attack.

    The function takes `(classifier, x, y, *, eps, generator)` and parameters of its own with defaults, and returns
    adversarial images of the shape of x. It is called for one batch at a time, gradients on, with the classifier in
    evaluation mode, 8-bit images x (n, channels, height, width) in [0, 1], classes y (n,), eps above 0 [levels], and
    a CPU generator that goes on from batch to batch; a parameter annotated `nn.Module` is put in evaluation mode too.
    It need not clip or round.

    Args:
        name: what `attack` finds it by.
        title: its name in tables.
        source: authors, year and section.
        derived: rules for parameters whose default None means: by the budget. Each takes eps [levels] and the other
            parameters.
        knows_defence: whether it is made against a defence.
        budgetless: whether it has no use for the budget: it is called with the whole range, and clipped afterwards.
        any_batch_size: see `Attack`.
        revision: see `Attack`.
        added: see `Attack`.

    Raises:
        UserError: when what is decorated is no such function.

    Example:
        >>> import torch
        >>> @register("darken", title="Darken", source="nobody")
        ... def darken(classifier, x, y, *, eps, generator, share: float = 1.0):
        ...     return x - share * eps / 255
        >>> x = torch.full((1, 1, 2, 2), 100 / 255)
        >>> logits = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3))
        >>> (attack("darken", logits, x, torch.tensor([0]), eps=8, share=0.5) * 255).round().unique()
        tensor([96.])
        >>> forget("darken")
    """

    def add(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        taken = inspect.signature(function).parameters if callable(function) else ()
        missing = [key for key in HANDED if key not in taken]
        if missing:
            raise UserError(
                f"expected an attack as a function of (classifier, x, y, *, eps, generator), got "
                f"{getattr(function, '__name__', function)!r}, which takes no {missing[0]}"
            )
        _ATTACKS[name] = Attack(
            name, title, source, function, derived or {}, knows_defence, budgetless, any_batch_size, revision, added
        )
        return function

    return add


def forget(name: str) -> None:
    """Takes an attack out of the registry."""
    del _ATTACKS[name]


def names(*, knows_defence: bool | None = None) -> tuple[str, ...]:
    """Returns the names of all attacks, or of those that do, or don't, know of a defence."""
    return tuple(n for n, a in sorted(_ATTACKS.items()) if knows_defence is None or a.knows_defence == knows_defence)


def find(name: str) -> Attack:
    """Returns an attack by name.

    Raises:
        UserError: when there is none of that name.
    """
    hyphened = str(name).lower().replace("_", "-")
    for key in (name, hyphened) if isinstance(name, str) else ():
        if key in _ATTACKS:
            return _ATTACKS[key]
    raise UserError(f"expected an attack among {', '.join(names())}, got {name!r}{suggestion(hyphened, _ATTACKS)}")


def named(name: str) -> str:
    """Returns the name that an attack is registered by, after importing the user's own where its path is given.

    Args:
        name: one of `names()`, or "module.function" ("module:function") of a function as `register` takes it; it may be
            decorated already.

    Raises:
        UserError: when there is no such attack, module or function, or the function is none as `register` takes it.
    """
    module, _, function = name.replace(":", ".").rpartition(".")
    if not module or name in _ATTACKS:
        return find(name).name
    try:
        found = getattr(import_module(module), function)
    except (ImportError, AttributeError, TypeError, ValueError) as error:  # the last two: a path that begins with a dot
        raise UserError(
            f"expected an attack among {', '.join(names())}, or module.function of your own, got {name!r} ({error})"
        ) from error
    known = [one.name for one in _ATTACKS.values() if one.function is found]
    if not known:
        register(name, title=function, source=module)(found)
    return known[0] if known else name


def describe(name: str, eps: float | None = None, **parameters: Any) -> dict[str, Any]:
    """Returns what is printed and stored beside a result: the attack's title, source and parameters, as plain values.

    Args:
        name: the attack.
        eps: its budget [levels]; without it, what follows from the budget is told as "from eps".
        **parameters: those that differ from their defaults.

    Raises:
        UserError: when the attack, the budget or a parameter is unknown or wrong.

    Example:
        >>> describe("bim", 8)["steps"]
        10
    """
    found = find(name)
    values = found.parameters(None if eps is None else check_eps(eps), **parameters)
    if eps is None:
        values |= {key: "from eps" for key in found.derived if values[key] is None}
    plain = found.parameters()
    values = {key: value for key, value in values.items() if key not in found.added or value != plain[key]}
    told = {key: type(value).__name__ if isinstance(value, nn.Module) else value for key, value in values.items()}
    more = {} if found.revision == 1 else {"revision": found.revision}
    return {"attack": found.title, "source": found.source, **({} if eps is None else {"eps": eps}), **told, **more}


def attack(
    name: str,
    classifier: nn.Module,
    x: Images,
    y: Labels,
    eps: float,
    *,
    seed: int = 0,
    batch_size: int = 256,
    on_batch: Callable[[int], None] | None = None,
    **parameters: Any,
) -> Images:
    """Attacks 8-bit images: returns images of the same shape that a classifier shall not classify as y.

    Args:
        name: an attack out of `names()`.
        classifier: any module from images in [0, 1] to logits (n, classes); a `Defended` is one.
        x: 8-bit images (n, channels, height, width) in [0, 1].
        y: their true classes (n,).
        eps: the largest change of a sub-pixel [8-bit levels]; of 0, the images come back as they are.
        seed: of the attack's random draws.
        batch_size: images at a time.
        on_batch: called after each batch with the number of images done.
        **parameters: the attack's own, see `describe`.

    Returns:
        8-bit images in [0, 1], at most eps levels from x, on its device.

    Raises:
        UserError: when images, labels, budget or parameters are no such, or the classifier returns no logits.
    """
    found = find(name)
    eps = check_eps(eps)
    x = check_images(x)
    y = check_labels(y, len(x))
    values = found.parameters(eps, **parameters)
    check_module(classifier)
    if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1:
        raise UserError(f"expected a batch_size of at least 1, got {batch_size!r}")
    generator = Generator().manual_seed(seed)
    device = device_of(classifier, x.device)
    modules = [classifier, *(value for value in values.values() if isinstance(value, nn.Module))]
    # whatever the caller is in the middle of, gradients are needed here; what a classifier draws from torch's global
    # state are other numbers than the attack's own
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        steady(*modules),
        seeded(seed_of(seed, "classifier"), device),
    ):
        check_classifier(classifier, x, y)
        done = []
        for start in range(0, len(x), batch_size):
            part = x[start : start + batch_size].clone()
            if eps > 0:
                at, labels = part.to(device), y[start : start + batch_size].to(device)
                budget = LEVELS if found.budgetless else eps
                changed = found.function(classifier, at, labels, eps=budget, generator=generator, **values).detach()
                if changed.shape != at.shape or not torch.isfinite(changed).all():
                    came = "infinite values or NaN" if changed.shape == at.shape else f"shape {tuple(changed.shape)}"
                    raise UserError(
                        f"expected finite images of shape {tuple(at.shape)} from attack {name}, got {came}: "
                        "look at the classifier's gradients"
                    )
                part = rounded(at, changed, eps).to(x.device)
            done.append(part)
            if on_batch:
                on_batch(start + len(part))
    return torch.cat(done)
