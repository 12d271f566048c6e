"""An operator of the user's own: a function and its adjoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from core_models.errors import UserError

from .base import LinearOperator, Measurements, Signals


class Callables(LinearOperator):
    """A map (batch, *signal_shape) -> (batch, m) and its adjoint (batch, m) -> (batch, *signal_shape).

    Args:
        function: A, linear, real and differentiable by PyTorch where a generative prior is to use it.
        adjoint: A^T. When left out, automatic differentiation of the function gives it.
        signal_shape: of one signal.
        dtype: precision in which it works.

    Raises:
        UserError: when the function isn't linear, or the adjoint isn't its own.

    Example:
        >>> halves = Callables(lambda x: x[:, :2] * 0.5, signal_shape=(4,))
        >>> halves.adjoint(torch.ones(1, 2))
        tensor([[0.5000, 0.5000, 0.0000, 0.0000]])
    """

    def __init__(
        self,
        function: Callable[[Tensor], Tensor],
        adjoint: Callable[[Tensor], Tensor] | None = None,
        *,
        signal_shape: Sequence[int],
        dtype: torch.dtype = torch.float32,
    ) -> None:
        zero = torch.zeros(1, *signal_shape, dtype=dtype)
        with torch.no_grad():
            found = function(zero)
        if found.ndim != 2 or len(found) != 1 or not found.is_floating_point():
            raise UserError(
                f"expected a function that makes real measurements (batch, m), got {found.dtype} of shape "
                f"{tuple(found.shape)} of one signal"
            )
        if bool(found.any()):
            raise UserError("expected a linear function, it maps 0 to something else: take the constant off y")
        super().__init__(signal_shape, found.shape[1])
        self.function, self.transpose = function, adjoint
        self.register_buffer("_precision", torch.zeros((), dtype=dtype))
        self._check_linear()
        self.check_adjoint()

    def _check_linear(self) -> None:
        like = self._like()
        generator = torch.Generator().manual_seed(1)
        a, b = (torch.randn(1, *self.signal_shape, generator=generator, dtype=like.dtype) for _ in range(2))
        with torch.no_grad():
            whole, parts = self.function(a + 2 * b), self.function(a) + 2 * self.function(b)
        if not torch.allclose(whole, parts, rtol=1e-4, atol=1e-4 * float(parts.abs().max())):
            raise UserError("expected a linear function: A(a + 2 b) isn't A(a) + 2 A(b)")

    def _apply_to(self, x: Signals) -> Measurements:
        return self.function(x)

    def _adjoint_of(self, y: Measurements) -> Signals:
        if self.transpose is not None:
            return self.transpose(y)
        with torch.enable_grad():
            x = y.new_zeros(len(y), *self.signal_shape, requires_grad=True)
            (found,) = torch.autograd.grad(self.function(x), x, grad_outputs=y)
        return found
