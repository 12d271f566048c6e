r"""Class-conditional variational auto-encoder, the model behind M2, and its bound under every class at once.

.. math:: \log p(x \mid y) \ge E_{q(z|x,y)}[\log p(x|y,z)] - KL(q(z|x,y) \| p(z))

Semi-supervised training needs this bound for all k classes of every unlabelled event. The plain way calls `elbo` k
times; `elbo_every_class` computes what does not depend on the class once, and the rest as one batch of k n events.

Source: Kingma, Rezende, Mohamed and Welling, "Semi-supervised learning with deep generative models", NIPS 2014,
section 2.1 (M2) and equations 6 to 8.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from ..base import Events, Labels
from ..errors import UserError
from .vae import VAE, VAEConfig, diagonal_gaussian, kl_to_standard_normal


@dataclass(frozen=True)
class ConditionalVAEConfig(VAEConfig):
    """What a class-conditional variational auto-encoder is made of; as `VAEConfig`, with classes."""

    hidden: tuple[int, ...] = (500,)
    """Units of each hidden layer of the encoder; the decoder mirrors them. A convolutional network uses the first."""
    classes: int = 10
    """Number of classes; at least two."""


class ConditionalVAE(VAE):
    """q(z | x, y), p(x | y, z) and a prior on z that knows no class: style apart from content."""

    config: ConditionalVAEConfig

    def __init__(self, config: ConditionalVAEConfig) -> None:
        if config.classes < 2:
            raise UserError(f"expected at least two classes, got classes = {config.classes}")
        super().__init__(config)

    def elbo_every_class(
        self, x: Events, *, generator: Generator | None = None, noise: Tensor | None = None
    ) -> Float[Tensor, "k n"]:
        """Returns one-sample lower bounds on log p(x | y) [nats] for every class y, shape (k, n).

        Row y equals `elbo(x, y)` given the same noise (k, n, latent).
        """
        self.check(x)
        mean, log_variance = diagonal_gaussian(self.encoder.every_class(x))
        if noise is None:
            noise = torch.empty_like(mean).normal_(generator=generator)
        z = mean + torch.exp(0.5 * log_variance) * noise
        likelihood = self.output(self.decoder.every_class(self.as_decoded(z), per_class=True))
        return likelihood.log_prob(x.expand(self.classes, *x.shape)) - kl_to_standard_normal(mean, log_variance)

    def elbo_class_by_class(
        self, x: Events, *, generator: Generator | None = None, noise: Tensor | None = None
    ) -> Float[Tensor, "k n"]:
        """The plain way to the same numbers: one `elbo` a class. Kept as the reference that tests compare with."""
        rows = []
        for y in range(self.classes):
            labels: Labels = torch.full((len(x),), y, dtype=torch.long, device=x.device)
            rows.append(self.elbo(x, labels, generator=generator, noise=None if noise is None else noise[y]))
        return torch.stack(rows)

    @torch.no_grad()
    def sample(
        self, n: int, y: Labels | None = None, *, generator: Generator | None = None, mean: bool = False
    ) -> Events:
        """Draws n events, of classes y (n,) where given, else of classes drawn uniformly."""
        if y is None:
            device = self._zero.device
            y = torch.randint(self.classes, (n,), generator=generator, device=device)
        return super().sample(n, y, generator=generator, mean=mean)
