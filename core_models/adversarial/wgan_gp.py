r"""Wasserstein GAN with gradient penalty.

.. math:: \min_D E[D(G(z))] - E[D(x)] + \lambda E[(\|\nabla_{\hat x} D(\hat x)\| - 1)^2], \qquad \max_G E[D(G(z))]

\hat x lies on the line between a real and a generated event, at a random place. Both players are one objective: the
critic's loss moves the critic alone, since what is generated is detached, and the generator's loss, in every
`critic_steps`-th step, the generator alone, since the critic's weights are. The generator works in stages, so that a
search may start from what any of them hands on (`latents_of`, `decode_from`).

Source: Gulrajani, Ahmed, Arjovsky, Dumoulin and Courville, "Improved training of Wasserstein GANs", 2017, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Size, Tensor, nn
from torch.distributions import Distribution, Independent, Normal
from torch.func import functional_call

from ..base import Decodable, Events, GenerativeModel, Labels, Latents, Metrics, Objective, Scalar
from ..errors import UserError
from ..layers.networks import refuse_labels


@dataclass(frozen=True)
class WGANGPConfig:
    """What generator and critic are made of; both are fully connected."""

    event_shape: tuple[int, ...] = (1, 28, 28)
    """Channels, height and width of an image [pixels], or (features,)."""
    latent: int = 64
    """Number of latent dimensions."""
    hidden: tuple[int, ...] = (256, 512, 512)
    """Units of each stage of the generator; the critic mirrors them."""


class WGANGP(GenerativeModel, Decodable):
    """Generator and critic of events in [0, 1].

    Example:
        >>> model = WGANGP(WGANGPConfig(event_shape=(1, 4, 4), latent=3, hidden=(8, 8)))
        >>> model.decode(torch.zeros(5, 3)).shape
        torch.Size([5, 1, 4, 4])
    """

    def __init__(self, config: WGANGPConfig) -> None:
        super().__init__()
        if config.latent < 1 or not config.hidden or min(config.hidden) < 1:
            raise UserError(
                f"expected a latent dimension and a hidden stage of at least one unit, got {config.latent} and "
                f"{config.hidden}"
            )
        self.config = config
        self.event_shape, self.latent_shape = Size(config.event_shape), Size((config.latent,))
        n = prod(config.event_shape)
        stages: list[nn.Module] = [
            nn.Sequential(nn.Linear(inside, outside), nn.LayerNorm(outside), nn.ReLU())
            for inside, outside in pairwise((config.latent, *config.hidden))
        ]
        self.stages = nn.ModuleList([*stages, nn.Sequential(nn.Linear(config.hidden[-1], n), nn.Sigmoid())])
        layers: list[nn.Module] = []
        for inside, outside in pairwise((n, *config.hidden[::-1])):
            layers += [nn.Linear(inside, outside), nn.LeakyReLU(0.2)]
        self.critic = nn.Sequential(nn.Flatten(), *layers, nn.Linear(config.hidden[0], 1))
        self.register_buffer("_zero", torch.zeros(config.latent), persistent=False)
        self.register_buffer("_one", torch.ones(config.latent), persistent=False)

    def prior(self, y: Labels | None = None) -> Distribution:
        """Returns N(0, I); there are no classes."""
        zero, one = self.get_buffer("_zero"), self.get_buffer("_one")
        return Independent(Normal(zero, one, validate_args=False), 1, validate_args=False)

    def decode(self, z: Latents, y: Labels | None = None) -> Events:
        """Returns the events of latents (n, latent)."""
        return self.decode_from(z, 0)

    def latents_of(self, z: Latents, stage: int) -> Float[Tensor, "n width"]:
        """Returns what the stages before `stage` make of latents: z itself before stage 0.

        Raises:
            UserError: when there is no such stage.
        """
        self._check(stage)
        for before in self.stages[:stage]:
            z = before(z)
        return z

    def decode_from(self, h: Float[Tensor, "n width"], stage: int) -> Events:
        """Returns the events that the stages from `stage` on make of what is handed to it.

        Raises:
            UserError: when there is no such stage.
        """
        self._check(stage)
        for after in self.stages[stage:]:
            h = after(h)
        return h.unflatten(1, self.event_shape)

    def _check(self, stage: int) -> None:
        if not 0 <= stage < len(self.stages):
            raise UserError(f"expected a stage from 0 to {len(self.stages) - 1}, got {stage}")

    @torch.no_grad()
    def sample(self, n: int, y: Labels | None = None, *, generator: Generator | None = None) -> Events:
        """Draws n events.

        Raises:
            UserError: when classes are given, since it has none.
        """
        refuse_labels(self, y)
        return self.decode(torch.empty_like(self.get_buffer("_zero").expand(n, -1)).normal_(generator=generator))


class WassersteinLoss(Objective):
    """Both players' losses.

    Train with Adam at betas (0, 0.9) or (0.5, 0.9), as published.

    Args:
        model: generator and critic.
        penalty: lambda.
        critic_steps: steps of the critic to one of the generator.
    """

    compiles = False
    step: Tensor

    def __init__(self, model: WGANGP, *, penalty: float = 10.0, critic_steps: int = 5) -> None:
        super().__init__()
        if critic_steps < 1 or not penalty >= 0:
            raise UserError(f"expected a step of the critic or more and a penalty of 0 or more, got {critic_steps} and "
                            f"{penalty}")  # fmt: skip
        self.model, self.penalty, self.critic_steps = model, penalty, critic_steps
        # part of the state, so that a resumed run takes turns as before
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self._taken: int | None = None  # the same on the host: read once, since reading waits for a GPU

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._taken = None
        super()._load_from_state_dict(*args, **kwargs)

    def forward(self, batch: Mapping[str, Any], generator: Generator | None = None) -> tuple[Scalar, Metrics]:
        """Returns the loss of a batch with events "x" (n, *event_shape)."""
        x, model = batch["x"], self.model
        z = torch.empty(len(x), *model.latent_shape, device=x.device, dtype=x.dtype).normal_(generator=generator)
        made = model.decode(z)
        real, false = model.critic(x), model.critic(made.detach())
        place = torch.empty(len(x), *[1] * (x.ndim - 1), device=x.device, dtype=x.dtype).uniform_(generator=generator)
        between = torch.lerp(x, made.detach().to(x.dtype), place).requires_grad_(True)
        with torch.enable_grad():
            (slope,) = torch.autograd.grad(model.critic(between).sum(), between, create_graph=self.training)
        steepness = slope.flatten(1).norm(dim=1)
        # in the rows' precision: half of it would round away a difference of two large means
        distance = real.to(x.dtype).mean() - false.to(x.dtype).mean()
        loss = -distance + self.penalty * (steepness - 1).square().mean()
        if self.training:
            self._taken = (int(self.step) if self._taken is None else self._taken) + 1
            self.step += 1
        if not self.training or (self._taken or 0) % self.critic_steps == 0:
            held = {name: parameter.detach() for name, parameter in model.critic.named_parameters()}
            loss = loss - functional_call(model.critic, held, (made,)).mean()
        told = {"wasserstein_distance": distance.detach(), "steepness": steepness.mean().detach()}
        return loss, told
