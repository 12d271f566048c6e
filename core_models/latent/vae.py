r"""Variational auto-encoder.

.. math:: \log p(x) \ge E_{q(z|x)}[\log p(x|z)] - KL(q(z|x) \| p(z)), \qquad p(z) = N(0, I)

with q(z|x) a Gaussian of diagonal covariance, so that the second term has a closed form.

Source: Kingma and Welling, "Auto-encoding variational Bayes", ICLR 2014, sections 2 and 3, appendix B; as the model
M1 of Kingma, Rezende, Mohamed and Welling, "Semi-supervised learning with deep generative models", NIPS 2014.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import Generator, Size, Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from ..base import Events, GenerativeModel, Labels, Latents, PerExample, Variational
from ..errors import UserError
from ..layers.networks import (
    Activation,
    Architecture,
    ConditionalNetwork,
    conv_decoder,
    conv_encoder,
    mlp,
    refuse_labels,
)
from ..precision import HALVES, at_least_single
from .likelihoods import LOG_SCALE_BOUND, Likelihood, LikelihoodName


@dataclass(frozen=True)
class VAEConfig:
    """What a variational auto-encoder is made of."""

    event_shape: tuple[int, ...] = (1, 28, 28)
    """Channels, height and width of an image [pixels], or (features,)."""
    latent: int = 50
    """Number of latent dimensions."""
    hidden: tuple[int, ...] = (600, 600)
    """Units of each hidden layer of the encoder; the decoder mirrors them. A convolutional network uses the first."""
    activation: Activation = "silu"
    """Non-linearity. The papers use softplus, which from default initialisation learns several times slower."""
    likelihood: LikelihoodName = "bernoulli"
    """p(x | z)."""
    learned_scale: bool = True
    """Whether the decoder gives every value its own scale (else one scale a channel is learned)."""
    levels: int = 256
    """Pixel levels of the discretised logistic."""
    network: Architecture = "mlp"
    """Fully connected or convolutional."""
    channels: tuple[int, ...] = (32, 64)
    """Channels of the convolutional stages, each of which halves the sides."""
    classes: int = 0
    """Number of classes that the networks are conditioned on; 0 for none."""


def build_encoder(config: VAEConfig) -> ConditionalNetwork:
    """Builds the network of q(z | x, y): mean and log-variance of every latent."""
    shape, outputs = Size(config.event_shape), 2 * config.latent
    if config.network == "mlp":
        return mlp(prod(shape), config.hidden, outputs, config.activation, classes=config.classes)
    width = config.hidden[0]
    return conv_encoder(shape, config.channels, width, outputs, config.activation, classes=config.classes)


def build_decoder(config: VAEConfig, outputs: int) -> ConditionalNetwork:
    """Builds the network of p(x | z, y), with `outputs` numbers for every value of x."""
    shape = Size(config.event_shape)
    if config.network == "mlp":
        hidden = config.hidden[::-1]
        return mlp(config.latent, hidden, outputs * prod(shape), config.activation, classes=config.classes)
    maps = outputs * shape[0]
    return conv_decoder(
        config.latent, config.hidden[0], config.channels, shape, maps, config.activation, classes=config.classes
    )


def diagonal_gaussian(raw: Tensor) -> tuple[Tensor, Tensor]:
    """Splits an encoder's output (..., 2 d) into mean and log-variance (..., d), in full precision."""
    mean, log_variance = at_least_single(raw).chunk(2, dim=-1)
    # no gradient comes back from past the bound, as a likelihood's does: the KL term keeps q(z|x) far from it
    return mean, log_variance.clamp(-2 * LOG_SCALE_BOUND, 2 * LOG_SCALE_BOUND)


