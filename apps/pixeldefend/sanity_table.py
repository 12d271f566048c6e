"""Whether the evaluation is sound: what must hold of the figures if the attacks are any good.

Source: Carlini et al., "On evaluating adversarial robustness", arXiv 1902.06705, 2019, section 4: unbounded attacks
reach accuracy 0, more steps never help the defence, an attack on the defence is no weaker than a carried-over one. On
a row that leaves likely images as they are, the attack on the defence is the selective detector-aware one.
"""

from __future__ import annotations

from typing import Any

from . import attacks
from .knowing_columns import hidden, knowing, variant
from .measuring import Grid, accuracy, right, row_settings
from .table import Row


def sanity_table(grid: Grid, eps: int, eps_defend: int, images: int, steps: int) -> None:
    """Fills the cells: what a purified normal ResNet keeps under attacks that should be ordered.

    Args:
        grid: where they go.
        eps: budget of the attacks [levels].
        eps_defend: how far purification may move a value [levels].
        images: test images, the first ones.
        steps: of the detector-aware attack.
    """
    experiment = grid.experiment
    row = Row("ResNet", "Normal", purifying="PixelDefend", eps=eps_defend)
    x, y = experiment.x[:images], experiment.y[:images]

    def transferred(row: Row, name: str) -> None:
        told = {**row_settings(experiment, row), "images": images, "attack": attacks.describe(name, eps)}

        def measure() -> tuple[float, dict[str, Any]]:
            return accuracy(right(experiment, row, experiment.attacked(row, name, eps, x, y), y))

        grid.cell(row.title, f"{attacks.find(name).title} {eps}, carried over", told, measure)

    transferred(row, "bim")
    # The step is the same, so of one budget the longer runs go on from the shorter: what they show is what is gained.
    for budget, own, step in [(eps, 5, 2), (eps, 20, 2), (eps, 50, 2), (255, 50, 16)]:
        knowing(grid, row, "BPDA", budget, images, {"steps": own, "step": step}, f"BPDA {budget}, {own} steps")

    adaptive = Row("ResNet", "Normal", purifying="adaptive PixelDefend", eps=eps_defend)
    for name in ("bim", "cw"):
        transferred(adaptive, name)
    told = {
        **row_settings(experiment, adaptive), "images": images,
        "attack": attacks.describe("detector-aware", eps, density=experiment.density, steps=steps),
    }  # fmt: skip

    def selective() -> tuple[float, dict[str, Any]]:
        return accuracy(right(experiment, adaptive, hidden(experiment, adaptive, eps, images, None, steps), y))

    grid.cell(adaptive.title, f"Detector-aware {eps}, {variant(None)}", told, selective)
