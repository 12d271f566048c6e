r"""The LASSO of large signals: FISTA that needs only the products A x and A^T y, and memory of a few signals.

.. math:: \min_w P(w) = \frac{1}{2m} \|y - A B w\|^2 + \alpha \|w\|_1 \quad (0 \le w \le 1, \text{ where } B = I)

Objective, duality gap and end are those of the dense solvers (`problem`). The step is 1/L, L the largest eigenvalue of
A A^T / m by power iteration, which comes near it from below, times `MARGIN`. Each step is checked: from z to w it must
hold that \|A B (w - z)\|^2 / m <= L \|w - z\|^2, else it is taken again with a larger L. The momentum of a signal
starts anew when it points uphill.

Source: Beck and Teboulle, "A fast iterative shrinkage-thresholding algorithm", 2009, section 4 (with backtracking);
O'Donoghue and Candes, "Adaptive restart for accelerated gradient schemes", 2015, section 3.2; Kim et al. 2007, section
III (the gap).
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from core_models.errors import UserError

from ..bases import Basis, Pixels
from ..operators import Callables, LinearOperator, Matrix
from .fista import shrink
from .lasso import Solution, allowed_gap
from .problem import Coefficients, PerSignal

POWER_STEPS = 30
MARGIN = 1.05
"""Of L above the eigenvalue that was seen."""
CHECK_EVERY = 10
"""Steps between gaps, of which each costs half a step."""
STALLED, NEAR = 20, 1e-3
"""Checks in which the gap of products in single precision has to halve, and the share of the objective below which."""


@dataclass(frozen=True, eq=False)
class LargeLasso:
    """A batch of LASSO problems that share an operator and a basis; see `Lasso`, which has their matrices."""

    operator: LinearOperator
    y: Float[Tensor, "batch m"]
    """In double precision."""
    basis: Basis
    box: bool = False
    alpha: float = 0.1
    weights: Coefficients | None = None

    def __post_init__(self) -> None:
        """Refuses a negative penalty, and a box in a basis, of which both at once have no closed form."""
        if not self.alpha >= 0:
            raise UserError(f"expected a penalty alpha of 0 or more, got {self.alpha}")
        if self.box and not isinstance(self.basis, Pixels):
            raise UserError(
                f"expected no box in a basis other than pixels without matrices, got signals of {self.operator.n:,} "
                "values: give box=False (--method.box false), which clip=True then clips, or basis pixels"
            )

    @classmethod
    def of_operator(cls, operator: LinearOperator, y: Tensor, basis: Basis, box: bool, alpha: float) -> LargeLasso:
        """Returns the problem in double precision; products of a matrix, or of functions, stay in their own."""
        if not isinstance(operator, Matrix | Callables):
            operator = deepcopy(operator).double()
        return cls(operator, y.double(), basis, box, alpha)

    @property
    def m(self) -> int:
        """Measurements of a signal."""
        return self.operator.m

    @property
    def n(self) -> int:
        """Values of a signal."""
        return self.operator.n

    @property
    def precision(self) -> float:
        """Relative error of a product."""
        return precision_of(self.operator)

    @property
    def coarse(self) -> bool:
        """Whether products are less precise than double precision, so that their gap may never be small."""
        return is_coarse(self.operator)

    @property
    def penalty(self) -> float | Coefficients:
        """The weight of |w|: a number, or one for each coefficient of each signal."""
        return self.alpha if self.weights is None else self.alpha * self.weights

    def of(self, rows: Tensor) -> LargeLasso:
        """Returns the problems of some signals (a mask or indices)."""
        return replace(self, y=self.y[rows], weights=None if self.weights is None else self.weights[rows])

    def signals(self, w: Coefficients) -> Coefficients:
        """Returns B w."""
        return self.basis.synthesise(w.unflatten(1, self.operator.signal_shape)).flatten(1)

    def measured(self, w: Coefficients) -> Float[Tensor, "batch m"]:
        """Returns A B w."""
        return self.operator(self.signals(w).unflatten(1, self.operator.signal_shape)).to(w)

    def back(self, theta: Float[Tensor, "batch m"]) -> Coefficients:
        """Returns B^T A^T theta."""
        like = next((buffer for buffer in self.operator.buffers() if buffer.is_floating_point()), theta)
        return self.basis.analyse(self.operator.adjoint(theta.to(like.dtype)).to(theta)).flatten(1)

    def proximal(self, v: Coefficients, step: float) -> Coefficients:
        """Returns the proximal map of step alpha |w|, and of the box."""
        threshold = self.penalty * step
        if self.box:
            return (v - threshold).clamp(0, 1)
        return shrink(v, threshold)

    def objective(self, w: Coefficients, measured: Float[Tensor, "batch m"]) -> PerSignal:
        """Returns P(w), A B w being known."""
        sizes = w.abs() if self.weights is None else self.weights * w.abs()
        return (self.y - measured).square().sum(1) / (2 * self.m) + self.alpha * sizes.sum(1)

    def gap(self, w: Coefficients, measured: Float[Tensor, "batch m"]) -> PerSignal:
        """Returns the duality gap at a w inside the box: P(w) is at most this far above the least."""
        theta = (self.y - measured) / self.m
        own, cost = self.back(theta), theta.new_zeros(len(theta))
        if self.box:
            cost = (own - self.penalty).clamp(min=0).sum(1)
        else:
            tiny = torch.finfo(theta.dtype).tiny
            penalty = torch.as_tensor(self.penalty, dtype=own.dtype, device=own.device)
            share = 1 / (own.abs() / penalty.clamp(min=tiny)).amax(1).clamp(min=1.0)
            theta = theta * share[:, None]
        dual = (self.y * theta).sum(1) - 0.5 * self.m * theta.square().sum(1) - cost
        return self.objective(w, measured) - dual


@torch.no_grad()
def solve_without_matrices(
    problem: LargeLasso, *, tolerance: float = 1e-6, max_steps: int = 20_000,
    start: Float[Tensor, "batch n"] | None = None,
) -> Solution:  # fmt: skip
    """Solves a batch of problems; see `solve_lasso`, whose arguments, end and errors these are.

    Signals whose products are in single precision are left, unsolved, where rounding holds their gap up.
    """
    if not tolerance > 0:
        raise UserError(f"expected a tolerance above 0, got {tolerance}")
    best = problem.y.new_zeros(len(problem.y), problem.n) if start is None else start.to(problem.y)
    best = best.clamp(0, 1) if problem.box else best.clone()
    reached = problem.measured(best)
    objective, gap = problem.objective(best, reached), problem.gap(best, reached)
    lipschitz = largest_eigenvalue(problem)
    rows = (gap > allowed_gap(problem, objective, tolerance)).nonzero().squeeze(1)
    w = z = best[rows]
    A_w = A_z = reached[rows]
    t, taken = w.new_ones(len(rows), 1), 0
    mark, marked = gap.clone(), torch.zeros_like(gap)  # the gap last halved, and the steps taken by then
    while len(rows) and taken < max_steps:
        own, steps = problem.of(rows), min(CHECK_EVERY, max_steps - taken)
        for _ in range(steps):
            new, A_new, lipschitz = _step(own, z, A_z, lipschitz)
            moved = new - w
            uphill = torch.linalg.vecdot(z - new, moved)[:, None] > 0
            following = 0.5 * (1 + torch.sqrt(1 + 4 * t.square()))
            momentum = torch.where(uphill, 0.0, (t - 1) / following)
            z, A_z = new + momentum * moved, A_new + momentum * (A_new - A_w)
            w, A_w, t = new, A_new, torch.where(uphill, 1.0, following)
        taken += steps
        found = own.gap(w, A_w)
        better = found < gap[rows]
        chosen = rows[better]
        best[chosen], gap[chosen], objective[chosen] = w[better], found[better], own.objective(w, A_w)[better]
        left = gap[rows] > allowed_gap(own, objective[rows], tolerance)
        if problem.coarse:
            halved = rows[gap[rows] <= 0.5 * mark[rows]]
            mark[halved], marked[halved] = gap[halved], taken
            # gaps that fall as 1 / steps^2, the slowest of FISTA, halve in less than half of all steps
            stalled = taken - marked[rows] >= max(STALLED * CHECK_EVERY, taken / 2)
            left &= ~(stalled & (gap[rows] < allowed_gap(own, objective[rows], NEAR)))
        rows, w, A_w, z, A_z, t = (part[left] for part in (rows, w, A_w, z, A_z, t))
    done = gap <= allowed_gap(problem, objective, tolerance)
    return Solution(best, objective, gap, done, taken)


def precision_of(operator: LinearOperator) -> float:
    """Returns the relative error of an operator's products."""
    own = [buffer.dtype for buffer in operator.buffers() if buffer.is_floating_point()]
    return max((torch.finfo(dtype).eps for dtype in own), default=torch.finfo(torch.float64).eps)


