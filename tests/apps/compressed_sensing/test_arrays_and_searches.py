"""Methods beside the rest of Python: arrays of numpy for tensors, and scikit-learn's searches over settings."""

import numpy as np
import pytest
import torch
from planted_priors import LinearPrior
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from apps.compressed_sensing import CSGM, LASSO, GaussianMixture, Matrix, ResidualCovariance, Wiener
from apps.compressed_sensing.gaussian import MeanSignal
from apps.compressed_sensing.methods import METHODS
from apps.compressed_sensing.operators import gaussian
from core_models.errors import UserError

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
