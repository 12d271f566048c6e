r"""Orthonormal bases in which images are sparse: x = B w, w = B^T x.

Pixels (B = I), the two-dimensional DCT-II, and orthonormal wavelets by their pyramid, the image being periodic at its
edges. Signals are (batch, channels, height, width); coefficients have the same shape.

Source: Mallat, "A wavelet tour of signal processing", 2009, sections 7.2 and 7.7; the filters are those of PyWavelets.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import pywt
import torch
from torch import Size, Tensor

from core_models.errors import UserError, suggestion

from .operators.transforms import dct_matrix

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


class DCT(Basis):
    """The two-dimensional DCT-II, channel by channel."""

    def __init__(self, signal_shape: Sequence[int]) -> None:
        super().__init__(signal_shape)
        _require_image(signal_shape)
        self.vertical, self.horizontal = dct_matrix(signal_shape[-2]), dct_matrix(signal_shape[-1])

    def synthesise(self, w: Tensor) -> Tensor:
        """Returns the image of coefficients."""
        return self.vertical.to(w).T @ w @ self.horizontal.to(w)

    def analyse(self, x: Tensor) -> Tensor:
        """Returns the coefficients of an image."""
        return self.vertical.to(x) @ x @ self.horizontal.to(x).T


class Wavelet(Basis):
    """An orthonormal wavelet by its name in PyWavelets, with as many levels as the sides can be halved.

    Coefficients lie as usual: the coarsest approximation top left, details of the finest level in the outer three
    quarters.
    """

    def __init__(self, signal_shape: Sequence[int], wavelet: str = "haar", levels: int | None = None) -> None:
        super().__init__(signal_shape)
        _require_image(signal_shape)
        if wavelet not in pywt.wavelist(kind="discrete") or not pywt.Wavelet(wavelet).orthogonal:
            raise UserError(f"expected an orthonormal wavelet of PyWavelets, e.g. haar or db2, got {wavelet!r}")
        height, width = signal_shape[-2:]
        possible = min(_halvings(height), _halvings(width))
        levels = possible if levels is None else levels
        if not 1 <= levels <= possible:
            raise UserError(f"expected 1 to {possible} levels for images of {height} x {width} [pixels], got {levels}")
        self.steps = [
            (_step_matrix(height >> level, wavelet), _step_matrix(width >> level, wavelet)) for level in range(levels)
        ]
        for own in (matrix for pair in self.steps for matrix in pair):
            if bool(((own @ own.T) - torch.eye(len(own), dtype=own.dtype)).abs().max() > 1e-9):  # dmey's filter is cut
                raise UserError(f"expected an orthonormal wavelet, got {wavelet!r}, which is so only nearly")

    def analyse(self, x: Tensor) -> Tensor:
        """Returns the coefficients of an image."""
        w = x.clone()
        for vertical, horizontal in self.steps:
            height, width = len(vertical), len(horizontal)
            w[..., :height, :width] = vertical.to(x) @ w[..., :height, :width].clone() @ horizontal.to(x).T
        return w

    def synthesise(self, w: Tensor) -> Tensor:
        """Returns the image of coefficients."""
        x = w.clone()
        for vertical, horizontal in reversed(self.steps):
            height, width = len(vertical), len(horizontal)
            x[..., :height, :width] = vertical.to(w).T @ x[..., :height, :width].clone() @ horizontal.to(w)
        return x


def build_basis(name: str, signal_shape: Sequence[int]) -> Basis:
    """Builds a basis by name: pixels, dct, wavelet (Haar), or the name of an orthonormal wavelet, e.g. db2.

    Raises:
        UserError: when there is none of that name, or signals aren't images where they must be.
    """
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
    columns = [np.concatenate(pywt.dwt(unit, wavelet, mode="periodization")) for unit in np.eye(size)]
    return torch.from_numpy(np.stack(columns, axis=1))


def _halvings(size: int) -> int:
    return (size & -size).bit_length() - 1


def _require_image(signal_shape: Sequence[int]) -> None:
    if len(signal_shape) != 3:
        raise UserError(f"expected images (channels, height, width), got signals of shape {tuple(signal_shape)}")
