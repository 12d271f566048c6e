"""Whether the evaluation is sound: what must hold of the figures if the attacks are any good.

Source: Carlini et al., "On evaluating adversarial robustness", arXiv 1902.06705, 2019, section 4: unbounded attacks
reach accuracy 0, more steps never help the defence, an attack on the defence is no weaker than a carried-over one.
"""

from __future__ import annotations

from torch import Tensor

from . import attacks
from .knowing_columns import knowing
from .measuring import Grid, accuracy, right, row_settings
from .table import Row


def sanity_table(grid: Grid, eps: int, eps_defend: int, images: int) -> None:
    """Fills the cells: what a purified normal ResNet keeps under attacks that should be ordered.

    Args:
        grid: where they go.
        eps: budget of the attacks [levels].
        eps_defend: how far purification may move a value [levels].
        images: test images, the first ones.
    """
    experiment = grid.experiment
    row = Row("ResNet", "Normal", purifying="PixelDefend", eps=eps_defend)
    x, y = experiment.x[:images], experiment.y[:images]
    told = {**row_settings(experiment, row), "images": images, "attack": attacks.describe("bim", eps)}

    def transferred() -> Tensor:
        return right(experiment, row, experiment.attacked(row, "bim", eps, x, y), y)

    grid.cell(row.title, f"BIM {eps}, carried over", told, lambda: accuracy(transferred()))
    # The step is the same, so of one budget the longer runs go on from the shorter: what they show is what is gained.
    for budget, steps, step in [(eps, 5, 2), (eps, 20, 2), (eps, 50, 2), (255, 50, 16)]:
        knowing(grid, row, "BPDA", budget, images, {"steps": steps, "step": step}, f"BPDA {budget}, {steps} steps")
