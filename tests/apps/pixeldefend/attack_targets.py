"""What the tests of attacks and defences aim at: a small classifier of digits, and a density that is quick."""

from functools import cache

import torch
from torch import nn
from torch.distributions import Categorical
from torch.nn import functional as F

from core_models.base import Autoregressive
from core_models.data import load


@cache
def digits(split="test", n=None):
    data = load("digits")
    return (data.images(split) * 255).round()[:n] / 255, data.labels(split)[:n]


def network(size=8, channels=1, classes=10):
    side = size // 4
    return nn.Sequential(
        nn.Conv2d(channels, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.Linear(32 * side * side, classes),
    )


def classifier():
    """Trained for a second, to about 98 %; in evaluation mode, whatever mode another test left it in."""
    return _trained().eval()


@cache
def _trained():
    """On one thread, so that it is the same network everywhere."""
    x, y = digits("train")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = network()
        optimizer = torch.optim.Adam(net.parameters(), 3e-3)
        for _ in range(8):
            for rows in torch.randperm(len(x)).split(64):
                optimizer.zero_grad()
                F.cross_entropy(net(x[rows]), y[rows]).backward()
                optimizer.step()
        optimizer.zero_grad()
    torch.set_num_threads(threads)
    return net


@cache
def smooth():
    """A classifier without ties: where pooled values tie, the last bit of a product says where the gradient goes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10)).eval()
    with torch.no_grad():
        net[1].weight *= 8  # so curved that gradients change their signs within a budget of 8 levels
    return net


def loss_gradient(net, x, y):
    at = x.clone().requires_grad_()
    return torch.autograd.grad(F.cross_entropy(net(at), y), at)[0]


def same_levels(found, by_hand):
    """But for a sub-pixel in 500: a gradient of about 0 may have another sign where products are rounded otherwise."""
    return float(((found - by_hand) * 255).round().ne(0).float().mean()) <= 0.002


class LeftNeighbour(nn.Module, Autoregressive):
    """Each sub-pixel is about as its left neighbour: a discretised Gaussian around it, the first around 0."""

    levels = 256

    def __init__(self, event_shape=(1, 8, 8), deviation=40.0, pull=0.8):
        super().__init__()
        self.event_shape = torch.Size(event_shape)
        self.deviation = nn.Parameter(torch.tensor(deviation))
        self.pull = pull
        self.dropout = nn.Dropout(0.5)

    def _logits(self, x):
        mean = self.pull * 255 * F.pad(x, (1, 0))[..., :-1]
        mean = self.dropout(mean)
        grid = torch.arange(256.0, device=x.device)
        return mean, -(((grid - mean[..., None]) / self.deviation) ** 2) / 2

    def conditionals(self, x, y=None):
        return Categorical(logits=self._logits(x)[1], validate_args=False)

    def log_prob(self, x, y=None):
        mean, logits = self._logits(x)
        own = -(((x * 255 - mean) / self.deviation) ** 2) / 2
        return (own - logits.logsumexp(-1)).flatten(1).sum(1)


def largest_change(x, adversarial):
    """The largest change of a sub-pixel [levels]."""
    return float(((adversarial - x) * 255).abs().max())


def is_8_bit(x):
    return bool(((x * 255).round() / 255 == x).all()) and float(x.min()) >= 0 and float(x.max()) <= 1
