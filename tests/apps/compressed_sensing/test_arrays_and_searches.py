"""Methods beside the rest of Python: arrays of numpy for tensors, and scikit-learn's searches over settings."""

import numpy as np
import pytest
import torch
from planted_priors import LinearPrior
from scipy.signal import convolve2d
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from apps.compressed_sensing import (
    CSGM,
    LASSO,
    GaussianMixture,
    Matrix,
    ResidualCovariance,
    SparseGen,
    Wiener,
    build_operator,
)
from apps.compressed_sensing.gaussian import MeanSignal
from apps.compressed_sensing.generative.uncertainty_autoencoder import UAEConfig, UncertaintyAutoencoder
from apps.compressed_sensing.methods import METHODS
from apps.compressed_sensing.operators import gaussian
from core_models.errors import UserError
from core_models.training import TrainingConfig

SHAPE = (1, 4, 4)


def planted(n=12):
    """Signals, and their measurements."""
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(n, *SHAPE, generator=generator) < 0.2).float()
    operator = gaussian(SHAPE, 10)
    return operator, x, LASSO(operator, noise=0.1).acquire(x, generator=generator)


def test_a_grid_search_chooses_the_penalty_of_the_least_error():
    operator, x, y = planted()
    alphas = [1e-3, 1e-2, 0.1, 1.0]
    found = GridSearchCV(LASSO(operator), {"alpha": alphas}, cv=3).fit(y, x)
    errors = [float((LASSO(operator, alpha=alpha).reconstruct(y) - x).square().mean()) for alpha in alphas]
    np.testing.assert_allclose(found.cv_results_["mean_test_score"], [-error for error in errors], rtol=1e-4)
    assert found.best_params_["alpha"] == alphas[int(np.argmin(errors))]
    assert found.best_estimator_.score(y.numpy(), x.numpy()) == found.score(y, x)
    with pytest.raises(UserError, match=r"expected the signals that were measured, \(12, 1, 4, 4\), got \(12, 16\)"):
        LASSO(operator).score(y, x.flatten(1))


@pytest.mark.parametrize("kind", [Wiener, GaussianMixture, MeanSignal, ResidualCovariance])
def test_methods_that_learn_learn_in_a_search_from_the_signals_not_from_their_measurements(kind):
    operator, x, y = planted()
    more = {"prior": LinearPrior(), "steps": 5, "restarts": 1, "drop": ()} if kind is ResidualCovariance else {}
    more |= {"components": 2} if kind is GaussianMixture else {}
    method = kind(operator, noise=0.1, **more)
    found = GridSearchCV(method, {"noise": [0.1, 0.3]}, cv=2).fit(y, x)
    plain = clone(method).set_params(**found.best_params_).fit(x)
    assert found.best_estimator_.score(y, x) == pytest.approx(plain.score(y, x), rel=1e-5)
    labelled = clone(method).set_params(**found.best_params_).fit(x, np.arange(12))  # labels are none of its business
    assert labelled.score(y, x) == pytest.approx(plain.score(y, x), rel=1e-5)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_every_method_is_copied_with_its_parameters(method):
    operator = {} if method.needs_model else {"operator": gaussian(SHAPE, 5)}
    made = clone(method.cls(**operator))
    assert callable(made.score) and set(made.get_params(deep=False)) >= set(method.settings)
    assert all(getattr(made, name) == default for name, default in method.settings.items())


