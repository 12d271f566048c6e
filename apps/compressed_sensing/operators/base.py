r"""What makes the measurements: a linear map A and its adjoint, on batches.

.. math:: y = A x + e, \qquad e \sim N(0, \sigma^2 I)

Signals are (batch, \*signal_shape), measurements (batch, m); both are real. The adjoint is held against the map by the
dot-product test when an operator is made: <A x, y> = <x, A^T y> for random x and y.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Size, Tensor, nn

from core_models.errors import UserError

Signals = Float[Tensor, "batch ..."]
"""(batch, *signal_shape)."""
Measurements = Float[Tensor, "batch m"]

BYTES = 1 << 28
"""Of memory that making a dense matrix takes at a time [bytes]."""
EXACT, PROBES = 1 << 26, 64
"""Entries of the largest matrix that is made for its mean square; and random signals that larger ones are asked by."""


def tensor_of(values: Any, what: str) -> Tensor:
    """Returns a tensor as it is, and an array of numpy as a tensor of its numbers, which it shares where it can.

    Raises:
        UserError: when it is neither, or PyTorch has no such numbers.
    """
    if isinstance(values, Tensor):
        return values
    if not isinstance(values, np.ndarray):
        raise UserError(f"expected {what} as a tensor or an array of numpy, got {type(values).__name__}: convert them")
    native = values.astype(values.dtype.newbyteorder("="), copy=False)
    try:
        return torch.from_numpy(np.require(native, requirements=["C", "W"]))  # torch warns of what it can't write to
    except TypeError as error:
        raise UserError(f"expected {what} of numbers, got {values.dtype}: convert them to float32") from error


class LinearOperator(nn.Module, ABC):
    """A linear map from signals to measurements; `A(x)` and `A.adjoint(y)`."""

    def __init__(self, signal_shape: Sequence[int], m: int) -> None:
        super().__init__()
        if not signal_shape or min(signal_shape) < 1:
            raise UserError(f"expected signals of a shape of at least one value, got {tuple(signal_shape)}")
        if m < 1:
            raise UserError(f"expected at least one measurement, got m = {m}")
        self.signal_shape, self.m = Size(signal_shape), m
        self.n = prod(signal_shape)
        self._rank: int | None = None
        self._mean_square: float | None = None

    @abstractmethod
    def _apply_to(self, x: Signals) -> Measurements:
        """Returns A x, (batch, m), differentiably by PyTorch: priors are searched through it."""

    @abstractmethod
    def _adjoint_of(self, y: Measurements) -> Signals:
        """Returns A^T y, (batch, *signal_shape)."""

    def forward(self, x: Signals) -> Measurements:
        """Returns the measurements (batch, m) of signals (batch, *signal_shape), without noise.

        Raises:
            UserError: when the signals have another shape, or their gradient is asked for and lost.
        """
        x = tensor_of(x, "signals")
        if x.shape[1:] != self.signal_shape:
            wanted, got = (", ".join(map(str, shape)) for shape in (self.signal_shape, x.shape))
            raise UserError(f"expected signals of shape (batch, {wanted}), as the operator measures, got ({got})")
        own = next((buffer.dtype for buffer in self.buffers() if buffer.is_floating_point()), None)
        if own is not None and torch.float64 in (x.dtype, own):
            x = x.to(own)  # products of single and double precision are refused
        y = self._apply_to(x)
        if x.requires_grad and torch.is_grad_enabled() and not y.requires_grad:  # a search would ignore y, unnoticed
            raise UserError(
                f"{type(self).__name__}: expected measurements that PyTorch can differentiate, their gradient is lost: "
                "use Callables(function, adjoint, ...), which takes the adjoint for it"
            )
        return y

    def adjoint(self, y: Measurements) -> Signals:
        """Returns A^T y, (batch, *signal_shape), of measurements (batch, m).

        Raises:
            UserError: when the number of measurements is another.
        """
        y = tensor_of(y, "measurements")
        if y.ndim != 2 or y.shape[1] != self.m:
            raise UserError(f"expected measurements of shape (batch, {self.m}), as the operator makes, got "
                            f"{tuple(y.shape)}")  # fmt: skip
        return self._adjoint_of(y)

    def matrix(self) -> Float[Tensor, "m n"]:
        """Returns A as a dense matrix, (m, n), on the device and in the precision of the operator's buffers."""
        blocks = torch.cat(list(self.blocks()))
        return blocks if self.m <= self.n else blocks.T

    def blocks(self) -> Iterator[Tensor]:
        """Yields A a piece of memory at a time: some of its rows, or of its columns where these are fewer."""
        like, count = self._like(), min(self.m, self.n)
        step = max(1, BYTES // (8 * max(self.n, self.m)))
        for start in range(0, count, step):
            unit = torch.zeros(min(step, count - start), count, dtype=like.dtype, device=like.device)
            unit.diagonal(start).fill_(1)
            if self.m <= self.n:
                yield self.adjoint(unit).flatten(1)
            else:
                yield self(unit.unflatten(1, self.signal_shape))

    def rank(self) -> int:
        """Returns the rank of A: below m or n where measurements repeat each other."""
        if self._rank is None:
            self._rank = int(torch.linalg.matrix_rank(self.matrix().double()))
        return self._rank

    def mean_square(self) -> float:
        """Returns the mean square of A's entries, ||A||_F^2 / (m n), for which penalties that are left out stand.

        Of the matrices that are drawn by name it is the variance of an entry; of more than `EXACT` entries an estimate
        by random signs, always the same.
        """
        if self._mean_square is None:
            with torch.no_grad():
                if self.m * self.n <= EXACT:
                    total = sum(float(block.double().square().sum()) for block in self.blocks())
                else:
                    generator, like = Generator().manual_seed(0), self._like()
                    signs = torch.randint(0, 2, (PROBES, *self.signal_shape), generator=generator) * 2 - 1
                    # one at a time: signals of such a size may be all that fits into memory
                    total = sum(float(self(x[None].to(like)).double().square().sum()) for x in signs) / PROBES
            self._mean_square = total / (self.m * self.n)
        return self._mean_square

    def _like(self) -> Tensor:
        """Returns a buffer that says on which device and in which precision the operator works."""
        return next(self.buffers(), torch.zeros(()))

    def check_adjoint(self, tolerance: float | None = None, *, seed: int = 0) -> None:
        """Holds the adjoint against the map by random vectors.

        Args:
            tolerance: largest difference of the two products, as a share of ||A x|| ||y||; by the precision when
                left out.
            seed: of the vectors.

        Raises:
            UserError: when the adjoint belongs to another map, or either isn't finite.
        """
        like = self._like()
        generator = Generator().manual_seed(seed)
        draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64).to(like)  # noqa: E731
        x, y = draw(3, *self.signal_shape), draw(3, self.m)
        with torch.no_grad():
            image, back = self(x), self.adjoint(y)
        if not bool(torch.isfinite(image).all() and torch.isfinite(back).all()):
            raise UserError(
                f"{type(self).__name__}: expected finite measurements of random signals, got NaN or infinity"
            )
        if not bool(image.any()):
            raise UserError(f"{type(self).__name__}: expected measurements that depend on the signal, A is all zero")
        left = (image.double() * y.double()).sum(1)
        right = (x.double() * back.double()).flatten(1).sum(1)
        scale = image.double().norm(dim=1) * y.double().norm(dim=1)
        scale = scale + x.double().flatten(1).norm(dim=1) * back.double().flatten(1).norm(dim=1)
        worst = float(((left - right).abs() / scale).max())
        allowed = tolerance if tolerance is not None else 1e3 * torch.finfo(like.dtype).eps
        if not worst <= allowed:
            raise UserError(
                f"{type(self).__name__}: expected an adjoint with <A x, y> = <x, A^T y>, they differ by {worst:.1e} of "
                f"their size (at most {allowed:.0e}): give the adjoint of this very map"
            )


def measure(operator: LinearOperator, x: Signals, noise: float, generator: Generator | None = None) -> Measurements:
    """Returns noisy measurements A x + e, (batch, m).

    Args:
        operator: A.
        x: signals (batch, *signal_shape).
        noise: standard deviation of each measurement's noise [units of y].
        generator: of the noise.

    Raises:
        UserError: when the noise is negative.
    """
    if not noise >= 0:
        raise UserError(f"expected a noise of 0 or more, got {noise}")
    y = operator(x)
    return y + noise * torch.empty_like(y).normal_(generator=generator) if noise else y
