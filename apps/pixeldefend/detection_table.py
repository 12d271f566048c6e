"""The table of detection: how well each test tells images of an attack, or of elsewhere, from clean test images.

The figure is the area under the ROC curve, of the score that a test ranks by. Controls are images that are no attack
at all: another data set, constants, noise, flips. A density holds some of them likelier than its own data (Nalisnick et
al. 2019): what a test is worth shows there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from core_models.data import load as load_data

from .benchmark import Grid
from .detection import area_under_curve, compressed_bits, controls, fingerprint, typicality_p_value
from .table import OBLIVIOUS, Row

OTHERS = {"fashion-mnist": "mnist", "mnist": "fashion-mnist"}
"""The data set of the same shape that serves as a control."""


def detection_table(grid: Grid, eps: list[int]) -> None:
    """Fills the cells: rows are tests, columns what is to be detected.

    Args:
        grid: where they go.
        eps: budgets of the attacks [levels].
    """
    experiment = grid.experiment
    x, y = experiment.x, experiment.y
    net = Row("ResNet", "Normal")
    sources: dict[str, Any] = {}
    for title, name in OBLIVIOUS.items():
        for budget in eps:
            sources[f"{title} {budget}"] = lambda name=name, budget=budget: experiment.attacked(net, name, budget, x, y)
    for name, images in _controls(experiment.name, x, experiment.seed).items():
        sources[name] = lambda images=images: images
    clean: dict[str, np.ndarray] = {}
    for test in ("likelihood", "typicality", "complexity"):
        for column, source in sources.items():
            settings = {
                "density": experiment.density_id, "images": len(x), "test": test, "against": column,
                "classifier": fingerprint(experiment.classifier(net))[:16],
                **({"calibration": len(experiment.calibration)} if test == "typicality" else {}),
            }  # fmt: skip

            def measure(test: str = test, source: Any = source) -> tuple[float, dict[str, Any]]:
                if test not in clean:
                    clean[test] = _suspicion(grid, test, x)
                found = area_under_curve(clean[test], _suspicion(grid, test, source()))
                return found.value, {"images": len(x), "interval": f"{found.low:.4f} to {found.high:.4f}"}

            grid.cell(test, column, settings, measure, unit="AUC")


def _suspicion(grid: Grid, test: str, x: Tensor) -> np.ndarray:
    """Returns what a test ranks images by, larger for more suspicious ones."""
    bits = grid.experiment.bits_per_dim(x).double().numpy()
    if test == "likelihood":
        return bits
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
