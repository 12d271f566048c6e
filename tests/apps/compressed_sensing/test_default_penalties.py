"""Penalties that are left out follow the scale of A; those that are given don't, and too large ones are told."""

import numpy as np
import pytest
import torch
from planted_priors import LinearPrior
from sklearn.base import clone
from verb_targets import summary_of

from apps.compressed_sensing import CSGM, LASSO, Callables, GuidedLASSO, PriorGuidedLASSO, ReweightedLASSO, SparseGen
from apps.compressed_sensing.convergence import NothingLeft
from apps.compressed_sensing.diagnosis import _penalty
from apps.compressed_sensing.generative.flow_prior import FlowPrior
from apps.compressed_sensing.generative.intermediate_layers import IntermediateLayers
from apps.compressed_sensing.methods import settings_of
from apps.compressed_sensing.operators import Matrix, base, bernoulli, build_operator, gaussian
from core_models.adversarial import WGANGP, WGANGPConfig
from core_models.data import load

SHAPE = (1, 4, 4)
QUICK = {"steps": 20, "restarts": 2}
DEFAULTS = {
    LASSO: {"alpha": 0.1},
    ReweightedLASSO: {"alpha": 0.01},
    GuidedLASSO: {"alpha": 0.03},
    PriorGuidedLASSO: {"alpha": 0.03},
    CSGM: {"penalty": 0.1},
    SparseGen: {"penalty": 0.1, "sparsity": 0.5},
    IntermediateLayers: {"penalty": 0.1},
}


def made(kind, operator, noise=0.1, **more):
    """A method as it is left to itself, but for its steps."""
    if kind in (LASSO, ReweightedLASSO):
        return kind(operator, noise=noise, tolerance=1e-7, **more)
    signals = 0.2 * torch.rand(100, *SHAPE, generator=torch.Generator().manual_seed(2))
    if kind is GuidedLASSO:
        return kind(operator, noise=noise, tolerance=1e-7, **more).fit(signals)
    if kind is PriorGuidedLASSO:
        return kind(operator, LinearPrior(), noise=noise, tolerance=1e-7, **QUICK, **more).fit(signals)
    if kind is IntermediateLayers:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            prior = WGANGP(WGANGPConfig(event_shape=SHAPE, latent=2, hidden=(6,))).eval()
        return kind(operator, prior, noise=noise, radii=(0.1,), stage_steps=10, **QUICK, **more)
    own = {"steps_alone": 15} if kind is SparseGen else {}
    return kind(operator, LinearPrior(), noise=noise, **QUICK, **own, **more)


@pytest.mark.parametrize("kind", DEFAULTS)
def test_what_is_recovered_does_not_depend_on_the_scale_of_a(kind):
    x = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(1))
    unit, isometric = (gaussian(SHAPE, 10, scaling=scaling) for scaling in ("unit", "isometric"))
    y = made(kind, unit).acquire(x, generator=torch.Generator().manual_seed(0))
    scale = 10**-0.5
    found = made(kind, unit).reconstruct(y)
    torch.testing.assert_close(made(kind, isometric, 0.1 * scale).reconstruct(y * scale), found, rtol=0, atol=2e-4)
    # of entries of variance 1 it is the number that was the default for all, to the bit
    assert torch.equal(made(kind, unit, **DEFAULTS[kind]).reconstruct(y), found)
    # which says too much of smaller ones
    told = made(kind, Matrix(unit.matrix() * 0.01, SHAPE), 0.001, **DEFAULTS[kind])
    assert all(told.penalty_of(name) == number for name, number in DEFAULTS[kind].items())


@pytest.mark.parametrize("name", ["fourier", "dct", "mask"])
def test_lasso_and_csgm_left_to_themselves_recover_from_operators_of_small_entries(name):
    x = load("digits").images("test")[:5]
    operator = build_operator(name, (1, 8, 8), 48)
    found = LASSO(operator).reconstruct(operator(x))
    error = float((found - x).square().mean())
    assert error < 0.3 * float(x.square().mean())  # 0 everywhere has all of it
    assert made(CSGM, build_operator(name, SHAPE, 8)).penalty_of("penalty") == pytest.approx(0.1 / 16)


