"""Which images the columns of the table of detection are of, with attacks whose changes are chosen here."""

import numpy as np
import pytest
import torch
from attack_targets import LeftNeighbour
from sklearn.metrics import roc_auc_score
from torch import nn

from apps.common.cells import read_cells
from apps.pixeldefend.detection import Calibration, area_under_curve, controls
from apps.pixeldefend.detection_table import detection_table
from apps.pixeldefend.experiment import Experiment
from apps.pixeldefend.knowing_columns import HIDING_WEIGHTS, variant
from apps.pixeldefend.measuring import Grid
from apps.pixeldefend.table import OBLIVIOUS, Row
from core_models.data import DataSet

N, KNOWING = 20, 10
ALONE = [1, 4, 11]
"""What DeepFool and CW leave alone here."""
FOOLED = [3, 5]
"""What the attack that hides turns from right to wrong."""


class Corner(nn.Module):
    """Class 1 where the first sub-pixel is bright."""

    def forward(self, x):
        lead = x[:, 0, 0, 0] - 0.5
        return torch.stack([-lead, lead], 1)


def images():
    """Images, of which the first two bear the wrong class."""
    x = torch.randint(60, 90, (N, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    x[::2, 0, 0, 0] = 200
    y = (torch.arange(N) + 1) % 2
    y[:2] = 1 - y[:2]
    return x, y


def attacked(experiment, row, name, eps, x, y, **parameters):
    found = x.clone()
    found[:, 0, 4:, 4:] += 20 + torch.arange(len(x), dtype=torch.uint8).view(-1, 1, 1)
    if name in ("deepfool", "cw"):
        found[ALONE] = x[ALONE]
    if name == "detector-aware":  # 0 is wrong before and after, 1 wrong before alone, and the others stay right
        found[[1, *FOOLED], 0, 0, 0] = 260 - found[[1, *FOOLED], 0, 0, 0]
    return found


def surprise(x):
    return -LeftNeighbour().eval().log_prob(x.float() / 255).detach().double().numpy()


@pytest.fixture
def cells(tmp_path, monkeypatch):
    x, y = images()
    density = LeftNeighbour().eval()
    data = DataSet("toy", x, y, x, y, ("0", "1"), "here")
    experiment = Experiment(data, "toy", density, "", N, tmp_path / "work", 0, 0.9)
    experiment._classifiers[Row("ResNet", "Normal")] = Corner()
    experiment.calibration = Calibration({"bits_per_dim": np.sort(surprise(x[:9]))}, "toy", "test", "")
    monkeypatch.setattr(Experiment, "attacked", attacked)
    detection_table(Grid(experiment, "detection", tmp_path / "results", "cpu", "", False), [24], KNOWING, 3)
    return {(c.row, c.column): c for c in read_cells(tmp_path / "results", app="pixeldefend")}


def test_columns_of_attacks_are_of_the_images_that_were_changed_or_newly_fooled(cells):
    x, y = images()
    every, some = np.arange(N), np.delete(np.arange(N), ALONE)
    expected = {
        f"{title} 24": (attacked(None, None, name, 24, x, y), some if name in ("deepfool", "cw") else every)
        for title, name in OBLIVIOUS.items()
    }
    hidden = attacked(None, None, "detector-aware", 24, x[:KNOWING], y)
    expected |= {f"Detector-aware 24, {variant(w)}": (hidden, np.array(FOOLED)) for w in HIDING_WEIGHTS}
    made = {name: (own * 255).round().byte() for name, own in controls(x.float() / 255, seed=0).items()}
    expected |= {"vertical flip": (made["vertical flip"], every), "constant": (made["constant"], None)}
    assert {test for test, _ in cells} == {"likelihood", "typicality", "complexity"}
    for column, (found, own) in expected.items():
        cell, scores = cells["likelihood", column], (surprise(x), surprise(found if own is None else found[own]))
        assert cell.extra["suspicious"] == len(scores[1]), column
        assert cell.value == pytest.approx(roc_auc_score([0] * N + [1] * len(scores[1]), np.concatenate(scores))), (
            column
        )
        area = area_under_curve(*scores, made_of=own)  # a constant image is made of no other
        assert cell.interval == (area.low, area.high), column
        if "Detector" in column:
            assert (cell.extra["fooled"], cell.extra["attacked"]) == (len(FOOLED), KNOWING)
