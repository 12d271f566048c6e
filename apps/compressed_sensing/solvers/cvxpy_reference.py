"""The reference: the same problems by cvxpy, one signal after another, with y as the parameter of one problem.

cvxpy compiles the problem once; only y changes from signal to signal. A as a parameter would be compiled at every call.
"""

from __future__ import annotations

from typing import Any

import cvxpy
import numpy as np
import torch

from core_models.errors import UserError

from .problem import BasisPursuit, Coefficients, Lasso, Sparse

TIGHT: dict[str, dict[str, Any]] = {
    "CLARABEL": {"tol_gap_abs": 1e-10, "tol_gap_rel": 1e-10, "tol_feas": 1e-10},
    "OSQP": {"eps_abs": 1e-9, "eps_rel": 1e-9, "max_iter": 200_000, "polish": True},
    "SCS": {"eps_abs": 1e-9, "eps_rel": 1e-9, "max_iters": 200_000},
}
"""Settings by which each solver comes near the solution."""


class Reference:
    """A problem of one signal, compiled once.

    Args:
        problem: its measurements are left aside, and the values of its weights.
        solver: by its name in cvxpy.
        settings: of the solver; `TIGHT` when left out.

    Raises:
        UserError: when cvxpy hasn't that solver.
    """

    def __init__(self, problem: Sparse, solver: str = "CLARABEL", settings: dict[str, Any] | None = None) -> None:
        if solver not in cvxpy.installed_solvers():
            raise UserError(f"expected a solver of cvxpy ({', '.join(cvxpy.installed_solvers())}), got {solver!r}")
        self.solver = solver
        self.settings = TIGHT.get(solver, {}) if settings is None else settings
        matrix = problem.A.double().cpu().numpy()
        self.y = cvxpy.Parameter(len(matrix))
        self.w = cvxpy.Variable(matrix.shape[1])
        basis = None if problem.basis is None else problem.basis.double().cpu().numpy()
        x = self.w if basis is None else basis.T @ self.w
        residual = self.y - matrix @ x
        constraints = [x >= 0, x <= 1] if problem.box else []
        self.weights: cvxpy.Parameter | None = None
        if isinstance(problem, Lasso):
            w: cvxpy.Expression = self.w
            if problem.weights is not None:
                self.weights = cvxpy.Parameter(matrix.shape[1], nonneg=True)
                w = cvxpy.multiply(self.weights, w)
            aim = cvxpy.sum_squares(residual) / (2 * problem.m) + problem.alpha * cvxpy.norm1(w)
        else:
            assert isinstance(problem, BasisPursuit)
            aim = cvxpy.norm1(self.w)
            constraints.append(cvxpy.norm2(residual) <= problem.epsilon)
        self.problem = cvxpy.Problem(cvxpy.Minimize(aim), constraints)

    def solve(self, y: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        """Returns the coefficients (n,) of one signal's measurements (m,), and of its weights (n,) where it has some.

        Raises:
            UserError: when the solver finds no solution.
        """
        self.y.value = np.asarray(y, dtype=np.float64)
        if self.weights is not None:
            self.weights.value = weights
        try:
            self.problem.solve(solver=self.solver, warm_start=True, **self.settings)
        except cvxpy.error.SolverError as error:
            words = " ".join(str(error).split())
            raise UserError(f"{self.solver} can't solve this problem ({words}): name another solver") from error
        if self.w.value is None:
            raise UserError(f"{self.solver} found no solution: {self.problem.status}")
        found: np.ndarray = np.asarray(self.w.value)
        return found


def solve_by_cvxpy(problem: Sparse, solver: str = "CLARABEL", settings: dict[str, Any] | None = None) -> Coefficients:
    """Returns the coefficients (batch, n) of all signals, solved one after another."""
    reference = Reference(problem, solver, settings)
    weights = (
        None if not isinstance(problem, Lasso) or problem.weights is None else problem.weights.double().cpu().numpy()
    )
    rows = [
        torch.from_numpy(reference.solve(y, None if weights is None else weights[row]))
        for row, y in enumerate(problem.y.double().cpu().numpy())
    ]
    return torch.stack(rows).to(problem.y)
