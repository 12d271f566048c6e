r"""CSGM: compressed sensing using a generative model.

.. math:: \hat z = \arg\min_z \frac1m \|y - A G(z)\|^2 + \lambda \|z\|^2, \qquad \hat x = G(\hat z)

The penalty is minus the log-density of a standard normal prior, up to its weight; lambda belongs to the scaling of A
and of the noise. G is any `Decodable`.

Source: Bora, Jalal, Price and Dimakis, "Compressed sensing using generative models", 2017, equation 1 and section 6.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from core_models.base import Decodable
from core_models.errors import UserError
from core_models.modes import steady

from ..operators import LinearOperator
from ..operators.base import Measurements
from ..recovery import Recovered, Recovery, in_precision_of
from .latent_search import Found, LearningRate, Search, search

HALVING = ((0.05, 0.5), (0.15, 0.3), (0.4, 0.1))
"""Early dropping: half the restarts from a twentieth of the steps on, and so on. One of ten is left; where measurements
are few the one that would have won may be gone, and the error is larger for it."""
ANNEALED: dict[str, Any] = {"steps": 300, "learning_rate": (0.2, 0.005), "drop": ((0.2, 0.5), (0.4, 0.2))}
"""Settings that take an eighth of the steps and end at losses no larger: a learning rate that falls, and dropping only
once it has told the restarts apart. Chosen on validation images of MNIST under the papers' prior, at 25, 50 and 100."""


class CSGM(Recovery):
    """The signal nearest to the measurements among those that a generative prior can make.

    Args:
        operator: what made the measurements.
        noise: standard deviation of each measurement's noise; only `acquire` asks for it.
        prior: a model with `decode`, `latent_shape` and `event_shape`, of signals in the range of those measured;
            `Prior` makes one of any module.
        penalty: lambda; 0.1 times the mean square of A's entries when left out.
        steps: of Adam, or iterations of L-BFGS.
        restarts: starts from the prior, of which the least loss is kept.
        learning_rate: of Adam; or the first and the last, between them half a cosine.
        drop: when which share of the restarts goes on, by Adam; () keeps all to the end.
        optimiser: adam or lbfgs.
        low_precision: whether, by Adam, all but the last fifth of the steps work in bfloat16,
            faster on hardware that has it.
        batch: signals searched at once.
        random_state: seed of the starts.
    """

    default_penalties: ClassVar = {"penalty": 0.1}

    def __init__(
        self, operator: LinearOperator | None = None, prior: Any = None, *, noise: float = 0.0,
        penalty: float | None = None, steps: int = 1000, restarts: int = 10, learning_rate: LearningRate = 0.01,
        drop: Sequence[tuple[float, float]] = (), optimiser: Literal["adam", "lbfgs"] = "adam",
        low_precision: bool = False, batch: int = 100, random_state: int = 0,
    ) -> None:  # fmt: skip
        self.operator, self.prior, self.noise, self.penalty = operator, prior, noise, penalty
        self.steps, self.restarts, self.learning_rate, self.drop = steps, restarts, learning_rate, drop
        self.optimiser, self.low_precision = optimiser, low_precision
        self.batch, self.random_state = batch, random_state

    def _recover(self, y: Measurements, first: int) -> Recovered:
        prior, operator = checked_prior(self.prior, self.measuring), self.measuring
        parts = []
        with steady(prior):
            for start in range(0, len(y), self.batch):
                own = y[start : start + self.batch]
                found = self._search(own, first + start)
                with torch.no_grad():
                    x = prior.decode(found.variables[0])
                    error = (own - operator(x)).norm(dim=1)
                parts.append((x, found.loss, error))
        x, loss, error = (torch.cat(part) for part in zip(*parts, strict=True))
        return Recovered(x, None, {"loss": loss, "measurement_error": error})

    def search_latents(
        self, y: Measurements, encoded: Tensor | None = None, *, first: int = 0
    ) -> Float[Tensor, "batch ..."]:
        """Returns the latents (batch, *latent_shape) of the least loss.

        Args:
            y: measurements (batch, m).
            encoded: signals whose encoding by the prior is one start more.
            first: place of the first signal among all, which decides its starts.
        """
        y, parts = in_precision_of(self.prior, y), []
        with steady(self.prior):
            for start in range(0, len(y), self.batch):
                rows = slice(start, start + self.batch)
                own = None
                if encoded is not None:
                    with torch.no_grad():
                        own = self.prior.encode(in_precision_of(self.prior, encoded[rows])).mean[:, None]
                parts.append(self._search(y[rows], first + start, own).variables[0])
        return torch.cat(parts)

    def loss_at(self, y: Measurements, z: Float[Tensor, "batch ..."]) -> Float[Tensor, " batch"]:
        """Returns what the search minimises, at latents z (batch, *latent_shape) of measurements y (batch, m)."""
        fit = (y - self.measuring(self.prior.decode(z))).square().mean(1)
        return fit + self.penalty_of("penalty") * z.square().flatten(1).sum(1)

    def _starts(self, batch: int, first: int) -> Tensor:
        return starts(self.prior, batch, self.restarts, self.random_state, first)

    def _search(self, y: Measurements, first: int, extra: Tensor | None = None) -> Found:
        if not self.penalty_of("penalty") >= 0:
            raise UserError(f"penalty: expected 0 or more, got {self.penalty}")
        start = self._starts(len(y), first).to(y)
        start = start if extra is None else torch.cat([extra, start], 1)
        drop: Any = tuple(map(tuple, self.drop))
        plan = Search(self.steps, start.shape[1], self.learning_rate, drop, self.low_precision)

        def loss(variables: Sequence[Tensor], signals: Tensor) -> Tensor:
            return self.loss_at(y[signals], variables[0])

        if self.optimiser == "lbfgs":
            from .lbfgs import search_by_lbfgs

            if self.drop:
                raise UserError("drop: expected none with the optimiser lbfgs, which keeps every restart to the end")
            return search_by_lbfgs(loss, [start], self.steps)
        if self.optimiser != "adam":
            raise UserError(f"expected the optimiser adam or lbfgs, got {self.optimiser!r}")
        return search(loss, [start], plan)


