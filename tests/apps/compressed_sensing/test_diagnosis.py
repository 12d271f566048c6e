import pytest
import torch
from planted_priors import LinearPrior

from apps.compressed_sensing.diagnosis import coverage, diagnose, nearest_latents, representation_error, s_rec
from apps.compressed_sensing.generative.csgm import CSGM
from apps.compressed_sensing.operators import Matrix, gaussian
from apps.compressed_sensing.recovery import Recovered
from core_models.errors import UserError

SHAPE = (1, 4, 4)


def test_the_representation_error_of_a_linear_prior_is_the_distance_from_its_range():
    prior = LinearPrior()
    x = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(0))
    W, away = prior.weight.detach(), x.flatten(1) - prior.bias.detach()
    wanted = (away - away @ torch.linalg.pinv(W).T @ W.T).norm(dim=1)
    found = representation_error(prior, x, nearest_latents(prior, x, steps=800))
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)


def test_s_rec_of_a_linear_prior_lies_between_its_singular_values_and_reaches_near_the_least():
    prior, operator = LinearPrior(latent=2), gaussian(SHAPE, 3, scaling="isometric")
    told = s_rec(prior, operator, generator=torch.Generator().manual_seed(0))
    scale = (16 / float(operator.matrix().square().sum())) ** 0.5
    q = torch.linalg.qr(prior.weight.detach()).Q
    singular = scale * torch.linalg.svdvals(operator.matrix() @ q)
    assert float(singular.min()) - 1e-6 <= told["least"] <= 1.02 * float(singular.min())
    assert told["mean"] <= float(singular.max())


def test_s_rec_is_0_where_the_operator_is_blind():
    prior = LinearPrior(latent=1)
    direction = prior.weight.detach()[:, 0]
    row = torch.randn(16, generator=torch.Generator().manual_seed(5))
    blind = row - (row @ direction) / direction.square().sum() * direction
    assert s_rec(prior, Matrix(blind[None], SHAPE), pairs=50)["least"] < 1e-5


def test_the_parts_of_the_error_add_up_to_a_bound_that_holds():
    prior, operator = LinearPrior(), gaussian(SHAPE, 8)
    x = prior.sample(5, generator=torch.Generator().manual_seed(1)) + 0.05 * torch.randn(5, *SHAPE)
    method = CSGM(operator, prior, noise=0.1, penalty=1e-3, steps=800, restarts=1, learning_rate=0.02)
    y = method.acquire(x, generator=torch.Generator().manual_seed(2))
    told = diagnose(method, x, y, method.recover(y))
    torch.testing.assert_close(told["noise_norm"], (operator(x) - y).norm(dim=1))
    assert bool((told["error"] >= told["representation_error"] - 1e-3).all())
    assert bool((told["error"] <= told["bound"]).all())
    assert bool((told["optimisation_gap"] < 1e-4).all())  # a convex loss: the search can't miss the nearest latent


def test_coverage_counts_what_lies_inside():
    x = torch.randn(2000, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    told = coverage(Recovered(torch.zeros_like(x), torch.ones_like(x)), x)
    assert told[0.5] == pytest.approx(0.5, abs=0.02)
    assert told[0.95] == pytest.approx(0.95, abs=0.01)
    with pytest.raises(UserError, match="standard deviation"):
        coverage(Recovered(x), x)
