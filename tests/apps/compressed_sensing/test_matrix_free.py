"""LASSO without matrices: the dense solvers' answers, and large signals in little memory."""

from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from apps.compressed_sensing import BPDN, LASSO, Callables, Matrix, ReweightedLASSO, build_operator
from apps.compressed_sensing.bases import build_basis
from apps.compressed_sensing.convergence import NotSolved
from apps.compressed_sensing.lasso import problem_of
from apps.compressed_sensing.operators import LinearOperator
from apps.compressed_sensing.solvers import matrix_free
from apps.compressed_sensing.solvers.lasso import solve_lasso
from apps.compressed_sensing.solvers.matrix_free import LargeLasso, solve_without_matrices
from apps.compressed_sensing.solvers.problem import Lasso
from core_models.errors import UserError

SHAPE, M, LARGE = (1, 8, 8), 30, (1, 128, 160)


def both(name="gaussian", basis="pixels", box=False, alpha=0.02, weighted=False):
    """A problem without matrices and the same with them."""
    generator = torch.Generator().manual_seed(0)
    operator = build_operator(name, SHAPE, None if name == "blur" else M, dtype=torch.float64)
    x = torch.rand(4, *SHAPE, generator=generator, dtype=torch.float64)
    x = x * (torch.rand(4, *SHAPE, generator=generator) < 0.2)
    y = operator(x)
    y = y + 0.05 * torch.randn(y.shape, generator=generator, dtype=torch.float64)
    alpha, own = alpha * operator.mean_square(), build_basis(basis, SHAPE)
    weights = 0.1 + 2 * torch.rand(4, 64, generator=generator, dtype=torch.float64) if weighted else None
    large = LargeLasso(operator, y, own, box, alpha, weights)
    return large, Lasso(operator.matrix(), y, own.columns(y), box, alpha=alpha, weights=weights)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("basis", "box"), [("pixels", False), ("pixels", True), ("dct", False), ("haar", False)])
@pytest.mark.parametrize("name", ["gaussian", "fourier", "blur"])
def test_it_finds_what_the_dense_solver_finds(name, basis, box, weighted):
    large, dense = both(name, basis, box, weighted=weighted)
    found, wanted = solve_without_matrices(large, tolerance=1e-6), solve_lasso(dense, tolerance=1e-6)
    assert bool(found.converged.all())
    torch.testing.assert_close(found.objective, wanted.objective, rtol=1e-6, atol=0)
    if name != "blur":  # whose small singular values leave w open
        torch.testing.assert_close(found.w, wanted.w, rtol=0, atol=2e-3)
    torch.testing.assert_close(found.objective, dense.objective(found.w), rtol=1e-10, atol=0)
    assert float(dense.outside(found.w).max()) < 1e-9


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("basis", "box"), [("pixels", False), ("pixels", True), ("dct", False)])
def test_gaps_and_objectives_are_those_of_the_dense_problem(basis, box, weighted):
    large, dense = both("gaussian", basis, box, weighted=weighted)
    w = torch.rand(4, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    measured = large.measured(w)
    torch.testing.assert_close(large.gap(w, measured), dense.gap(w), rtol=1e-12, atol=0)
    torch.testing.assert_close(large.objective(w, measured), dense.objective(w))
    torch.testing.assert_close(large.back(large.y), dense.back(dense.y))


def test_a_step_that_is_too_long_is_taken_again(monkeypatch):
    large, dense = both("gaussian", alpha=0.05)
    assert matrix_free.largest_eigenvalue(large) == pytest.approx(
        1.05 * float(torch.linalg.matrix_norm(dense.A, 2)) ** 2 / M, rel=0.02
    )
    monkeypatch.setattr(matrix_free, "largest_eigenvalue", lambda problem: 1e-3)
    found = solve_without_matrices(large, tolerance=1e-8)
    assert bool(found.converged.all()) and found.steps < 1000
    torch.testing.assert_close(found.objective, solve_lasso(dense, tolerance=1e-8).objective, rtol=1e-7, atol=0)


def test_it_begins_where_it_is_told_to_and_says_when_it_has_not_ended():
    large, _ = both("fourier", "dct")
    cold = solve_without_matrices(large)
    there = solve_without_matrices(large, max_steps=0, start=cold.w)
    torch.testing.assert_close(there.objective, cold.objective)
    warm = solve_without_matrices(replace(large, alpha=0.9 * large.alpha), start=cold.w)
    assert warm.steps < cold.steps
    short = solve_without_matrices(large, tolerance=1e-12, max_steps=7)
    assert short.steps == 7 and not bool(short.converged.any()) and bool((short.gap > 0).all())
    with pytest.raises(UserError, match="tolerance above 0"):
        solve_without_matrices(large, tolerance=0)


class Largest(TorchDispatchMode):
    """Remembers the most bytes of a tensor that any operation made."""

    size = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.size = max([self.size, *(leaf.nbytes for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor))])
        return out