@pytest.mark.parametrize("dtype", [np.float32, np.float64, ">f4"])
def test_arrays_are_taken_for_tensors(dtype):
    operator, x, y = planted()
    draw = lambda: torch.Generator().manual_seed(1)  # noqa: E731
    signals, measured = x.numpy().astype(dtype), y.numpy().astype(dtype)
    signals.flags.writeable = False
    method = Wiener(operator, noise=0.1)
    torch.testing.assert_close(method.acquire(signals, generator=draw()), method.acquire(x, generator=draw()))
    found = method.fit(signals).reconstruct(measured)
    assert isinstance(found, torch.Tensor)
    torch.testing.assert_close(found.float(), Wiener(operator, noise=0.1).fit(x).reconstruct(y), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(operator(signals), operator(x))
    torch.testing.assert_close(operator.adjoint(y.numpy()), operator.adjoint(y))
    A = np.asfortranarray(operator.matrix().numpy().astype(dtype))[::-1]
    torch.testing.assert_close(Matrix(A, SHAPE).matrix().float(), operator.matrix().flip(0))
    prior = CSGM(operator, LinearPrior(), steps=3, restarts=1)
    assert torch.equal(prior.reconstruct(measured), prior.reconstruct(y))


def test_what_is_neither_is_refused_by_its_type():
    operator, _, y = planted()
    for call, words in (
        (lambda: LASSO(operator).reconstruct(y.tolist()), "expected measurements as a tensor or an array .*got list"),
        (lambda: LASSO(operator).acquire(None), "expected signals as a tensor .*got NoneType"),
        (lambda: Wiener(operator).fit("mnist"), "expected signals as a tensor .*got str"),
        (lambda: Matrix([[1.0]]), r"expected a matrix \(m, n\) as a tensor .*got list"),
        (lambda: LASSO(operator).reconstruct(np.array([["a"] * 10])), "expected measurements of numbers, got <U1"),
        (lambda: Matrix(np.eye(4, dtype=int)), r"expected a real matrix \(m, n\), got torch.int64"),
    ):
        with pytest.raises(UserError, match=words):
            call()
    assert Matrix(np.eye(4))(torch.ones(1, 4)).dtype == torch.float64


@pytest.mark.parametrize("kind", [Wiener, MeanSignal, ResidualCovariance, UncertaintyAutoencoder])
def test_neither_measurements_nor_labels_of_classes_are_learnt_from(kind):
    operator, x, y = planted()
    classes = np.eye(3, dtype=np.float32)[np.arange(12) % 3]

    def fitted(*given):
        if kind is UncertaintyAutoencoder:
            config, training = UAEConfig(event_shape=SHAPE, measurements=2, hidden=(3,)), TrainingConfig(epochs=1)
            return kind(config=config, training=training).fit(*given).model_.raw
        more = {"prior": LinearPrior()} if kind is ResidualCovariance else {}
        made = kind(operator, noise=0.1, **more).fit(*given)
        return made.means_ if kind is Wiener else made.mean_

    wanted = fitted(x)
    for given in ((x, classes), (y, x), (x, y), (x, np.arange(12)), (None, x)):
        torch.testing.assert_close(fitted(*given), wanted)
    with pytest.raises(UserError, match=r"signals \(n, 1, 4, 4\).*, got X \(12, 10\) and y \(12, 3\)"):
        fitted(y, classes)
    with pytest.raises(UserError, match=r"signals \(n, 1, 4, 4\).*, got X \(12, 10\)$"):
        fitted(y)


@pytest.mark.parametrize("values", [torch.tensor, np.array])
def test_masks_kernels_and_bases_are_arrays_too(values):
    mask = np.random.default_rng(0).random((8, 8)) < 0.5
    mask[0, 0] = True
    kernel, basis = np.array([[0.0, 1.0, 0.0], [1.0, 4.0, 2.0], [0.0, 1.0, 0.0]]), np.eye(64)[::-1].copy()
    x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    kept = build_operator("mask", (1, 8, 8), mask=values(mask))
    torch.testing.assert_close(kept(x), x[..., torch.from_numpy(mask)].flatten(1))
    blurred = build_operator("blur", (1, 8, 8), kernel=values(kernel))(x)
    wanted = torch.from_numpy(convolve2d(x[0, 0].numpy(), kernel, mode="same").astype(np.float32))
    torch.testing.assert_close(blurred[0].reshape(8, 8), wanted)
    fourier = build_operator("fourier", (1, 8, 8), mask=values(mask))
    spectrum = torch.fft.fft2(x, norm="ortho") * torch.from_numpy(mask | np.roll(mask[::-1, ::-1], (1, 1), (0, 1)))
    torch.testing.assert_close(fourier.adjoint(fourier(x)), torch.fft.ifft2(spectrum, norm="ortho").real)
    own, named = (LASSO(kept, basis=one, box=False, tolerance=1e-9) for one in (values(basis), "pixels"))
    torch.testing.assert_close(own.reconstruct(kept(x)), named.reconstruct(kept(x)))
    searched = SparseGen(
        gaussian(SHAPE, 5), LinearPrior(), basis=values(np.eye(16)), steps=20, steps_alone=10, restarts=1
    )
    assert searched.reconstruct(torch.ones(1, 5)).shape == (1, *SHAPE)