def is_coarse(operator: LinearOperator) -> bool:
    """Tells whether an operator's products are less precise than double precision."""
    return precision_of(operator) > torch.finfo(torch.float64).eps


def stays_coarse(operator: LinearOperator) -> bool:
    """Tells whether a problem of an operator has products that are less precise than double precision."""
    return isinstance(operator, Matrix | Callables) and is_coarse(operator)


def largest_eigenvalue(problem: LargeLasso) -> float:
    """Returns `MARGIN` times what power iteration finds as the largest eigenvalue of A A^T / m."""
    drawn = torch.randn(1, problem.m, generator=Generator().manual_seed(0), dtype=torch.float64)
    v, found = drawn.to(problem.y), 0.0
    for _ in range(POWER_STEPS):
        v = v / v.norm().clamp(min=torch.finfo(v.dtype).tiny)
        v = problem.measured(problem.back(v)) / problem.m
        found = float(v.norm())
    return MARGIN * max(found, torch.finfo(v.dtype).tiny)


def _step(problem: LargeLasso, z: Tensor, A_z: Tensor, lipschitz: float) -> tuple[Tensor, Tensor, float]:
    """Returns the proximal gradient step from z, its measurements, and the L that it took."""
    gradient = problem.back((A_z - problem.y) / problem.m)
    while True:
        new = problem.proximal(z - gradient / lipschitz, 1 / lipschitz)
        A_new = problem.measured(new)
        moved = (new - z).norm(dim=1)
        seen = ((A_new - A_z).norm(dim=1) / moved).square() / problem.m
        # of shorter steps than this the quotient is of rounding errors
        told = moved > 1e3 * problem.precision * torch.maximum(new.norm(dim=1), z.norm(dim=1))
        largest = float(seen[told].max()) if bool(told.any()) else 0.0
        if largest <= lipschitz:
            return new, A_new, lipschitz
        lipschitz = MARGIN * largest
