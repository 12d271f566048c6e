"""Priors whose answers are known."""

import torch
from torch import Size, nn
from torch.distributions import Independent, Normal

from apps.compressed_sensing import Prior
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


class Generator(nn.Module):
    """A user's GAN: flat images from -1 to 1 out of latents (3, 1, 1), with batch normalisation."""

    def __init__(self):
        super().__init__()
        self.linear, self.norm = nn.Linear(3, 16), nn.BatchNorm1d(16)
        with torch.no_grad():
            self.linear.weight.copy_(torch.randn(16, 3, generator=torch.Generator().manual_seed(0)))
            self.linear.bias.zero_()

    def forward(self, z):
        return torch.tanh(self.norm(self.linear(z.flatten(1))))


class OnlyDecodes(Generator):
    """Another's prior, which doesn't say what shapes it has."""

    def decode(self, z):
        return self(z)


class FromMinusOne(Prior):
    """The GAN as a prior, of which its maker forgot the range."""

    def __init__(self):
        super().__init__(Generator(), (3, 1, 1), (1, 4, 4))


class FromZero(Prior):
    """The GAN as a prior of images in [0, 1]."""

    def __init__(self):
        super().__init__(Generator(), (3, 1, 1), (1, 4, 4), low=-1, high=1)
