"""The moving average against the weighted sum that defines it."""

import math

import pytest
import torch
from torch import nn

from core_models.training.ema import ExponentialMovingAverage


class Module(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(2, dtype=torch.float64))
        self.fixed = nn.Parameter(torch.tensor(7.0), requires_grad=False)
        self.tied = self.w
        self.register_buffer("mean", torch.zeros((), dtype=torch.float64))
        self.register_buffer("mask", torch.tensor([0.0, -math.inf]))
        self.register_buffer("third", torch.tensor(1 / 3))
        self.register_buffer("count", torch.tensor(0))


def test_against_the_weighted_sum():
    module, decay = Module(), 0.9
    average = ExponentialMovingAverage(module, decay)
    values = [3.0, -1.0, 4.0, 1.5]
    for t, value in enumerate(values, start=1):
        with torch.no_grad():
            module.w.fill_(value)
        module.mean = torch.tensor(2 * value, dtype=torch.float64)  # rebound, not written into
        average.update()
        weights = [(1 - decay) * decay ** (t - s) / (1 - decay**t) for s in range(1, t + 1)]
        expected = sum(w * v for w, v in zip(weights, values, strict=False))
        assert average.average["w"].tolist() == pytest.approx([expected] * 2, rel=1e-12)
        assert average.average["mean"].item() == pytest.approx(2 * expected, rel=1e-12)


def test_what_never_changes_stays_exact():
    module = Module()
    average = ExponentialMovingAverage(module, 0.999)
    for _ in range(1000):
        average.update()
    average.copy_to_module()
    assert module.third.item() == torch.tensor(1 / 3).item()
    assert module.mask.tolist() == [0.0, -math.inf] and module.fixed.item() == 7


def test_applied_and_given_back():
    module = Module()
    average = ExponentialMovingAverage(module, 0.5)
    average.update()
    with torch.no_grad():
        module.w.fill_(0.1)
    with average.applied():
        assert module.w.tolist() == [0, 0] and module.tied.tolist() == [0, 0]
    assert module.w.tolist() == [0.1, 0.1]


def test_takes_over_a_saved_average():
    module = Module()
    one, two = ExponentialMovingAverage(module, 0.5), ExponentialMovingAverage(module, 0.5)
    for value in (1.0, 2.0, 3.0):
        with torch.no_grad():
            module.w.fill_(value)
        one.update()
        if value == 2.0:
            two.load(one.average, one.updates)
    two.update()
    assert torch.equal(one.average["w"], two.average["w"]) and one.updates == two.updates == 3
