import pytest
import torch
from planted_priors import LinearPrior
from sklearn.base import clone

from apps.compressed_sensing import (
    LASSO,
    GuidedLASSO,
    PriorGuidedLASSO,
    ResidualCovariance,
    Wiener,
    errors,
)
from apps.compressed_sensing.operators import gaussian
from apps.compressed_sensing.solvers.cvxpy_reference import solve_by_cvxpy
from apps.compressed_sensing.solvers.problem import Lasso
from core_models.errors import UserError

SHAPE = (1, 8, 8)


def blocks(n, seed=0):
    """Squares of three pixels a side somewhere in the middle, of random brightness; all else is nothing."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.zeros(n, *SHAPE)
    for image in x:
        top, left = torch.randint(1, 4, (2,), generator=generator).tolist()
        image[0, top : top + 3, left : left + 3] = 0.3 + 0.6 * torch.rand(3, 3, generator=generator)
    return x


def wanted(guess, y, operator, alpha, epsilon):
    """The same problem by cvxpy, its weights written out from the estimate's mean and standard deviation."""
    expected = (guess.x**2 + guess.std**2).flatten(1).double()
    weights = epsilon**2 / (epsilon**2 + expected)
    return solve_by_cvxpy(Lasso(operator.matrix().double(), y.double(), None, True, alpha=alpha, weights=weights))


def test_penalties_are_those_of_the_linear_estimate():
    operator, x = gaussian(SHAPE, 24, seed=1), blocks(5, seed=1)
    first = Wiener(operator, noise=0.05).fit(blocks(400))
    method = GuidedLASSO(operator, noise=0.05, alpha=0.02, epsilon=0.1, tolerance=1e-9).fit(blocks(400))
    y = method.acquire(x, generator=torch.Generator().manual_seed(2))
    found = method.recover(y)
    solved = wanted(first.recover(y), y, operator, 0.02, 0.1)
    torch.testing.assert_close(found.x.flatten(1).double(), solved, rtol=0, atol=1e-4)
    assert bool((found.details["converged"] == 1).all()) and found.std is None


def test_penalties_are_those_of_residual_covariance_under_a_prior():
    operator, prior = gaussian((1, 4, 4), 6, seed=1), LinearPrior()
    x = prior.sample(300, generator=torch.Generator().manual_seed(3)).clamp(0, 1)
    settings = {"noise": 0.05, "steps": 50, "restarts": 3, "drop": (), "modes": 2, "random_state": 4}
    first = ResidualCovariance(operator, prior, **settings).fit(x)
    method = PriorGuidedLASSO(operator, prior, alpha=0.02, epsilon=0.3, tolerance=1e-9, **settings).fit(x)
    y = method.acquire(x[:4], generator=torch.Generator().manual_seed(2))
    solved = wanted(first.recover(y), y, operator, 0.02, 0.3)
    torch.testing.assert_close(method.reconstruct(y).flatten(1).double(), solved, rtol=0, atol=1e-4)
    torch.testing.assert_close(clone(method).fit(x).reconstruct(y), method.reconstruct(y))


def test_with_what_both_know_fewer_measurements_are_needed_than_with_either():
    """Eighteen measurements of nine values that aren't nothing, among sixty-four."""
    operator, train, x = gaussian(SHAPE, 18, seed=5), blocks(2000), blocks(100, seed=1)
    alone = LASSO(operator, noise=0.01, alpha=0.003, box=True, tolerance=1e-4)
    y = alone.acquire(x, generator=torch.Generator().manual_seed(2))
    linear = Wiener(operator, noise=0.01).fit(train)
    both = GuidedLASSO(operator, noise=0.01, alpha=0.003, epsilon=0.1).fit(train)
    one, other, error = (float(errors(m.reconstruct(y), x)["mse"].mean()) for m in (alone, linear, both))
    assert error < 0.6 * min(one, other)


def test_mistakes_are_named():
    method = GuidedLASSO(gaussian(SHAPE, 8), epsilon=0.0).fit(blocks(10))
    with pytest.raises(UserError, match="epsilon above 0"):
        method.reconstruct(torch.zeros(1, 8))
    with pytest.raises(UserError, match="fit"):
        GuidedLASSO(gaussian(SHAPE, 8)).reconstruct(torch.zeros(1, 8))
    with pytest.raises(UserError, match="noise"):
        GuidedLASSO(gaussian(SHAPE, 8), noise=0.0).fit(blocks(10)).reconstruct(torch.zeros(1, 8))
