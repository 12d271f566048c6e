r"""Intermediate-layer optimisation: the latents of a GAN first, then what each of its stages hands on.

.. math:: \hat h_s = \arg\min_h \frac1m \|y - A G_s(h)\|^2, \qquad \|h - g_s(\hat h_{s-1})\|_1 \le r_s

G_s being the generator from stage s on and g_s the stage before it. A wider range explains more signals; the l1 balls
keep it near what the generator makes of latents.

Source: Daras, Dean, Jalal and Dimakis, "Intermediate layer optimization for inverse problems using deep generative
models", 2021, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from core_models.errors import UserError
from core_models.modes import steady

from ..operators import LinearOperator
from ..operators.base import Measurements
from ..recovery import Recovered, Recovery
from .csgm import CSGM, HALVING, checked_prior
from .latent_search import LearningRate, Search, search


class IntermediateLayers(Recovery):
    """The signal nearest to the measurements near the range of a generator in stages.

    Args:
        operator: what made the measurements.
        noise: standard deviation of each measurement's noise; only `acquire` asks for it.
        prior: a model with `stages`, `decode_from` and `latents_of`, such as WGANGP.
        penalty: lambda, of the latents; 0.1 times the mean square of A's entries when left out.
        steps: of Adam, on the latents.
        stage_steps: of Adam, on each stage after.
        radii: of the l1 balls, one for each stage after the latents, as a share of the number of units; the last stages
            are left alone where there are fewer.
        restarts: starts from the prior, for the latents; the best goes on.
        learning_rate: of Adam; or the first and the last, between them half a cosine.
        batch: signals searched at once.
        random_state: seed of the starts.
    """

    default_penalties: ClassVar = {"penalty": 0.1}

    def __init__(
        self, operator: LinearOperator | None = None, prior: Any = None, *, noise: float = 0.0,
        penalty: float | None = None, steps: int = 1000, stage_steps: int = 200, radii: Sequence[float] = (0.1, 0.1),
        restarts: int = 10, learning_rate: LearningRate = 0.01, batch: int = 100, random_state: int = 0,
    ) -> None:  # fmt: skip
        self.operator, self.prior, self.noise, self.penalty = operator, prior, noise, penalty
        self.steps, self.stage_steps, self.radii, self.restarts = steps, stage_steps, radii, restarts
        self.learning_rate, self.batch, self.random_state = learning_rate, batch, random_state

    def _recover(self, y: Measurements, first: int) -> Recovered:
        prior, operator = checked_prior(self.prior, self.measuring), self.measuring
        if not all(hasattr(prior, name) for name in ("stages", "decode_from", "latents_of")):
            raise UserError(f"expected a prior in stages, such as WGANGP, got {type(prior).__name__}: use CSGM for it")
        if not self.radii:
            raise UserError("radii: expected one or more, got none: use CSGM to search the latents alone")
        if len(self.radii) >= len(prior.stages):
            raise UserError(f"expected fewer than {len(prior.stages)} radii, one a stage, got {len(self.radii)}")
        if any(not radius >= 0 for radius in self.radii):
            raise UserError(f"expected radii of 0 or more, got {tuple(self.radii)}")
        alone = CSGM(
            operator, prior, penalty=self.penalty_of("penalty"), steps=self.steps, restarts=self.restarts, drop=HALVING,
            learning_rate=self.learning_rate, batch=self.batch, random_state=self.random_state,
        )  # fmt: skip
        parts = []
        for start in range(0, len(y), self.batch):
            own = y[start : start + self.batch]
            h = alone.search_latents(own, first=first + start)
            with steady(prior):
                loss = own.new_zeros(len(own))
                for stage, radius in enumerate(self.radii, 1):
                    with torch.no_grad():
                        centre = prior.stages[stage - 1](h)
                    h, loss = self._stage(own, centre, stage, radius * centre[0].numel())
                with torch.no_grad():
                    x = prior.decode_from(h, len(self.radii))
            parts.append((x, loss, (own - operator(x)).norm(dim=1)))
        x, loss, error = (torch.cat(part) for part in zip(*parts, strict=True))
        return Recovered(x, None, {"loss": loss, "measurement_error": error})

    def _stage(self, y: Measurements, centre: Tensor, stage: int, radius: float) -> tuple[Tensor, Tensor]:
        """Returns what is handed to a stage, (batch, *units), of the least loss in the ball, and that loss."""
        prior, operator = self.prior, self.measuring

        def loss(variables: Sequence[Tensor], signals: Tensor) -> Tensor:
            return (y[signals] - operator(prior.decode_from(variables[0], stage))).square().mean(1)

        def project(variables: Sequence[Tensor], step: int) -> None:
            away = project_on_l1_ball((variables[0] - centre).flatten(1), radius)
            variables[0].copy_(centre + away.view_as(centre))

        plan = Search(self.stage_steps, 1, self.learning_rate)
        found = search(loss, [centre[:, None]], plan, after_step=project)
        return found.variables[0], found.loss


def project_on_l1_ball(v: Float[Tensor, "batch d"], radius: float) -> Float[Tensor, "batch d"]:
    """Returns the points of ||w||_1 <= radius nearest to v.

    Source: Duchi, Shalev-Shwartz, Singer and Chandra, "Efficient projections onto the l1-ball for learning in high
    dimensions", 2008, figure 1.
    """
    if radius == 0:
        return torch.zeros_like(v)
    sizes = v.abs().sort(1, descending=True).values
    excess = sizes.cumsum(1) - radius
    counts = torch.arange(1, v.shape[1] + 1, device=v.device, dtype=v.dtype)
    last = ((sizes - excess / counts) > 0).sum(1, keepdim=True) - 1
    threshold = (torch.gather(excess, 1, last) / (last + 1)).clamp(min=0)
    return v.sign() * (v.abs() - threshold).clamp(min=0)
