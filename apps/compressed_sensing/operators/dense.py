"""Operators that are a matrix: random ones, and the user's own.

Scaling is said by name: `unit` draws entries of variance 1, as in the code of Bora et al., `isometric` of variance
1 / m, so that E ||A x||^2 = ||x||^2. The same signal-to-noise ratio comes with a noise sqrt(m) times smaller.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor

from core_models.errors import UserError

from .base import LinearOperator, Measurements, Signals, tensor_of

Scaling = Literal["unit", "isometric"]


class Matrix(LinearOperator):
    """The operator of a matrix (m, n), n being the values of a signal in row-major order.

    Args:
        weight: the matrix, a tensor or an array of numpy, in whose precision the operator works.
        signal_shape: of one signal; (n,) when left out.

    Raises:
        UserError: when it is no real, finite matrix that measures something, or doesn't fit signals of that shape.
    """

    weight: Tensor

    def __init__(self, weight: Float[Tensor, "m n"] | np.ndarray, signal_shape: Sequence[int] | None = None) -> None:
        weight = tensor_of(weight, "a matrix (m, n)")
        if weight.ndim != 2 or not weight.is_floating_point():
            hint = ": stack both parts, torch.cat([A.real, A.imag]), and those of y" if weight.is_complex() else ""
            raise UserError(f"expected a real matrix (m, n), got {weight.dtype} of shape {tuple(weight.shape)}{hint}")
        if not bool(torch.isfinite(weight).all()):
            raise UserError("expected a matrix of finite numbers, got NaN or infinity")
        if not bool(weight.any()):
            raise UserError("expected a matrix that measures something, got all zeros")
        shape = (weight.shape[1],) if signal_shape is None else tuple(signal_shape)
        if prod(shape) != weight.shape[1]:
            raise UserError(
                f"expected a matrix with {prod(shape)} columns, one for each value of a signal {shape}, got "
                f"{weight.shape[1]}"
            )
        super().__init__(shape, weight.shape[0])
        self.register_buffer("weight", weight)

    def _apply_to(self, x: Signals) -> Measurements:
        return x.flatten(1) @ self.weight.T

    def _adjoint_of(self, y: Measurements) -> Signals:
        return (y @ self.weight).unflatten(1, self.signal_shape)

    def matrix(self) -> Float[Tensor, "m n"]:
        """Returns the matrix itself."""
        return self.weight

    def blocks(self) -> Iterator[Tensor]:
        """Yields the matrix, which is there already."""
        yield self.weight


def gaussian(
    signal_shape: Sequence[int], m: int, *, seed: int = 0, scaling: Scaling = "unit", dtype: torch.dtype = torch.float32
) -> Matrix:
    """Draws a matrix of independent normal entries (Candes, Romberg and Tao 2006; Bora et al. 2017, section 6)."""
    entries = torch.randn(m, prod(signal_shape), generator=Generator().manual_seed(seed), dtype=torch.float64)
    return _drawn(entries, scaling, dtype, signal_shape)


def bernoulli(
    signal_shape: Sequence[int], m: int, *, seed: int = 0, scaling: Scaling = "unit", dtype: torch.dtype = torch.float32
) -> Matrix:
    """Draws a matrix of independent signs, -1 or 1, each as likely as the other."""
    signs = torch.randint(0, 2, (m, prod(signal_shape)), generator=Generator().manual_seed(seed)).double() * 2 - 1
    return _drawn(signs, scaling, dtype, signal_shape)


def _drawn(entries: Tensor, scaling: Scaling, dtype: torch.dtype, signal_shape: Sequence[int]) -> Matrix:
    """Returns the operator of entries of variance 1, which are scaled; their mean square is that of the law."""
    if scaling not in ("unit", "isometric"):
        raise UserError(f"expected the scaling unit or isometric, got {scaling!r}")
    m = len(entries)
    made = Matrix((entries * (1.0 if scaling == "unit" else m**-0.5)).to(dtype), signal_shape)
    made._mean_square = 1.0 if scaling == "unit" else 1 / m
    return made
