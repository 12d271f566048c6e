r"""What a decoder's outputs mean: p(x | z) as a distribution over whole events.

- Bernoulli: one logit a value; x in {0, 1}, or its mean in [0, 1].
- Gaussian with a diagonal covariance: mean and log-variance of each value, or one learned log-variance a channel.
- Discretised logistic: the mass that a logistic puts on the bin of an 8-bit level, the tails folded into the first
  and the last. Source: Kingma, Salimans, Jozefowicz, Chen, Sutskever and Welling, "Improved variational inference
  with inverse autoregressive flow", NIPS 2016, appendix; Salimans et al., "PixelCNN++", ICLR 2017, section 2.1.
"""

from __future__ import annotations

from math import prod
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Size, Tensor, nn
from torch.autograd import Function
from torch.distributions import Bernoulli, Distribution, Independent, Normal, constraints
from torch.nn import functional as F

from ..errors import UserError
from ..precision import at_least_single

LikelihoodName = Literal["bernoulli", "gaussian", "discretised-logistic"]

LOG_SCALE_BOUND = 7.0  # of log-scales, twice as much of log-variances: exp stays finite in any precision


class DiscretisedLogistic(Distribution):
    """A logistic over [0, 1] seen through bins of width 1 / (levels - 1) centred on the levels.

    Args:
        loc: centre (...), in the units of x.
        log_scale: log of the scale (...), in the units of x.
        levels: number of values that x takes, from 0 to 1 in equal steps.
    """

    arg_constraints: ClassVar = {"loc": constraints.real, "log_scale": constraints.real}
    support = constraints.unit_interval

    def __init__(self, loc: Tensor, log_scale: Tensor, levels: int = 256) -> None:
        self.loc, self.log_scale, self.levels = loc, log_scale, levels
        super().__init__(loc.shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """The centre, kept within [0, 1]: the exact mean but for the folded tails."""
        return self.loc.clamp(0, 1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns the log mass [nats] of the bin of each value."""
        step = 1 / (self.levels - 1)
        inverse = torch.exp(-self.log_scale)
        upper = (value - self.loc + step / 2) * inverse
        lower = (value - self.loc - step / 2) * inverse
        # log(sigmoid(upper) - sigmoid(lower)) without cancellation:
        # sigmoid(u) - sigmoid(l) = sigmoid(u) sigmoid(-l) (1 - exp(l - u))
        width = torch.log(-torch.expm1(-step * inverse))
        inside = F.logsigmoid(upper) + F.logsigmoid(-lower) + width
        first, last = value < step / 2, value > 1 - step / 2
        return torch.where(first, F.logsigmoid(upper), torch.where(last, F.logsigmoid(-lower), inside))

    def rsample(self, sample_shape: Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        """Not offered: levels are discrete."""
        raise NotImplementedError("a discretised logistic can't be reparameterised")

    def sample(self, sample_shape: Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        """Draws levels."""
        u = torch.rand((*sample_shape, *self.loc.shape), dtype=self.loc.dtype, device=self.loc.device)
        return self.quantise(u)

    def quantise(self, u: Tensor) -> Tensor:
        """Maps uniforms to levels by the inverse of the logistic's distribution function."""
        x = self.loc + torch.exp(self.log_scale) * (torch.log(u) - torch.log1p(-u))  # u = 0 gives the first level
        return (x.clamp(0, 1) * (self.levels - 1)).round() / (self.levels - 1)


class _ReturningClamp(Function):
    """A clamp to [-bound, bound] that passes a gradient outside as well, where a step against it leads back inside.

    A clamp's own gradient is zero there: a scale once pushed past its bound, by a value that is the same in nearly all
    events, would stay there whatever else comes.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, bound: float) -> Tensor:
        return x.clamp(-bound, bound)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        x, ctx.bound = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        passes = ((x >= -ctx.bound) | (grad < 0)) & ((x <= ctx.bound) | (grad > 0))
        return torch.where(passes, grad, 0.0), None


class _BernoulliLogProb(Function):
    r"""Sums :math:`x l - \mathrm{softplus}(l)` over the last dimension; its gradient is :math:`x - \sigma(l)`.

    The same as torch's own, in half the passes over the pixels of a batch: left to autograd, these passes take as long
    as half the matrix products of M2's step.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(logits: Tensor, x: Tensor) -> Tensor:
        return -torch.addcmul(F.softplus(logits), x, logits, value=-1).sum(-1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None]:
        logits, x = ctx.saved_tensors
        grad = grad.unsqueeze(-1)
        return (x - torch.sigmoid(logits)) * grad, grad * logits if ctx.needs_input_grad[1] else None


class _BernoulliEvents(Independent):
    """Independent Bernoulli values, whose log-likelihood is summed as it is computed."""

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns the log-probability [nats] of events, of shape the batch's."""
        if torch.compiler.is_compiling():
            return super().log_prob(value)  # the compiler joins the passes itself
        logits, value = torch.broadcast_tensors(self.base_dist.logits, value)
        dims = self.reinterpreted_batch_ndims
        return _BernoulliLogProb.apply(logits.flatten(-dims), value.flatten(-dims))


class Likelihood(nn.Module):
    """Turns a decoder's flat output (..., outputs * values) into p(x | z) over events.

    Args:
        name: the family.
        event_shape: shape of one event.
        levels: number of pixel levels, for the discretised logistic.
        learned_scale: Gaussian and discretised logistic: whether the decoder gives each value a scale of its own
            (True) or one scale a channel is a parameter (False, steadier on photographs).
    """

    def __init__(
        self, name: LikelihoodName, event_shape: Size, *, levels: int = 256, learned_scale: bool = True
    ) -> None:
        super().__init__()
        if name not in get_args(LikelihoodName):
            raise UserError(f"expected a likelihood among {', '.join(get_args(LikelihoodName))}, got {name!r}")
        self.name, self.event_shape, self.levels = name, Size(event_shape), levels
        self.own_scale = name != "bernoulli" and learned_scale
        self.outputs = 2 if self.own_scale else 1  # numbers a decoder gives per value
        self.log_scale: nn.Parameter | None = None
        if name != "bernoulli" and not learned_scale:
            self.log_scale = nn.Parameter(torch.full((self.event_shape[0], *[1] * (len(event_shape) - 1)), -2.0))

    def forward(self, raw: Tensor) -> Distribution:
        """Returns the distribution, its batch shape the leading one of raw."""
        raw = at_least_single(raw)  # densities are always taken in full precision
        lead = raw.shape[:-1]
        dims = len(self.event_shape)
        if self.outputs == 1:
            center = raw.view(*lead, *self.event_shape)  # a view: the gradient of `unbind` would copy it once more
        else:
            center, own_log_scale = raw.view(*lead, 2, *self.event_shape).unbind(len(lead))
        if self.name == "bernoulli":
            return _BernoulliEvents(Bernoulli(logits=center, validate_args=False), dims, validate_args=False)
        log_scale = own_log_scale if self.log_scale is None else self.log_scale.to(center.dtype).expand_as(center)
        if self.name == "gaussian":
            scale = torch.exp(0.5 * self._bounded(log_scale, 2 * LOG_SCALE_BOUND))
            return Independent(Normal(center, scale, validate_args=False), dims, validate_args=False)
        # centred on mid-grey with a scale of about e^-2 when the decoder says 0
        logistic = DiscretisedLogistic(
            center + 0.5, self._bounded(log_scale - (2.0 if self.own_scale else 0.0), LOG_SCALE_BOUND), self.levels
        )
        return Independent(logistic, dims, validate_args=False)

    def check_values(self, x: Tensor, *, between_levels: bool = False) -> None:
        """Refuses values that the family isn't of.

        Args:
            x: events.
            between_levels: whether a discretised logistic's values may lie between its levels. To train on them does no
                harm, as a bin around any value has a bounded mass; but what is measured is none of its masses.

        Raises:
            UserError: when a Bernoulli's or a discretised logistic's lie outside of [0, 1], or the latter's aren't on
                its levels.
        """
        if self.name == "gaussian" or not x.numel():
            return
        x = x.detach()
        # the negations refuse NaN too
        if not bool(((x >= 0) & (x <= 1)).all()):
            raise UserError(
                f"expected values in [0, 1] for the likelihood {self.name}, got {float(x.min()):g} to "
                f"{float(x.max()):g}: rescale them, or choose the likelihood gaussian"
            )
        scaled = x * (self.levels - 1)
        strict = self.name == "discretised-logistic" and not between_levels
        if strict and not bool(((scaled - scaled.round()).abs() <= 1e-3).all()):
            raise UserError(
                f"expected values on the {self.levels} levels of a discretised logistic (multiples of "
                f"1/{self.levels - 1}), got values between them: round them, set levels, or choose gaussian"
            )

    def _bounded(self, log_scale: Tensor, bound: float) -> Tensor:
        # only what is trained goes down its gradient; a search in evaluation mode may go either way
        return _ReturningClamp.apply(log_scale, bound) if self.training else log_scale.clamp(-bound, bound)

    def draw(self, distribution: Distribution, generator: torch.Generator | None = None) -> Tensor:
        """Draws events with a generator, which torch's own distributions do not take."""
        assert isinstance(distribution, Independent)
        base = distribution.base_dist
        if isinstance(base, Bernoulli):
            return torch.bernoulli(base.probs, generator=generator)
        u = torch.empty_like(base.mean)
        if isinstance(base, Normal):
            return base.loc + base.scale * u.normal_(generator=generator)
        assert isinstance(base, DiscretisedLogistic)
        return base.quantise(u.uniform_(generator=generator))

    @property
    def values(self) -> int:
        """Numbers in one event."""
        return prod(self.event_shape)
