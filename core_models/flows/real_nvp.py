r"""RealNVP: affine couplings, each of which changes one half of the values by functions of the other half.

.. math:: u_a = x_a, \quad u_b = x_b \odot \exp(s(x_a)) + t(x_a), \qquad
   \log |\det \partial u / \partial x| = \sum s(x_a)

Halves are the two colours of a checkerboard over the image (over the values of a vector), turn about. Pixels in [0, 1]
are brought to the real line by logit(margin + (1 - 2 margin) x) first; between the couplings each value is scaled and
shifted (activation normalisation), started from the first batch. Couplings are fully connected.

Source: Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP", 2017, equations 4 to 9 and section 4.1;
Kingma and Dhariwal, "Glow", 2018, section 3.1 (activation normalisation).
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from math import log, prod
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Size, Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from ..base import Decodable, Events, ExactLikelihood, GenerativeModel, Labels, Latents, PerExample
from ..errors import UserError
from ..layers.networks import refuse_labels
from ..precision import at_least_single


@dataclass(frozen=True)
class RealNVPConfig:
    """What a RealNVP is made of."""

    event_shape: tuple[int, ...] = (1, 28, 28)
    """Channels, height and width of an image [pixels], or (features,)."""
    couplings: int = 8
    """Affine couplings; an even number changes every value as often."""
    hidden: tuple[int, ...] = (512, 512)
    """Units of each hidden layer of a coupling's network."""
    margin: float = 0.01
    """How far pixels are kept from 0 and 1 before the logit; 0 leaves values as they are, for what isn't in [0, 1]."""


