r"""Orthonormal bases in which signals are sparse: x = B w, w = B^T x.

Pixels (B = I), the two-dimensional DCT-II, orthonormal wavelets by their pyramid, the signal being periodic at its
edges, and any matrix of the user's own. Signals are images (batch, channels, height, width) or lines (batch, n);
coefficients have the same shape. Lines, and images one pixel high, are transformed along their last axis alone.

Source: Mallat, "A wavelet tour of signal processing", 2009, sections 7.2 and 7.7; the filters are those of PyWavelets.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pywt
import torch
from torch import Size, Tensor

from core_models.errors import UserError, suggestion

from .operators.base import tensor_of
from .operators.transforms import dct_matrix, plane_of

NAMES = ("pixels", "dct", "wavelet")


class Basis(ABC):
    """An orthonormal basis of signals of one shape."""

    def __init__(self, signal_shape: Sequence[int]) -> None:
        self.signal_shape = Size(signal_shape)
        self.n = self.signal_shape.numel()

    @abstractmethod
    def synthesise(self, w: Tensor) -> Tensor:
        """Returns x = B w, (batch, *signal_shape)."""

    @abstractmethod
    def analyse(self, x: Tensor) -> Tensor:
        """Returns w = B^T x, (batch, *signal_shape)."""

    def columns(self, like: Tensor) -> Tensor | None:
        """Returns B^T as (n, n), its rows the basis vectors, in the precision of a tensor; None for B = I."""
        unit = torch.eye(self.n, dtype=like.dtype, device=like.device).unflatten(1, self.signal_shape)
        return self.synthesise(unit).flatten(1)


class Pixels(Basis):
    """The signal itself."""

    def synthesise(self, w: Tensor) -> Tensor:
        """Returns w."""
        return w

    def analyse(self, x: Tensor) -> Tensor:
        """Returns x."""
        return x

    def columns(self, like: Tensor) -> Tensor | None:
        """Returns None: nothing needs to be multiplied."""
        return None


class Own(Basis):
    """The columns of an orthonormal matrix (n, n), n being the values of a signal in row-major order.

    Raises:
        UserError: when the matrix isn't of that shape, real and orthonormal.
    """

    def __init__(self, signal_shape: Sequence[int], matrix: Tensor) -> None:
        super().__init__(signal_shape)
        if tuple(matrix.shape) != (self.n, self.n) or not matrix.is_floating_point():
            raise UserError(
                f"expected a basis as a real matrix {(self.n, self.n)}, its columns the basis vectors, for signals "
                f"{tuple(signal_shape)}, got {matrix.dtype} of shape {tuple(matrix.shape)}"
            )
        matrix = matrix.detach()
        apart = float((matrix.T @ matrix - torch.eye(self.n).to(matrix)).abs().max())
        if not apart <= 1e3 * torch.finfo(matrix.dtype).eps:
            raise UserError(f"expected an orthonormal basis, B^T B differs from the identity by {apart:.1e}: take "
                            "torch.linalg.qr(B).Q")  # fmt: skip
        self.matrix = matrix

    def synthesise(self, w: Tensor) -> Tensor:
        """Returns B w."""
        return (w.flatten(1) @ self.matrix.to(w).T).reshape(w.shape)

    def analyse(self, x: Tensor) -> Tensor:
        """Returns B^T x."""
        return (x.flatten(1) @ self.matrix.to(x)).reshape(x.shape)


class DCT(Basis):
    """The two-dimensional DCT-II, channel by channel; of lines the DCT-II."""

    def __init__(self, signal_shape: Sequence[int]) -> None:
        super().__init__(signal_shape)
        _require_image_or_line(signal_shape)
        self.plane = plane_of(signal_shape)
        self.vertical, self.horizontal = (dct_matrix(side) for side in self.plane)

    def synthesise(self, w: Tensor) -> Tensor:
        """Returns the signal of coefficients."""
        planes = w.reshape(len(w), -1, *self.plane)
        return (self.vertical.to(w).T @ planes @ self.horizontal.to(w)).reshape(w.shape)

    def analyse(self, x: Tensor) -> Tensor:
        """Returns the coefficients of a signal."""
        planes = x.reshape(len(x), -1, *self.plane)
        return (self.vertical.to(x) @ planes @ self.horizontal.to(x).T).reshape(x.shape)


class Wavelet(Basis):
    """An orthonormal wavelet by its name in PyWavelets, with as many levels as the sides can be halved.

    Coefficients lie as usual: the coarsest approximation top left, details of the finest level in the outer three
    quarters; of a line, in its second half.
    """

    def __init__(self, signal_shape: Sequence[int], wavelet: str = "haar", levels: int | None = None) -> None:
        super().__init__(signal_shape)
        _require_image_or_line(signal_shape)
        if wavelet not in pywt.wavelist(kind="discrete") or not pywt.Wavelet(wavelet).orthogonal:
            raise UserError(f"expected an orthonormal wavelet of PyWavelets, e.g. haar or db2, got {wavelet!r}")
        self.plane = plane_of(signal_shape)
        sides = [side for side in self.plane if side > 1]  # the others are left alone
        possible = min((_halvings(side) for side in sides), default=0)
        told = f"{' x '.join(map(str, self.plane)) if len(signal_shape) > 1 else self.n} values"
        if possible < 1:
            raise UserError(f"expected sides that are even, divisible by 2^levels, for a wavelet, got {told}: pad or "
                            "crop them, or take the basis dct")  # fmt: skip
        levels = possible if levels is None else levels
        if not 1 <= levels <= possible:
            raise UserError(f"expected 1 to {possible} levels, 2^levels dividing the sides, for {told}, got {levels}")
        self.steps = [
            tuple(_step_matrix(side >> level, wavelet) if side > 1 else _ALONE for side in self.plane)
            for level in range(levels)
        ]
        # a step is the same at every second value: on lines of two filters what it does shows at any length
        enough = 2 * pywt.Wavelet(wavelet).dec_len
        for size in {min(side >> level, enough) for side in sides for level in range(levels)}:
            own = _step_matrix(size, wavelet)
            if bool(((own @ own.T) - torch.eye(len(own), dtype=own.dtype)).abs().max() > 1e-9):  # dmey's filter is cut
                raise UserError(f"expected an orthonormal wavelet, got {wavelet!r}, which is so only nearly")

    def analyse(self, x: Tensor) -> Tensor:
        """Returns the coefficients of a signal."""
        w = x.reshape(len(x), -1, *self.plane).clone()
        for vertical, horizontal in self.steps:
            height, width = len(vertical), len(horizontal)
            w[..., :height, :width] = vertical.to(x) @ w[..., :height, :width].clone() @ horizontal.to(x).T
        return w.reshape(x.shape)

    def synthesise(self, w: Tensor) -> Tensor:
        """Returns the signal of coefficients."""
        x = w.reshape(len(w), -1, *self.plane).clone()
        for vertical, horizontal in reversed(self.steps):
            height, width = len(vertical), len(horizontal)
            x[..., :height, :width] = vertical.to(w).T @ x[..., :height, :width].clone() @ horizontal.to(w)
        return x.reshape(w.shape)


def build_basis(name: str | Basis | Tensor | np.ndarray, signal_shape: Sequence[int]) -> Basis:
    """Builds a basis by name: pixels, dct, wavelet (Haar), or the name of an orthonormal wavelet, e.g. db2.

    Args:
        name: or a basis that is made already, or an orthonormal matrix (n, n) whose columns are the basis vectors,
            a tensor or an array of numpy.
        signal_shape: of one signal: (channels, height, width) or (n,).

    Raises:
        UserError: when there is none of that name, the matrix isn't orthonormal, or signals have another shape.

    Example:
        >>> build_basis(torch.eye(4).flip(0), (4,)).synthesise(torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
        tensor([[4., 3., 2., 1.]])
    """
    if isinstance(name, Basis):
        if name.signal_shape != Size(signal_shape):
            raise UserError(f"expected a basis of signals {tuple(signal_shape)}, as the operator measures, got one of "
                            f"{tuple(name.signal_shape)}")  # fmt: skip
        return name
    if isinstance(name, Tensor | np.ndarray):
        return Own(signal_shape, tensor_of(name, "a basis"))
    if not isinstance(name, str):
        raise UserError(f"expected a basis by name, a Basis or a matrix (n, n), got {type(name).__name__}")
    return _named(name, tuple(signal_shape))


@lru_cache(maxsize=2)  # a batch after the other asks for it; few, since matrices of long lines are large
def _named(name: str, signal_shape: tuple[int, ...]) -> Basis:
    if name == "pixels":
        return Pixels(signal_shape)
    if name == "dct":
        return DCT(signal_shape)
    if name == "wavelet":
        return Wavelet(signal_shape)
    if name in pywt.wavelist(kind="discrete"):
        return Wavelet(signal_shape, name)
    known = ", ".join(NAMES)
    raise UserError(f"expected a basis ({known}, or a wavelet of PyWavelets), got {name!r}{suggestion(name, NAMES)}")


def _step_matrix(size: int, wavelet: str) -> Tensor:
    """Returns one level of the transform of a line as a matrix (size, size): approximations, then details."""
    repeats = size > 2 * pywt.Wavelet(wavelet).dec_len  # else sums that wrap around may be rounded otherwise
    columns = [np.concatenate(pywt.dwt(unit, wavelet, mode="periodization")) for unit in
               np.eye(2 if repeats else size, size)]  # fmt: skip
    if not repeats:
        return torch.from_numpy(np.stack(columns, axis=1))
    half = size // 2
    matrix = np.zeros((2, half, half, 2))  # approximations and details; value 2 k + p is unit p shifted by k
    shifts = np.arange(half)
    for p, column in enumerate(columns):
        for own, part in enumerate(column.reshape(2, half)):
            for place in part.nonzero()[0]:
                matrix[own, (place + shifts) % half, shifts, p] = part[place]
    return torch.from_numpy(matrix.reshape(size, size))


_ALONE = torch.eye(1, dtype=torch.float64)
"""The transform along a side of one value."""


def _halvings(size: int) -> int:
    return (size & -size).bit_length() - 1


def _require_image_or_line(signal_shape: Sequence[int]) -> None:
    if len(signal_shape) not in (1, 3):
        raise UserError(f"expected images (channels, height, width) or lines (n,), got signals of shape "
                        f"{tuple(signal_shape)}")  # fmt: skip
