r"""Transductive support vector machine: the boundary avoids the unlabelled rows as well as the labelled ones.

With features :math:`\phi(x)` of the kernel and scores :math:`f(x) = W^\top (\phi(x) - \bar\phi) + b`, it minimises

.. math:: \tfrac12 \|W\|^2 + C \sum_{l} L(f(x_l), y_l)
          + C_u \sum_{u} \exp(-3\, m(x_u)^2) + C_b\, \mathrm{KL}(\pi \,\|\, \bar q),

the gradient TSVM of Chapelle and Zien (2005, "Semi-supervised classification by low density separation", section 3).
The bar is the mean over the unlabelled rows and pi the class shares among the labelled ones. Two couplings:

- `margin`: one machine for all classes. L is the squared hinge of Weston and Watkins (1999),
  :math:`\sum_{k \ne y} \max(0, 1 - f_y + f_k)^2`, and m the gap between the two highest scores. For two classes this is
  Chapelle and Zien's machine, with margin :math:`f_1 - f_0`. :math:`b = \pi - 1/K`, and :math:`\bar q` is the mean
  of :math:`\mathrm{softmax}(3 f(x_u))`.
- `one-vs-rest`: the sum over classes of two-class machines with scores f_k and targets +1 or -1, L the squared
  hinge, one term exp(-3 f_k^2) per class, :math:`b = 2 \pi - 1` and no KL term.

Balance constraint: since the features are centred, the mean of f over the unlabelled rows is exactly b, what the labels
say that it should be; otherwise one class could take all rows at no cost.

:math:`C_u = w C n_l / n_u` and :math:`C_b = w C n_l` (the labelled and unlabelled rows weigh the same at w = 1) start
at 1/64 of that and double up to it, each minimum the start of the next: the problem is not convex, and its easy
versions lead to the good valley. C, the kernel's width and w (0: a plain SVM) come from cross-validation within the
labelled rows.

The RBF kernel :math:`\exp(-\gamma \|x - x'\|^2)` is represented by Nystrom features (Williams and Seeger, 2001):
:math:`\phi(x) = k(x, Z) k(Z, Z)^{-1/2}` for landmarks Z, training rows with the labelled ones first. They give the
exact kernel where all rows are landmarks, and 1000 of them come nearer to it than as many random Fourier features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from math import ceil, sqrt
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.nn import functional as F

from core_models.errors import UserError
from core_models.training import resolve_device

from .baselines import fitted_temperature, labelled_folds, middle
from .discriminative import numbers
from .estimator import Codes, LogProbabilities, Rows, Scale, SemiSupervisedClassifier

if TYPE_CHECKING:
    from core_models.training import RunFolder

Coupling = Literal["margin", "one-vs-rest"]
Features = Float[Tensor, "n features"]
Weights = Float[Tensor, "features classes"]

_SHARPNESS = 3.0  # of exp(-3 m^2) and softmax(3 f), as in Chapelle and Zien
_STEPS = 6  # doublings of C_u, from 1/64 to 1
_ANNEALING_ROWS = 10_000  # unlabelled rows in all but the last step of the annealing
_VALIDATION_ROWS = 3_000  # unlabelled rows in the cross-validation
_PLAIN_ITERATIONS = 100  # without unlabelled rows the problem is convex and small: solved to the end


class Kernel:
    """Features whose inner products are the kernel's values.

    Args:
        landmarks: (m, inputs) rows that the RBF kernel is represented by; none for the linear kernel.
        scale: gamma of the RBF kernel, or what the linear kernel multiplies inner products by.
    """

    def __init__(self, landmarks: Float[Tensor, "m inputs"], scale: float) -> None:
        self.landmarks, self.scale = landmarks, scale
        if not len(landmarks):
            self.projection = torch.eye(landmarks.shape[1]).to(landmarks) * sqrt(scale)
            return
        spectrum, vectors = torch.linalg.eigh(self.values(landmarks.double()).cpu())
        kept = spectrum > 1e-6 * spectrum[-1]  # less is rounding, once features are float32
        self.projection = (vectors[:, kept] / spectrum[kept].sqrt()).to(landmarks)

    def values(self, x: Float[Tensor, "n inputs"]) -> Float[Tensor, "n m"]:
        """Returns the kernel between rows and landmarks, or (linear) the rows themselves."""
        return (-self.scale * torch.cdist(x, self.landmarks.to(x)).square()).exp() if len(self.landmarks) else x

    def __call__(self, x: Float[Tensor, "n inputs"]) -> Features:
        """Returns the features of rows; block by block, since the values are as large as the result."""
        return torch.cat([self.values(block) @ self.projection.to(x) for block in x.split(5000)])


@dataclass
class Problem:
    """The objective above, for given features (already centred).

    Attributes:
        labelled: features of the labelled rows.
        y: their classes.
        unlabelled: features of the unlabelled rows; may be empty.
        b: the scores' means over the unlabelled rows, (classes,).
        shares: class shares pi, (classes,).
        C: weight of a labelled row.
        coupling: `margin` or `one-vs-rest`.
    """

    labelled: Features
    y: Codes
    unlabelled: Features
    b: Float[Tensor, " classes"]
    shares: Float[Tensor, " classes"]
    C: float
    coupling: Coupling

    def __call__(self, W: Weights, w: float) -> tuple[float, Weights]:
        """Returns the objective with unlabelled weight w, and its gradient."""
        loss, slope = self._hinge(self.labelled @ W + self.b)
        value, gradient = 0.5 * (W * W).sum() + self.C * loss, W + self.labelled.T @ (self.C * slope)
        if w > 0 and len(self.unlabelled):
            scores = self.unlabelled @ W + self.b
            total = w * self.C * len(self.labelled)
            loss, slope = self._density(scores)
            value = value + total * loss
            gradient = gradient + self.unlabelled.T @ (total * slope)
        return value.item(), gradient

    def _hinge(self, f: LogProbabilities) -> tuple[Tensor, Tensor]:
        """The labelled rows' loss, and its derivative by their scores."""
        target = F.one_hot(self.y, f.shape[1]).to(f)
        if self.coupling == "one-vs-rest":
            sign = 2 * target - 1
            short = (1 - sign * f).clamp_min(0)
            return (short * short).sum(), -2 * sign * short
        short = (1 - f.gather(1, self.y[:, None]) + f).clamp_min(0) * (1 - target)
        return (short * short).sum(), 2 * (short - target * short.sum(1, keepdim=True))

    def _density(self, f: LogProbabilities) -> tuple[Tensor, Tensor]:
        """The unlabelled rows' mean loss and the balance term, and their derivative by the scores."""
        n = len(f)
        if self.coupling == "one-vs-rest":
            near = (-_SHARPNESS * f * f).exp()
            return near.sum() / n, -2 * _SHARPNESS / n * f * near
        top, which = f.topk(2, 1)
        gap = top[:, 0] - top[:, 1]
        near = (-_SHARPNESS * gap * gap).exp()
        step = -2 * _SHARPNESS / n * gap * near
        slope = torch.zeros_like(f).scatter_(1, which, torch.stack([step, -step], 1))
        q = (_SHARPNESS * f).softmax(1)
        mean = q.mean(0)
        balance = (self.shares * (self.shares / mean).log()).sum()
        pull = -self.shares / mean / n
        return near.sum() / n + balance, slope + _SHARPNESS * q * (pull - (q * pull).sum(1, keepdim=True))


