"""Seeding torch's global generators for a block."""

import pytest
import torch

from core_models.seeding import seeded


def test_a_block_draws_what_its_seed_says_and_leaves_no_trace():
    before = torch.get_rng_state()
    with seeded(5):
        first = torch.rand(3)
    assert torch.equal(torch.get_rng_state(), before)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        assert torch.equal(torch.rand(3), first)
    with pytest.raises(KeyError), seeded(5):
        raise KeyError
    assert torch.equal(torch.get_rng_state(), before)


def test_on_the_cpu_no_gpu_is_seeded(monkeypatch):
    """Their states would not be given back."""
    asked = []
    for name in ("manual_seed", "manual_seed_all"):
        monkeypatch.setattr(torch.cuda, name, lambda seed, name=name: asked.append(name))
    with seeded(5):
        torch.rand(3)
    assert not asked


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_a_gpu_both_generators_are_seeded_and_given_back():
    before = torch.get_rng_state(), torch.cuda.get_rng_state()
    drawn = []
    for _ in range(2):
        with seeded(5, torch.device("cuda")):
            drawn.append((torch.rand(3), torch.rand(3, device="cuda")))
    assert all(torch.equal(one, other) for one, other in zip(*drawn, strict=True))
    assert torch.equal(torch.get_rng_state(), before[0]) and torch.equal(torch.cuda.get_rng_state(), before[1])
    with seeded(5):
        torch.rand(3, device="cuda")
    assert not torch.equal(torch.cuda.get_rng_state(), before[1])  # seeded for the CPU, it leaves a GPU alone
