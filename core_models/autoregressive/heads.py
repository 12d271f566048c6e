r"""What the features of a pixel say of its value: p(pixel | pixels before), channel after channel.

.. math:: p(R, G, B) = p(R)\, p(G \mid R)\, p(B \mid R, G)

A head gives the log-probabilities of all levels of one channel, given the levels of the channels before it. So the
network runs once a pixel, not once a sub-pixel, and whoever chooses values (a sampler, a purifier) asks for one channel
after the other.

- `softmax`: a free probability for each level (van den Oord et al. 2016a, section 3.3). There, masks inside the network
  let G see R, and B both; here the channels that came before enter through a layer of the head.
- `logistic`: a mixture of discretised logistics (Salimans et al. 2017, sections 2.1 and 2.2). The channels of a pixel
  share one mixture component, whose means are shifted by the channels before, linearly. Hence

.. math:: p(G \mid R) = \sum_k \frac{\pi_k\, p_k(R)}{\sum_j \pi_j\, p_j(R)}\, p_k(G \mid R)

the weights of the components are those after R was seen.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ..precision import at_least_single

HeadName = Literal["softmax", "logistic"]
Features = Float[Tensor, "*pixels features"]
Levels = Int[Tensor, "*pixels _channels"]
Before = Int[Tensor, "*pixels _channels"] | Float[Tensor, "*pixels _channels"]
"""Levels of the channels before; as floats where their gradient is wanted."""

# a logistic narrower than exp(-7) of half the range is a spike on one of 256 levels (Salimans et al. 2017, their code)
LEAST_LOG_SCALE = -7.0


class Head(nn.Module, ABC):
    """Features of pixels to log-probabilities of levels.

    Args:
        features: numbers that the network gives for a pixel.
        channels: channels of a pixel.
        levels: values that a sub-pixel can take.
    """

    def __init__(self, features: int, channels: int, levels: int) -> None:
        super().__init__()
        self.features, self.channels, self.levels = features, channels, levels

    @abstractmethod
    def parameters_of(self, h: Features) -> Tensor:
        """Returns the numbers (*pixels, outputs) that the distribution of a pixel is made of; float32 or better."""

    @abstractmethod
    def channel(self, parameters: Float[Tensor, "*pixels outputs"], before: Before) -> Float[Tensor, "*pixels levels"]:
        """Returns log p(channel c = each level | channels before c) [nats].

        Args:
            parameters: what `parameters_of` gave.
            before: levels of the channels before c, (*pixels, c): their number says which channel is asked for.
        """

    def channel_at(
        self, parameters: Float[Tensor, "*pixels outputs"], before: Before, levels: Int[Tensor, "*pixels some"]
    ) -> Float[Tensor, "*pixels some"]:
        """Returns log p(channel c = each of some levels | channels before c) [nats]."""
        return self.channel(parameters, before).gather(-1, levels)

    def scores(self, parameters: Float[Tensor, "*pixels outputs"], before: Before) -> Float[Tensor, "*pixels levels"]:
        """Returns what `channel` does, up to a constant for each pixel: all that an argmax needs."""
        return self.channel(parameters, before)

    def scores_at(
        self, parameters: Float[Tensor, "*pixels outputs"], before: Before, levels: Int[Tensor, "*pixels some"]
    ) -> Float[Tensor, "*pixels some"]:
        """Returns what `scores` does, for some levels."""
        return self.scores(parameters, before).gather(-1, levels)

    def all_channels(self, h: Features, levels: Levels) -> Float[Tensor, "*pixels channels levels"]:
        """Returns the log-probabilities of every channel, given the true levels of those before it."""
        parameters = self.parameters_of(h)
        return torch.stack([self.channel(parameters, levels[..., :c]) for c in range(self.channels)], -2)

    def log_prob(self, h: Features, levels: Levels) -> Float[Tensor, "*pixels"]:
        """Returns the log-probability of whole pixels [nats]."""
        found = self.all_channels(h, levels)
        return found.gather(-1, levels[..., None]).squeeze(-1).sum(-1)


class SoftmaxHead(Head):
    """A free probability for each level."""

    def __init__(self, features: int, channels: int, levels: int) -> None:
        super().__init__(features, channels, levels)
        self.output = nn.Linear(features, channels * levels)
        self.hidden = features
        self.seen = nn.ModuleList(nn.Linear(c, features) for c in range(1, channels))
        self.mixed = nn.ModuleList(nn.Linear(features, levels) for _ in range(1, channels))

    def parameters_of(self, h: Features) -> Tensor:
        """Returns the logits of all channels without what they owe to one another, and the features for that."""
        return at_least_single(torch.cat([self.output(h), h], -1) if self.channels > 1 else self.output(h))

    def scores(self, parameters: Tensor, before: Before) -> Tensor:
        """Returns the logits of channel c, given the levels of the channels before."""
        c = before.shape[-1]
        logits = parameters[..., c * self.levels : (c + 1) * self.levels]
        if c:
            h = parameters[..., -self.features :].to(self.output.weight.dtype)
            scaled = before.to(h.dtype) * (2 / (self.levels - 1)) - 1
            logits = logits + at_least_single(self.mixed[c - 1](F.relu(h + self.seen[c - 1](scaled))))
        return logits

    def channel(self, parameters: Tensor, before: Before) -> Tensor:
        """Returns log p(channel c = each level | channels before c) [nats]."""
        return self.scores(parameters, before).log_softmax(-1)


class LogisticMixtureHead(Head):
    """A mixture of discretised logistics, its component shared by the channels of a pixel."""

    def __init__(self, features: int, channels: int, levels: int, mixtures: int = 10) -> None:
        super().__init__(features, channels, levels)
        self.mixtures = mixtures
        self.couplings = channels * (channels - 1) // 2
        self.output = nn.Linear(features, mixtures * (1 + 2 * channels + self.couplings))
        with torch.no_grad():  # components start side by side, not one upon the other
            means = self.output.bias[mixtures : mixtures * (1 + channels)].view(channels, mixtures)
            means.copy_(torch.linspace(-0.9, 0.9, mixtures).expand(channels, -1))
            self.output.bias[mixtures * (1 + channels) : mixtures * (1 + 2 * channels)] = -2.0

    def parameters_of(self, h: Features) -> Tensor:
        """Returns logits, means, log-scales and couplings (tanh'ed) of the mixture."""
        return at_least_single(self.output(h))

    def _split(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        k, c = self.mixtures, self.channels
        logits, means, scales, couplings = parameters.split([k, k * c, k * c, k * self.couplings], -1)
        shape = parameters.shape[:-1]
        return (
            logits.log_softmax(-1),
            means.view(*shape, c, k),
            scales.view(*shape, c, k).clamp(min=LEAST_LOG_SCALE),
            couplings.tanh().view(*shape, self.couplings, k),
        )

    def _mean(self, means: Tensor, couplings: Tensor, before: Before) -> Tensor:
        """Returns the components' means (*pixels, mixtures) of the channel after those that came before."""
        c = before.shape[-1]
        mean = means[..., c, :]
        scaled = before.to(means.dtype) * (2 / (self.levels - 1)) - 1
        first = c * (c - 1) // 2  # coefficients lie as (R to G), (R to B), (G to B), ...
        for j in range(c):
            mean = mean + couplings[..., first + j, :] * scaled[..., j : j + 1]
        return mean

    def _component_log_probs(self, mean: Tensor, log_scale: Tensor, levels: Tensor) -> Tensor:
        """Returns log p_k(level) [nats], (*shape, mixtures), for levels (*shape)."""
        half = 1 / (self.levels - 1)
        centred = (levels.to(mean.dtype) * (2 * half) - 1)[..., None] - mean
        inverse = torch.exp(-log_scale)
        upper, lower = (centred + half) * inverse, (centred - half) * inverse
        # log(sigma(b) - sigma(a)) = log sigma(b) + log sigma(-a) + log(1 - exp(a - b)), without cancellation
        width = (2 * half) * inverse
        inside = F.logsigmoid(upper) + F.logsigmoid(-lower) + torch.log(-torch.expm1(-width))
        first, last = (levels == 0)[..., None], (levels == self.levels - 1)[..., None]
        return torch.where(first, F.logsigmoid(upper), torch.where(last, F.logsigmoid(-lower), inside))

    def _weights(self, parts: tuple[Tensor, Tensor, Tensor, Tensor], before: Before) -> Tensor:
        """Returns the unnormalised log-weights of the components after the channels before were seen."""
        weights, means, scales, couplings = parts
        for j in range(before.shape[-1]):
            mean = self._mean(means, couplings, before[..., :j])
            weights = weights + self._component_log_probs(mean, scales[..., j, :], before[..., j])
        return weights

    def channel(self, parameters: Tensor, before: Before) -> Tensor:
        """Returns log p(channel c = each level | channels before c) [nats]."""
        levels = torch.arange(self.levels, device=parameters.device)
        return self.channel_at(parameters, before, levels.expand(*parameters.shape[:-1], self.levels))

    def channel_at(self, parameters: Tensor, before: Before, levels: Tensor) -> Tensor:
        """Returns log p(channel c = each of some levels | channels before c) [nats], without going through all."""
        parts = self._split(parameters)
        c = before.shape[-1]
        weights = self._weights(parts, before).log_softmax(-1)
        mean = self._mean(parts[1], parts[3], before)[..., None, :]
        scale = parts[2][..., c, None, :]
        found = self._component_log_probs(mean, scale, levels)
        return torch.logsumexp(weights[..., None, :] + found, -1)

    def scores_at(self, parameters: Tensor, before: Before, levels: Tensor) -> Tensor:
        """Returns what `scores` does, for some levels, without going through all."""
        return self.channel_at(parameters, before, levels)

    def log_prob(self, h: Features, levels: Levels) -> Float[Tensor, "*pixels"]:
        """Returns the log-probability of whole pixels [nats], without going through all levels."""
        return torch.logsumexp(self._weights(self._split(self.parameters_of(h)), levels), -1)


def head(name: HeadName, features: int, channels: int, levels: int, mixtures: int) -> Head:
    """Builds a head by name."""
    if name == "softmax":
        return SoftmaxHead(features, channels, levels)
    return LogisticMixtureHead(features, channels, levels, mixtures)
