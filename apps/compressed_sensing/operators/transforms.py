"""Operators that keep some coefficients of a transform of the signal: DCT and Fourier.

Both transforms are orthonormal over the last two axes, channel by channel, so that A A^T = I; of lines (n,) over the
only one. A Fourier coefficient gives two real measurements, sqrt(2) times its real and its imaginary part; those
coefficients that a real image ties to others are left out, and those that are always real give one. So all measurements
together are an orthonormal transform too, and m counts real numbers. `from_spectrum` makes them of measured k-space,
which is complex.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
import torch
from jaxtyping import Bool, Complex
from scipy.fft import dct
from torch import Generator, Tensor

from core_models.errors import UserError

from .base import LinearOperator, Measurements, Signals, tensor_of

LONGEST = 10_000
"""Values of a line that is transformed by a matrix: of 0.8 GB."""


def dct_matrix(size: int) -> Tensor:
    """Returns the orthonormal DCT-II as a matrix (size, size), float64: coefficients = matrix @ signal."""
    return torch.from_numpy(np.ascontiguousarray(dct(np.eye(size), axis=0, norm="ortho")))


def plane_of(signal_shape: Sequence[int]) -> tuple[int, int]:
    """Returns height and width of the planes that are transformed; a line (n,) is one value high.

    Raises:
        UserError: when a side is longer than a matrix of its transform may be.
    """
    height, width = (1, *signal_shape)[-2:]
    if max(height, width) > LONGEST:
        raise UserError(f"expected sides of at most {LONGEST:,} values, got {max(height, width):,}: cut signals into "
                        "pieces")  # fmt: skip
    return height, width


class SubsampledDCT(LinearOperator):
    """m coefficients of the DCT-II, of images in two dimensions, drawn by a seed; the lowest always among them."""

    def __init__(
        self, signal_shape: Sequence[int], m: int, *, seed: int = 0, dtype: torch.dtype = torch.float32
    ) -> None:
        _check(signal_shape, m)
        super().__init__(signal_shape, m)
        self.register_buffer("kept", _drawn(self.n, m, seed))
        self.plane = plane_of(signal_shape)
        self.register_buffer("vertical", dct_matrix(self.plane[0]).to(dtype))
        self.register_buffer("horizontal", dct_matrix(self.plane[1]).to(dtype))

    def _like(self) -> Tensor:
        return self.get_buffer("vertical")

    def _apply_to(self, x: Signals) -> Measurements:
        planes = x.reshape(len(x), -1, *self.plane)
        coefficients = self.get_buffer("vertical") @ planes @ self.get_buffer("horizontal").T
        return coefficients.flatten(1)[:, self.get_buffer("kept")]

    def _adjoint_of(self, y: Measurements) -> Signals:
        full = y.new_zeros(len(y), self.n).index_copy(1, self.get_buffer("kept"), y)
        planes = full.reshape(len(y), -1, *self.plane)
        signals = self.get_buffer("vertical").T @ planes @ self.get_buffer("horizontal")
        return signals.reshape(len(y), *self.signal_shape)


class SubsampledFourier(LinearOperator):
    """m real numbers of the Fourier transform, of images in two dimensions, drawn by a seed; always with the mean.

    y holds, channel by channel, the kept of these numbers: first the coefficients that are always real, then the real
    and then the imaginary part of the others, of a frequency and its negative the one that `numpy.fft.fft2` has first;
    each times sqrt(2). `from_spectrum` makes y of complex coefficients.
    """

    def __init__(
        self, signal_shape: Sequence[int], m: int, *, seed: int = 0, dtype: torch.dtype = torch.float32
    ) -> None:
        _check(signal_shape, m)
        super().__init__(signal_shape, m)
        self.register_buffer("kept", _drawn(self.n, m, seed))
        self.plane = _plane(signal_shape)
        own, weight, imaginary = _independent(*self.plane)
        self.channels = self.n // prod(self.plane)
        offset = torch.arange(self.channels)[:, None] * prod(self.plane)
        self.register_buffer("place", (own + offset).flatten())
        self.register_buffer("weight", weight.to(dtype).repeat(self.channels))
        self.register_buffer("imaginary", imaginary.repeat(self.channels))
        self.mask: Tensor | None = None
        """The frequencies that were asked for, (height, width) or (n,); None where m numbers were drawn."""

    @classmethod
    def of_frequencies(
        cls, signal_shape: Sequence[int], mask: Bool[Tensor, "..."] | np.ndarray, *, dtype: torch.dtype = torch.float32
    ) -> SubsampledFourier:
        """Returns the operator that keeps what a mask does, in every channel.

        Args:
            signal_shape: of one signal.
            mask: of frequencies, (height, width), or (n,) for lines, in the order of `numpy.fft.fft2`, 0 first:
                `numpy.fft.ifftshift` brings a centred one there. Of a frequency and its negative, which a real image
                ties to each other, one is enough.
            dtype: precision.

        Raises:
            UserError: when signals are no images or lines, or the mask has another shape or keeps nothing.
        """
        plane, mask = tuple(signal_shape[-2:]), tensor_of(mask, "a mask")
        if mask.dtype != torch.bool or tuple(mask.shape) != plane:
            raise UserError(f"expected a mask of frequencies, true or false, of shape {plane}, got {mask.dtype} of "
                            f"shape {tuple(mask.shape)}")  # fmt: skip
        if not bool(mask.any()):
            raise UserError("expected a mask that keeps at least one frequency, it keeps none")
        either = mask.reshape(_plane(signal_shape))
        either = either | _negative(either)
        place, _, _ = _independent(*either.shape)
        kept = either.flatten()[place].repeat(prod(signal_shape[:-2])).nonzero().squeeze(1)
        made = cls(signal_shape, len(kept), dtype=dtype)
        made.register_buffer("kept", kept)
        made.mask = mask.clone()
        return made

    def from_spectrum(self, k: Complex[Tensor, "batch ..."] | np.ndarray) -> Measurements:
        """Returns the measurements (batch, m) of measured Fourier coefficients (k-space), complex.

        They are those of the orthonormal transform with exp(-2 pi i ...), zero frequency first: what
        `torch.fft.fft2(x, norm="ortho")` makes of an image, whose inverse is `torch.fft.ifft2(k, norm="ortho")`. Bring
        a centred plane into this order by `torch.fft.ifftshift(k, dim=(-2, -1))`, and divide that of a transform
        without normalisation by sqrt(height width). Where both a frequency and its negative were measured, the mean of
        the one and of the other's conjugate counts, which halves the variance of their noise.

        Args:
            k: the whole plane (batch, channels, height, width), whose values off the mask don't count; or, of an
                operator made by a mask, the kept frequencies alone, (batch, channels, mask.sum()), in row-major order:
                `plane[..., mask]`. Of lines (batch, n) or (batch, mask.sum()).

        Raises:
            UserError: when they aren't complex and finite, or have another shape.

        Example:
            >>> operator = SubsampledFourier.of_frequencies((1, 4, 4), torch.eye(4) > 0)
            >>> x = torch.rand(2, 1, 4, 4)
            >>> torch.allclose(operator.from_spectrum(torch.fft.fft2(x, norm="ortho")), operator(x), atol=1e-6)
            True
        """
        k = tensor_of(k, "Fourier coefficients")
        whole, lead = self.signal_shape, tuple(self.signal_shape[:-2])
        listed = None if self.mask is None else (*lead, int(self.mask.sum()))
        if not k.is_complex() or tuple(k.shape[1:]) not in (tuple(whole), listed):
            other = f" or, in the mask's row-major order, (batch, {', '.join(map(str, listed))})" if listed else ""
            raise UserError(f"expected complex Fourier coefficients (batch, {', '.join(map(str, whole))}){other}, got "
                            f"{k.dtype} of shape {tuple(k.shape)}")  # fmt: skip
        mask = torch.ones(self.plane, dtype=torch.bool) if self.mask is None else self.mask.reshape(self.plane)
        mask = mask.to(k.device)
        planes = k.new_zeros(len(k), self.channels, *self.plane)
        if tuple(k.shape[1:]) == tuple(whole):
            k = k.reshape(planes.shape)[..., mask]
        planes[..., mask] = k.reshape(len(k), self.channels, -1)
        if not bool(torch.isfinite(planes).all()):
            raise UserError("expected finite Fourier coefficients, got NaN or infinity")
        measured = mask.to(planes.dtype)
        times = (measured + _negative(measured)).real.clamp(min=1)
        return self._kept_of((planes + _negative(planes).conj()) / times)

    def _like(self) -> Tensor:
        return self.get_buffer("weight")

    def _apply_to(self, x: Signals) -> Measurements:
        return self._kept_of(torch.fft.fft2(x.reshape(len(x), -1, *self.plane), norm="ortho"))

    def _kept_of(self, planes: Tensor) -> Measurements:
        """Returns the real numbers that are kept of whole spectra (batch, channels, height, width)."""
        spectrum = planes.flatten(1)[:, self.get_buffer("place")]
        real = torch.where(self.get_buffer("imaginary"), spectrum.imag, spectrum.real) * self.get_buffer("weight")
        return real[:, self.get_buffer("kept")]

    def _adjoint_of(self, y: Measurements) -> Signals:
        real = y.new_zeros(len(y), self.n).index_copy(1, self.get_buffer("kept"), y) * self.get_buffer("weight")
        imaginary = self.get_buffer("imaginary")
        values = torch.complex(torch.where(imaginary, 0.0, real), torch.where(imaginary, real, 0.0))
        full = values.new_zeros(len(y), self.n).index_add(1, self.get_buffer("place"), values)
        planes = full.reshape(len(y), -1, *self.plane)
        return torch.fft.ifft2(planes, norm="ortho").real.reshape(len(y), *self.signal_shape)


def _negative(planes: Tensor) -> Tensor:
    """Returns planes (..., height, width) of frequencies with each in the place of its negative."""
    return planes.flip(-2, -1).roll((1, 1), (-2, -1))


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


def _plane(signal_shape: Sequence[int]) -> tuple[int, int]:
    height, width = (1, *signal_shape)[-2:]
    return height, width


def _check(signal_shape: Sequence[int], m: int) -> None:
    if not 1 <= m <= prod(signal_shape):
        raise UserError(f"expected 1 to {prod(signal_shape)} measurements, got m = {m}")
