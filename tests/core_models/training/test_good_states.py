"""What training leaves alone, and what is not saved as a good state."""

import math

import pytest
import torch
from torch import nn

from core_models.base import Objective
from core_models.training import NonFiniteLoss, RunFolder, TensorBatches, TrainingConfig, fit
from core_models.training.checkpoint import load_checkpoint


def train(objective, folder=None, **changes):
    batches = TensorBatches({"x": torch.linspace(1, 2, 8).view(4, 2)}, 2, shuffle=False)
    settings = TrainingConfig(epochs=1, threads=1, device="cpu", checkpoint_every_seconds=0.0, **changes)
    return fit(objective, batches, settings, run=RunFolder(folder) if folder else None, progress=False)


class Pretrained(Objective):
    """A layer upon features that are given."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))
        self.head = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout(0.5), nn.Linear(3, 1))
        self.seen = []

    def forward(self, batch, generator=None):
        self.seen.append([part.training for part in self.modules()])
        return self.head(self.features(batch["x"])).square().mean(), {}


def test_what_is_frozen_whole_stays_in_its_mode_and_keeps_its_statistics():
    objective = Pretrained()
    objective.features.requires_grad_(False).eval()
    before = {name: value.clone() for name, value in objective.features.state_dict().items()}
    train(objective)
    names = [name for name, _ in objective.named_modules()]
    assert len(objective.seen) == 2
    for modes in objective.seen:
        assert dict(zip(names, modes, strict=True)) == {name: not name.startswith("features") for name in names}
    for name, value in objective.features.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert objective.head[1].num_batches_tracked == 2


def test_a_frozen_part_in_training_mode_is_trained_with():
    """Whoever wants its statistics to follow the data leaves it in that mode."""
    objective = Pretrained()
    objective.features.requires_grad_(False)
    train(objective.train())
    assert objective.features[1].num_batches_tracked == 2


class Doubtful(Objective):
    """A finite loss beside a buffer that it doesn't depend on."""

    def __init__(self, value, kept=0.0, scale=1.0):
        super().__init__()
        self.w = nn.Parameter(torch.ones(()))
        self.value, self.scale = value, scale
        self.register_buffer("statistic", torch.tensor(kept))

    def forward(self, batch, generator=None):
        if self.training:
            self.statistic = self.statistic + self.value
        return self.w * batch["x"].mean() * self.scale, {}


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_statistics_that_are_no_numbers_are_not_saved(tmp_path, bad):
    with pytest.raises(NonFiniteLoss, match="a buffer is NaN or infinite at step 1 "):
        train(Doubtful(bad), tmp_path)
    assert load_checkpoint(RunFolder(tmp_path).checkpoint()).state.step == 0


def test_a_buffer_that_is_infinite_from_the_first_is_meant(tmp_path):
    train(Doubtful(0.0, kept=-math.inf), tmp_path)
    assert load_checkpoint(RunFolder(tmp_path).checkpoint()).group("objective")["statistic"] == -math.inf


def test_moments_that_overflowed_are_not_saved(tmp_path):
    """A gradient of 1e30 is finite and its square is not: the weight would never move again."""
    with pytest.raises(NonFiniteLoss, match="a moment of the optimiser is NaN or infinite at step 1 "):
        train(Doubtful(0.0, scale=1e30), tmp_path)
    assert load_checkpoint(RunFolder(tmp_path).checkpoint()).state.step == 0
