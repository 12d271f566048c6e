import pytest
import torch
from planted_priors import LinearPrior

from apps.compressed_sensing.diagnosis import account, coverage, diagnose, nearest_latents, representation_error, s_rec
from apps.compressed_sensing.generative.csgm import CSGM
from apps.compressed_sensing.generative.residual_covariance import ResidualCovariance
from apps.compressed_sensing.lasso import LASSO
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
    std = torch.ones_like(x)
    std[:, 0, 0] = 10.0  # surer than they are, and not counted
    mixed = coverage(Recovered(torch.zeros_like(x), std), x)[0.5]
    assert mixed > 0.7 and coverage(Recovered(torch.zeros_like(x), std), x, least_std=5.0)[0.5] > 0.99
    with pytest.raises(UserError, match="standard deviation"):
        coverage(Recovered(x), x)
    with pytest.raises(UserError, match="of 20 or more, the largest is 10"):
        coverage(Recovered(x, std), x, least_std=20.0)


def planted(steps=800, away=0.05, noise=0.1, m=8):
    prior, operator = LinearPrior(), gaussian(SHAPE, m)
    g = torch.Generator().manual_seed(1)
    x = prior.sample(5, generator=g) + away * torch.randn(5, *SHAPE, generator=g)
    method = CSGM(operator, prior, noise=noise, penalty=1e-3, steps=steps, restarts=1, learning_rate=0.02)
    return method, x, method.acquire(x, generator=g)


def test_the_account_says_what_is_to_blame():
    method, x, y = planted(away=0.5, m=16)
    told = account(method, 0.1, method.recover(y), y, x)
    share = sum(v**2 for v in told["per_signal"]["representation_error"]) / sum(
        v**2 for v in told["per_signal"]["error"]
    )
    assert share > 0.5 and f"{100 * share:.0f} % of the squared error is what the prior can't make" in told["words"][1]
    assert "a better prior helps" in told["words"][1] and "don't explain" in told["words"][0]
    assert told["s_rec"]["least"] > 0 and told["means"]["bound"]["mean"] > told["means"]["error"]["mean"]

    method, x, y = planted(steps=1, away=0.0)
    told = account(method, 0.1, method.recover(y), y, x)
    assert told["words"][-1] == "the search missed a better latent for 100 % of the signals: more restarts or steps"
    assert "a better prior" not in " ".join(told["words"])

    method, x, y = planted(away=0.0)
    told = account(method, 0.1, method.recover(y), y, x)
    assert "as far as the noise" in told["words"][0] and "for 0 % of the signals" in told["words"][-1]
    assert "noise was fitted" in account(method, 1.0, method.recover(y), y, x)["words"][0]


def test_the_account_claims_no_more_than_is_known():
    method, x, y = planted()
    told = account(method, 0.1, method.recover(y), y)
    assert set(told["means"]) == {"measurement_error"} and "not known" in told["words"][-1]
    lasso = LASSO(method.operator, alpha=0.01)
    told = account(lasso, 0.1, lasso.recover(y), y, x)
    assert told["s_rec"] is None and "don't apply" in told["words"][-1]
    residual = ResidualCovariance(method.operator, method.prior, steps=50, restarts=1, clip=False)
    residual.fit_residuals(0.05 * torch.randn(200, 16, generator=torch.Generator().manual_seed(0)))
    told = account(residual, 0.1, residual.recover(y), y, x)
    assert "bound" not in told["means"] and "recovered otherwise" in told["words"][-1]
