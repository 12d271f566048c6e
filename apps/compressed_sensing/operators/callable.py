"""An operator of the user's own: a function and its adjoint.

With the adjoint beside it the function may leave PyTorch, for numpy or a library: the gradient of a linear map is its
adjoint, so that generative priors are searched through it all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from core_models.errors import UserError

from .base import LinearOperator, Measurements, Signals


class Callables(LinearOperator):
    """A map (batch, *signal_shape) -> (batch, m) and its adjoint (batch, m) -> (batch, *signal_shape).

    Args:
        function: A, linear and real; differentiable by PyTorch where no adjoint is given.
        adjoint: A^T, which is the gradient, too. When left out, automatic differentiation of the function gives it.
        signal_shape: of one signal.
        dtype: precision in which it works.
        device: on which it works, that of the tensors it is asked by here; the CPU when left out.

    Raises:
        UserError: when the function isn't linear, the adjoint isn't its own, or there is none and PyTorch can't
            differentiate the function.

    Example:
        >>> halves = Callables(lambda x: x[:, :2] * 0.5, signal_shape=(4,))
        >>> halves.adjoint(torch.ones(1, 2))
        tensor([[0.5000, 0.5000, 0.0000, 0.0000]])

        Through numpy:

        >>> rows = torch.eye(2, 4).numpy()
        >>> forth = lambda x: torch.from_numpy(x.numpy() @ rows.T)
        >>> back = lambda y: torch.from_numpy(y.numpy() @ rows)
        >>> x = torch.ones(1, 4, requires_grad=True)
        >>> torch.autograd.grad(Callables(forth, back, signal_shape=(4,))(x).sum(), x)[0]
        tensor([[1., 1., 0., 0.]])
    """

    def __init__(
        self,
        function: Callable[[Tensor], Tensor],
        adjoint: Callable[[Tensor], Tensor] | None = None,
        *,
        signal_shape: Sequence[int],
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        zero = torch.zeros(1, *signal_shape, dtype=dtype, device=device)
        with torch.no_grad():
            found = function(zero)
        if found.ndim != 2 or len(found) != 1 or not found.is_floating_point():
            hint = ": stack both parts, torch.view_as_real(...).flatten(1)" if found.is_complex() else ""
            raise UserError(
                f"expected a function that makes real measurements (batch, m), got {found.dtype} of shape "
                f"{tuple(found.shape)} of one signal{hint}"
            )
        if bool(found.any()):
            raise UserError("expected a linear function, it maps 0 to something else: take the constant off y")
        super().__init__(signal_shape, found.shape[1])
        self.function, self.transpose = function, adjoint
        self.register_buffer("_precision", torch.zeros((), dtype=dtype, device=device))
        self._check_linear()
        if adjoint is None:
            self._check_differentiable()
        self.check_adjoint()

    def _check_linear(self) -> None:
        like = self._like()
        generator = torch.Generator().manual_seed(1)
        draw = lambda: torch.randn(1, *self.signal_shape, generator=generator, dtype=like.dtype)  # noqa: E731
        a, b = (draw().to(like.device) for _ in range(2))
        with torch.no_grad():
            whole, parts = self.function(a + 2 * b), self.function(a) + 2 * self.function(b)
        if not torch.allclose(whole, parts, rtol=1e-4, atol=1e-4 * float(parts.abs().max())):
            raise UserError("expected a linear function: A(a + 2 b) isn't A(a) + 2 A(b)")

    def _check_differentiable(self) -> None:
        like = self._like()
        one = torch.zeros(1, *self.signal_shape, dtype=like.dtype, device=like.device, requires_grad=True)
        try:
            with torch.enable_grad():
                known = self.function(one).requires_grad
        except RuntimeError:  # numpy takes no tensor that needs a gradient
            known = False
        if not known:
            raise UserError(
                "expected a function that PyTorch can differentiate, got one whose measurements carry no gradient: "
                "give its adjoint beside it, Callables(function, adjoint, ...)"
            )

    def _apply_to(self, x: Signals) -> Measurements:
        if self.transpose is None:
            return self.function(x)
        own = x.to(self.get_buffer("_precision").dtype)  # a search in bfloat16 has numbers that numpy lacks
        return _ByAdjoint.apply(own, self.function, self.transpose)

    def _adjoint_of(self, y: Measurements) -> Signals:
        if self.transpose is not None:
            return self.transpose(y)
        with torch.enable_grad():
            x = y.new_zeros(len(y), *self.signal_shape, requires_grad=True)
            (found,) = torch.autograd.grad(self.function(x), x, grad_outputs=y)
        return found


class _ByAdjoint(torch.autograd.Function):
    """A linear map; its gradient is what its adjoint makes of that of the measurements."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Callable[[Tensor], Tensor], adjoint: Callable[[Tensor], Tensor]) -> Any:
        ctx.adjoint = adjoint
        # autocast would make products of torch bfloat16, whose gradients the adjoint, called outside of it, can't take
        with torch.autocast(x.device.type, enabled=False):
            return function(x.detach())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return ctx.adjoint(gradients[0]), None, None
