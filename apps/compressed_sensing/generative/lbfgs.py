r"""L-BFGS on a batch of problems: every row has its own curvature pairs and its own step length.

.. math:: p = -H_k \nabla f, \qquad s_k = z_{k+1} - z_k, \qquad g_k = \nabla f_{k+1} - \nabla f_k

H_k being made of the last pairs (s, g),
with Armijo backtracking, rows at once. A row whose step fails at the shortest length tries again while its old pairs
slide out of the memory, and is done once steepest descent fails too: what is found for it depends on no other row.

Source: Nocedal and Wright, "Numerical optimization", 2006, algorithms 7.4 and 3.1; as the search of Asim et al. 2020.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from core_models.errors import UserError

from .latent_search import Found, Loss, finite_or_infinite

MEMORY, ARMIJO, SHORTEST = 10, 1e-4, 2.0**-20
"""The last: of a step, as a share of the first that is tried."""


def search_by_lbfgs(loss: Loss, start: Sequence[Float[Tensor, "batch restarts ..."]], steps: int) -> Found:
    """Minimises a loss by L-BFGS for every signal and restart at once; see `latent_search.search`.

    Args:
        loss: of rows of one variable.
        start: that variable, (batch, restarts, ...).
        steps: iterations.

    Raises:
        UserError: when no restart of a signal has a finite loss.
    """
    (first,) = start
    batch, restarts = first.shape[:2]
    shape = first.shape[2:]
    signals = torch.arange(batch, device=first.device).repeat_interleave(restarts)

    def value_and_gradient(z: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            own = z.detach().unflatten(1, shape).requires_grad_(True)
            value = loss([own], signals)
            (gradient,) = torch.autograd.grad(value.sum(), own)
        return value.detach().to(z), gradient.flatten(1)

    z, value = minimise(value_and_gradient, first.flatten(0, 1).flatten(1), steps)
    every = z.unflatten(1, shape).unflatten(0, (batch, restarts))
    values = finite_or_infinite(value).unflatten(0, (batch, restarts))
    if not bool(torch.isfinite(values.amin(1)).all()):
        raise UserError("expected a finite loss, every restart of a signal diverged: start from smaller latents")
    best = values.argmin(1)
    chosen = every[torch.arange(batch, device=z.device), best]
    return Found([chosen], values.amin(1), restarts, [every], values)


def minimise(
    value_and_gradient: Callable[[Tensor], tuple[Tensor, Tensor]], z: Float[Tensor, "rows d"], steps: int
) -> tuple[Tensor, Tensor]:
    """Minimises a function of rows (rows, d), whose value (rows,) and gradient (rows, d) come from one call.

    Returns:
        The rows and their values, never above those at the start.
    """
    value, gradient = value_and_gradient(z)
    moves: list[Tensor] = []
    changes: list[Tensor] = []
    done = torch.zeros_like(value, dtype=torch.bool)
    for _ in range(steps):
        plain = torch.stack([(move == 0).all(1) for move in moves]).all(0) if moves else torch.ones_like(value) > 0
        direction = -_two_loops(gradient, moves, changes)
        slope = (direction * gradient).sum(1)
        wrong = ~(slope < 0)
        direction = torch.where(wrong[:, None], -gradient, direction)
        slope = torch.where(wrong, -gradient.square().sum(1), slope)
        length = torch.where(plain, 1 / gradient.norm(dim=1).clamp(min=1.0), 1.0)
        new, new_value, new_gradient = z, value, gradient
        waiting, shortest = ~done, SHORTEST * length
        while bool(waiting.any()):
            tried = torch.where(waiting[:, None], z + length[:, None] * direction, new)
            tried_value, tried_gradient = value_and_gradient(tried)
            enough = waiting & (tried_value <= value + ARMIJO * length * slope)
            new = torch.where(enough[:, None], tried, new)
            new_value = torch.where(enough, tried_value, new_value)
            new_gradient = torch.where(enough[:, None], tried_gradient, new_gradient)
            waiting = waiting & ~enough
            length = torch.where(waiting, length * 0.5, length)
            waiting = waiting & (length >= shortest)
        moves.append(new - z)
        changes.append(new_gradient - gradient)
        moves, changes = moves[-MEMORY:], changes[-MEMORY:]
        done = done | (plain & (new == z).all(1))
        if bool(done.all()):
            break
        z, value, gradient = new, new_value, new_gradient
    return z, value


def _two_loops(gradient: Tensor, moves: list[Tensor], changes: list[Tensor]) -> Tensor:
    """Returns H gradient; pairs of a row without positive curvature count for nothing."""
    q = gradient
    kept = []
    for s, g in zip(reversed(moves), reversed(changes), strict=True):
        curvature = (s * g).sum(1, keepdim=True)
        good = curvature > 1e-10 * g.square().sum(1, keepdim=True)
        weight = torch.where(good, 1 / torch.where(good, curvature, 1.0), 0.0)
        alpha = weight * (s * q).sum(1, keepdim=True)
        q = q - alpha * g
        kept.append((s, g, weight, alpha))
    scale = torch.ones_like(gradient[:, :1])
    for s, g, weight, _ in reversed(kept):  # the newest pair with positive curvature decides the scale
        scale = torch.where(weight > 0, (s * g).sum(1, keepdim=True) / g.square().sum(1, keepdim=True), scale)
    r = scale * q
    for s, g, weight, alpha in reversed(kept):
        r = r + s * (alpha - weight * (g * r).sum(1, keepdim=True))
    return r
