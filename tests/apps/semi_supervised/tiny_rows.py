"""Rows, networks and an estimator of a few values; settings that train the later methods in seconds."""

import torch
from sklearn.datasets import make_blobs

from apps.semi_supervised.estimator import SemiSupervisedClassifier
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


class Nearest(SemiSupervisedClassifier):
    """The nearest class mean: the base class with next to nothing added."""

    def __init__(self, scale="auto", random_state=0, extra=None):
        self.scale, self.random_state, self.extra = scale, random_state, extra

    def _fit(self, x, y, *, run, resume):
        self.seen = x, y
        self.means_ = torch.stack([x[y == k].flatten(1).mean(0) for k in range(len(self.classes_))]).double()

    def _log_proba(self, x):
        return -torch.cdist(x.flatten(1).double(), self.means_)


def blobs(n=30, classes=3):
    return make_blobs(n, centers=classes, cluster_std=0.5, random_state=1)