def minimise(
    objective: Callable[[Weights], tuple[float, Weights]], W: Weights, iterations: int, tolerance: float = 1e-5
) -> Weights:
    """Minimises by L-BFGS with backtracking (Nocedal and Wright, 2006, algorithms 7.4 and 3.1).

    All classes are one vector here, so each step is a handful of matrix products.

    Args:
        objective: returns value and gradient.
        W: where to start.
        iterations: steps, at most.
        tolerance: relative decrease of the value below which to stop.
    """
    memory: list[tuple[Tensor, Tensor, float]] = []  # steps, changes of the gradient, 1 / their product
    value, gradient = objective(W)
    for _ in range(iterations):
        direction, stack = gradient.clone(), []
        for step, change, rho in reversed(memory):
            a = rho * torch.sum(step * direction).item()
            direction -= a * change
            stack.append(a)
        if memory:
            step, change, rho = memory[-1]
            direction /= rho * torch.sum(change * change).item()
        else:
            direction /= max(gradient.norm().item(), 1e-12)
        for (step, change, rho), a in zip(memory, reversed(stack), strict=True):
            direction += (a - rho * torch.sum(change * direction).item()) * step
        descent = -torch.sum(direction * gradient).item()
        length = 1.0
        for _ in range(20):
            new_value, new_gradient = objective(W - length * direction)
            if new_value <= value + 1e-4 * length * descent:
                break
            length /= 2
        else:  # no decrease left within rounding
            break
        step, change = -length * direction, new_gradient - gradient
        curvature = torch.sum(step * change).item()
        if curvature > 1e-10 * torch.sum(step * step).item():
            memory = [*memory[-9:], (step, change, 1 / curvature)]
        W, gradient, decrease, value = W + step, new_gradient, value - new_value, new_value
        if decrease <= tolerance * max(1.0, abs(value)):
            break
    return W