class RealNVP(GenerativeModel, ExactLikelihood, Decodable):
    """A density over continuous values: dequantise pixels before asking for it.

    Example:
        >>> model = RealNVP(RealNVPConfig(event_shape=(1, 4, 4), couplings=2, hidden=(8,)))
        >>> model.log_prob(torch.rand(5, 1, 4, 4)).shape
        torch.Size([5])
    """

    density_over = "continuous"

    def __init__(self, config: RealNVPConfig) -> None:
        super().__init__()
        n = prod(config.event_shape)
        if n < 2:
            raise UserError(f"expected events of at least two values, got event_shape = {config.event_shape}")
        if config.couplings < 1:
            raise UserError(f"expected at least one coupling, got couplings = {config.couplings}")
        if min(config.hidden, default=1) < 1:
            raise UserError(f"expected hidden layers of at least one unit, got hidden = {config.hidden}")
        if not 0 <= config.margin < 0.5:
            raise UserError(f"expected a margin from 0 to below 0.5, got {config.margin}")
        self.config = config
        self.event_shape, self.latent_shape = Size(config.event_shape), Size((n,))
        colour = _checkerboard(config.event_shape)
        self.steps = nn.ModuleList(
            _Step(n, colour if number % 2 == 0 else ~colour, config.hidden) for number in range(config.couplings)
        )
        self.last = _ActNorm(n)
        self.register_buffer("_zero", torch.zeros(n), persistent=False)
        self.register_buffer("_one", torch.ones(n), persistent=False)

    def prior(self, y: Labels | None = None) -> Distribution:
        """Returns N(0, I) over (values,); there are no classes."""
        zero, one = self.get_buffer("_zero"), self.get_buffer("_one")
        return Independent(Normal(zero, one, validate_args=False), 1, validate_args=False)

    def encode_exactly(self, x: Events) -> tuple[Latents, PerExample]:
        """Returns the latents (n, values) of events and log |det dz/dx| [nats].

        Raises:
            UserError: when events have another shape, or `check_values` refuses them. On a GPU, once training has begun
                or in evaluation mode, and in what is compiled or mapped (vmap), they aren't looked at: values that the
                margin doesn't lead to the real line make NaN.
        """
        if x.shape[1:] != self.event_shape:
            wanted = ", ".join(map(str, self.event_shape))
            raise UserError(f"expected events of shape (n, {wanted}), got {tuple(x.shape)}")
        if self.training and not self.last.running:
            self.check_values(x)
        elif x.device.type == "cpu" and not torch.compiler.is_compiling():  # elsewhere it would wait for the device
            with suppress(RuntimeError):  # torch's, where a transform (vmap) has no values to look at
                self.check_values(x)
        u, log_det = self._to_line(x.flatten(1))
        for step in self.steps:
            u, change = step(u)
            log_det = log_det + change
        u, change = self.last(u)
        return u, log_det + change

    def log_prob(self, x: Events, y: Labels | None = None) -> PerExample:
        """Returns the log-density [nats] of events in [0, 1], or of any values where the margin is 0.

        Others are refused where `encode_exactly` looks at them, and else have no density (NaN).
        """
        z, log_det = self.encode_exactly(x)
        return -0.5 * (at_least_single(z).square().sum(1) + z.shape[1] * log(2 * torch.pi)) + log_det

    def decode(self, z: Latents, y: Labels | None = None) -> Events:
        """Returns the events of latents, differentiably: the inverse of `encode_exactly`."""
        u = self.last.inverse(z)
        for step in reversed(self.steps):
            u = step.inverse(u)  # type: ignore[operator]
        return self._from_line(u).unflatten(1, self.event_shape)

    @torch.no_grad()
    def sample(self, n: int, y: Labels | None = None, *, generator: Generator | None = None) -> Events:
        """Draws n events; pixels, where there is a margin, within [0, 1]: the map itself reaches a little farther.

        Raises:
            UserError: when classes are given, since it has none.
        """
        refuse_labels(self, y)
        zero = self.get_buffer("_zero")
        drawn = self.decode(torch.empty_like(zero.expand(n, -1)).normal_(generator=generator))
        return drawn.clamp_(0, 1) if self.config.margin else drawn

    def check_values(self, x: Tensor, *, between_levels: bool = False) -> None:
        """Refuses values that the logit makes NaN of; without a margin there are none.

        Args:
            x: events (n, *event_shape).
            between_levels: is of no matter to a density over continuous values.

        Raises:
            UserError: when, where there is a margin, values lie outside of what it leads to the real line.
        """
        margin = self.config.margin
        if not margin or not x.numel():
            return
        reach = margin / (1 - 2 * margin)
        if not bool(((x.detach() > -reach) & (x.detach() < 1 + reach)).all()):
            raise UserError(
                f"expected pixels in [0, 1], got values from {float(x.min()):g} to {float(x.max()):g}: rescale them, "
                "or set margin 0 for values that aren't pixels"
            )

    def _to_line(self, x: Float[Tensor, "n d"]) -> tuple[Float[Tensor, "n d"], PerExample]:
        margin = self.config.margin
        if not margin:
            return x, at_least_single(x).new_zeros(len(x))
        p = margin + (1 - 2 * margin) * at_least_single(x)
        u = (torch.log(p) - torch.log1p(-p)).to(x.dtype)
        return u, (log(1 - 2 * margin) - torch.log(p) - torch.log1p(-p)).sum(1)

    def _from_line(self, u: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        margin = self.config.margin
        return (torch.sigmoid(u) - margin) / (1 - 2 * margin) if margin else u


class _ActNorm(nn.Module):
    """Scales and shifts each value; the first batch in training mode sets mean 0 and variance 1."""

    started: Tensor
    running: bool
    """That it was seen to be started: reading the buffer would wait for a GPU at every step."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.log_scale, self.shift = nn.Parameter(torch.zeros(n)), nn.Parameter(torch.zeros(n))
        self.register_buffer("started", torch.zeros((), dtype=torch.bool))
        self.running = False

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.running = False  # what is loaded may not be started
        super()._load_from_state_dict(*args, **kwargs)

    def forward(self, u: Float[Tensor, "n d"]) -> tuple[Float[Tensor, "n d"], Float[Tensor, ""]]:
        if self.training and len(u) > 1 and not self.running:
            if not bool(self.started):
                with torch.no_grad():
                    # a value that is nearly constant isn't blown up
                    self.log_scale.copy_(-u.std(0).clamp(min=0.1).log())
                    self.shift.copy_(-u.mean(0) * self.log_scale.exp())
                    self.started.fill_(True)
            self.running = True
        return u * self.log_scale.exp() + self.shift, at_least_single(self.log_scale).sum()

    def inverse(self, u: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        return (u - self.shift) * torch.exp(-self.log_scale)


class _Step(nn.Module):
    """Activation normalisation and an affine coupling."""

    def __init__(self, n: int, changed: Tensor, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.norm = _ActNorm(n)
        self.register_buffer("changed", changed.nonzero().squeeze(1))
        self.register_buffer("kept", (~changed).nonzero().squeeze(1))
        sizes = [int((~changed).sum()), *hidden]
        layers: list[nn.Module] = []
        for inside, outside in pairwise(sizes):
            layers += [nn.Linear(inside, outside), nn.ReLU()]
        last = nn.Linear(sizes[-1], 2 * int(changed.sum()))
        nn.init.zeros_(last.weight)  # starts as the identity
        nn.init.zeros_(last.bias)
        self.network = nn.Sequential(*layers, last)
        self.bound = nn.Parameter(torch.ones(int(changed.sum())))

    def _scale_and_shift(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        raw, shift = self.network(kept).chunk(2, dim=1)
        return self.bound * torch.tanh(raw), shift

    def forward(self, u: Float[Tensor, "n d"]) -> tuple[Float[Tensor, "n d"], PerExample]:
        u, log_det = self.norm(u)
        changed, kept = self.get_buffer("changed"), self.get_buffer("kept")
        scale, shift = self._scale_and_shift(u[:, kept])
        return u.index_copy(1, changed, u[:, changed] * torch.exp(scale) + shift), log_det + at_least_single(scale).sum(
            1
        )

    def inverse(self, u: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        changed, kept = self.get_buffer("changed"), self.get_buffer("kept")
        scale, shift = self._scale_and_shift(u[:, kept])
        inverse: Tensor = self.norm.inverse(u.index_copy(1, changed, (u[:, changed] - shift) * torch.exp(-scale)))
        return inverse


def _checkerboard(shape: tuple[int, ...]) -> Tensor:
    """Returns one colour of a checkerboard over the last two axes, or every second value of a vector, flattened."""
    places = torch.zeros(shape, dtype=torch.long)
    for axis in range(max(0, len(shape) - 2), len(shape)):
        along = torch.arange(shape[axis]).reshape([-1 if a == axis else 1 for a in range(len(shape))])
        places = places + along
    return (places % 2 == 1).flatten()