def starts(prior: Decodable, batch: int, restarts: int, seed: int, first: int = 0) -> Tensor:
    """Draws standard normal latents (batch, restarts, *latent_shape); each signal has its own stream.

    So a signal starts from the same latents whatever batch it is in.
    """
    rows = []
    for signal in range(first, first + batch):
        generator = Generator().manual_seed(seed * 1_000_003 + signal)
        rows.append(torch.randn(restarts, *prior.latent_shape, generator=generator))
    return torch.stack(rows)


def checked_prior(prior: Any, operator: LinearOperator) -> Any:
    """Returns the prior if it makes signals of the operator's shape.

    Raises:
        UserError: when there is none, it can't decode, or its signals have another shape.
    """
    if prior is None:
        raise UserError("expected a generative prior, got none: give prior=..., e.g. core_models.zoo.load(NAME)")
    require_decodable(prior)
    if tuple(prior.event_shape) != tuple(operator.signal_shape):
        raise UserError(
            f"expected a prior of signals {tuple(operator.signal_shape)}, as the operator measures, got one of "
            f"{tuple(prior.event_shape)}"
        )
    return prior


def require_decodable(prior: Any, where: str = "") -> None:
    """Holds a prior to what methods ask of it.

    Args:
        prior: a module with `decode`, `latent_shape` and `event_shape`.
        where: it was named, as a message begins.

    Raises:
        UserError: when it is no module, or lacks one of the three.
    """
    missing = [name for name in ("decode", "latent_shape", "event_shape") if getattr(prior, name, None) is None]
    if missing or not isinstance(prior, nn.Module):
        lacks = f"without {' and '.join(missing)}" if missing else "which is no nn.Module"
        raise UserError(
            f"{where}expected a model that decodes latents, with decode, latent_shape and event_shape, got "
            f"{type(prior).__name__} {lacks}: apps.compressed_sensing.Prior makes one of any module"
        )
