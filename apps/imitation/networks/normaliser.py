r"""Running mean and variance of observations, merged batch by batch.

.. math:: \delta = \bar{x}_b - \mu, \quad \mu \leftarrow \mu + \delta \frac{n_b}{n + n_b}, \quad
    M \leftarrow M + M_b + \delta^2 \frac{n\, n_b}{n + n_b}

Source: Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", COMPSTAT
1982, equation 2.1.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

FLOOR = 1e-2
"""Smallest standard deviation: what hardly moves in the demonstrations must not blow up where it does move."""


class Normaliser(nn.Module):
    """Shifts and scales vectors to mean 0 and variance 1, as far as it has seen them.

    Args:
        size: length of the vectors.
    """

    count: Tensor
    mean: Tensor
    squares: Tensor
    shift: Tensor
    scale: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("squares", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("shift", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))

    @torch.no_grad()
    def update(self, x: Float[Tensor, "n size"]) -> None:
        """Takes vectors into the mean and the variance."""
        x = x.to(self.mean.device, torch.float64)
        n = len(x)
        if n == 0:
            return
        mean = x.mean(0)
        delta = mean - self.mean
        total = self.count + n
        self.squares += ((x - mean) ** 2).sum(0) + delta**2 * (self.count * n / total)
        self.mean += delta * (n / total)
        self.count.fill_(total)
        self.shift.copy_(self.mean)
        self.scale.copy_((self.squares / self.count).sqrt().clamp_min(FLOOR))

    def forward(self, x: Float[Tensor, "*n size"]) -> Float[Tensor, "*n size"]:
        """Returns (x - mean) / standard deviation; x itself before the first update."""
        return (x - self.shift) / self.scale
