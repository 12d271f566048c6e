r"""LASSO whose penalties are what a first estimate lets expect: large where it is sure that there is nothing.

A Gaussian estimate knows of each value how large its square is on average, E x_i^2, its mean's square and its
variance; it doesn't know that most values are nothing. LASSO knows that alone. Together, the second with penalties
from the first,

.. math:: \min_x \frac{1}{2m} \|y - A x\|^2 + \alpha \sum_i \frac{|x_i|}{1 + E x_i^2 / \epsilon^2}
   \quad (0 \le x \le 1)

they need far fewer measurements than either, where signals are sparse in pixels.

Source: Friedlander, Mansour, Saab and Yilmaz, "Recovering compressively sampled signals using partial support
information", 2012 (weighted l1 from an estimate of the support); Candes, Wakin and Boyd, "Enhancing sparsity by
reweighted l1 minimization", 2008 (weights that fall with size). Weights from a posterior's second moments are our own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from core_models.errors import UserError

from .gaussian import Wiener
from .generative.latent_search import LearningRate
from .generative.residual_covariance import ResidualCovariance
from .lasso import matrices_of, signals_of, warn_of_nothing
from .operators import LinearOperator
from .operators.base import Measurements, Signals
from .recovery import Recovered
from .solvers.lasso import solve_lasso
from .solvers.problem import Lasso


class GuidedLASSO(Wiener):
    """LASSO in pixels, its penalties from the best linear estimate.

    Args:
        operator: what made the measurements.
        noise: standard deviation of each measurement's noise, above 0.
        alpha: weight of the penalty where nothing is expected, as `LASSO` has it; 0.03 times the mean square of A's
            entries when left out.
        epsilon: size at which a value has half that penalty [units of the signal].
        box: whether LASSO holds signals in [0, 1], to which they are clipped at any rate.
        shrinkage: added to the diagonal of the estimate's covariance.
        tolerance: relative duality gap.
        max_steps: of the engine.
    """

    default_penalties: ClassVar = {"alpha": 0.03}

    def __init__(
        self, operator: LinearOperator | None = None, *, noise: float = 0.1, alpha: float | None = None,
        epsilon: float = 0.03, box: bool = True, shrinkage: float = 1e-4, tolerance: float = 1e-4,
        max_steps: int = 20_000,
    ) -> None:  # fmt: skip
        super().__init__(operator, noise=noise, shrinkage=shrinkage)
        self.alpha, self.epsilon, self.box = alpha, epsilon, box
        self.tolerance, self.max_steps = tolerance, max_steps

    def _recover(self, y: Measurements, first: int) -> Recovered:
        _check(self)  # before the estimate, which may take minutes
        return _guided(self, super()._recover(y, first), y)


class PriorGuidedLASSO(ResidualCovariance):
    """LASSO in pixels, its penalties from residual covariance under a generative prior.

    Args:
        operator: what made the measurements.
        noise: standard deviation of each measurement's noise, above 0.
        prior: a model with `decode`; one that encodes too fits faster.
        alpha: weight of the penalty where nothing is expected, as `LASSO` has it; 0.03 times the mean square of A's
            entries when left out.
        epsilon: size at which a value has half that penalty [units of the signal].
        box: whether LASSO holds signals in [0, 1], to which they are clipped at any rate.
        shrinkage: added to the diagonal of the residual covariance [variance of a value].
        steps: of Adam.
        restarts: starts from the prior.
        learning_rate: of Adam; or the first and the last, between them half a cosine.
        drop: when which share of the restarts goes on.
        low_precision: whether all but the last fifth of the steps work in bfloat16, faster on hardware that has it.
        modes: how many of the restarts that are left are averaged by their weight; 1 takes the likeliest alone.
        tolerance: relative duality gap of LASSO.
        max_steps: of its engine.
        batch: signals searched at once.
        random_state: seed of the starts.
    """

    default_penalties: ClassVar = {"alpha": 0.03}

    def __init__(
        self, operator: LinearOperator | None = None, prior: Any = None, *, noise: float = 0.1,
        alpha: float | None = None, epsilon: float = 0.03, box: bool = True, shrinkage: float = 1e-4,
        steps: int = 300, restarts: int = 10, learning_rate: LearningRate = (0.5, 0.005),
        drop: Sequence[tuple[float, float]] = ((0.1, 0.6), (0.3, 0.4)), modes: int = 4,
        low_precision: bool = False, tolerance: float = 1e-4, max_steps: int = 20_000,
        batch: int = 100, random_state: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(
            operator, prior, noise=noise, shrinkage=shrinkage, steps=steps, restarts=restarts,
            learning_rate=learning_rate, drop=drop, modes=modes, low_precision=low_precision, batch=batch,
            random_state=random_state,
        )  # fmt: skip
        self.alpha, self.epsilon, self.box = alpha, epsilon, box
        self.tolerance, self.max_steps = tolerance, max_steps

    def _recover(self, y: Measurements, first: int) -> Recovered:
        _check(self)  # before the estimate, which may take minutes
        return _guided(self, super()._recover(y, first), y)


def _check(method: GuidedLASSO | PriorGuidedLASSO) -> None:
    """Refuses an epsilon that isn't positive.

    Raises:
        UserError: when it isn't.
    """
    if not method.epsilon > 0:
        raise UserError(f"expected epsilon above 0, got {method.epsilon}")


def _guided(method: GuidedLASSO | PriorGuidedLASSO, guess: Recovered, y: Measurements) -> Recovered:
    """Solves LASSO with penalties from a first estimate."""
    A, _ = matrices_of(method.measuring, "pixels")
    weights = 1 / (1 + second_moments(guess).flatten(1).double() / method.epsilon**2)
    problem = Lasso(A, y.double(), None, method.box, alpha=method.penalty_of("alpha"), weights=weights)
    found = solve_lasso(problem, tolerance=method.tolerance, max_steps=method.max_steps)
    warn_of_nothing(problem, method.alpha)
    return Recovered(signals_of(found.w, y, method.measuring, clip=True), None, found.details)


def second_moments(guess: Recovered) -> Signals:
    """Returns E x^2 of every value, from its mean and its standard deviation, which must be there."""
    assert guess.std is not None
    return guess.x.square() + guess.std.square()