def anneal(problem: Problem, W: Weights, w: float, iterations: int = 30, tolerance: float = 1e-5) -> Weights:
    """Follows the minimum from w / 64, doubling up to w; the last step alone uses all unlabelled rows."""
    rows = problem.unlabelled
    few = replace(problem, unlabelled=rows[:: ceil(len(rows) / _ANNEALING_ROWS)])
    for step in range(_STEPS + 1):
        objective = partial(problem if step == _STEPS else few, w=w * 2.0 ** (step - _STEPS))
        W = minimise(objective, W, iterations, tolerance)
    return W


class TransductiveSVM(SemiSupervisedClassifier):
    """A transductive support vector machine with the RBF or the linear kernel.

    Scores become probabilities through one temperature, q(y | x) = softmax(f(x) / T), where T minimises the
    cross-entropy of the labelled rows that the cross-validation held out.

    Args:
        kernel: rbf or linear.
        coupling: `margin` couples the classes; `one-vs-rest` is the classical machine.
        C: weights of a labelled row to choose from; one number fixes it.
        gamma: inverse squared widths of the RBF kernel to choose from, as multiples of 1 / (median squared distance
            between rows); one number fixes it.
        unlabelled_weight: total weights of the unlabelled rows, relative to the labelled ones, to choose from (the
            first of the best); 0 is a plain SVM.
        features: number of landmarks of the RBF kernel.
        labelled_landmarks: the share of them that labelled rows take at most, where there are others; with 1, all
            labelled rows are landmarks where there are as many features.
        iterations: L-BFGS steps at each stage of the annealing.
        folds: of the cross-validation within the labelled rows, at most; with 0, or fewer than two rows of some class,
            C and gamma are the middle of their lists, the unlabelled weight is the first, and the temperature is 1 / 3.
        scale: see `SemiSupervisedClassifier`. Latent means are better left as they are: their spread says how much
            they matter.
        random_state: seeds landmarks, folds and subsets.
        device: auto, cpu, cuda or cuda:N.
        verbose: whether to print what is chosen.

    Attributes:
        C_: the weight chosen.
        gamma_: the multiple chosen.
        unlabelled_weight_: the unlabelled weight chosen.
        temperature_: what the scores are divided by before they become probabilities.
        validation_: for each setting tried, (C, gamma, unlabelled weight, share of held-out rows classified wrongly).
    """

    def __init__(
        self,
        kernel: Literal["rbf", "linear"] = "rbf",
        coupling: Coupling = "margin",
        C: float | tuple[float, ...] = (3.0, 30.0),
        gamma: float | tuple[float, ...] = (1.0, 2.0),
        unlabelled_weight: float | tuple[float, ...] = (1.0, 0.0),
        features: int = 1000,
        labelled_landmarks: float = 0.5,
        iterations: int = 30,
        folds: int = 5,
        scale: Scale = "auto",
        random_state: int | np.random.RandomState | None = 0,
        device: str = "auto",
        verbose: bool = False,
    ) -> None:
        self.kernel = kernel
        self.coupling = coupling
        self.C = C
        self.gamma = gamma
        self.unlabelled_weight = unlabelled_weight
        self.features = features
        self.labelled_landmarks = labelled_landmarks
        self.iterations = iterations
        self.folds = folds
        self.scale = scale
        self.random_state = random_state
        self.device = device
        self.verbose = verbose

    def _fit(self, x: Rows, y: Codes, *, run: RunFolder | None, resume: bool) -> None:
        for name, value, choices in (
            ("kernel", self.kernel, ("rbf", "linear")),
            ("coupling", self.coupling, ("margin", "one-vs-rest")),
        ):
            if value not in choices:
                raise UserError(f"expected {name} to be one of {', '.join(choices)}, got {value!r}")
        weights, widths = numbers("C", self.C, positive=True), numbers("gamma", self.gamma, positive=True)
        if self.features < 1:
            raise UserError(f"features: expected at least 1, got {self.features}")
        if numbers("labelled_landmarks", self.labelled_landmarks, most=1)[0] > 1:
            raise UserError(f"labelled_landmarks: expected in [0, 1], got {self.labelled_landmarks}")
        seed = self._seed()
        generator = torch.Generator().manual_seed(seed)
        x, device = x.flatten(1), resolve_device(self.device)
        some = x[torch.randperm(len(x), generator=generator)[:1000]]
        if self.kernel == "rbf":
            distances = torch.pdist(some)
            unit = 1 / max(float(distances.median()) ** 2, 1e-12)
        else:
            unit = 1 / max(float((some - some.mean(0)).square().sum(1).mean()), 1e-12)
        labelled, codes = x[y >= 0].to(device), y[y >= 0].to(device)
        unlabelled = x[y < 0]
        unlabelled = unlabelled[torch.randperm(len(unlabelled), generator=generator)].to(device)
        landmarks = self._landmarks(labelled, unlabelled, generator)

        self.C_, self.unlabelled_weight_ = middle(weights), numbers("unlabelled_weight", self.unlabelled_weight)[0]
        self.gamma_ = middle(widths) if self.kernel == "rbf" else 1.0
        self.temperature_ = 1 / _SHARPNESS
        self.validation_: list[tuple[float, float, float, float]] = []
        folds = labelled_folds(codes.cpu().numpy(), self.folds, seed)
        if folds:
            few = unlabelled[:_VALIDATION_ROWS]
            self._validate(labelled, codes, few, folds, landmarks, unit)
        chosen = Kernel(landmarks, unit * self.gamma_)
        W, mean, b = self._solve(
            chosen(labelled), codes, chosen(unlabelled), self.C_, self.unlabelled_weight_, tolerance=1e-5
        )
        # f(x) = k(x, Z) coefficients + constant: the features themselves are no longer needed
        coefficients = chosen.projection.double() @ W.double()
        learnt = {"landmarks": landmarks, "scale": torch.tensor(chosen.scale), "coefficients": coefficients}
        learnt["constant"] = b.double() - mean.double() @ W.double()
        self._learnt = {name: value.cpu().double() for name, value in learnt.items()}

    def _landmarks(self, labelled: Tensor, unlabelled: Tensor, generator: Generator) -> Tensor:
        """Returns training rows to represent the RBF kernel by, the labelled ones up to their share first."""
        if self.kernel == "linear":
            return labelled[:0]
        count = max(self.features - len(unlabelled), min(len(labelled), int(self.features * self.labelled_landmarks)))
        return torch.cat(
            [labelled[torch.randperm(len(labelled), generator=generator)[:count].to(labelled.device)], unlabelled]
        )[: self.features]

    def _validate(
        self, labelled: Features, codes: Codes, few: Features, folds: Sequence[tuple[np.ndarray, np.ndarray]],
        landmarks: Tensor, unit: float,
    ) -> None:  # fmt: skip
        """Chooses C, gamma and the unlabelled weight, and the temperature with them."""
        order = torch.from_numpy(np.concatenate([test for _, test in folds]))
        targets = codes.cpu()[order]
        best = -1.0
        unlabelled_weights = numbers("unlabelled_weight", self.unlabelled_weight) if len(few) else (0.0,)
        for gamma in numbers("gamma", self.gamma) if self.kernel == "rbf" else (1.0,):
            kernel = Kernel(landmarks, unit * gamma)
            inside, outside = kernel(labelled), kernel(few)
            for C, weight in product(numbers("C", self.C), unlabelled_weights):
                scores = []
                for train, test in folds:
                    held_out = inside[test]  # among the unlabelled rows, as the rows to be predicted are
                    others = torch.cat([outside, held_out])
                    W, mean, b = self._solve(inside[train], codes[train], others, C, weight, tolerance=1e-4)
                    scores.append(((held_out - mean) @ W + b).cpu().double())
                right = (torch.cat(scores).argmax(1) == targets).double().mean().item()
                self.validation_.append((C, gamma, weight, 1 - right))
                if self.verbose:
                    print(f"C {C:g}, gamma {gamma:g}, unlabelled {weight:g}: {100 - 100 * right:.2f} % wrong, held out")
                if right > best:
                    best = right
                    self.C_, self.gamma_, self.unlabelled_weight_ = C, gamma, weight
                    self.temperature_ = fitted_temperature(torch.cat(scores).numpy(), targets.numpy())

    def _solve(
        self, labelled: Features, codes: Codes, unlabelled: Features, C: float, weight: float, *, tolerance: float
    ) -> tuple[Weights, Tensor, Tensor]:
        """Returns the weights, the features' mean and the offsets b; centres `unlabelled` in place."""
        mean = (unlabelled if len(unlabelled) else labelled).mean(0)
        count = len(self.classes_)
        shares = torch.bincount(codes, minlength=count).to(labelled) / len(codes)
        b = shares - 1 / count if self.coupling == "margin" else 2 * shares - 1
        problem = Problem(labelled - mean, codes, unlabelled.sub_(mean), b, shares, C, self.coupling)
        W = minimise(partial(problem, w=0.0), torch.zeros(len(mean), count).to(labelled), _PLAIN_ITERATIONS)
        if weight > 0 and len(unlabelled):
            W = anneal(problem, W, weight, self.iterations, tolerance)
        return W, mean, b

    def _log_proba(self, x: Rows) -> LogProbabilities:
        learnt = self._learnt
        inputs = x.flatten(1).double()
        if len(learnt["landmarks"]):
            inputs = torch.exp(-learnt["scale"] * torch.cdist(inputs, learnt["landmarks"]).square())
        return ((inputs @ learnt["coefficients"] + learnt["constant"]) / self.temperature_).log_softmax(1)

    def _state(self) -> dict[str, Tensor]:
        return self._learnt

    def _restore(self, state: Mapping[str, Tensor]) -> None:
        self._learnt = dict(state)
