"""Operators by name, for the command line and the benchmark."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from core_models.errors import UserError, suggestion

from .base import LinearOperator, tensor_of
from .dense import Scaling, bernoulli, gaussian
from .pixels import Blur, Mask, SuperResolution
from .transforms import SubsampledDCT, SubsampledFourier

Builder = Callable[..., LinearOperator]

_WITH_M: dict[str, Builder] = {
    "gaussian": gaussian,
    "bernoulli": bernoulli,
    "dct": SubsampledDCT,
    "fourier": SubsampledFourier,
    "mask": Mask.random,
}
NAMES = (*_WITH_M, "blur", "super-resolution")
"""The names that `build_operator` knows."""


def build_operator(
    name: str,
    signal_shape: Sequence[int],
    m: int | None = None,
    *,
    seed: int = 0,
    scaling: Scaling = "unit",
    width: float = 1.0,
    factor: int = 2,
    mask: Bool[Tensor, "..."] | np.ndarray | None = None,
    kernel: Float[Tensor, "height width"] | np.ndarray | None = None,
    dtype: torch.dtype = torch.float32,
) -> LinearOperator:
    """Builds an operator and tests its adjoint.

    Args:
        name: gaussian, bernoulli, dct, fourier, mask, blur or super-resolution.
        signal_shape: of one signal.
        m: measurements; blur and super-resolution have their own number.
        seed: of what is drawn.
        scaling: of gaussian and bernoulli.
        width: of the blur [pixels].
        factor: of super-resolution.
        mask: what mask and fourier keep, instead of m that are drawn: values (*signal_shape) or pixels (height, width),
            or frequencies (height, width); a tensor or an array of numpy.
        kernel: of the blur, instead of a normal density; a tensor or an array of numpy.
        dtype: precision.

    Raises:
        UserError: when there is none of that name, or m is missing or doesn't fit.
    """
    if name == "mask" and mask is not None:
        made: LinearOperator = Mask.of_pixels(signal_shape, mask, dtype)
    elif name == "fourier" and mask is not None:
        made = SubsampledFourier.of_frequencies(signal_shape, mask, dtype=dtype)
    elif name == "blur" and kernel is not None:
        made = Blur(signal_shape, tensor_of(kernel, "a kernel").to(dtype))
    elif name in _WITH_M:
        if m is None:
            raise UserError(f"{name}: expected the number of measurements, got none: give m")
        options = {"scaling": scaling} if name in ("gaussian", "bernoulli") else {}
        if m < 1:
            raise UserError(f"expected at least one measurement, got m = {m}")
        made = _WITH_M[name](signal_shape, m, seed=seed, dtype=dtype, **options)
    elif name == "blur":
        made = Blur.gaussian(signal_shape, width, dtype=dtype)
    elif name == "super-resolution":
        made = SuperResolution(signal_shape, factor, dtype)
    else:
        raise UserError(f"expected an operator ({', '.join(NAMES)}), got {name!r}{suggestion(name, NAMES)}")
    if m is not None and made.m != m:
        raise UserError(f"{name}: it makes {made.m} measurements of signals {tuple(signal_shape)}, got m = {m}")
    made.check_adjoint()
    return made
