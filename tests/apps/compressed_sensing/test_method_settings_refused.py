"""Settings of methods, bases and files of measurements that recovery can't do right by: one clear line each."""

import numpy as np
import pytest
import torch

from apps.compressed_sensing.bases import build_basis
from apps.compressed_sensing.gaussian import GaussianMixture, Wiener
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
        Wiener(operator).fit(torch.zeros(2, LARGEST + 1))
    many = build_operator("gaussian", SHAPE, 40)
    method = Wiener(many, noise=1e-9).fit(x)
    with pytest.raises(UserError, match="lost in double precision, got 1e-09: raise it"):
        method.recover(many(x[:2]))


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
