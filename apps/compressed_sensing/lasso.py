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

from dataclasses import replace
from typing import Literal

from torch import Tensor

from core_models.errors import UserError

from .bases import build_basis
from .operators import LinearOperator
from .operators.base import Measurements
from .recovery import Recovered, Recovery, require_matrices
from .solvers.basis_pursuit import solve_basis_pursuit
from .solvers.cvxpy_reference import solve_by_cvxpy
from .solvers.lasso import solve_lasso
from .solvers.problem import BasisPursuit
from .solvers.problem import Lasso as LassoProblem

Solver = Literal["batched", "CLARABEL", "OSQP", "SCS"]


class LASSO(Recovery):
    """Least squares with an l1 penalty on the coefficients of a basis.

    Args:
        operator: what made the measurements.
        noise: standard deviation of each measurement's noise; only `acquire` asks for it.
        basis: pixels, dct, wavelet (Haar) or an orthonormal wavelet's name.
        alpha: weight of the penalty, under the mean loss and for the operator's own scaling.
        box: whether signals are held in [0, 1]; turn it off, and clip, for those of another range.
        clip: whether those of an unboxed problem are clipped to [0, 1] afterwards, as Bora et al. did.
        solver: batched, the engine, or the name of a cvxpy solver, the reference.
        tolerance: relative duality gap of the engine.
        max_steps: of the engine.
    """

    def __init__(
        self, operator: LinearOperator | None = None, *, noise: float = 0.0, basis: str = "pixels", alpha: float = 0.1,
        box: bool = True, clip: bool = True, solver: Solver = "batched", tolerance: float = 1e-6,
        max_steps: int = 20_000,
    ) -> None:  # fmt: skip
        self.operator, self.noise, self.basis, self.alpha, self.box = operator, noise, basis, alpha, box
        self.clip, self.solver, self.tolerance, self.max_steps = clip, solver, tolerance, max_steps

    def _recover(self, y: Measurements, first: int) -> Recovered:
        A, rows = matrices_of(self.measuring, self.basis)
        problem = LassoProblem(A, y.double(), rows, self.box, alpha=self.alpha)
        if self.solver == "batched":
            found = solve_lasso(problem, tolerance=self.tolerance, max_steps=self.max_steps)
            details, w = found.details, found.w
        else:
            w = solve_by_cvxpy(problem, self.solver)
            details = {"objective": problem.objective(w)}
        return Recovered(signals_of(problem.signals(w), y, self.measuring, clip=self.clip), None, details)


class ReweightedLASSO(Recovery):
    """LASSO, solved again with a smaller penalty on what is large.

    Args:
        operator: what made the measurements.
        noise: standard deviation of each measurement's noise; only `acquire` asks for it.
        basis: pixels, dct, wavelet (Haar) or an orthonormal wavelet's name.
        alpha: weight of the penalty on what is nothing, as `LASSO` has it.
        epsilon: size at which a coefficient has half that penalty [units of the coefficients].
        rounds: how often it is solved, the first time with one penalty for all.
        box: whether signals are held in [0, 1]; turn it off, and clip, for those of another range.
        clip: whether those of an unboxed problem are clipped to [0, 1] afterwards.
        tolerance: relative duality gap of each round.
        max_steps: of the engine, a round.
    """

    def __init__(
        self, operator: LinearOperator | None = None, *, noise: float = 0.0, basis: str = "pixels", alpha: float = 0.01,
        epsilon: float = 0.1, rounds: int = 4, box: bool = True, clip: bool = True, tolerance: float = 1e-6,
        max_steps: int = 20_000,
    ) -> None:  # fmt: skip
        self.operator, self.noise, self.basis, self.alpha, self.epsilon = operator, noise, basis, alpha, epsilon
        self.rounds, self.box, self.clip, self.tolerance, self.max_steps = rounds, box, clip, tolerance, max_steps

    def _recover(self, y: Measurements, first: int) -> Recovered:
        if not self.epsilon > 0 or self.rounds < 1:
            raise UserError(f"expected epsilon above 0 and a round or more, got {self.epsilon} and {self.rounds}")
        A, rows = matrices_of(self.measuring, self.basis)
        problem = LassoProblem(A, y.double(), rows, self.box, alpha=self.alpha)
        found = solve_lasso(problem, tolerance=self.tolerance, max_steps=self.max_steps)
        for _ in range(self.rounds - 1):
            problem = replace(problem, weights=1 / (1 + found.w.abs() / self.epsilon))
            found = solve_lasso(problem, tolerance=self.tolerance, max_steps=self.max_steps, start=found.w)
        x = signals_of(problem.signals(found.w), y, self.measuring, clip=self.clip)
        return Recovered(x, None, found.details)


class BPDN(Recovery):
    """The least l1 norm that explains the measurements to within their noise.

    Args:
        operator: what made the measurements.
        noise: standard deviation of each measurement's noise.
        basis: pixels, dct, wavelet (Haar) or an orthonormal wavelet's name.
        epsilon: largest ||y - A x||; noise sqrt(m) when left out.
        box: whether signals are held in [0, 1]; turn it off, and clip, for those of another range.
        clip: whether those of an unboxed problem are clipped to [0, 1] afterwards.
        solver: batched or the name of a cvxpy solver.
        tolerance: relative duality gap of the engine.
        max_steps: of the engine.
    """

    def __init__(
        self, operator: LinearOperator | None = None, *, noise: float = 0.0, basis: str = "pixels",
        epsilon: float | None = None, box: bool = True, clip: bool = True, solver: Solver = "batched",
        tolerance: float = 1e-6, max_steps: int = 20_000,
    ) -> None:  # fmt: skip
        self.operator, self.noise, self.basis, self.epsilon, self.box = operator, noise, basis, epsilon, box
        self.clip, self.solver, self.tolerance, self.max_steps = clip, solver, tolerance, max_steps

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


def matrices_of(operator: LinearOperator, basis: str) -> tuple[Tensor, Tensor | None]:
    """Returns A and the rows of a basis in double precision.

    Raises:
        UserError: when the basis doesn't fit, or the matrices wouldn't fit into memory.
    """
    require_matrices(operator.n)
    A = operator.matrix().double()
    return A, build_basis(basis, operator.signal_shape).columns(A)


def signals_of(x: Tensor, y: Tensor, operator: LinearOperator, *, clip: bool) -> Tensor:
    """Returns signals in the shape and type of the measurements' own, in [0, 1] where they are clipped."""
    x = x.to(y.dtype).unflatten(1, operator.signal_shape)
    return x.clamp(0, 1) if clip else x
