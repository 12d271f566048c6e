"""Rows and networks of a few values, for losses by hand; settings that train the later methods in seconds."""

import torch

from apps.semi_supervised.improved_gan import ImprovedGAN
from apps.semi_supervised.ladder import Ladder
from apps.semi_supervised.vat import VAT

QUICK = [
    VAT(hidden=(100, 50), epochs=30, eps=1.0, batch_size=50, device="cpu"),
    Ladder(hidden=(100, 50), epochs=30, batch_size=50, device="cpu"),
    ImprovedGAN(
        hidden=(100, 50), epochs=60, batch_size=50, latent=20, generator_hidden=(50,), ema=0.99, device="cpu"
    ),
]  # fmt: skip
IDS = [type(estimator).__name__ for estimator in QUICK]


def batch(n=6, m=8, inputs=5, classes=3):
    torch.manual_seed(1)
    rows = torch.rand(n + m, inputs, dtype=torch.float64)
    return {"labelled": rows[:n], "y": torch.arange(n) % classes, "unlabelled": rows[n:]}


def shaken(network):
    """Gives every parameter a value of its own, so that none can be left out of a formula unseen."""
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return network.double()


def drawn(n, width, scale, generator):
    return torch.empty(n, width, dtype=torch.float64).normal_(0, scale, generator=generator)
