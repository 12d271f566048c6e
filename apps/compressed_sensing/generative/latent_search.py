r"""Searching the latents of a generative prior by gradient steps: a batch of signals x restarts as one tensor.

Every (signal, restart) has a loss of its own; their sum has the gradient of each, so that Adam, which works element by
element, takes the same steps as if each ran alone. Restarts that are far behind the best of their signal are dropped on
the way (successive halving), and the best by loss, never by the error, is kept.

A rate that falls from large to small finds better valleys in fewer steps than one and the same: far steps first, then
near ones.

Source: Bora, Jalal, Price and Dimakis, "Compressed sensing using generative models", 2017, section 6 (Adam, restarts);
Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts", 2017, equation 5 (half a cosine);
Jamieson and Talwalkar, "Non-stochastic best arm identification and hyperparameter optimization", 2016 (halving).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, cos, pi

import torch
from jaxtyping import Float, Int
from torch import Tensor

from core_models.errors import UserError

Loss = Callable[[Sequence[Tensor], Int[Tensor, " rows"]], Float[Tensor, " rows"]]
"""From the variables of some (signal, restart) rows and the signals they belong to, to a loss each."""
LearningRate = float | tuple[float, float]
"""Of Adam: one for all steps, or the first and the last, between them half a cosine."""
PRECISE_FROM = 0.8
"""From which share of the steps on a search at low precision is at full precision."""


@dataclass(frozen=True)
class Search:
    """How latents are searched."""

    steps: int = 1000
    restarts: int = 10
    learning_rate: LearningRate = 0.01
    drop: tuple[tuple[float, float], ...] = ()
    """When, as a share of the steps, which share of the restarts goes on: ((0.1, 0.5), (0.3, 0.2)); never fewer than
    one."""
    low_precision: bool = False
    """Whether all but the last steps work in bfloat16, which finds the valley; the last ones, and the losses by which
    the best of the restarts that are left is chosen, work in float32. Those that `drop` gives up go by bfloat16."""

    def __post_init__(self) -> None:
        """Refuses counts below 1 and shares outside (0, 1]."""
        if self.steps < 1 or self.restarts < 1:
            raise UserError(f"expected at least one step and one restart, got {self.steps} and {self.restarts}")
        if not min(self._rates) > 0:
            raise UserError(f"expected a learning rate above 0, got {self.learning_rate}")
        for when, share in self.drop:
            if not (0 <= when <= 1 and 0 < share <= 1):
                raise UserError(f"expected shares between 0 and 1 of when and how many go on, got {when} and {share}")

    @property
    def _rates(self) -> tuple[float, float]:
        """The rates of the first and the last step."""
        given = self.learning_rate
        return (given, given) if isinstance(given, int | float) else (given[0], given[1])

    def rate_at(self, step: int) -> float:
        """Returns the learning rate of a step, 1 to `steps`."""
        first, last = self._rates
        return last + (first - last) * 0.5 * (1 + cos(pi * (step - 1) / max(self.steps - 1, 1)))

    def survivors(self) -> dict[int, int]:
        """Returns how many restarts a signal keeps from which step on."""
        return {max(1, round(when * self.steps)): max(1, ceil(share * self.restarts)) for when, share in self.drop}


@dataclass(frozen=True, eq=False)
class Found:
    """What a search found for each signal."""

    variables: list[Float[Tensor, "batch ..."]]
    """Those of the restart of the least loss."""
    loss: Float[Tensor, " batch"]
    restarts_left: int
    all_variables: list[Float[Tensor, "batch restarts ..."]]
    """Those of every restart that was never dropped."""
    all_losses: Float[Tensor, "batch restarts"]


def search(
    loss: Loss,
    start: Sequence[Float[Tensor, "batch restarts ..."]],
    plan: Search,
    *,
    after_step: Callable[[Sequence[Tensor], int], None] | None = None,
) -> Found:
    """Minimises a loss by Adam for every signal and restart at once.

    Args:
        loss: of rows; see `Loss`.
        start: variables, each (batch, restarts, ...).
        plan: steps, restarts, learning rate and dropping.
        after_step: called with the variables, (rows, ...), and the step, without gradients: may project them in place.

    Raises:
        UserError: when no restart of a signal has a finite loss.
    """
    batch, restarts = start[0].shape[:2]
    signals = torch.arange(batch, device=start[0].device).repeat_interleave(restarts)
    variables = [s.detach().flatten(0, 1).clone().requires_grad_(True) for s in start]
    optimiser = _Adam(variables)
    survivors = plan.survivors()
    device, coarse = start[0].device.type, PRECISE_FROM * plan.steps
    left = restarts
    for step in range(1, plan.steps + 1):
        with torch.autocast(device, dtype=torch.bfloat16, enabled=plan.low_precision and step <= coarse):
            values = loss(variables, signals).float()
        gradients = torch.autograd.grad(values.sum(), variables, allow_unused=True)
        with torch.no_grad():
            optimiser.step(gradients, plan.rate_at(step))
            if after_step is not None:
                after_step(variables, step)
        keep = survivors.get(step, left)
        if keep < left:
            order = finite_or_infinite(values.detach()).unflatten(0, (batch, left)).argsort(1)[:, :keep]
            rows = (order + left * torch.arange(batch, device=order.device)[:, None]).flatten()
            variables, signals = optimiser.keep(rows), signals[rows]
            left = keep
    with torch.no_grad():
        values = finite_or_infinite(loss(variables, signals)).unflatten(0, (batch, left))
    best = values.argmin(1)
    if not bool(torch.isfinite(values.amin(1)).all()):
        raise UserError("expected a finite loss, every restart of a signal diverged: lower the learning rate")
    every = [v.detach().unflatten(0, (batch, left)) for v in variables]
    chosen = [v[torch.arange(batch, device=v.device), best] for v in every]
    return Found(chosen, values.amin(1), left, every, values)


def finite_or_infinite(losses: Tensor) -> Tensor:
    """Returns losses, infinity for what isn't a number: it stays infinite, and can't be the least."""
    return losses.nan_to_num(nan=torch.inf, posinf=torch.inf)


class _Adam:
    """Adam (Kingma and Ba 2015, algorithm 1) whose rows can be dropped."""

    BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8

    def __init__(self, variables: list[Tensor]) -> None:
        self.variables = variables
        self.first = [torch.zeros_like(v) for v in variables]
        self.second = [torch.zeros_like(v) for v in variables]
        self.steps = [0] * len(variables)

    def step(self, gradients: Sequence[Tensor | None], rate: float) -> None:
        """Takes a step at a learning rate; a variable without a gradient stays."""
        for i, gradient in enumerate(gradients):
            if gradient is None:
                continue
            self.steps[i] += 1
            self.first[i].lerp_(gradient, 1 - self.BETA1)
            self.second[i].mul_(self.BETA2).addcmul_(gradient, gradient, value=1 - self.BETA2)
            size = rate / (1 - self.BETA1 ** self.steps[i])
            scale = (1 - self.BETA2 ** self.steps[i]) ** 0.5
            self.variables[i].addcdiv_(self.first[i], self.second[i].sqrt().div_(scale).add_(self.EPSILON), value=-size)

    def keep(self, rows: Int[Tensor, " rows"]) -> list[Tensor]:
        """Keeps some rows; returns their variables."""
        self.variables = [v.detach()[rows].requires_grad_(True) for v in self.variables]
        self.first = [v[rows] for v in self.first]
        self.second = [v[rows] for v in self.second]
        return self.variables