@pytest.mark.parametrize("name", ["gaussian", "bernoulli", "fourier", "dct", "mask", "blur", "super-resolution"])
def test_the_mean_square_is_that_of_the_matrix(name, monkeypatch):
    make = lambda: build_operator(name, (1, 8, 8), None if name in ("blur", "super-resolution") else 12)  # noqa: E731
    operator = make()
    wanted = float(operator.matrix().double().square().mean())
    assert operator.mean_square() == pytest.approx(wanted, rel=0.1 if name == "gaussian" else 1e-6)
    assert name not in ("gaussian", "bernoulli") or operator.mean_square() == 1.0
    own = Matrix(operator.matrix(), (1, 8, 8))
    assert own.mean_square() == pytest.approx(wanted, rel=1e-6)
    assert bernoulli((4,), 5, scaling="isometric").mean_square() == 0.2
    monkeypatch.setattr(base, "EXACT", 10)  # larger ones are estimated
    estimated = [made.mean_square() for made in (make(), make())]
    assert estimated[0] == estimated[1] == pytest.approx(wanted, rel=0.15)


def test_settings_that_are_told_are_the_numbers_that_count(tmp_path, call):
    operator = build_operator("dct", SHAPE, 8)
    assert settings_of(made(SparseGen, operator))["sparsity"] == pytest.approx(0.5 / 16)
    assert settings_of(made(SparseGen, operator, sparsity=0.2))["sparsity"] == 0.2
    assert settings_of(SparseGen())["sparsity"] is None and clone(made(CSGM, operator)).penalty is None
    assert FlowPrior(operator, LinearPrior()).penalty_of("penalty") == 0.0
    # and the diagnosis of complete measurements has that of the mean square of a value, 1 of 16
    assert _penalty(made(CSGM, operator)) == pytest.approx(0.1 / 16)
    options = ["--input", "digits", "--number", 2, "--operator", "dct", "--m", 40, "--diagnose", 0, "--method", "LASSO"]
    assert call("recover", *options, "--out", "out")[0] == 0
    assert summary_of(tmp_path / "out")["settings"]["alpha"] == pytest.approx(0.1 / 64)


def test_a_penalty_that_leaves_nothing_is_told_with_the_largest_that_does(tmp_path, call):
    x = load("digits").images("test")[:3]
    operator = build_operator("fourier", (1, 8, 8), 40)
    y = operator(x)
    largest = float((y @ operator.matrix()).abs().max()) / 40
    with pytest.warns(NothingLeft, match=rf"alpha {1.01 * largest:.3g} is at or above alpha_max {largest:.3g}"):
        assert not bool(LASSO(operator, alpha=1.01 * largest).reconstruct(y).any())
    assert bool(LASSO(operator, alpha=0.99 * largest).reconstruct(y).any())
    assert not bool(LASSO(operator).reconstruct(0 * y).any())  # there was nothing
    with pytest.warns(NothingLeft):
        made(GuidedLASSO, build_operator("dct", SHAPE, 9), alpha=100.0).reconstruct(torch.ones(1, 9))
    np.savez(tmp_path / "y.npz", y=y.numpy(), operator="fourier", m=40, signal_shape=np.array([1, 8, 8]))
    options = ["--input", "y.npz", "--method", "LASSO", "--method.alpha", 0.5, "--batch_size", 1]
    status, _, error = call("recover", *options, "--out", "out")
    assert status == 0 and error.count("warning: alpha 0.5 is at or above alpha_max") == 1


def test_priors_of_the_users_own_operators_are_searched_with_a_penalty_of_their_scale():
    A = 0.01 * gaussian(SHAPE, 10).matrix()
    own = Callables(lambda x: x.flatten(1) @ A.T, signal_shape=SHAPE)
    assert made(CSGM, own).penalty_of("penalty") == pytest.approx(0.1 * float(A.square().mean()))


def test_a_run_tells_of_nothing_left_only_where_no_signal_is_left(tmp_path, call):
    x = load("digits").images("test")[:3]
    y = build_operator("fourier", (1, 8, 8), 40)(x)
    y[2] *= 1e-6  # a blank, but for its noise
    np.savez(tmp_path / "y.npz", y=y.numpy(), operator="fourier", m=40, signal_shape=np.array([1, 8, 8]))
    for alpha, told in ((0.01, 0), (0.5, 1)):
        options = ["--input", "y.npz", "--method", "LASSO", "--method.alpha", alpha, "--batch_size", 1]
        status, _, error = call("recover", *options, "--out", f"out{alpha}")
        assert status == 0 and error.count("at or above alpha_max") == told, error


def test_a_penalty_that_was_left_out_is_not_told_to_be():
    operator = build_operator("dct", SHAPE, 9)
    y = 1e-6 * torch.ones(1, 9)
    for kind in (LASSO, ReweightedLASSO, GuidedLASSO):
        for alpha, words in ((None, "give a smaller one$"), (100.0, "left out, it follows the scale of A$")):
            with pytest.warns(NothingLeft, match=words):
                made(kind, operator, alpha=alpha).reconstruct(y)
