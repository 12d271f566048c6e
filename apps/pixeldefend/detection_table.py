"""The table of detection: how well each test tells images of an attack, or of elsewhere, from clean test images.

The figure is the area under the ROC curve, of the score that a test ranks by. Controls are images that are no attack
at all: another data set, constants, noise, flips. A density holds some of them likelier than its own data (Nalisnick et
al. 2019): what a test is worth shows there. The columns of attacks are of the images that the attack changed: what a
classifier is wrong about already DeepFool and CW leave alone. Those of the attack that hides are of the images that
fool the classifier and were classified rightly before, and say beside it how many are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from core_models.data import load as load_data

from . import attacks
from .detection import area_under_curve, compressed_bits, controls, fingerprint, typicality_p_value
from .detection.controls import OF_CLEAN
from .knowing_columns import HIDING_WEIGHTS, hidden, variant
from .measuring import Grid, right
from .table import OBLIVIOUS, Row

OTHERS = {"fashion-mnist": "mnist", "mnist": "fashion-mnist"}
"""The data set of the same shape that serves as a control."""


class _NothingToDetect(Exception):
    """An attack changed no image, or one that hides fooled the classifier with none."""


def detection_table(grid: Grid, eps: list[int], knowing_images: int, steps: int) -> None:
    """Fills the cells: rows are tests, columns what is to be detected.

    Args:
        grid: where they go.
        eps: budgets of the attacks [levels].
        knowing_images: test images for the attack that hides, the first ones.
        steps: of that attack.
    """
    experiment = grid.experiment
    x, y = experiment.x, experiment.y
    net = Row("ResNet", "Normal")
    sources: dict[str, Any] = {}
    attacked: dict[str, dict[str, Any]] = {}
    for title, name in OBLIVIOUS.items():
        for budget in eps:

            def changed(name: str = name, budget: int = budget) -> tuple[Tensor, Tensor]:
                found = experiment.attacked(net, name, budget, x, y)
                own = (found != x).flatten(1).any(1).nonzero()[:, 0]
                return found[own], own

            sources[f"{title} {budget}"] = changed
            attacked[f"{title} {budget}"] = {"of": "images that the attack changed"}
    hiding: dict[str, dict[str, Any]] = {}
    for weight in HIDING_WEIGHTS:
        for budget in eps:
            column = f"Detector-aware {budget}, {variant(weight)}"
            hiding[column] = {"steps": steps, "weight": weight, "attacked": knowing_images, "of": "images that fool"}
            if weight is None:  # cells of a weight are older than what tells an attack's versions apart
                hiding[column] |= {"attack": attacks.describe("detector-aware", budget, steps=steps)}

            def fooling(budget: int = budget, weight: float | None = weight) -> tuple[Tensor, Tensor]:
                found = hidden(experiment, net, budget, knowing_images, weight, steps)
                before, after = (
                    right(experiment, net, images, y[:knowing_images]) for images in (x[:knowing_images], found)
                )
                fooled = (before & ~after).nonzero()[:, 0]
                return found[fooled], fooled

            sources[column] = fooling
    for name, images in _controls(experiment.name, x, experiment.seed).items():
        of = torch.arange(len(images)) if name in OF_CLEAN else None
        sources[name] = lambda images=images, of=of: (images, of)
    clean: dict[str, np.ndarray] = {}
    tests: dict[str, dict[str, Any]] = {
        "likelihood": {},
        "typicality": {"calibration": len(experiment.calibration)},
        "complexity": {},
    }
    if experiment.background is not None:
        tests["ratio"] = {"background": fingerprint(experiment.background)[:16]}
    for test, needs in tests.items():
        for column, source in sources.items():
            settings = {
                "density": experiment.density_id, "images": len(x), "test": test, "against": column,
                "classifier": fingerprint(experiment.classifier(net))[:16],
                **needs, **attacked.get(column, {}), **hiding.get(column, {}),
            }  # fmt: skip

            def measure(test: str = test, source: Any = source, column: str = column) -> tuple[float, dict[str, Any]]:
                if test not in clean:
                    clean[test] = _suspicion(grid, test, x)
                suspects, own = source()
                if not len(suspects):
                    raise _NothingToDetect
                told = {"images": len(x), "suspicious": len(suspects)}
                if column in hiding:
                    told |= {"attacked": knowing_images, "fooled": len(suspects)}
                found = area_under_curve(clean[test], _suspicion(grid, test, suspects), made_of=own)
                return found.value, {**told, "interval": [found.low, found.high]}

            try:
                grid.cell(test, column, settings, measure, unit="AUC")
            except _NothingToDetect:
                why = "fooled the classifier" if column in hiding else "was changed"
                print(f"{column}: no image {why}, so that there is nothing to detect")


def _suspicion(grid: Grid, test: str, x: Tensor) -> np.ndarray:
    """Returns what a test ranks images by, larger for more suspicious ones."""
    bits = grid.experiment.bits_per_dim(x).double().numpy()
    if test == "likelihood":
        return bits
    if test == "ratio":
        return bits - grid.experiment.bits_per_dim(x, grid.experiment.background).double().numpy()
    if test == "complexity":
        return bits - compressed_bits(grid.experiment.pixels(x).cpu()) / x[0].numel()
    return -typicality_p_value(bits, grid.experiment.calibration.scores["bits_per_dim"])


def _controls(name: str, x: Tensor, seed: int) -> dict[str, Tensor]:
    """Returns images, as bytes, that are no attack."""
    others = {}
    if name in OTHERS:
        found = load_data(OTHERS[name])
        others[found.name] = found.images("test")
    made = controls(x.float() / 255, seed=seed, others=others)
    return {title: (images * 255).round().to(torch.uint8) for title, images in made.items()}
