"""Where the error of a run comes from, in words: planted priors, each with one thing wrong."""

import json

import pytest
import torch
from planted_priors import LinearPrior

from apps.compressed_sensing.account import ADVICE, PARTS, account
from apps.compressed_sensing.convergence import NothingLeft
from apps.compressed_sensing.gaussian import Wiener
from apps.compressed_sensing.generative.csgm import CSGM
from apps.compressed_sensing.generative.posterior_sampling import PosteriorSampling
from apps.compressed_sensing.generative.residual_covariance import ResidualCovariance
from apps.compressed_sensing.generative.sparse_gen import SparseGen
from apps.compressed_sensing.lasso import LASSO
from apps.compressed_sensing.operators import gaussian
from apps.compressed_sensing.recovery import Recovered

SHAPE = (1, 4, 4)


def planted(away=0.0, m=12, noise=0.02, penalty=1e-4, n=6, **settings):
    """CSGM that finds the best latents, signals at a distance from the range of its prior, their measurements."""
    prior, operator = LinearPrior(), gaussian(SHAPE, m, seed=3)
    g = torch.Generator().manual_seed(1)
    x = prior.sample(n, generator=g) + away * torch.randn(n, *SHAPE, generator=g)
    chosen = {"steps": 100, "restarts": 1, "optimiser": "lbfgs"} | settings
    method = CSGM(operator, prior, noise=noise, penalty=penalty, **chosen)
    return method, x, method.acquire(x, generator=g)


def told_of(method, x, y, noise=0.02, **more):
    return account(method, noise, method.recover(y), y, x, **more)


def test_the_wrong_prior_is_to_blame():
    method, x, y = planted(away=0.5)
    told = told_of(method, x, y)
    W, away = method.prior.weight.detach(), x.flatten(1) - method.prior.bias.detach()
    near = (away - away @ torch.linalg.pinv(W).T @ W.T).square().sum()
    share = float(near / (method.recover(y).x - x).square().sum())
    assert told["parts"]["representation"] == pytest.approx(share, rel=5e-3) and share > 0.6
    assert told["verdict"] == "representation" and told["words"]["verdict"].startswith("the prior can't make these")
    assert f"{100 * share:.0f} % representation" in told["words"]["squared error"]
    assert "times the noise's norm" in told["words"]["measurements"]


@pytest.mark.parametrize(
    ("verdict", "settings"),
    [
        ("search", {"steps": 1, "optimiser": "adam"}),
        ("penalty", {"penalty": 5.0}),
        ("measurements", {"m": 2}),
        ("measurements", {"noise": 1.0}),
    ],
)
def test_each_part_can_be_to_blame(verdict, settings):
    method, x, y = planted(**settings)
    told = told_of(method, x, y, noise=method.noise)
    assert told["verdict"] == verdict and told["words"]["verdict"] == ADVICE[verdict]
    assert list(told["parts"]) == list(PARTS) and sum(told["parts"].values()) == pytest.approx(1)
    assert min(told["parts"].values()) >= 0 and told["parts"][verdict] == max(told["parts"].values())
    missed = 100 if verdict == "search" else 0
    assert f"missed a better latent for {missed} % of the signals" in told["words"]["search"]


def test_parts_of_which_none_outweighs_the_others():
    method, x, y = planted(away=0.15, m=6, penalty=0.3)
    told = told_of(method, x, y)
    assert told["verdict"] == "penalty" and max(told["parts"].values()) < 0.5  # with what the prior can't make
    method, x, y = planted(away=0.2, m=6)
    found, failed = method.recover(y), method.set_params(steps=40, optimiser="adam").recover(y)
    one = torch.arange(6) == 2  # missed by its search
    losses = torch.where(one, failed.details["loss"], found.details["loss"])
    mixed = Recovered(torch.where(one[:, None, None, None], failed.x, found.x), None, {"loss": losses})
    told = account(method, 0.02, mixed, y, x)
    assert told["verdict"] == "mixed" and max(told["parts"].values()) < 0.5
    assert told["parts"]["search"] > 0.2 and "for 17 % of the signals" in told["words"]["search"]


def test_noise_that_is_fitted_and_noise_that_is_not_what_was_told():
    method, x, y = planted(m=3, noise=0.5, penalty=0.0)  # as many latents
    words = told_of(method, x, y, noise=0.5)["words"]["measurements"]
    assert "noise was fitted" in words and "--noise" not in words
    words = told_of(method, x, y, noise=0.01)["words"]["measurements"]
    assert "check --noise" in words
    method, x, y = planted(noise=0.5)
    assert "noise was fitted" not in told_of(method, x, y, noise=0.5)["words"]["measurements"]
    method, x, y = planted(noise=0.0, away=0.1)
    told = told_of(method, x, y + 1e-6, noise=0.0)  # what another order of sums does to a product
    assert "no noise is known" in told["words"]["measurements"] and told["verdict"] == "representation"


