import numpy as np
import pytest
import torch
from planted_priors import LinearPrior

from apps.compressed_sensing import diagnosis
from apps.compressed_sensing.diagnosis import (
    PAIRS,
    coverage,
    diagnose,
    loss_at,
    nearest_latents,
    representation_error,
    s_rec,
)
from apps.compressed_sensing.generative.csgm import CSGM
from apps.compressed_sensing.generative.flow_prior import FlowPrior
from apps.compressed_sensing.generative.residual_covariance import ResidualCovariance
from apps.compressed_sensing.generative.sparse_gen import SparseGen
from apps.compressed_sensing.operators import Matrix, gaussian
from apps.compressed_sensing.recovery import Recovered, Recovery
from core_models.errors import UserError
from core_models.flows import RealNVP
from core_models.flows.real_nvp import RealNVPConfig

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


def test_s_rec_is_told_of_all_pairs_by_its_least_its_1st_percentile_and_its_mean():
    prior, operator = LinearPrior(latent=4), gaussian(SHAPE, 4)
    told = s_rec(prior, operator, pairs=PAIRS + 70, generator=torch.Generator().manual_seed(4))
    generator, W, parts = torch.Generator().manual_seed(4), prior.weight.detach(), []
    for pairs in (PAIRS, 70):
        z = torch.randn(2, pairs, 4, generator=generator)
        away = (z[0] - z[1]) @ W.T
        parts.append((away @ operator.matrix().T).norm(dim=1) / away.norm(dim=1))
    ratio = (torch.cat(parts) * (16 / operator.matrix().square().sum()).sqrt()).numpy()
    assert told["least"] == pytest.approx(ratio.min(), rel=1e-4)
    assert told["percentile_1"] == pytest.approx(np.percentile(ratio, 1), rel=1e-4)
    assert told["mean"] == pytest.approx(ratio.mean(), rel=1e-4)
    assert ratio.min() < 0.99 * np.percentile(ratio, 1) < 0.9 * ratio.mean()  # three numbers, not one


def test_s_rec_is_0_where_the_operator_is_blind():
    prior = LinearPrior(latent=1)
    direction = prior.weight.detach()[:, 0]
    row = torch.randn(16, generator=torch.Generator().manual_seed(5))
    blind = row - (row @ direction) / direction.square().sum() * direction
    assert s_rec(prior, Matrix(blind[None], SHAPE), pairs=50)["least"] < 1e-5


def test_s_rec_of_one_latent_is_one_number():
    prior, operator = LinearPrior(latent=1), gaussian(SHAPE, 5)
    direction = prior.weight.detach()[:, 0]
    wanted = (16 / operator.matrix().square().sum()).sqrt() * (operator.matrix() @ direction).norm() / direction.norm()
    pairs = 2 * PAIRS + 3  # the last part is smaller
    told = s_rec(prior, operator, pairs=pairs, generator=torch.Generator().manual_seed(0))
    assert told["pairs"] == pairs
    for name in ("least", "percentile_1", "mean"):
        assert told[name] == pytest.approx(float(wanted), rel=2e-3)


def planted(away=0.5, m=10, penalty=0.05, **settings):
    """CSGM with a linear prior, signals at a distance from its range, and their measurements."""
    prior, operator = LinearPrior(), gaussian(SHAPE, m, seed=3)
    g = torch.Generator().manual_seed(1)
    x = prior.sample(5, generator=g) + away * torch.randn(5, *SHAPE, generator=g)
    chosen = {"steps": 100, "restarts": 1, "optimiser": "lbfgs"} | settings
    method = CSGM(operator, prior, noise=0.1, penalty=penalty, **chosen)
    return method, x, method.acquire(x, generator=g)


def ridge(matrix, target, weight):
    """The rows z of the least ||matrix z - target||^2 + weight ||z||^2."""
    inner = matrix.T @ matrix + weight * torch.eye(matrix.shape[1])
    return torch.linalg.solve(inner, matrix.T @ target.T).T


