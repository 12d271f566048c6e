"""Priors whose answers are known."""

import torch
from torch import Size, nn
from torch.distributions import Independent, Normal

from core_models.base import Decodable, GenerativeModel


class LinearPrior(GenerativeModel, Decodable):
    """G(z) = W z + b."""

    def __init__(self, shape=(1, 4, 4), latent=3, seed=0, scale=0.3):
        super().__init__()
        self.event_shape, self.latent_shape = Size(shape), Size((latent,))
        generator = torch.Generator().manual_seed(seed)
        n = self.event_shape.numel()
        self.weight = nn.Parameter(scale * torch.randn(n, latent, generator=generator))
        self.bias = nn.Parameter(torch.full((n,), 0.5))

    def prior(self, y=None):
        return Independent(Normal(torch.zeros(self.latent_shape), torch.ones(self.latent_shape)), 1)

    def decode(self, z, y=None):
        return (z @ self.weight.T + self.bias).unflatten(1, self.event_shape)

    def encode(self, x, y=None):
        z = (x.flatten(1) - self.bias) @ torch.linalg.pinv(self.weight).T
        return Independent(Normal(z, torch.full_like(z, 1e-3)), 1)

    def sample(self, n, y=None, *, generator=None):
        return self.decode(torch.randn(n, *self.latent_shape, generator=generator)).detach()
