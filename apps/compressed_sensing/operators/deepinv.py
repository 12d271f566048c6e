"""Operators of deepinv: its physics as ours, without the noise model that they carry.

A physics object is used by what it can do, `A` and `A_adjoint` on batches, so that deepinv itself is imported only
where one is asked for by name. Measurements of any shape are laid out as rows (batch, m).

Source: Tachella et al., "DeepInverse: a Python package for solving imaging inverse problems with deep learning", 2025.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from core_models.errors import UserError, suggestion

from .callable import Callables


class Physics(Callables):
    """The linear map of a physics object, on the device of its first parameter or buffer; its buffers move with it.

    Args:
        physics: an object with `A` and `A_adjoint` on batches, linear and real.
        signal_shape: of one signal.

    Raises:
        UserError: when there is no such method, or the map isn't linear or real, or the adjoint isn't its own.
    """

    def __init__(self, physics: Any, signal_shape: Sequence[int]) -> None:
        missing = [name for name in ("A", "A_adjoint") if not callable(getattr(physics, name, None))]
        if missing:
            raise UserError(
                f"expected linear physics of deepinv, with A and A_adjoint, got {type(physics).__name__} without "
                f"{' and '.join(missing)}"
            )
        module = isinstance(physics, torch.nn.Module)
        tensors = [*physics.parameters(), *physics.buffers()] if module else []
        real = [tensor.dtype for tensor in tensors if tensor.is_floating_point()]
        dtype = real[0] if real else torch.float32
        device = tensors[0].device if tensors else None
        with torch.no_grad():
            found = physics.A(torch.zeros(1, *signal_shape, dtype=dtype, device=device))
        if not isinstance(found, Tensor) or len(found) != 1:
            raise UserError(f"{type(physics).__name__}: expected A to make measurements (batch, ...) of one signal")
        shape = found.shape[1:]
        super().__init__(
            lambda x: physics.A(x).flatten(1),
            lambda y: physics.A_adjoint(y.unflatten(1, shape)).reshape(len(y), *signal_shape),
            signal_shape=signal_shape,
            dtype=dtype,
            device=device,
        )
        self.physics = physics


def from_deepinv(physics: Any, signal_shape: Sequence[int], **settings: Any) -> Physics:
    """Returns linear physics of deepinv as an operator, its linearity and its adjoint tested.

    Args:
        physics: the object, or the name of a class of `deepinv.physics`.
        signal_shape: of one signal, (channels, height, width) for most.
        **settings: arguments of the class, where a name is given.

    Raises:
        UserError: when it isn't linear, or a name is given and deepinv isn't installed or hasn't that class.

    Example:
        >>> class Half:
        ...     def A(self, x): return x[..., ::2]
        ...     def A_adjoint(self, y): return torch.stack([y, 0 * y], -1).flatten(-2)
        >>> from_deepinv(Half(), (1, 2, 4)).m
        4
    """
    if not isinstance(physics, str):
        if settings:
            raise UserError(f"expected no {', '.join(settings)} beside an object of deepinv, which has its settings")
        return Physics(physics, signal_shape)
    return Physics(_class_of(physics)(**settings), signal_shape)


def _class_of(name: str) -> Any:
    try:
        known = import_module("deepinv.physics")
    except (ImportError, RuntimeError) as error:  # torchvision, which deepinv needs, raises the latter
        raise UserError(
            f"{name}: expected deepinv, which could not be imported ({str(error).splitlines()[0]}): "
            "pip install 'genapps[deepinv]'"
        ) from error
    if not isinstance(getattr(known, name, None), type):
        raise UserError(f"expected a class of deepinv.physics, got {name!r}{suggestion(name, dir(known))}")
    return getattr(known, name)
