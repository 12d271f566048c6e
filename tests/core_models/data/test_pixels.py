import pytest
import torch
from torch import Generator

from core_models.data import binarise, dequantise, quantise, to_floats
from core_models.errors import UserError

GREYS = torch.rand(4000, 1, 2, 2, generator=Generator().manual_seed(0))


def test_none_and_threshold():
    assert binarise(GREYS, "none") is GREYS
    x = torch.tensor([[0.0, 0.5, 0.51, 1.0]])
    assert binarise(x, "threshold").tolist() == [[0, 0, 1, 1]]


def test_dynamic_draws_anew_from_the_generator_with_the_grey_as_probability():
    generator = Generator().manual_seed(1)
    first, second = binarise(GREYS, "dynamic", generator), binarise(GREYS, "dynamic", generator)
    assert set(first.unique().tolist()) == {0, 1}
    assert not torch.equal(first, second)
    assert torch.equal(first, binarise(GREYS, "dynamic", Generator().manual_seed(1)))
    noise = (first - GREYS).mean() / (GREYS * (1 - GREYS)).sum().sqrt() * GREYS.numel()
    assert noise.abs() < 4  # standard errors
    assert first[GREYS > 0.9].mean() > 0.9


def test_static_is_one_draw_whatever_the_generator():
    generator = Generator().manual_seed(1)
    first = binarise(GREYS, "static", generator)
    assert torch.equal(first, binarise(GREYS, "static", generator))
    assert not torch.equal(first, binarise(GREYS, "static", seed=1))
    assert first[GREYS > 0.9].mean() > 0.9
    assert first[GREYS < 0.1].mean() < 0.1


def test_levels_survive_both_ways():
    levels = torch.arange(256, dtype=torch.uint8)[:, None]
    assert torch.equal(quantise(levels.float() / 255), levels)
    assert torch.equal(quantise(torch.arange(17).float()[:, None] / 16, 17)[:, 0], torch.arange(17, dtype=torch.uint8))


def test_bytes_become_pixels_and_stay_as_they_are():
    levels = torch.arange(17, dtype=torch.uint8)[:, None]
    x = to_floats(levels, 17)
    assert x.dtype == torch.float32 and torch.equal(x[:, 0], torch.arange(17) / 16)
    assert torch.equal(quantise(x, 17), levels) and levels[16] == 16


def test_dequantised_pixels_fill_the_cell_of_their_level():
    levels = torch.arange(256).repeat(2000, 1)
    x = dequantise(levels / 255, 256, Generator().manual_seed(0))
    assert x.min() >= 0
    assert x.max() < 1
    # float32 rounds (k + noise) up to k + 1 about once in 2^18
    assert (x.mul(256).floor() != levels).float().mean() < 1e-4
    inside = x * 256 - levels
    assert inside.mean().item() == pytest.approx(0.5, abs=0.003)
    assert inside.var().item() == pytest.approx(1 / 12, abs=0.001)


def test_another_way_is_refused(monkeypatch):
    with pytest.raises((UserError, TypeError)):
        binarise(GREYS, "sometimes")  # type: ignore[arg-type]


def test_what_lies_outside_of_the_pixels_range_is_the_level_at_its_end():
    assert quantise(torch.tensor([[-3.0, -0.01, 0.0, 1.0, 1.01, 300.0]])).tolist() == [[0, 0, 0, 255, 255, 255]]
    assert quantise(torch.tensor([[-0.1, 1.1]]), 17).tolist() == [[0, 16]]