@pytest.mark.parametrize("kind", [LASSO, ReweightedLASSO])
def test_large_images_are_recovered_without_a_matrix(kind, monkeypatch):
    def refuse(self):
        raise AssertionError("a matrix was made")

    monkeypatch.setattr(LinearOperator, "matrix", refuse)
    operator = build_operator("fourier", LARGE, 6000)
    x = torch.zeros(1, *LARGE)
    x[..., 32:64, 64:128] = 0.5
    y = operator(x)
    settings = {"alpha": 0.1 / operator.n, "basis": "wavelet", "box": False, "tolerance": 1e-2}
    method = kind(operator, **settings, **({"rounds": 2} if kind is ReweightedLASSO else {}))
    with Largest() as seen:
        found = method.recover(y)
    assert bool(found.details["converged"].all())
    least = 1e-3 * float(y.square().sum()) / (2 * operator.m)  # the tolerance is of this, where the objective is less
    assert float(found.details["gap"]) <= 1e-2 * max(float(found.details["objective"]), least)
    assert seen.size <= 2 * 16 * operator.n  # two complex numbers a value
    assert float((found.x - x).square().mean()) < 0.5 * float((operator.adjoint(y) - x).square().mean())


def test_small_signals_are_where_it_is_asked_for_and_functions_in_their_precision():
    weight = torch.randn(M, 64, generator=torch.Generator().manual_seed(0))
    operator = Callables(lambda x: x.flatten(1) @ weight.T, signal_shape=SHAPE)
    y = operator(torch.rand(2, *SHAPE) * (torch.rand(2, *SHAPE) < 0.2))
    found, wanted = (LASSO(operator, alpha=0.05, solver=name).recover(y) for name in ("matrix-free", "batched"))
    assert isinstance(problem_of(LASSO(operator, alpha=0.05), y, "matrix-free"), LargeLasso)
    assert bool(found.details["converged"].all())
    torch.testing.assert_close(found.x, wanted.x, rtol=0, atol=1e-2)


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (lambda operator: LASSO(operator, basis="wavelet"), "no box in a basis other than pixels.*box=False"),
        (
            lambda operator: LASSO(operator, solver="OSQP"),
            "at most 20,000 values.*take LASSO with solver batched or matrix-free",
        ),
        (lambda operator: BPDN(operator), "at most 20,000 values.*take LASSO with solver batched or matrix-free"),
        (lambda operator: LASSO(operator, alpha=-1.0), "alpha of 0 or more"),
    ],
)
def test_what_cannot_be_done_without_matrices_is_refused(method, words):
    operator = build_operator("mask", LARGE, 10)
    with pytest.raises(UserError, match=words):
        method(operator).recover(torch.ones(1, 10))


def sparse_lines():
    """A matrix and sparse signals of values of any sign."""
    generator = torch.Generator().manual_seed(0)
    A = torch.randn(60, 200, generator=generator)
    return A, torch.randn(3, 200, generator=generator) * (torch.rand(3, 200, generator=generator) < 0.05)


def test_single_precision_that_cannot_reach_the_tolerance_ends_and_asks_for_double():
    A, x = sparse_lines()
    settings = {"alpha": 0.01, "box": False, "clip": False, "solver": "matrix-free"}
    single = LASSO(Matrix(A), **settings)
    y = single.acquire(x)
    found = solve_without_matrices(problem_of(single, y, "matrix-free"), max_steps=3000)
    assert found.steps < 1500 and not bool(found.converged.all())
    assert bool((found.gap < 1e-4 * found.objective).all())
    with pytest.warns(NotSolved, match="give the operator in double precision.*or raise tolerance or max_steps"):
        single.recover(y)
    double = LASSO(Matrix(A.double()), **settings)
    assert bool(double.recover(y.double()).details["converged"].all())
    assert double.if_unsolved() == LASSO(Matrix(A)).if_unsolved() == "raise max_steps or tolerance"
