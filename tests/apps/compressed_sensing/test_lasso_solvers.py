from dataclasses import replace

import pytest
import torch

from apps.compressed_sensing.bases import build_basis
from apps.compressed_sensing.lasso import LASSO, ReweightedLASSO
from apps.compressed_sensing.operators import Matrix
from apps.compressed_sensing.solvers.admm import solve_lasso_by_admm
from apps.compressed_sensing.solvers.cvxpy_reference import Reference, solve_by_cvxpy
from apps.compressed_sensing.solvers.lasso import solve_lasso
from apps.compressed_sensing.solvers.problem import Lasso
from core_models.errors import UserError


def weighted(*given, **options):
    """A problem whose coefficients have penalties of their own, signal by signal."""
    problem = planted(*given, **options)
    weights = torch.rand(len(problem.y), 64, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return replace(problem, weights=0.05 + 3 * weights)


def planted(basis="pixels", m=20, box=False, alpha=0.05, batch=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(batch, 64, generator=generator, dtype=torch.float64)
    x = x * (torch.rand(batch, 64, generator=generator) < 0.2)
    A = torch.randn(m, 64, generator=generator, dtype=torch.float64)
    y = x @ A.T + 0.1 * torch.randn(batch, m, generator=generator, dtype=torch.float64)
    return Lasso(A, y, build_basis(basis, (1, 8, 8)).columns(A), box, alpha=alpha)


@pytest.mark.parametrize("box", [False, True])
@pytest.mark.parametrize("basis", ["pixels", "dct", "haar"])
@pytest.mark.parametrize("m", [12, 40])
@pytest.mark.parametrize("made", [planted, weighted])
def test_the_engine_finds_what_cvxpy_finds(basis, box, m, made):
    problem = made(basis, m, box)
    found, wanted = solve_lasso(problem, tolerance=1e-8), solve_by_cvxpy(problem)
    assert bool(found.converged.all())
    torch.testing.assert_close(found.objective, problem.objective(wanted), rtol=1e-6, atol=0)
    torch.testing.assert_close(found.w, wanted, rtol=0, atol=1e-4)
    assert float(problem.outside(found.w).max()) < 1e-9


@pytest.mark.parametrize("box", [False, True])
@pytest.mark.parametrize("basis", ["pixels", "dct"])
def test_weights_that_are_one_number_are_a_penalty_and_go_with_their_signals(basis, box):
    problem = planted(basis, box=box)
    twice = torch.full((4, 64), 2.0, dtype=torch.float64)
    same = replace(problem, alpha=problem.alpha / 2, weights=twice)
    torch.testing.assert_close(solve_lasso(same, tolerance=1e-9).w, solve_lasso(problem, tolerance=1e-9).w)
    whole = weighted(basis, box=box)
    found, last = (solve_lasso(own, tolerance=1e-9).w for own in (whole, whole.of(torch.tensor([3, 1]))))
    torch.testing.assert_close(last, found[[3, 1]], rtol=0, atol=1e-5)


@pytest.mark.parametrize("basis", ["pixels", "dct"])
def test_both_engines_agree_where_both_apply(basis):
    problem = planted(basis)
    fast, slow = solve_lasso(problem, tolerance=1e-9), solve_lasso_by_admm(problem, tolerance=1e-9)
    torch.testing.assert_close(fast.w, slow.w, rtol=0, atol=1e-6)


@pytest.mark.parametrize("box", [False, True])
@pytest.mark.parametrize("basis", ["pixels", "dct"])
@pytest.mark.parametrize("made", [planted, weighted])
def test_the_gap_bounds_the_distance_to_the_least_objective(basis, box, made):
    problem = made(basis, box=box)
    least = solve_lasso(problem, tolerance=1e-10).objective
    generator = torch.Generator().manual_seed(1)
    for size in (0.0, 0.01, 0.3):
        w = size * torch.rand(4, 64, generator=generator, dtype=torch.float64)
        w = problem.coefficients(problem.signals(w).clamp(0, 1)) if box else w
        assert bool((problem.gap(w) >= problem.objective(w) - least - 1e-12).all())


def test_a_large_penalty_leaves_nothing_and_none_explains_the_measurements():
    problem = planted(m=12)
    largest = float((problem.y @ problem.A / problem.m).abs().max())
    assert not bool(solve_lasso(replace(problem, alpha=1.001 * largest)).w.any())
    assert bool(solve_lasso(replace(problem, alpha=0.99 * largest)).w.any())
    none = replace(problem, alpha=0.0, weights=torch.ones(4, 64, dtype=torch.float64))
    zero = torch.zeros(4, 64, dtype=torch.float64)
    torch.testing.assert_close(none.gap(zero), replace(none, weights=None).gap(zero))
    exact = solve_lasso(replace(problem, alpha=1e-7), tolerance=1e-4)
    assert float(problem.residuals(exact.w).abs().max()) < 1e-4


def test_a_batch_is_solved_as_its_signals_one_by_one():
    problem = planted()
    whole = solve_lasso(problem, tolerance=1e-10)
    for row in range(4):
        one = solve_lasso(replace(problem, y=problem.y[row : row + 1]), tolerance=1e-10)
        torch.testing.assert_close(one.w[0], whole.w[row], rtol=0, atol=1e-7)


@pytest.mark.parametrize("box", [False, True])
def test_a_second_round_takes_less_from_what_is_large(box):
    problem = planted(m=40, box=box, alpha=0.02)
    operator = Matrix(problem.A.float(), (1, 8, 8))
    options = {"alpha": 0.02, "box": box, "clip": False, "tolerance": 1e-9}
    once, twice = (ReweightedLASSO(operator, epsilon=0.2, rounds=r, **options).recover(problem.y) for r in (1, 2))
    first = LASSO(operator, **options).recover(problem.y)
    torch.testing.assert_close(once.x, first.x)
    own = replace(problem, A=operator.matrix().double())
    own = replace(own, weights=0.2 / (0.2 + first.x.flatten(1).abs()))
    torch.testing.assert_close(twice.x.flatten(1), solve_by_cvxpy(own), rtol=0, atol=1e-4)
    torch.testing.assert_close(twice.details["objective"], own.objective(solve_by_cvxpy(own)), rtol=1e-6, atol=0)
    assert bool((twice.x.sum((1, 2, 3)) > once.x.sum((1, 2, 3))).all())


@pytest.mark.parametrize("box", [False, True])
@pytest.mark.parametrize("basis", ["pixels", "dct"])
def test_a_search_begins_where_it_is_told_to(basis, box):
    problem = planted(basis, 40, box=box)
    cold = solve_lasso(problem, tolerance=1e-6)
    untouched = cold.w.clone()
    there = solve_lasso(problem, max_steps=0, start=cold.w)
    torch.testing.assert_close(there.w, cold.w, rtol=0, atol=1e-12)
    torch.testing.assert_close(there.objective, problem.objective(cold.w))
    warm = solve_lasso(problem, tolerance=1e-6, start=cold.w)
    assert warm.steps < cold.steps and bool(warm.converged.all())
    assert torch.equal(cold.w, untouched)
    astray = solve_lasso(problem, tolerance=1e-8, start=5 * torch.randn_like(cold.w))
    torch.testing.assert_close(astray.w, solve_lasso(problem, tolerance=1e-8).w, rtol=0, atol=1e-4)
    assert float(problem.outside(astray.w).max()) < 1e-9


def test_what_has_not_converged_says_so():
    problem = planted("dct", 12, box=True)
    found = solve_lasso(problem, tolerance=1e-12, max_steps=25)
    assert not bool(found.converged.any())
    assert bool((found.gap > 0).all())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: planted(alpha=-1.0), "alpha of 0 or more"),
        (lambda: replace(planted(), y=torch.zeros(2, 3)), "20 measurements"),
        (lambda: replace(planted(), weights=torch.ones(4, 63)), "expected weights"),
        (lambda: replace(planted(), weights=torch.zeros(4, 64)), "weights above 0"),
        (lambda: ReweightedLASSO(Matrix(planted().A), epsilon=0.0).recover(planted().y), "epsilon above 0"),
        (lambda: replace(planted(), y=torch.full((2, 20), torch.nan)), "finite"),
        (lambda: solve_lasso(planted(), tolerance=0), "tolerance above 0"),
        (lambda: Reference(planted(), "MOSEKK"), "expected a solver"),
    ],
)
def test_mistakes_are_named(make, words):
    with pytest.raises(UserError, match=words):
        make()
