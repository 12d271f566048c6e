"""Newton steps on planted problems whose supports are known, and what single precision may not spoil."""

import pytest
import torch

from apps.compressed_sensing.solvers import lasso
from apps.compressed_sensing.solvers.fista import Fista, Momentum
from apps.compressed_sensing.solvers.lasso import solve_lasso
from apps.compressed_sensing.solvers.newton import Newton
from apps.compressed_sensing.solvers.problem import Lasso


def problem(box=False, m=30, n=20, near=1.0, batch=40, seed=0):
    """More signals than are solved together, whose supports differ in size; near 0, two columns are nearly one."""
    generator = torch.Generator().manual_seed(seed)
    A = torch.randn(m, n, generator=generator, dtype=torch.float64)
    A[:, 1] = A[:, 0] + near * A[:, 1]
    x = torch.rand(batch, n, generator=generator, dtype=torch.float64)
    x = x * (torch.rand(batch, n, generator=generator) < torch.rand(batch, 1, generator=generator))
    x[:, :2] = 0.9
    return Lasso(A, x @ A.T + 0.01 * torch.randn(batch, m, generator=generator).double(), None, box, alpha=0.01)


@pytest.mark.parametrize("box", [False, True])
@pytest.mark.parametrize("near", [1.0, 1e-2, 0.0])
def test_a_step_from_near_the_solution_ends_at_it_even_where_columns_are_equal(box, near):
    own = problem(box, near=near)
    least = solve_lasso(own, tolerance=1e-10)
    assert bool(least.converged.all())
    newton = Newton(Fista(own))
    stepped = newton.step(least.w + 1e-7 * (least.w > 0) * (least.w < 1), torch.arange(40))
    # the optimality conditions themselves, not a distance: those of a proximal step that moves nothing
    fista = newton.fista
    moved = fista.proximal(stepped - fista.gradient(stepped, fista.back) / fista.lipschitz, own.alpha / fista.lipschitz)
    torch.testing.assert_close(moved, stepped, rtol=0, atol=1e-9)


def test_what_single_precision_cannot_factor_is_solved_in_double(monkeypatch):
    own = problem(near=1e-5)
    newton, taken = Newton(Fista(own)), []
    full = newton._in_full
    monkeypatch.setattr(newton, "_in_full", lambda *given: taken.append(len(given[0])) or full(*given))
    w = torch.full((40, 20), 0.5, dtype=torch.float64)
    found = newton.step(w, torch.arange(40))
    assert sum(taken) > 0 and bool(torch.isfinite(found).all())
    free = (w - newton.fista.gradient(w, newton.fista.back) / newton.fista.lipschitz).abs() > (
        own.alpha / newton.fista.lipschitz
    )
    row = int((free[:, 0] & free[:, 1]).nonzero()[0])
    columns = own.A[:, free[row]]
    signs = (w - newton.fista.gradient(w, newton.fista.back) / newton.fista.lipschitz)[row, free[row]].sign()
    wanted = torch.linalg.solve(columns.T @ columns / 30, columns.T @ own.y[row] / 30 - own.alpha * signs)
    torch.testing.assert_close(found[row, free[row]], wanted, rtol=1e-3, atol=0)


def test_first_steps_in_single_precision_are_those_of_double(monkeypatch):
    for m in (30, 8):  # by the Gram matrix, and by A
        own = problem(m=m)
        fista, rows = Fista(own), torch.arange(40)
        start = Momentum.at(torch.zeros(40, 20, dtype=torch.float64))
        double = fista.run(start, rows, 50)
        single = fista.single().run(start.to(torch.float32), rows, 50)
        assert single.w.dtype == torch.float32 and not bool(start.z.any())
        torch.testing.assert_close(single.w.double(), double.w, rtol=0, atol=1e-4)


def test_who_needs_more_digits_gets_them(monkeypatch):
    monkeypatch.setattr(lasso, "SINGLE_STEPS", 300)
    monkeypatch.setattr(lasso, "NEWTON_STEPS", 0)  # first-order steps alone: single precision ends above 1e-10
    own = problem()
    found = solve_lasso(own, tolerance=1e-10, max_steps=20_000)
    assert bool(found.converged.all())
    monkeypatch.setattr(lasso, "SINGLE_STEPS", 10**9)
    assert not bool(solve_lasso(own, tolerance=1e-10, max_steps=2000).converged.all())
