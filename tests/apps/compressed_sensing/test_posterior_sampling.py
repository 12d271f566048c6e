from math import erf, log, pi, sqrt

import pytest
import torch
from planted_priors import LinearPrior
from sklearn.base import clone
from torch import Generator

from apps.compressed_sensing.generative.posterior_sampling import PosteriorSampling
from apps.compressed_sensing.generative.sequential_monte_carlo import Sampler, sample_posterior
from apps.compressed_sensing.operators import gaussian
from core_models.errors import UserError

SHAPE = (1, 4, 4)


def streams(n):
    return [Generator().manual_seed(i) for i in range(n)]


class Linear:
    """E(z) = ||y - B z||^2 / 2."""

    def __init__(self, B, y, rounded=False):
        self.B, self.y, self.rounded = B, y, rounded

    def __call__(self, z, signals):
        return 0.5 * (self.y[signals][:, None] - z @ self.B.T).square().sum(2)

    def gradient(self, z, signals):
        found = (z @ self.B.T - self.y[signals][:, None]) @ self.B
        return found.bfloat16().float() if self.rounded else found


@pytest.mark.parametrize("rounded", [False, True])
def test_samples_of_a_linear_model_have_its_posterior_and_evidence(rounded):
    g = Generator().manual_seed(0)
    B, y = torch.randn(4, 3, generator=g) * 1.5, 3 * torch.randn(2, 4, generator=g)
    found = sample_posterior(Linear(B, y, rounded), 3, Sampler(particles=4000, last_moves=6), streams(2))
    covariance = torch.linalg.inv(B.T @ B + torch.eye(3))
    mean = y @ B @ covariance
    # 4,000 samples, nearly independent: standard errors of a 60th and of a 40th of the deviation
    off = (found.z.mean(1) - mean) / covariance.diagonal().sqrt()
    assert float(off.abs().max()) < 0.08
    spread = torch.stack([torch.cov(z.T) for z in found.z])
    assert float((spread - covariance).abs().max() / covariance.diagonal().max()) < 0.12
    C = B @ B.T + torch.eye(4)
    # of N(y; 0, C) / N(y; B z, I)'s constant
    evidence = -0.5 * (y * torch.linalg.solve(C, y.T).T).sum(1) - 0.5 * torch.logdet(C)
    torch.testing.assert_close(found.log_evidence, evidence, rtol=0, atol=0.15)


class TwoModes:
    """A likelihood of two narrow bumps at -1 and 1, the second three times the first."""

    WIDTH = 0.05

    def log_likelihood(self, z):
        bumps = torch.stack([-0.5 * ((z + 1) / self.WIDTH) ** 2, log(3) - 0.5 * ((z - 1) / self.WIDTH) ** 2])
        return torch.logsumexp(bumps, 0)

    def __call__(self, z, signals):
        return -self.log_likelihood(z[..., 0])

    def gradient(self, z, signals):
        z = z.detach().requires_grad_(True)
        return torch.autograd.grad(-self.log_likelihood(z).sum(), z)[0]


def test_modes_that_no_move_joins_keep_the_share_of_their_mass():
    found = sample_posterior(TwoModes(), 1, Sampler(particles=500), streams(40))
    share = (found.z[..., 0] > 0).float().mean(1)
    assert abs(float(share.mean()) - 0.75) < 4 * float(share.std()) / 40**0.5 + 1e-3
    assert 0.005 < float(share.std()) < 0.08  # a search that ends in one mode would have 0 or 1
    mass = sqrt(2 * pi) * TwoModes.WIDTH / sqrt(1 + TwoModes.WIDTH**2)
    wanted = log(4 * mass / sqrt(2 * pi)) - 0.5 / (1 + TwoModes.WIDTH**2)
    assert float(found.log_evidence.mean()) == pytest.approx(wanted, abs=0.05)


def test_the_rise_keeps_what_it_promises():
    found = sample_posterior(Linear(torch.eye(3) * 30, torch.full((1, 3), 40.0)), 3, Sampler(), streams(1))
    assert int(found.rises[0]) > 4
    assert 0.5 < float(found.acceptance[0]) <= 1


