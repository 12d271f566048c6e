r"""The likelihood ratio with a background model.

.. math:: \mathrm{LLR}(x) = \log p(x) - \log p_0(x)

The background p_0 is a density of the same kind, trained on inputs in which each sub-pixel was replaced, with the
mutation rate as its probability, by a level drawn uniformly: it keeps what is common to all images (the share of the
background, smoothness) and loses what is particular to the data, so that the ratio is about the latter alone.

Source: Ren et al., "Likelihood ratios for out-of-distribution detection", NeurIPS 2019, sections 2 and 3. There rates
from 0.1 to 0.3 served for images, with weight decay on the background model.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Generator, Tensor, nn

from core_models.errors import UserError

from .scores import bits_per_dim

Images = Float[Tensor, "n c h w"]


def mutate(x: Images, rate: float, *, levels: int = 256, generator: Generator | None = None) -> Images:
    """Replaces each sub-pixel, with probability `rate`, by a level drawn uniformly (its own included).

    Args:
        x: images (n, c, h, w) in [0, 1].
        rate: the mutation rate, from 0 to 1.
        levels: how many values a sub-pixel can take.
        generator: source of the noise, on the device of `x`.

    Raises:
        UserError: when the rate lies outside of [0, 1].
    """
    if not 0 <= rate <= 1:
        raise UserError(f"expected a mutation rate from 0 to 1, got {rate}")
    chosen = torch.rand(x.shape, generator=generator, device=x.device) < rate
    drawn = torch.randint(levels, x.shape, generator=generator, device=x.device)
    return torch.where(chosen, drawn.to(x.dtype) / (levels - 1), x)


def likelihood_ratio(
    density: nn.Module, background: nn.Module, x: Images, *, batch_size: int = 64
) -> Float64[np.ndarray, " n"]:
    """Returns minus LLR / dimensions (n,) [bits/dim], larger for more suspicious images.

    Args:
        density: the model of the data.
        background: the model of mutated data.
        x: images (n, c, h, w) in [0, 1].
        batch_size: images at a time.

    Raises:
        UserError: when a model has no exact likelihood.
    """
    return bits_per_dim(density, x, batch_size=batch_size) - bits_per_dim(background, x, batch_size=batch_size)
