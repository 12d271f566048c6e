"""States that modules, and torch itself, are put into for a block; each part, which may differ, gets back its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from threading import Lock
from typing import Any

import torch
from torch import nn


@contextmanager
def modes_kept(*modules: nn.Module) -> Iterator[None]:
    """Lets a block train and evaluate as it likes; afterwards every part is in the mode that it is in now."""
    modes = [(part, part.training) for module in modules for part in module.modules()]
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def train_unfrozen(module: nn.Module) -> None:
    """Puts a module in training mode, but for parts whose parameters are all frozen: they stay in the mode they are in.

    The running statistics of a pretrained part in evaluation mode are as fixed as its weights.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2).requires_grad_(False)).eval()
        >>> train_unfrozen(net)
        >>> [part.training for part in net]
        [True, False]
    """
    asked = [(part, [parameter.requires_grad for parameter in part.parameters()]) for part in module.modules()]
    with modes_kept(*[part for part, asks in asked if asks and not any(asks)]):
        module.train()


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Puts modules in evaluation mode: nothing is dropped, and batch norm uses its running statistics and keeps them.

    Example:
        >>> net = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2).eval())
        >>> with evaluating(net):
        ...     [part.training for part in net]
        [False, False]
        >>> [part.training for part in net]
        [True, False]
    """
    with modes_kept(*modules):
        for module in modules:
            module.eval()
        yield


_LOCK = Lock()
_blocks = 0
_exact: AbstractContextManager[None]
"""What the first of the blocks of `full_precision` that are open has entered, for the last of them to leave."""


@contextmanager
def full_precision() -> Iterator[None]:
    """Has a block's products of float32 computed in float32: none goes through TF32, as a GPU's convolutions do else.

    TF32 has ten bits of mantissa: likelihoods of deep networks would differ in their fourth digit, and values chosen
    by an argmax would be near-ties. On a CPU it changes nothing, unless products of bfloat16 were asked for.

    What it sets is torch's, and so every thread's. Blocks may overlap, in one thread or several: the first that is
    entered keeps what was set, the last that is left gives it back, and whoever set it may go on by either of torch's
    ways, `allow_tf32` or `fp32_precision`. Within a block the first of these may not be readable for convolutions:
    torch refuses a mix of both, and the other alone can be given back as it was.

    Example:
        >>> with full_precision():
        ...     torch.get_float32_matmul_precision()
        'highest'
    """
    global _blocks, _exact
    with _LOCK:
        if not _blocks:
            conv = getattr(torch.backends.cudnn, "conv", None)
            exact = _by_fp32_precision() if hasattr(conv, "fp32_precision") else _by_allow_tf32()
            exact.__enter__()
            _exact = exact
        _blocks += 1
    try:
        yield
    finally:
        with _LOCK:
            _blocks -= 1
            if not _blocks:
                _exact.__exit__(None, None, None)


@contextmanager
def _by_fp32_precision() -> Iterator[None]:
    """Sets what torch from 2.9 on has: a precision for each kind of product, or what it takes from those above."""
    backends: Any = torch.backends
    cudnn, mkldnn = backends.cudnn, backends.mkldnn
    # those above first: what follows them then reads "ieee" and stays unset, as a default can't be set again
    above = [backends, cudnn, mkldnn]
    below = [cudnn.conv, cudnn.rnn, backends.cuda.matmul, mkldnn.conv, mkldnn.rnn, mkldnn.matmul]
    before = [(place, place.fp32_precision) for place in above + below]
    own: list[tuple[Any, str]] = []
    products = "highest"
    try:
        for place in above + below:
            if (value := place.fp32_precision) != "ieee":
                own.append((place, value))
                place.fp32_precision = "ieee"
        products = torch.get_float32_matmul_precision()
        if products != "highest":
            torch.set_float32_matmul_precision("highest")
        yield
    finally:
        if products != "highest":
            torch.set_float32_matmul_precision(products)
        for place, value in reversed(own):
            place.fp32_precision = value
        for place, value in before:
            if place.fp32_precision != value:  # what the line on products set, though it was set otherwise since
                place.fp32_precision = value


@contextmanager
def _by_allow_tf32() -> Iterator[None]:
    """Sets what torch had before."""
    cudnn, products = torch.backends.cudnn, torch.get_float32_matmul_precision()
    kept = {"benchmark": cudnn.benchmark, "deterministic": cudnn.deterministic}
    with cudnn.flags(cudnn.enabled, allow_tf32=False, **kept):
        if products != "highest":
            torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            if products != "highest":
                torch.set_float32_matmul_precision(products)


@contextmanager
def steady(*modules: nn.Module) -> Iterator[None]:
    """Puts modules in evaluation mode, their parameters asking for no gradients: what is searched is their input."""
    asked = [(parameter, parameter.requires_grad) for module in modules for parameter in module.parameters()]
    with evaluating(*modules):
        try:
            for parameter, _ in asked:
                parameter.requires_grad_(False)
            yield
        finally:
            for parameter, ask in asked:
                parameter.requires_grad_(ask)