def planted(n=6, noise=0.2):
    prior, operator = LinearPrior(), gaussian(SHAPE, 6)
    g = Generator().manual_seed(3)
    residuals = torch.randn(4000, 16, generator=g) @ (0.1 * torch.randn(16, 16, generator=g)).T
    method = PosteriorSampling(
        operator, prior, noise=noise, shrinkage=1e-6, particles=600, clip=False
    ).fit_residuals(residuals)  # fmt: skip
    x = prior.sample(n, generator=Generator().manual_seed(1)) + residuals[:n].reshape(-1, *SHAPE)
    return method, method.acquire(x, generator=g), x


def exact(method, y):
    W, A = method.prior.weight.detach().double(), method.operator.matrix().double()
    S = W @ W.T + method.covariance_
    mean = method.prior.bias.detach().double() + method.mean_
    C = A @ S @ A.T + method.noise**2 * torch.eye(6, dtype=torch.float64)
    gain = torch.linalg.solve(C, A @ S).T
    away = y.double() - mean @ A.T
    evidence = -0.5 * ((away @ torch.linalg.inv(C) * away).sum(1) + torch.logdet(2 * pi * C))
    return mean + away @ gain.T, S - gain @ A @ S, evidence


@pytest.mark.parametrize("low_precision", [False, True])
def test_a_linear_prior_has_the_exact_posterior(low_precision):
    method, y, _ = planted()
    method.low_precision = low_precision
    found = method.recover(y)
    wanted, covariance, evidence = exact(method, y)
    std = covariance.diagonal().sqrt()
    assert float(((found.x.flatten(1) - wanted) / std).abs().max()) < 0.2  # 600 samples: a 25th, 96 values
    torch.testing.assert_close(found.std.flatten(1).double(), std.expand(6, -1), rtol=0.1, atol=1e-3)
    torch.testing.assert_close(found.details["log_evidence"].double(), evidence, rtol=0, atol=0.5)


def test_drawn_signals_have_the_covariance_of_the_posterior_residuals_included():
    method, y, _ = planted(2)
    method.particles = 6000
    drawn = method.sample(y).flatten(2).double()
    _, covariance, _ = exact(method, y)
    scale = covariance.diagonal().sqrt()
    for samples in drawn:
        off = (torch.cov(samples.T) - covariance) / (scale[:, None] * scale)
        assert float(off.abs().max()) < 0.12


def test_intervals_hold_what_they_promise():
    method, y, x = planted(300)
    method.particles = 100
    found = method.recover(y)
    inside = ((found.x - x).abs() <= 1.6449 * found.std).float().mean()
    assert erf(1.6449 / sqrt(2)) == pytest.approx(0.9, abs=1e-4)
    assert 0.87 < float(inside) < 0.93


def test_a_signal_is_recovered_alike_in_any_batch_and_from_any_place():
    method, y, _ = planted()
    method.particles = 20
    whole = method.reconstruct(y)
    parts = clone(method).set_params(batch=2)
    parts.mean_, parts.covariance_ = method.mean_, method.covariance_
    torch.testing.assert_close(parts.reconstruct(y), whole, rtol=0, atol=1e-3)
    torch.testing.assert_close(method.recover(y[4:], 4).x, whole[4:], rtol=0, atol=1e-3)
    assert float((method.recover(y[4:], 0).x - whole[4:]).abs().max()) > 1e-3


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: PosteriorSampling(gaussian(SHAPE, 3), LinearPrior()).recover(torch.zeros(1, 3)), "call fit"),
        (lambda: Sampler(particles=1), "two particles"),
        (lambda: Sampler(effective=1.0), "between 0 and 1 of effective"),
        (lambda: Sampler(leapfrog_steps=0), "leapfrog_steps of at least 1"),
        (
            lambda: sample_posterior(Linear(torch.eye(3), torch.full((1, 3), torch.nan)), 3, Sampler(), streams(1)),
            "finite likelihoods",
        ),
        (
            lambda: sample_posterior(
                Linear(100 * torch.eye(3), torch.full((1, 3), 300.0)), 3, Sampler(most_rises=2), streams(1)
            ),
            "after 2 rises",
        ),
    ],
)
def test_mistakes_are_named(make, words):
    with pytest.raises(UserError, match=words):
        make()
