"""Modes that modules are put into for a block."""

import pytest
import torch
from torch import nn

from core_models.modes import evaluating, full_precision, modes_kept, steady


@pytest.fixture
def net():
    """In training mode, one of its parts in the other; one parameter that is kept from learning."""
    made = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout()).train()
    made[1].eval()
    made[0].bias.requires_grad_(False)
    return made


def state(net):
    return [part.training for part in net.modules()], [parameter.requires_grad for parameter in net.parameters()]


@pytest.mark.parametrize("kept", [modes_kept, evaluating, steady])
def test_every_part_is_as_it_was_after_a_block_that_fails(net, kept):
    before, other = state(net), nn.Dropout()
    with pytest.raises(KeyError), kept(net, other):
        net.train()
        other.eval()
        raise KeyError
    assert state(net) == before and other.training


def test_evaluating_leaves_gradients_and_steady_takes_them(net):
    modes, asked = state(net)
    with modes_kept(net):
        assert state(net) == (modes, asked)
    with evaluating(net):
        assert state(net) == ([False] * 4, asked)
    with steady(net):
        assert state(net) == ([False] * 4, [False] * 4)
        x = torch.ones(3, 2, requires_grad=True)
        net(x).sum().backward()
        assert x.grad is not None


def test_full_precision_is_without_tf32_and_gives_back_what_was_set():
    cudnn = torch.backends.cudnn
    before = cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic, torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        with pytest.raises(KeyError), full_precision():
            assert (cudnn.allow_tf32, torch.get_float32_matmul_precision()) == (False, "highest")
            assert (cudnn.enabled, cudnn.benchmark, cudnn.deterministic) == (True, *before[1:3])
            raise KeyError
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before[-1])
    assert (cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic) == before[:3]
