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


BACKENDS = torch.backends
NEW = hasattr(getattr(BACKENDS.cudnn, "conv", None), "fp32_precision")
PLACES = {
    "all": lambda: BACKENDS,
    "cudnn": lambda: BACKENDS.cudnn,
    "conv": lambda: BACKENDS.cudnn.conv,
    "rnn": lambda: BACKENDS.cudnn.rnn,
    "products": lambda: BACKENDS.cuda.matmul,
    "mkldnn": lambda: BACKENDS.mkldnn,
    "mkldnn.conv": lambda: BACKENDS.mkldnn.conv,
    "mkldnn.rnn": lambda: BACKENDS.mkldnn.rnn,
    "mkldnn.products": lambda: BACKENDS.mkldnn.matmul,
}


def told():
    """Every precision, and what either of torch's older ways says, where it says something."""
    found = {name: place().fp32_precision for name, place in PLACES.items()} if NEW else {}
    for name, ask in {"cudnn": lambda: BACKENDS.cudnn.allow_tf32, "all": torch.get_float32_matmul_precision}.items():
        try:
            found[f"older {name}"] = ask()
        except RuntimeError:
            found[f"older {name}"] = "a mix"
    return found


def set_at(**values):
    for name, value in values.items():
        PLACES[name]().fp32_precision = value


@pytest.fixture
def precisions():
    """Gives back what is set; convolutions and recurrent ones then have their default as a value of their own."""
    yield
    if NEW:
        for place in PLACES.values():
            place().fp32_precision = "none"
    torch.set_float32_matmul_precision("highest")
    BACKENDS.cudnn.allow_tf32 = True
    if NEW:
        set_at(**{"products": "none", "mkldnn.products": "none"})


def by_older(products, convolutions):
    torch.set_float32_matmul_precision(products)
    BACKENDS.cudnn.allow_tf32 = convolutions


SETTINGS = {
    "nothing": lambda: None,
    "older high": lambda: by_older("high", True),
    "older medium": lambda: by_older("medium", False),
    "all ieee": lambda: set_at(all="ieee"),
    "all tf32": lambda: set_at(all="tf32"),
    "cudnn ieee": lambda: set_at(cudnn="ieee"),
    "conv ieee": lambda: set_at(conv="ieee"),
    "conv none": lambda: set_at(conv="none", rnn="ieee"),
    "products tf32": lambda: set_at(products="tf32"),
    "both": lambda: (by_older("high", True), set_at(products="ieee")),
}


@pytest.mark.parametrize("name", [name for name in SETTINGS if NEW or name == "nothing" or name.startswith("older")])
def test_full_precision_is_without_tf32_and_gives_back_what_was_set_in_whichever_way(precisions, name):
    SETTINGS[name]()
    before, cudnn = told(), BACKENDS.cudnn
    others = cudnn.enabled, cudnn.benchmark, cudnn.deterministic
    with pytest.raises(KeyError), full_precision(), full_precision():
        within = told()
        assert within["older all"] == "highest" and within["older cudnn"] in (False, "a mix")
        assert not NEW or {within[place] for place in PLACES} == {"ieee"}
        assert (cudnn.enabled, cudnn.benchmark, cudnn.deterministic) == others
        raise KeyError
    assert told() == before
    if name == "nothing" or name.startswith("older"):
        by_older("high", False)
        assert (torch.get_float32_matmul_precision(), BACKENDS.cudnn.allow_tf32) == ("high", False)


@pytest.mark.skipif(not NEW, reason="torch before 2.9 has no fp32_precision")
def test_what_follows_a_precision_set_for_all_still_does_after_full_precision(precisions):
    def followers():
        found = []
        for value in ("ieee", "tf32", "none"):
            set_at(all=value)
            found.append(told())
        return found

    before = followers()
    with full_precision():
        pass
    assert followers() == before


def test_blocks_of_full_precision_that_overlap_give_back_what_the_first_found(precisions):
    torch.set_float32_matmul_precision("high")
    before, first, second = told(), full_precision(), full_precision()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert torch.get_float32_matmul_precision() == "highest"
    second.__exit__(None, None, None)
    assert told() == before
