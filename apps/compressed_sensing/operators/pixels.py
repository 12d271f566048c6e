"""Operators on images that leave pixels out or mix near ones: mask (inpainting), blur, super-resolution.

All three take images (channels, height, width).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor
from torch.nn import functional

from core_models.errors import UserError

from .base import LinearOperator, Measurements, Signals, tensor_of


class Mask(LinearOperator):
    """Keeps the values of a signal where a mask (*signal_shape) is true, in row-major order."""

    kept: Tensor

    def __init__(self, mask: Bool[Tensor, "..."] | np.ndarray, dtype: torch.dtype = torch.float32) -> None:
        mask = tensor_of(mask, "a mask")
        if mask.dtype != torch.bool:
            raise UserError(f"expected a mask of true and false, got {mask.dtype}")
        if not bool(mask.any()):
            raise UserError("expected a mask that keeps at least one value, it keeps none")
        super().__init__(mask.shape, int(mask.sum()))
        self.register_buffer("kept", mask.flatten().nonzero().squeeze(1))
        self.register_buffer("_precision", torch.zeros((), dtype=dtype))

    @classmethod
    def random(cls, signal_shape: Sequence[int], m: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Mask:
        """Returns a mask that keeps m values, drawn without replacement."""
        n = prod(signal_shape)
        if not 1 <= m <= n:
            raise UserError(f"expected 1 to {n} values to keep, got m = {m}")
        mask = torch.zeros(n, dtype=torch.bool)
        mask[torch.randperm(n, generator=Generator().manual_seed(seed))[:m]] = True
        return cls(mask.reshape(tuple(signal_shape)), dtype)

    @classmethod
    def of_pixels(
        cls, signal_shape: Sequence[int], mask: Bool[Tensor, "..."] | np.ndarray, dtype: torch.dtype = torch.float32
    ) -> Mask:
        """Returns a mask of values (*signal_shape), or of pixels (height, width), the same in all channels.

        Raises:
            UserError: when it fits neither.
        """
        shape, mask = tuple(signal_shape), tensor_of(mask, "a mask")
        if tuple(mask.shape) not in (shape, shape[-2:]):
            raise UserError(f"expected a mask of shape {shape} or {shape[-2:]}, like signals, got {tuple(mask.shape)}")
        return cls(mask.expand(shape), dtype)

    def _like(self) -> Tensor:
        return self.get_buffer("_precision")

    def _apply_to(self, x: Signals) -> Measurements:
        return x.flatten(1)[:, self.kept]

    def _adjoint_of(self, y: Measurements) -> Signals:
        return y.new_zeros(len(y), self.n).index_copy(1, self.kept, y).unflatten(1, self.signal_shape)


class Blur(LinearOperator):
    """Convolves each channel with a kernel of odd sides; beyond its edges an image is 0."""

    kernel: Tensor

    def __init__(self, signal_shape: Sequence[int], kernel: Float[Tensor, "height width"] | np.ndarray) -> None:
        _require_image(signal_shape, "Blur")
        kernel = tensor_of(kernel, "a kernel")
        if kernel.ndim != 2 or kernel.shape[0] % 2 == 0 or kernel.shape[1] % 2 == 0:
            raise UserError(f"expected a kernel of two odd sides, got {tuple(kernel.shape)}")
        super().__init__(signal_shape, prod(signal_shape))
        self.register_buffer("kernel", kernel)

    @classmethod
    def gaussian(cls, signal_shape: Sequence[int], width: float = 1.0, *, dtype: torch.dtype = torch.float32) -> Blur:
        """Returns the blur by a normal density of standard deviation `width` [pixels], cut off at 3 of them."""
        if not width > 0:
            raise UserError(f"expected a width above 0, got {width}")
        reach = max(1, round(3 * width))
        line = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=torch.float64) / width) ** 2)
        line = line / line.sum()
        return cls(signal_shape, torch.outer(line, line).to(dtype))

    def _apply_to(self, x: Signals) -> Measurements:
        return self._convolve(x, self.kernel.flip(0, 1)).flatten(1)

    def _adjoint_of(self, y: Measurements) -> Signals:
        return self._convolve(y.unflatten(1, self.signal_shape), self.kernel)

    def _convolve(self, x: Tensor, kernel: Tensor) -> Tensor:
        channels = x.shape[1]
        weight = kernel.expand(channels, 1, *kernel.shape)
        padding = (kernel.shape[0] // 2, kernel.shape[1] // 2)
        return functional.conv2d(x, weight, padding=padding, groups=channels)


class SuperResolution(LinearOperator):
    """Averages squares of `factor` x `factor` pixels, which must fill the image."""

    def __init__(self, signal_shape: Sequence[int], factor: int = 2, dtype: torch.dtype = torch.float32) -> None:
        _require_image(signal_shape, "SuperResolution")
        channels, height, width = signal_shape
        if factor < 1 or height % factor or width % factor:
            raise UserError(f"expected a factor that divides {height} and {width} [pixels], got {factor}")
        super().__init__(signal_shape, channels * (height // factor) * (width // factor))
        self.factor, self.small = factor, (channels, height // factor, width // factor)
        self.register_buffer("_precision", torch.zeros((), dtype=dtype))

    def _apply_to(self, x: Signals) -> Measurements:
        return functional.avg_pool2d(x, self.factor).flatten(1)

    def _adjoint_of(self, y: Measurements) -> Signals:
        spread = functional.interpolate(y.unflatten(1, self.small), scale_factor=float(self.factor), mode="nearest")
        return spread / self.factor**2


def _require_image(signal_shape: Sequence[int], name: str) -> None:
    if len(signal_shape) != 3:
        raise UserError(f"{name}: expected images (channels, height, width), got {tuple(signal_shape)}")
