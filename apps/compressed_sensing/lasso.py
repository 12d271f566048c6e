r"""LASSO and basis pursuit denoising: signals that are sparse in pixels, DCT or wavelets.

.. math:: \min_w \frac{1}{2m} \|y - A B w\|^2 + \alpha \|w\|_1 \qquad \min_w \|w\|_1, \ \|y - A B w\| \le \epsilon

with or without 0 <= B w <= 1. A box that signals are known to lie in is information: leaving it out makes a baseline
weaker than it is. So does one penalty for all: it takes from what is large as much as from what is nothing. Weighted
by 1 / (1 + |w| / epsilon), w being what the last round found, it leaves the large ones nearly alone.

Source: Tibshirani, "Regression shrinkage and selection via the lasso", 1996; Chen, Donoho and Saunders, 1998; as
baselines of Bora, Jalal, Price and Dimakis, "Compressed sensing using generative models", 2017, section 6; Candes,
Wakin and Boyd, "Enhancing sparsity by reweighted l1 minimization", 2008, section 2.2 (weights).
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any, ClassVar, Literal

from torch import Tensor

from core_models.errors import UserError

from .bases import Basis, build_basis
from .convergence import NothingLeft
from .operators import LinearOperator
from .operators.base import Measurements
from .recovery import LARGEST, Recovered, Recovery, require_matrices
from .solvers.basis_pursuit import solve_basis_pursuit
from .solvers.cvxpy_reference import solve_by_cvxpy
from .solvers.lasso import Solution, solve_lasso
from .solvers.matrix_free import LargeLasso, solve_without_matrices, stays_coarse
from .solvers.problem import BasisPursuit
from .solvers.problem import Lasso as LassoProblem

Solver = Literal["batched", "CLARABEL", "OSQP", "SCS"]
LassoSolver = Literal["batched", "matrix-free", "CLARABEL", "OSQP", "SCS"]


class LASSO(Recovery):
    """Least squares with an l1 penalty on the coefficients of a basis.

    It warns, by `NothingLeft`, where the penalty is so large that all its signals are 0.

    Args:
        operator: what made the measurements.
        noise: standard deviation of each measurement's noise; only `acquire` asks for it.
        basis: pixels, dct, wavelet (Haar) or an orthonormal wavelet's name; in Python also a `Basis`, or an orthonormal
            matrix (n, n) whose columns are the basis vectors.
        alpha: weight of the penalty, under the mean loss and for the operator's own scaling; 0.1 times the mean square
            of A's entries when left out.
        box: whether signals are held in [0, 1]; turn it off, and clip, for those of another range.
        clip: whether those of an unboxed problem are clipped to [0, 1] afterwards, as Bora et al. did.
        solver: batched, the engine, which needs no matrices for signals of more than 20,000 values; matrix-free, which
            never does; or the name of a cvxpy solver, the reference.
        tolerance: relative duality gap of the engine.
        max_steps: of the engine.
    """

    default_penalties: ClassVar = {"alpha": 0.1}

    def __init__(
        self, operator: LinearOperator | None = None, *, noise: float = 0.0, basis: Any = "pixels",
        alpha: float | None = None, box: bool = True, clip: bool = True, solver: LassoSolver = "batched",
        tolerance: float = 1e-6, max_steps: int = 20_000,
    ) -> None:  # fmt: skip
        self.operator, self.noise, self.basis, self.alpha, self.box = operator, noise, basis, alpha, box
        self.clip, self.solver, self.tolerance, self.max_steps = clip, solver, tolerance, max_steps

    def if_unsolved(self) -> str:
        """Asks for double precision where that of the products isn't enough."""
        return _advice(self.measuring, self.solver) or super().if_unsolved()

    def _recover(self, y: Measurements, first: int) -> Recovered:
        problem = problem_of(self, y, self.solver)
        if isinstance(problem, LargeLasso) or self.solver == "batched":
            found = _solve(problem, self)
            details, w = found.details, found.w
        else:
            w = solve_by_cvxpy(problem, self.solver)
            details = {"objective": problem.objective(w)}
        warn_of_nothing(problem, self.alpha)
        return Recovered(signals_of(problem.signals(w), y, self.measuring, clip=self.clip), None, details)


