"""Operators that keep some coefficients of a transform of the image: DCT and Fourier.

Both transforms are orthonormal over the last two axes, channel by channel, so that A A^T = I for the DCT. A Fourier
coefficient gives two real measurements, sqrt(2) times its real and its imaginary part; those coefficients that a real
image ties to others are left out, and those that are always real give one. So all measurements together are an
orthonormal transform too, and m counts real numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
import torch
from jaxtyping import Bool
from scipy.fft import dct
from torch import Generator, Tensor

from core_models.errors import UserError

from .base import LinearOperator, Measurements, Signals


def dct_matrix(size: int) -> Tensor:
    """Returns the orthonormal DCT-II as a matrix (size, size), float64: coefficients = matrix @ signal."""
    return torch.from_numpy(np.ascontiguousarray(dct(np.eye(size), axis=0, norm="ortho")))


class SubsampledDCT(LinearOperator):
    """m coefficients of the two-dimensional DCT-II, drawn by a seed; the lowest frequency always among them."""

    def __init__(
        self, signal_shape: Sequence[int], m: int, *, seed: int = 0, dtype: torch.dtype = torch.float32
    ) -> None:
        _check(signal_shape, m)
        super().__init__(signal_shape, m)
        self.register_buffer("kept", _drawn(self.n, m, seed))
        self.register_buffer("vertical", dct_matrix(signal_shape[-2]).to(dtype))
        self.register_buffer("horizontal", dct_matrix(signal_shape[-1]).to(dtype))

    def _like(self) -> Tensor:
        return self.get_buffer("vertical")

    def _apply_to(self, x: Signals) -> Measurements:
        coefficients = self.get_buffer("vertical") @ x @ self.get_buffer("horizontal").T
        return coefficients.flatten(1)[:, self.get_buffer("kept")]

    def _adjoint_of(self, y: Measurements) -> Signals:
        full = y.new_zeros(len(y), self.n).index_copy(1, self.get_buffer("kept"), y)
        return self.get_buffer("vertical").T @ full.unflatten(1, self.signal_shape) @ self.get_buffer("horizontal")


class SubsampledFourier(LinearOperator):
    """m real numbers of the two-dimensional Fourier transform, drawn by a seed; the mean always among them."""

    def __init__(
        self, signal_shape: Sequence[int], m: int, *, seed: int = 0, dtype: torch.dtype = torch.float32
    ) -> None:
        _check(signal_shape, m)
        super().__init__(signal_shape, m)
        self.register_buffer("kept", _drawn(self.n, m, seed))
        own, weight, imaginary = _independent(signal_shape[-2], signal_shape[-1])
        channels, plane = prod(signal_shape[:-2]), signal_shape[-2] * signal_shape[-1]
        offset = torch.arange(channels)[:, None] * plane
        self.register_buffer("place", (own + offset).flatten())
        self.register_buffer("weight", weight.to(dtype).repeat(channels))
        self.register_buffer("imaginary", imaginary.repeat(channels))

    @classmethod
    def of_frequencies(
        cls, signal_shape: Sequence[int], mask: Bool[Tensor, "height width"], *, dtype: torch.dtype = torch.float32
    ) -> SubsampledFourier:
        """Returns the operator that keeps what a mask does, in every channel.

        Args:
            signal_shape: of one signal.
            mask: of frequencies, in the order of `numpy.fft.fft2`, 0 first: `numpy.fft.ifftshift` brings a centred one
                there. Of a frequency and its negative, which a real image ties to each other, one is enough.
            dtype: precision.

        Raises:
            UserError: when signals are no images, or the mask has another shape or keeps nothing.
        """
        _check_images(signal_shape)
        plane = tuple(signal_shape[-2:])
        if mask.dtype != torch.bool or tuple(mask.shape) != plane:
            raise UserError(f"expected a mask of frequencies, true or false, of shape {plane}, got {mask.dtype} of "
                            f"shape {tuple(mask.shape)}")  # fmt: skip
        if not bool(mask.any()):
            raise UserError("expected a mask that keeps at least one frequency, it keeps none")
        either = mask | mask.flip(0, 1).roll((1, 1), (0, 1))  # itself or its negative
        place, _, _ = _independent(*mask.shape)
        kept = either.flatten()[place].repeat(prod(signal_shape[:-2])).nonzero().squeeze(1)
        made = cls(signal_shape, len(kept), dtype=dtype)
        made.register_buffer("kept", kept)
        return made

    def _like(self) -> Tensor:
        return self.get_buffer("weight")

    def _apply_to(self, x: Signals) -> Measurements:
        spectrum = torch.fft.fft2(x, norm="ortho").flatten(1)[:, self.get_buffer("place")]
        real = torch.where(self.get_buffer("imaginary"), spectrum.imag, spectrum.real) * self.get_buffer("weight")
        return real[:, self.get_buffer("kept")]

    def _adjoint_of(self, y: Measurements) -> Signals:
        real = y.new_zeros(len(y), self.n).index_copy(1, self.get_buffer("kept"), y) * self.get_buffer("weight")
        imaginary = self.get_buffer("imaginary")
        values = torch.complex(torch.where(imaginary, 0.0, real), torch.where(imaginary, real, 0.0))
        full = values.new_zeros(len(y), self.n).index_add(1, self.get_buffer("place"), values)
        return torch.fft.ifft2(full.unflatten(1, self.signal_shape), norm="ortho").real


def _independent(height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns which Fourier coefficients of a real plane are independent: place, weight, whether the imaginary part."""
    row, column = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    own = row * width + column
    twin = (-row % height) * width + (-column % width)
    alone, first = (own == twin).ravel(), (own < twin).ravel()
    place = np.concatenate([own.ravel()[alone], np.repeat(own.ravel()[first], 2)])
    weight = np.concatenate([np.ones(alone.sum()), np.full(2 * first.sum(), 2**0.5)])
    imaginary = np.concatenate([np.zeros(alone.sum(), bool), np.tile([False, True], first.sum())])
    return torch.from_numpy(place), torch.from_numpy(weight), torch.from_numpy(imaginary)


def _drawn(n: int, m: int, seed: int) -> Tensor:
    """Draws m of n places, the first always among them, in ascending order."""
    others = torch.randperm(n - 1, generator=Generator().manual_seed(seed))[: m - 1] + 1
    return torch.cat([torch.zeros(1, dtype=torch.long), others.sort().values])


def _check(signal_shape: Sequence[int], m: int) -> None:
    _check_images(signal_shape)
    if not 1 <= m <= prod(signal_shape):
        raise UserError(f"expected 1 to {prod(signal_shape)} measurements, got m = {m}")


def _check_images(signal_shape: Sequence[int]) -> None:
    if len(signal_shape) < 2:
        raise UserError(f"expected images (..., height, width), got signals of shape {tuple(signal_shape)}")
