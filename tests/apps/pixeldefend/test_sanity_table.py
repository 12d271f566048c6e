"""What the sanity table measures, with attacks whose changes are chosen here."""

import numpy as np
import pytest
import torch
from attack_targets import LeftNeighbour
from torch import nn

from apps.common.cells import read_cells
from apps.pixeldefend import sanity_table as module
from apps.pixeldefend.detection import Calibration
from apps.pixeldefend.experiment import Experiment
from apps.pixeldefend.measuring import Grid
from apps.pixeldefend.table import Row
from core_models.data import DataSet

N = 8
FOOLED = {"bim": 2, "cw": 3, "detector-aware": 5}
"""How many images each attack turns wrong."""


class Corner(nn.Module):
    """Class 1 where the first sub-pixel is bright."""

    def forward(self, x):
        lead = x[:, 0, 0, 0] - 0.5
        return torch.stack([-lead, lead], 1)


def test_attacks_on_the_adaptive_row_stand_beside_those_carried_over(tmp_path, monkeypatch):
    x = torch.full((N, 1, 8, 8), 40, dtype=torch.uint8)
    y = torch.zeros(N, dtype=torch.long)
    experiment = Experiment(
        DataSet("toy", x, y, x, y, ("0", "1"), "here"), "toy", LeftNeighbour().eval(), "", N, tmp_path, 0, 0.9
    )
    experiment._classifiers[Row("ResNet", "Normal")] = Corner()
    experiment.calibration = Calibration({"bits_per_dim": np.array([100.0])}, "toy", "test", "")  # all pass unpurified
    told, known = [], []

    def attacked(self, row, name, eps, x, y, **parameters):
        told.append((row.purifying, name, eps, parameters.get("weight", "none"), parameters.get("steps")))
        found = x.clone()
        found[: FOOLED[name], 0, 0, 0] = 200
        return found

    monkeypatch.setattr(Experiment, "attacked", attacked)
    monkeypatch.setattr(module, "knowing", lambda *given: known.append(given))
    monkeypatch.setattr(Experiment, "purified", lambda self, x, eps: x)
    module.sanity_table(Grid(experiment, "sanity", tmp_path / "results", "cpu", "", False), 24, 48, N, 7)
    cells = {(c.row, c.column): c for c in read_cells(tmp_path / "results", app="pixeldefend")}
    adaptive = "ResNet Normal + adaptive PixelDefend (48)"
    expected = {"BIM 24, carried over": 2, "CW 24, carried over": 3, "Detector-aware 24, selective": 5}
    found = {column: c.value for (row, column), c in cells.items() if row == adaptive}
    assert found == pytest.approx({column: 100 * (N - k) / N for column, k in expected.items()})
    assert cells[adaptive, "Detector-aware 24, selective"].extra["settings"]["attack"]["steps"] == 7
    assert told[-1] == ("adaptive PixelDefend", "detector-aware", 24, None, 7)
    assert [(given[3], given[5]["steps"]) for given in known] == [(24, 5), (24, 20), (24, 50), (255, 50)]