def test_the_bound_names_its_premises():
    method, x, y = planted(away=0.3)
    told = told_of(method, x, y, gaussian=True)
    assert told["bound"] == {"within": 1.0, "gaussian": True, "m": 12, "latents": 3, "k_log_n": 8.3}
    assert "kept for 100 % of the signals" in told["words"]["bound"] and "promises" not in told["words"]["bound"]
    assert "isn't known to be: here it promises nothing" in told_of(method, x, y)["words"]["bound"]
    method, x, y = planted(m=2)
    assert told_of(method, x, y, gaussian=True)["words"]["bound"].endswith("m = 2, k log n = 8.3, too few")


def test_without_the_truth_and_without_a_prior_no_more_is_said_than_is_known():
    method, x, y = planted(away=0.5)
    told = told_of(method, None, y)
    assert set(told["means"]) == {"measurement_error"} and told["verdict"] == "unexplained"
    assert told["parts"] is told["bound"] is told["coverage"] is None and told["s_rec"]["least"] > 0
    assert "not known" in told["words"]["error"]
    x = torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(0))
    y = method.acquire(x, generator=torch.Generator().manual_seed(0))
    lasso = LASSO(method.operator, alpha=1e-3)
    told = told_of(lasso, x, y)
    assert told["s_rec"] is told["parts"] is told["bound"] is None and told["verdict"] in ("fitted", "explained")
    assert set(told["means"]) == {"error", "measurement_error", "noise_norm"}
    assert told["words"]["representation"].startswith("LASSO searches no prior")
    assert told_of(lasso, None, y, noise=0.0)["verdict"] == "noiseless"
    with pytest.warns(NothingLeft):
        assert told_of(LASSO(method.operator, alpha=10.0), None, y)["verdict"] == "unexplained"


def residual(method, std, kind=ResidualCovariance, **settings):
    made = kind(method.operator, method.prior, noise=method.noise, clip=False, **settings)
    return made.fit_residuals(std * torch.randn(400, 16, generator=torch.Generator().manual_seed(0)))


def test_what_is_recovered_beside_the_prior_is_not_held_against_the_priors_range():
    csgm, x, y = planted(away=0.3, m=15, n=20)
    told = told_of(residual(csgm, 0.3, steps=200, restarts=1, drop=()), x, y)
    assert told["parts"] is told["bound"] is None and "complete_error" not in told["means"]
    assert told["means"]["error"]["mean"] < told["means"]["representation_error"]["mean"]
    assert told["words"]["representation"].endswith("recovers something beside it, and did better")
    assert "0 % of the signals" in told["words"]["search"] and told["verdict"] == "calibrated"
    assert 0.85 < told["coverage"]["0.95"]["uncertain"] <= 1 and "95 % intervals hold 9" in told["words"]["intervals"]
    sure = told_of(residual(csgm, 0.06, steps=200, restarts=1, drop=()), x, y)  # the rest is larger than it was taught
    assert sure["verdict"] == "overconfident" and sure["coverage"]["0.95"]["all"] < 0.8
    failed = told_of(residual(csgm, 0.3, steps=1, restarts=1, drop=()), x, y)
    assert failed["verdict"] == "search" and failed["parts"] is None


def test_methods_without_a_gap_say_why():
    csgm, x, y = planted(away=0.3)
    sampled = told_of(residual(csgm, 0.3, PosteriorSampling, particles=4, leapfrog_steps=2), x, y)
    assert sampled["words"]["search"] == "PosteriorSampling samples latents and minimises no loss: there is no gap"
    assert "optimisation_gap" not in sampled["means"]
    sparse = told_of(SparseGen(csgm.operator, csgm.prior, steps=3, steps_alone=1, restarts=1), x, y)
    assert sparse["words"]["search"].startswith("the loss of SparseGen isn't one of latents alone")
    wiener = Wiener(csgm.operator, noise=0.02).fit(x.repeat(9, 1, 1, 1))
    assert "intervals" in told_of(wiener, x, y)["words"]


def test_one_signal_has_no_half_width_and_two_tellings_are_the_same():
    method, x, y = planted(away=0.3, n=1)
    told = told_of(method, x, y)
    assert told["means"]["error"]["half_width"] is None
    assert json.loads(json.dumps(told, allow_nan=False)) == told == told_of(method, x, y)
    nothing = account(method, 0.0, Recovered(x, None, {"loss": torch.zeros(1)}), method.operator(x), x)
    assert nothing["parts"] is None and nothing["verdict"] == "noiseless"
