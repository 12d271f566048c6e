"""The columns whose attacks know the whole defence: BPDA, Square and the attack that hides from the density.

Each is made on what a row answers, purification included, on fewer images than the paper's columns. On rows that leave
likely images as they are the detector-aware attack is made on the classifier and its density instead, in several
variants, so that it passes unpurified: an image withstands it where it withstands each of them.

Sources: Athalye, Carlini and Wagner, "Obfuscated gradients give a false sense of security", ICML 2018; Carlini and
Wagner, "Adversarial examples are not easily detected", AISec 2017; Bryniarski et al., "Evading adversarial example
detection defenses with orthogonal projected gradient descent", ICLR 2022.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from apps.common.cells import Cell
from core_models.training.progress import Progress

from . import attacks
from .defended import Defended, Purifier
from .experiment import Experiment, images_hash
from .measuring import Grid, accuracy, network, right, row_settings
from .table import KNOWING, OBLIVIOUS, Row

HIDING_WEIGHTS = (None, 0.2, 1.0)
"""What a bit/dim is worth to an attack that hides [nats of the classifier's loss], None for selective steps; each is
tried."""


def variant(weight: float | None) -> str:
    """Returns what an attack that hides is called by its weight."""
    return "selective" if weight is None else f"weight {weight:g}"


def knowing_settings(title: str, bpda_steps: int, square_queries: int) -> dict[str, Any]:
    """Returns the parameters of an attack on the whole defence."""
    return {"queries": square_queries} if title == "Square" else {"steps": bpda_steps}


def whole(experiment: Experiment, row: Row) -> Defended:
    """Returns a row as one module; a row without purification has a box of 0 levels."""
    adaptive = row.purifying.startswith("adaptive")
    purifier = Purifier(
        experiment.density,
        eps=row.eps,
        threshold=experiment.threshold if adaptive else None,
        batch_size=experiment.batch_size,
    )
    return Defended(purifier, network(experiment, row)).eval()


def hides(row: Row, title: str) -> bool:
    """Tells whether an attack on a row need only stay likely: no gradient passes a purifier that is passed by.

    Not where inputs are squeezed: what fools the bare classifier may not fool that.
    """
    return title == "Detector-aware" and row.purifying != "PixelDefend" and not row.squeezed


def shown(experiment: Experiment, row: Row, title: str, told: dict[str, Any]) -> dict[str, Any]:
    """Returns an attack as a reader should see it: one that hides has several variants, and the experiment's density.

    The defaults that stand in their place are part of what cells are known by.
    """
    if not hides(row, title):
        return told
    kept = {name: value for name, value in told.items() if name != "weight"}
    return {**kept, "density": experiment.density_id, "variants": [variant(w) for w in HIDING_WEIGHTS]}


def hidden(experiment: Experiment, row: Row, eps: int, images: int, weight: float | None, steps: int) -> Tensor:
    """Returns images, as bytes, that fool a row's classifier and stay likely under the density, purified or not."""
    x, y = experiment.x[:images], experiment.y[:images]
    parameters = {"density": experiment.density, "weight": weight, "steps": steps}
    return experiment.attacked(row, "detector-aware", eps, x, y, **parameters)


def knowing_images_of(
    grid: Grid, row: Row, title: str, eps: int, images: int, parameters: dict[str, Any]
) -> list[tuple[str, Tensor]]:
    """Returns images, as bytes, that attacks on a whole row ended with, by what each is called."""
    experiment = grid.experiment
    x, y = experiment.x[:images], experiment.y[:images]
    if hides(row, title):
        steps = parameters["steps"]
        return [(variant(w), hidden(experiment, row, eps, images, w, steps)) for w in HIDING_WEIGHTS]
    key = {
        **row_settings(experiment, row), "seed": experiment.seed, "images": images_hash(x), "knows the defence": True,
        "attack": attacks.describe(KNOWING[title], eps, **parameters),
    }  # fmt: skip

    def compute() -> Tensor:
        target = whole(experiment, row)
        with Progress(f"{title} {eps} on {row.title}", images, unit="image") as shown:
            found = attacks.attack(
                KNOWING[title], target, experiment.pixels(x), y, eps, seed=experiment.seed, batch_size=64,
                on_batch=lambda done: shown.update(done, last=done == images), **parameters,
            )  # fmt: skip
        return experiment.bytes(found)

    return [(title, experiment.store.get("attacked", key, compute))]


def knowing(
    grid: Grid, row: Row, title: str, eps: int, images: int, parameters: dict[str, Any], column: str | None = None
) -> Cell:
    """A column whose attack knows the whole defence; called by the attack and its budget unless told otherwise."""
    experiment = grid.experiment
    y = experiment.y[:images]
    settings = {
        **row_settings(experiment, row), "images": images, "knows the defence": True,
        "attack": attacks.describe(KNOWING[title], eps, **parameters),
    }  # fmt: skip
    seen = {**settings, "attack": shown(experiment, row, title, settings["attack"])}
    if hides(row, title):
        settings["variants"] = [variant(w) for w in HIDING_WEIGHTS]
        if row.purifying == "none":  # else it is part of the defence
            settings["density"] = experiment.density_id

    def measure() -> tuple[float, dict[str, Any]]:
        found = knowing_images_of(grid, row, title, eps, images, parameters)
        each = {name: right(experiment, row, x, y) for name, x in found}
        value, extra = accuracy(attacks.strongest(each).worst_case)
        if len(each) > 1:
            extra |= {name: f"{accuracy(one)[0]:.1f}" for name, one in each.items()}
        return value, extra

    return grid.cell(row.title, column or f"{title} {eps}", settings, measure, shown=seen)


def worst_of_all(grid: Grid, row: Row, eps: int, images: int, known: dict[str, dict[str, Any]]) -> None:
    """The share of images that withstand every attack, carried over or made on the whole defence."""
    experiment = grid.experiment
    y = experiment.y[:images]

    def measure() -> tuple[float, dict[str, Any]]:
        correct = {"none": right(experiment, row, experiment.x[:images], y)}
        for title, name in OBLIVIOUS.items():
            carried = experiment.attacked(row, name, eps, experiment.x, experiment.y)[:images]
            correct[title] = right(experiment, row, carried, y)
        for title, parameters in known.items():
            for name, x in knowing_images_of(grid, row, title, eps, images, parameters):
                correct[f"{title}, {name}"] = right(experiment, row, x, y)
        value, extra = accuracy(attacks.strongest(correct).worst_case)
        on_these = {title: f"{accuracy(correct[title])[0]:.1f}" for title in ("none", *OBLIVIOUS)}
        return value, {**extra, "on these images": ", ".join(f"{k} {v}" for k, v in on_these.items())}

    told = {title: attacks.describe(KNOWING[title], eps, **parameters) for title, parameters in known.items()}
    carried = {title: attacks.describe(name, eps) for title, name in OBLIVIOUS.items()}
    settings = {**row_settings(experiment, row), "images": images, "attacks": {**carried, **told}, "all": True}
    each = {title: shown(experiment, row, title, own) for title, own in told.items()}
    seen = {**settings, "attacks": {**carried, **each}}
    grid.cell(row.title, f"Worst case of all {eps}", settings, measure, shown=seen)