def kl_to_standard_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, exp(log_variance)) || N(0, I)) [nats], summed over the last dimension (appendix B)."""
    return 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).sum(-1)


class VAE(GenerativeModel, Variational):
    """Gaussian latents, a likelihood by name; labels are ignored unless the configuration has classes.

    Example:
        >>> model = VAE(VAEConfig(event_shape=(1, 2, 2), latent=3, hidden=(8,)))
        >>> model.elbo(torch.zeros(5, 1, 2, 2)).shape
        torch.Size([5])
    """

    _zero: Tensor
    _one: Tensor

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        if config.latent < 1:
            raise UserError(f"expected at least one latent dimension, got latent = {config.latent}")
        if config.levels < 2:
            raise UserError(f"expected at least two pixel levels, got levels = {config.levels}")
        if config.classes < 0:
            raise UserError(f"expected no classes (0) or some, got classes = {config.classes}")
        if not config.hidden:
            raise UserError(f"expected at least one hidden layer of at least one unit, got hidden = {config.hidden}")
        if not config.event_shape or min(config.event_shape) < 1:
            raise UserError(f"expected an event_shape of at least one value, got {config.event_shape}")
        self.config = config
        self.event_shape, self.latent_shape = Size(config.event_shape), Size((config.latent,))
        self.output = Likelihood(
            config.likelihood, self.event_shape, levels=config.levels, learned_scale=config.learned_scale
        )
        self.encoder = build_encoder(config)
        self.decoder = build_decoder(config, self.output.outputs)
        # buffers, so that the prior follows the model to its device
        self.register_buffer("_zero", torch.zeros(config.latent), persistent=False)
        self.register_buffer("_one", torch.ones(config.latent), persistent=False)

    @property
    def classes(self) -> int:
        """Number of classes that the networks are conditioned on; 0 for none."""
        return self.config.classes

    def set_output_mean(self, mean: Tensor) -> None:
        """Starts the decoder at the mean of the data (*event_shape): training needn't first find it.

        Only for Bernoulli outputs of a fully connected decoder; does nothing otherwise.
        """
        last = self.decoder.head[-1] if isinstance(self.decoder.head, nn.Sequential) else None
        if self.config.likelihood == "bernoulli" and isinstance(last, nn.Linear):
            with torch.no_grad():
                last.bias.copy_(torch.logit(mean.flatten().to(last.bias), eps=1e-3))

    def check(self, x: Tensor) -> None:
        """Refuses events of another shape."""
        if x.shape[1:] != self.event_shape:
            expected = ", ".join(map(str, self.event_shape))
            raise UserError(f"expected events of shape (n, {expected}), got {tuple(x.shape)}")

    def check_values(self, x: Tensor, *, between_levels: bool = False) -> None:
        """Refuses values that p(x | z) isn't of, as `Likelihood.check_values`.

        It waits for the device, so it is for once and not for every step.
        """
        self.output.check_values(x, between_levels=between_levels)

    def prior(self, y: Labels | None = None) -> Distribution:
        """Returns N(0, I); the same for every class."""
        return Independent(Normal(self._zero, self._one, validate_args=False), 1, validate_args=False)

    def encode(self, x: Events, y: Labels | None = None) -> Distribution:
        """Returns q(z | x, y), a Gaussian with diagonal covariance."""
        self.check(x)
        mean, log_variance = diagonal_gaussian(self.encoder(x, y))
        return Independent(Normal(mean, torch.exp(0.5 * log_variance), validate_args=False), 1, validate_args=False)

    def likelihood(self, z: Latents, y: Labels | None = None) -> Distribution:
        """Returns p(x | z, y)."""
        return self.output(self.decoder(self.as_decoded(z), y))

    def as_decoded(self, z: Latents) -> Latents:
        """Returns latents in the type of the weights where these are of half precision: posteriors are in single."""
        return z.to(self._zero.dtype) if self._zero.dtype in HALVES else z

    def decode(self, z: Latents, y: Labels | None = None) -> Events:
        """Returns the mean of p(x | z, y)."""
        return self.likelihood(z, y).mean

    def elbo(
        self,
        x: Events,
        y: Labels | None = None,
        *,
        generator: Generator | None = None,
        noise: Tensor | None = None,
        kl_weight: float | Tensor = 1.0,
    ) -> PerExample:
        """Returns a one-sample evidence lower bound [nats], shape (n,); equation 10 of Kingma and Welling.

        Args:
            x: events (n, *event_shape).
            y: labels (n,), for a class-conditional model.
            generator: source of the noise.
            noise: standard normal draws (n, latent) to use instead.
            kl_weight: weight of the KL term; another than 1, beta, only in training: while it warms up, or throughout
                (Higgins et al., "beta-VAE", ICLR 2017, equation 4). It is a bound at 1 and above.
        """
        self.check(x)
        mean, log_variance = diagonal_gaussian(self.encoder(x, y))
        if noise is None:
            noise = torch.empty_like(mean).normal_(generator=generator)
        z = mean + torch.exp(0.5 * log_variance) * noise
        kl = kl_to_standard_normal(mean, log_variance)
        return self.likelihood(z, y).log_prob(x) - kl_weight * kl

    @torch.no_grad()
    def sample(
        self, n: int, y: Labels | None = None, *, generator: Generator | None = None, mean: bool = False
    ) -> Events:
        """Draws n events from the model; with `mean`, the means of p(x | z, y) at n latents of the prior.

        Raises:
            UserError: when classes are given to a model without.
        """
        if not self.classes:
            refuse_labels(self, y)
        z = torch.empty_like(self._zero.expand(n, -1)).normal_(generator=generator)
        distribution = self.likelihood(z, y)
        return distribution.mean if mean else self.output.draw(distribution, generator)
