"""What is done to pixels before a model sees them: levels, binarisation and dequantisation, stated once.

Static binarisation here is one seeded Bernoulli draw per image, made of a whole split at once; Larochelle's published
draw is a data set of its own, `binarized-mnist`. Dequantisation with uniform noise: Theis, van den Oord and Bethge,
"A note on the evaluation of generative models", ICLR 2016, section 3.1.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from jaxtyping import Float, Float32, UInt8
from torch import Generator, Tensor

from ..errors import UserError

Binarisation = Literal["none", "dynamic", "static", "threshold"]
"""none: grey levels as they are; dynamic: x ~ Bernoulli(grey) anew at each call; static: one draw from a seed;
threshold: x > 0.5."""

Pixels = Float[Tensor, "n ..."]

STATIC_STREAM = 1 << 31
"""Added to the seed of a static draw, so that it shares no noise with whatever else the same seed starts; other static
draws from the same seed do share it, so image i of the training images and image i of the test images meet the same
uniforms. Below 2^32: torch's CPU generator ignores the higher bits of a seed."""


def binarise(x: Pixels, how: Binarisation, generator: Generator | None = None, *, seed: int = 0) -> Pixels:
    """Makes pixels in [0, 1] zeros and ones, in one of the field's ways.

    Args:
        x: pixels in [0, 1]; for `static` a whole split, since the draw depends on an image's place in it.
        how: see `Binarisation`.
        generator: what `dynamic` draws from, on the device of `x`.
        seed: what `static` draws from, on the CPU, so that every device sees the same images.

    Raises:
        UserError: when `how` is none of the four.
    """
    if how == "none":
        return x
    if how == "threshold":
        return (x > 0.5).to(x.dtype)
    if how == "dynamic":
        return torch.bernoulli(x, generator=generator)
    if how == "static":
        generator = Generator().manual_seed(STATIC_STREAM + seed)
        return torch.bernoulli(x.cpu(), generator=generator).to(x.device)
    raise UserError(f"expected a binarisation out of {', '.join(get_args(Binarisation))}, got {how!r}")


def dequantise(x: Pixels, levels: int = 256, generator: Generator | None = None) -> Pixels:
    """Spreads each level k = x (levels - 1) evenly over [k, k + 1) / levels, which makes a discrete pixel continuous.

    The mean log-density of what comes back is at most the log-probability of the level plus log(levels) per sub-pixel.
    """
    noise = torch.rand(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    # float32 can round (255 + noise) / 256 up to 1, which lies outside [0, 1)
    below_one = 1 - torch.finfo(x.dtype).eps
    return ((x * (levels - 1)).round_() + noise).div_(levels).clamp_(max=below_one)


def to_floats(x: UInt8[Tensor, "n ..."], levels: int) -> Float32[Tensor, "n ..."]:
    """Returns bytes, 0 to levels - 1, as pixels in [0, 1]: level / (levels - 1)."""
    return x.to(torch.float32).div_(levels - 1)


def quantise(x: Pixels, levels: int = 256) -> UInt8[Tensor, "n ..."]:
    """Returns the nearest level, 0 to levels - 1, of pixels in [0, 1]; undoes `x = level / (levels - 1)` exactly.

    Values outside of [0, 1] become the first or the last level.
    """
    return (x * (levels - 1)).round_().clamp_(0, levels - 1).to(torch.uint8)
