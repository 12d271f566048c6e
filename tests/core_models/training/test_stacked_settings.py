"""What the members of a stack must have in common, and what a resumed stack with the one before."""

import pytest
import torch
from torch import nn

from core_models.errors import UserError
from core_models.training import (
    RunFolder,
    StackableObjective,
    Stacked,
    StackedBatches,
    TensorBatches,
    TrainingConfig,
    fit,
)
from core_models.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint


class Slope(StackableObjective):
    """One weight w that learns to be the mean of the batch, held back by a penalty."""

    def __init__(self, penalty=0.0):
        super().__init__()
        self.penalty = penalty
        self.w = nn.Parameter(torch.zeros(()))

    def noise(self, batch, generator=None):
        return None

    def loss(self, batch, noise):
        return (self.w - batch["x"].mean()).square() + self.penalty * self.w.square(), {}


def train(penalty, **extra):
    stack = Stacked([Slope(penalty), Slope(penalty)])
    batches = StackedBatches([TensorBatches({"x": torch.arange(4.0)}, 2) for _ in range(2)])
    fit(stack, batches, TrainingConfig(epochs=1, threads=1, device="cpu"), progress=False, **extra)
    return stack


def test_members_of_other_settings_are_refused():
    with pytest.raises(UserError, match=r"of the same settings to stack, got each.penalty 0.0 and 0.5: train them one"):
        Stacked([Slope(), Slope(0.5)])


def test_members_with_state_in_buffers_are_refused():
    """Nothing would give it back to them, and no checkpoint would hold it."""

    class Counting(Slope):
        def __init__(self, persistent):
            super().__init__()
            self.register_buffer("step", torch.zeros(()), persistent=persistent)

    Stacked([Counting(persistent=False)])
    with pytest.raises(UserError, match="no state but parameters to stack, got the buffer step: train them one by one"):
        Stacked([Counting(persistent=True)])


def test_a_stack_goes_on_with_the_same_settings_only(tmp_path):
    run = RunFolder(tmp_path)
    weights = train(0.0, run=run).weights
    with pytest.raises(UserError, match=r"another model: model each.penalty \(0.0 there, 0.5 here\)"):
        train(0.5, run=run, resume=True)
    # as it was written before members' settings were
    kept = load_checkpoint(run.checkpoint())
    objective = {key: value for key, value in kept.identity["objective"].items() if not key.startswith("model ")}
    save_checkpoint(run.checkpoint(), Checkpoint({**kept.identity, "objective": objective}, kept.state, kept.tensors))
    again = train(0.0, run=run, resume=True).weights
    assert all(torch.equal(again[name], value) for name, value in weights.items())