def test_of_a_linear_prior_every_part_is_known_in_closed_form():
    method, x, y = planted(penalty=1.0)
    A, W, b = method.operator.matrix(), method.prior.weight.detach(), method.prior.bias.detach()
    found = method.recover(y)
    told = diagnose(method, x, y, found)
    flat = x.flatten(1) - b
    near = flat - flat @ torch.linalg.pinv(W).T @ W.T
    torch.testing.assert_close(told["representation_error"], near.norm(dim=1), rtol=2e-3, atol=0)
    # were all measured, a squared error of a value would count for the mean square of an entry of A
    complete = ridge(W, flat, method.penalty / float(A.square().mean()))
    wanted = torch.minimum((flat - complete @ W.T).norm(dim=1), told["error"])
    torch.testing.assert_close(told["complete_error"], wanted, rtol=2e-3, atol=0)
    assert bool((1.02 * told["representation_error"] < told["complete_error"]).any())
    loss = lambda z: (y - (z @ W.T + b) @ A.T).square().mean(1) + method.penalty * z.square().sum(1)  # noqa: E731
    best = ridge(A @ W, y - A @ b, method.operator.m * method.penalty)
    torch.testing.assert_close(found.details["loss"], loss(best), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(told["loss_at_nearest"], loss(complete), rtol=2e-3, atol=0)
    torch.testing.assert_close(told["optimisation_gap"], loss(best) - loss(complete), rtol=0.02, atol=2e-3)
    assert bool((told["optimisation_gap"] < 1e-3).all())  # a convex loss: the search can't miss
    torch.testing.assert_close(told["error"], (flat - best @ W.T).norm(dim=1), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(told["noise_norm"], (x.flatten(1) @ A.T - y).norm(dim=1))
    torch.testing.assert_close(told["measurement_error"], ((best @ W.T + b) @ A.T - y).norm(dim=1), rtol=1e-3, atol=0)


def test_the_bound_makes_up_for_a_search_that_failed():
    method, x, y = planted(steps=1, optimiser="adam")
    A, W, b = method.operator.matrix(), method.prior.weight.detach(), method.prior.bias.detach()
    told = diagnose(method, x, y, method.recover(y))
    near = b + (x.flatten(1) - b) @ torch.linalg.pinv(W).T @ W.T
    scale = (16 / A.square().sum()).sqrt()
    excess = (told["measurement_error"] - (near @ A.T - y).norm(dim=1)).clamp(min=0)
    assert int((excess > 1).sum()) == 4 and int((told["optimisation_gap"] > 1).sum()) == 4
    wanted = 6 * (near - x.flatten(1)).norm(dim=1) + 3 * scale * told["noise_norm"] + 2 * scale * excess
    torch.testing.assert_close(told["bound"], wanted, rtol=2e-3, atol=0)
    assert bool((told["error"] <= told["bound"]).all())


def test_what_was_recovered_is_in_the_range_and_no_representation_error_is_above_it():
    method, x, y = planted(away=0.0, penalty=0.0)
    found = method.recover(y)
    nearly = Recovered(x + 1e-6, None, found.details)  # nearer than a search comes
    told = diagnose(method, x, y, nearly)
    assert bool((told["representation_error"] <= told["complete_error"]).all())
    assert bool((told["complete_error"] <= told["error"]).all())


def test_an_invertible_prior_can_make_every_signal_and_is_not_searched(monkeypatch):
    monkeypatch.setattr(diagnosis, "_search_near", None)
    torch.manual_seed(0)
    prior = RealNVP(RealNVPConfig(event_shape=SHAPE, couplings=2, hidden=(8,))).eval()
    method = FlowPrior(gaussian(SHAPE, 6), prior, noise=0.1, steps=20)
    x = torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(0))
    y = method.acquire(x, generator=torch.Generator().manual_seed(1))
    told = diagnose(method, x, y, method.recover(y))
    assert bool((told["representation_error"] < 1e-3).all()) and bool((told["error"] > 0.1).all())
    # no penalty: the loss at the signal itself is that of the noise
    torch.testing.assert_close(told["loss_at_nearest"], told["noise_norm"] ** 2 / 6, rtol=1e-2, atol=1e-5)


class OwnMethod(Recovery):
    """A user's own, which says its loss at latents."""

    def __init__(self, operator=None, prior=None, *, penalty="l1"):
        self.operator, self.prior, self.noise, self.penalty = operator, prior, 0.0, penalty

    def loss_at(self, y, z):
        return 7 * (y - self.measuring(self.prior.decode(z))).norm(dim=1)

    def _recover(self, y, first):
        z = torch.zeros(len(y), 3)
        return Recovered(self.prior.decode(z).detach(), None, {"loss": self.loss_at(y, z).detach()})


def test_methods_say_their_loss_or_have_no_gap():
    csgm, x, y = planted()
    own = OwnMethod(csgm.operator, csgm.prior)
    told = diagnose(own, x, y, own.recover(y))
    torch.testing.assert_close(told["loss_at_nearest"] + told["optimisation_gap"], own.recover(y).details["loss"])
    assert "bound" not in told and "complete_error" not in told  # what it does beside the prior isn't known
    sparse = SparseGen(csgm.operator, csgm.prior, steps=3, steps_alone=1, restarts=1)
    told = diagnose(sparse, x, y, sparse.recover(y))
    assert set(told) == {"error", "measurement_error", "noise_norm", "representation_error"}


def test_the_loss_of_a_residual_covariance_at_latents_is_the_one_it_searched():
    csgm, x, y = planted()
    method = ResidualCovariance(csgm.operator, csgm.prior, noise=0.1, steps=400, restarts=1, drop=(), clip=False)
    method.fit_residuals(0.3 * torch.randn(500, 16, generator=torch.Generator().manual_seed(0)))
    S, A, W, b = (
        method.covariance_.float(),
        method.operator.matrix(),
        method.prior.weight.detach(),
        method.prior.bias.detach(),
    )
    C = A @ S @ A.T + 0.01 * torch.eye(10)
    inverse = torch.linalg.inv(C)
    target = y - (b + method.mean_.float()) @ A.T
    half = torch.linalg.cholesky(inverse).T
    best = ridge(half @ A @ W, target @ half.T, 1.0)
    away = target - best @ (A @ W).T
    wanted = 0.5 * ((away @ inverse) * away).sum(1) + 0.5 * best.square().sum(1)
    torch.testing.assert_close(loss_at(method, y, best), wanted, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(method.recover(y).details["loss"], wanted, rtol=1e-3, atol=1e-3)
    told = diagnose(method, x, y, method.recover(y))
    likely = ridge(W, x.flatten(1) - b, float(S.diagonal().mean()))  # residuals taken for white
    torch.testing.assert_close(told["loss_at_nearest"], loss_at(method, y, likely), rtol=1e-3, atol=1e-3)
    assert bool((told["optimisation_gap"] < 0.01).all()) and bool((told["optimisation_gap"] < -0.01).any())


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
