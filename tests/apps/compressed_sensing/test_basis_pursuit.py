from dataclasses import replace

import pytest
import torch

from apps.compressed_sensing.bases import build_basis
from apps.compressed_sensing.solvers.basis_pursuit import solve_basis_pursuit
from apps.compressed_sensing.solvers.cvxpy_reference import solve_by_cvxpy
from apps.compressed_sensing.solvers.problem import BasisPursuit
from core_models.errors import UserError


def planted(basis="pixels", box=False, epsilon=0.3, noise=0.03):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(3, 36, generator=generator, dtype=torch.float64)
    x = x * (torch.rand(3, 36, generator=generator) < 0.15)
    A = torch.randn(15, 36, generator=generator, dtype=torch.float64)
    y = x @ A.T + noise * torch.randn(3, 15, generator=generator, dtype=torch.float64)
    return BasisPursuit(A, y, build_basis(basis, (1, 6, 6)).columns(A), box, epsilon=epsilon), x


@pytest.mark.parametrize("box", [False, True])
@pytest.mark.parametrize("basis", ["pixels", "dct", "haar"])
def test_the_engine_finds_what_cvxpy_finds(basis, box):
    problem, _ = planted(basis, box)
    found, wanted = solve_basis_pursuit(problem, tolerance=1e-7), solve_by_cvxpy(problem)
    assert bool(found.converged.all())
    torch.testing.assert_close(found.objective, problem.objective(wanted), rtol=1e-6, atol=0)
    assert bool((found.bound <= problem.objective(wanted) * (1 + 1e-7)).all())
    assert float((problem.residuals(found.w).norm(dim=1) - problem.epsilon).max()) < 1e-5


def test_a_sparse_signal_without_noise_is_recovered_exactly():
    problem, x = planted(noise=0.0, epsilon=0.0)
    sparse = (x != 0).sum(1) <= 5  # few enough for 15 measurements
    found = solve_basis_pursuit(replace(problem, y=problem.y[sparse]), tolerance=1e-7)
    assert len(found.w) > 0
    torch.testing.assert_close(found.w, x[sparse], rtol=0, atol=1e-4)


def test_zero_is_the_answer_where_it_explains_the_measurements():
    problem, _ = planted(epsilon=1e3)
    assert not bool(solve_basis_pursuit(problem).w.any())


def test_a_negative_epsilon_is_refused():
    with pytest.raises(UserError, match="epsilon of 0 or more"):
        planted(epsilon=-1.0)
