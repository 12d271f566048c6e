"""States that modules are put into for a block; each of their parts, which may differ, is given back its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

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