class ReweightedLASSO(Recovery):
    """LASSO, solved again with a smaller penalty on what is large.

    Args:
        operator: what made the measurements.
        noise: standard deviation of each measurement's noise; only `acquire` asks for it.
        basis: pixels, dct, wavelet (Haar) or an orthonormal wavelet's name; in Python also a `Basis`, or an orthonormal
            matrix (n, n) whose columns are the basis vectors.
        alpha: weight of the penalty on what is nothing, as `LASSO` has it; 0.01 times the mean square of A's entries
            when left out.
        epsilon: size at which a coefficient has half that penalty [units of the coefficients].
        rounds: how often it is solved, the first time with one penalty for all.
        box: whether signals are held in [0, 1]; turn it off, and clip, for those of another range.
        clip: whether those of an unboxed problem are clipped to [0, 1] afterwards.
        tolerance: relative duality gap of each round.
        max_steps: of the engine, a round.
    """

    default_penalties: ClassVar = {"alpha": 0.01}

    def __init__(
        self, operator: LinearOperator | None = None, *, noise: float = 0.0, basis: Any = "pixels",
        alpha: float | None = None, epsilon: float = 0.1, rounds: int = 4, box: bool = True, clip: bool = True,
        tolerance: float = 1e-6, max_steps: int = 20_000,
    ) -> None:  # fmt: skip
        self.operator, self.noise, self.basis, self.alpha, self.epsilon = operator, noise, basis, alpha, epsilon
        self.rounds, self.box, self.clip, self.tolerance, self.max_steps = rounds, box, clip, tolerance, max_steps

    def if_unsolved(self) -> str:
        """Asks for double precision where that of the products isn't enough."""
        return _advice(self.measuring) or super().if_unsolved()

    def _recover(self, y: Measurements, first: int) -> Recovered:
        if not self.epsilon > 0 or self.rounds < 1:
            raise UserError(f"expected epsilon above 0 and a round or more, got {self.epsilon} and {self.rounds}")
        problem = problem_of(self, y)
        found = _solve(problem, self)
        for _ in range(self.rounds - 1):
            problem = replace(problem, weights=1 / (1 + found.w.abs() / self.epsilon))
            found = _solve(problem, self, found.w)
        warn_of_nothing(problem, self.alpha)
        x = signals_of(problem.signals(found.w), y, self.measuring, clip=self.clip)
        return Recovered(x, None, found.details)


class BPDN(Recovery):
    """The least l1 norm that explains the measurements to within their noise.

    Args:
        operator: what made the measurements.
        noise: standard deviation of each measurement's noise.
        basis: pixels, dct, wavelet (Haar) or an orthonormal wavelet's name; in Python also a `Basis`, or an orthonormal
            matrix (n, n) whose columns are the basis vectors.
        epsilon: largest ||y - A x||; noise sqrt(m) when left out.
        box: whether signals are held in [0, 1]; turn it off, and clip, for those of another range.
        clip: whether those of an unboxed problem are clipped to [0, 1] afterwards.
        solver: batched or the name of a cvxpy solver.
        tolerance: relative duality gap of the engine.
        max_steps: of the engine.
    """

    def __init__(
        self, operator: LinearOperator | None = None, *, noise: float = 0.0, basis: Any = "pixels",
        epsilon: float | None = None, box: bool = True, clip: bool = True, solver: Solver = "batched",
        tolerance: float = 1e-6, max_steps: int = 20_000,
    ) -> None:  # fmt: skip
        self.operator, self.noise, self.basis, self.epsilon, self.box = operator, noise, basis, epsilon, box
        self.clip, self.solver, self.tolerance, self.max_steps = clip, solver, tolerance, max_steps

    def if_unsolved(self) -> str:
        """Asks for the noise where there is none."""
        if self.epsilon or (self.epsilon is None and self.noise):
            return super().if_unsolved()
        return "of noisy measurements give noise or epsilon, both are 0; of exact ones raise max_steps or tolerance"

    def _recover(self, y: Measurements, first: int) -> Recovered:
        operator = self.measuring
        A, rows = matrices_of(operator, self.basis)
        epsilon = self.noise * operator.m**0.5 if self.epsilon is None else self.epsilon
        problem = BasisPursuit(A, y.double(), rows, self.box, epsilon=epsilon)
        if self.solver == "batched":
            found = solve_basis_pursuit(problem, tolerance=self.tolerance, max_steps=self.max_steps)
            w = found.w
            details = {"objective": found.objective, "gap": found.objective - found.bound,
                       "violation": found.violation, "converged": found.converged.double()}  # fmt: skip
        else:
            w = solve_by_cvxpy(problem, self.solver)
            details = {"objective": problem.objective(w)}
        return Recovered(signals_of(problem.signals(w), y, operator, clip=self.clip), None, details)


