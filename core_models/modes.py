"""States that modules, and torch itself, are put into for a block; each part, which may differ, gets back its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

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


@contextmanager
def full_precision() -> Iterator[None]:
    """Has a block's products of float32 computed in float32: none goes through TF32, as a GPU's convolutions do else.

    TF32 has ten bits of mantissa: likelihoods of deep networks would differ in their fourth digit, and values chosen
    by an argmax would be near-ties. On a CPU it changes nothing.

    Example:
        >>> with full_precision():
        ...     torch.backends.cudnn.allow_tf32
        False
    """
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
