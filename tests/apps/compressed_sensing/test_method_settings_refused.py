"""Settings of methods, bases and files of measurements that recovery can't do right by: one clear line each."""

import numpy as np
import pytest
import torch
from planted_priors import LinearPrior

from apps.compressed_sensing.bases import build_basis
from apps.compressed_sensing.gaussian import GaussianMixture, Wiener
from apps.compressed_sensing.generative.csgm import CSGM
from apps.compressed_sensing.generative.flow_prior import FlowPrior
from apps.compressed_sensing.generative.posterior_sampling import PosteriorSampling
from apps.compressed_sensing.generative.residual_covariance import ResidualCovariance
from apps.compressed_sensing.generative.sparse_gen import SparseGen
from apps.compressed_sensing.lasso import BPDN
from apps.compressed_sensing.measurements import Stored
from apps.compressed_sensing.operators import build_operator
from apps.compressed_sensing.recovery import LARGEST
from core_models.errors import UserError
from core_models.latent import VAE, VAEConfig

SHAPE = (1, 4, 4)


@pytest.fixture
def operator():
    return build_operator("gaussian", SHAPE, 6)


def test_gaussian_priors_that_cannot_be_fitted_or_conditioned(operator):
    x = torch.rand(30, *SHAPE)
    for more, words in (({"shrinkage": 0.0}, "shrinkage: expected more than 0.0"), ({"shrinkage": -1.0}, "0 or more")):
        with pytest.raises(UserError, match=words):
            Wiener(operator, **more).fit(torch.cat([x[..., :2], torch.zeros(30, 1, 4, 2)], -1))
    with pytest.raises(UserError, match="components: expected at least 1, got 0"):
        GaussianMixture(operator, components=0).fit(x)
    with pytest.raises(UserError, match="at most 20,000 values"):
        Wiener().fit(torch.zeros(2, LARGEST + 1))
    many = build_operator("gaussian", SHAPE, 40)
    method = Wiener(many, noise=1e-9).fit(x)
    with pytest.raises(UserError, match="lost in double precision, got 1e-09: raise it"):
        method.recover(many(x[:2]))


def test_a_gaussian_residual_that_cannot_be_fitted_or_conditioned():
    many = build_operator("gaussian", SHAPE, 40)  # more measurements than values: noise alone makes them differ
    residuals = torch.randn(50, 16, generator=torch.Generator().manual_seed(0))
    for kind in (ResidualCovariance, PosteriorSampling):
        method = kind(many, LinearPrior(), noise=1e-9).fit_residuals(residuals)
        with pytest.raises(UserError, match="lost in double precision, got 1e-09: raise it"):
            method.recover(torch.zeros(1, 40))
        for shrinkage in (-1.0, float("nan")):
            with pytest.raises(UserError, match=f"shrinkage: expected 0 or more, got {shrinkage}"):
                kind(many, LinearPrior(), shrinkage=shrinkage).fit_residuals(residuals)


def test_matrices_that_do_not_fit_into_memory_are_refused_before_they_are_made():
    colour, large = (3, 64, 64), (1, 150, 150)
    x = torch.zeros(1, *colour).expand(50, *colour)
    with pytest.raises(UserError, match="at most 5,000 values, whose 40 square matrices fit into memory, got 12,288"):
        GaussianMixture(build_operator("mask", colour, 2)).fit(x)
    operator, y = build_operator("mask", large, 2), torch.zeros(1, 2)
    prior = LinearPrior(large, latent=1)
    for kind in (ResidualCovariance, PosteriorSampling):
        method = kind(operator, prior)
        with pytest.raises(UserError, match="at most 20,000 values, whose matrices fit into memory, got 22,500"):
            method.fit_residuals(torch.zeros(2, LARGEST + 2500))
        method.mean_ = method.covariance_ = torch.zeros(())  # as if fitted elsewhere
        with pytest.raises(UserError, match="at most 20,000 values"):
            method.recover(y)
    for basis in ("dct", "haar"):
        with pytest.raises(UserError, match="at most 20,000 values"):
            SparseGen(operator, prior, basis=basis).recover(y)
    short = {"steps": 2, "steps_alone": 1, "restarts": 1}
    assert SparseGen(operator, prior, **short).reconstruct(y).shape == (1, *large)  # in pixels there is no such matrix


@pytest.mark.parametrize("components", [1, 40])
def test_no_signals_are_none_to_fit_a_mixture_to(operator, components):
    with pytest.raises(UserError, match=f"expected at least {components} signals to fit to, got 0"):
        GaussianMixture(operator, components=components).fit(torch.zeros(0, *SHAPE))


@pytest.mark.parametrize("penalty", [-0.1, float("nan")])
@pytest.mark.parametrize("kind", [CSGM, FlowPrior])
def test_a_penalty_that_is_none_is_refused(operator, kind, penalty):
    method = kind(operator, LinearPrior(), penalty=penalty, steps=2)
    with pytest.raises(UserError, match=f"penalty: expected 0 or more, got {penalty}"):
        method.recover(torch.zeros(1, 6))
    with pytest.raises(UserError, match="penalty: expected 0 or more"):
        method.search_latents(torch.zeros(1, 6))


def test_lbfgs_drops_no_restarts(operator):
    method = CSGM(operator, LinearPrior(), optimiser="lbfgs", drop=((0.5, 0.5),), steps=2)
    with pytest.raises(UserError, match="drop: expected none with the optimiser lbfgs"):
        method.recover(torch.zeros(1, 6))
    assert method.set_params(drop=()).reconstruct(torch.zeros(1, 6)).shape == (1, *SHAPE)


def test_a_solver_that_cannot_is_one_line(operator):
    method = BPDN(operator, epsilon=0.1, solver="OSQP")
    with pytest.raises(UserError, match="OSQP can't solve this problem"):
        method.recover(operator(torch.rand(1, *SHAPE)))


def test_sparse_gen_needs_steps_for_its_deviations(operator):
    prior = VAE(VAEConfig(event_shape=SHAPE, latent=2, hidden=(4,))).eval()
    with pytest.raises(UserError, match="steps: expected at least the 800 of steps_alone"):
        SparseGen(operator, prior, steps=30).recover(operator(torch.rand(1, *SHAPE)))
    with pytest.raises(UserError, match="batch: expected at least 1, got 0"):
        SparseGen(operator, prior, batch=0).recover(operator(torch.rand(1, *SHAPE)))


def test_only_wavelets_that_are_orthonormal_are_taken():
    build_basis("db2", (1, 16, 16))
    with pytest.raises(UserError, match="orthonormal wavelet, got 'dmey', which is so only nearly"):
        build_basis("dmey", (1, 64, 64))


def test_true_signals_with_channels_last_are_not_taken_for_others(tmp_path):
    x = np.random.default_rng(0).random((4, 8, 8, 3), dtype=np.float32)
    A = np.ones((5, 192), np.float32)
    np.savez(tmp_path / "y.npz", x=x, A=A, y=x.reshape(4, -1) @ A.T)
    with pytest.raises(UserError, match=r"looks like \(n, height, width, channels\)"):
        Stored(tmp_path / "y.npz")
    np.savez(tmp_path / "y.npz", x=x, A=A, y=x.reshape(4, -1) @ A.T, signal_shape=np.array([192]))
    assert Stored(tmp_path / "y.npz").signal_shape == (192,)