def problem_of(
    method: LASSO | ReweightedLASSO, y: Measurements, solver: LassoSolver = "batched"
) -> LassoProblem | LargeLasso:
    """Returns a method's problem, without matrices where signals are large or the solver is to be matrix-free."""
    operator, alpha = method.measuring, method.penalty_of("alpha")
    if _matrix_free(operator, solver):
        basis = build_basis(method.basis, operator.signal_shape)
        return LargeLasso.of_operator(operator, y, basis, box=method.box, alpha=alpha)
    A, rows = matrices_of(operator, method.basis)
    return LassoProblem(A, y.double(), rows, method.box, alpha=alpha)


def _matrix_free(operator: LinearOperator, solver: LassoSolver) -> bool:
    return solver == "matrix-free" or (solver == "batched" and operator.n > LARGEST)


def _advice(operator: LinearOperator, solver: LassoSolver = "batched") -> str | None:
    """Says what to do about gaps that rounding may hold up; None where it can't."""
    if not (_matrix_free(operator, solver) and stays_coarse(operator)):
        return None
    return "give the operator in double precision, for rounding holds the gap up, or raise tolerance or max_steps"


def _solve(
    problem: LassoProblem | LargeLasso, method: LASSO | ReweightedLASSO, start: Tensor | None = None
) -> Solution:
    if isinstance(problem, LargeLasso):
        return solve_without_matrices(problem, tolerance=method.tolerance, max_steps=method.max_steps, start=start)
    return solve_lasso(problem, tolerance=method.tolerance, max_steps=method.max_steps, start=start)


def matrices_of(operator: LinearOperator, basis: str | Basis | Tensor) -> tuple[Tensor, Tensor | None]:
    """Returns A and the rows of a basis in double precision.

    Raises:
        UserError: when the basis doesn't fit, or the matrices wouldn't fit into memory.
    """
    require_matrices(operator.n)
    A = operator.matrix().double()
    return A, build_basis(basis, operator.signal_shape).columns(A)


def warn_of_nothing(problem: LassoProblem | LargeLasso, given: float | None) -> None:
    """Warns where all signals are 0 because the penalty is as large as the steepest descent of the loss at 0.

    Args:
        problem: which was solved.
        given: the method's alpha, None where it was left out.
    """
    if not bool(problem.y.any()):
        return
    steepest = problem.back(problem.y).abs() / problem.m
    largest = float((steepest if problem.weights is None else steepest / problem.weights).max())
    if problem.alpha >= largest:
        other = "" if given is None else "; left out, it follows the scale of A"
        warnings.warn(
            f"alpha {problem.alpha:.3g} is at or above alpha_max {largest:.3g}, from which on every signal recovered "
            f"is 0: give a smaller one{other}",
            NothingLeft,
            stacklevel=4,
        )


def signals_of(x: Tensor, y: Tensor, operator: LinearOperator, *, clip: bool) -> Tensor:
    """Returns signals in the shape and type of the measurements' own, in [0, 1] where they are clipped."""
    x = x.to(y.dtype).unflatten(1, operator.signal_shape)
    return x.clamp(0, 1) if clip else x
