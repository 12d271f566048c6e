"""Draws from a distribution by a generator, which torch's own distributions do not take."""

from __future__ import annotations

import torch
from torch import Generator, Size, Tensor
from torch.distributions import Distribution, Independent, Normal

from ..seeding import seeded


def draw(distribution: Distribution, n: int, generator: Generator | None = None) -> Tensor:
    """Returns n draws (n, *batch_shape, *event_shape), differentiable where the distribution can be reparameterised."""
    base = distribution
    while isinstance(base, Independent):
        base = base.base_dist
    if isinstance(base, Normal):
        noise = torch.empty((n, *base.loc.shape), dtype=base.loc.dtype, device=base.loc.device)
        return base.loc + base.scale * noise.normal_(generator=generator)
    sample = distribution.rsample if distribution.has_rsample else distribution.sample
    if generator is None:
        return sample(Size((n,)))
    # any other draws from torch's global generator: it is seeded from ours for the length of the call
    with seeded(int(torch.randint(2**62, (), generator=generator, device=generator.device)), generator.device):
        return sample(Size((n,)))
