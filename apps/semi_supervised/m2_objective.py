r"""The networks and the loss of M2, in which the class is a latent variable that some rows reveal.

For a labelled row, with a uniform p(y),

.. math:: -\mathcal{L}(x, y) = -E_{q(z|x,y)}[\log p(x|y,z) + \log p(y) + \log p(z) - \log q(z|x,y)]

for an unlabelled one, the sum over classes being exact,

.. math:: -\mathcal{U}(x) = \sum_y q(y|x) (-\mathcal{L}(x, y)) - H(q(y|x))

and what is minimised is, per row of the N rows of which n_l are labelled,

.. math:: \frac{n_u}{N} \overline{-\mathcal{U}} + \frac{n_l}{N} \overline{-\mathcal{L}}
          + \alpha \, \overline{-\log q(y|x)} + \frac{w}{2N} \|\theta\|^2

with bars for means over rows. In the paper's own terms the third weight is alpha N against *sums* (alpha = 0.1 there
stands for 0.1 N / n_l on the sum of n_l terms): put on means of a batch as it is, it would weigh the classifier N / n_l
times too much. The last term is a N(0, 1 / w) prior on the weights.

Left to itself this loss often leaves y unused, since z alone explains an image well and KL(q(y|x) || p(y)) asks for a
uniform q(y|x); or it gives y another meaning than the labels'. Two measures of the first epochs keep y to the labels;
after them the loss is the one above. First, q(y|x) learns from the labelled rows alone while it already weighs the
bounds, so that what p(x|y,z) first hears of the classes is what the labels say. And the weight of that KL term rises
from 0 to 1: the warm-up of Bowman et al. (2016) and Sonderby et al. (2016), applied to y.

Source: Kingma, Rezende, Mohamed and Welling, "Semi-supervised learning with deep generative models", NIPS 2014,
sections 2.1 and 3, equations 6 to 9.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import log
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from core_models.base import Metrics, Scalar
from core_models.latent import ConditionalVAE, ConditionalVAEConfig
from core_models.layers.networks import ConditionalNetwork, conv_encoder, mlp
from core_models.training import StackableObjective

from .observation import Observation, observation_noise, observe


class M2Network(nn.Module):
    """The three networks of M2: q(y | x), and q(z | x, y) with p(x | y, z) in a class-conditional VAE."""

    def __init__(self, config: ConditionalVAEConfig) -> None:
        super().__init__()
        self.vae = ConditionalVAE(config)
        shape = self.vae.event_shape
        self.classifier: ConditionalNetwork
        if config.network == "mlp":
            self.classifier = mlp(shape.numel(), config.hidden, config.classes, config.activation)
        else:
            self.classifier = conv_encoder(shape, config.channels, config.hidden[0], config.classes, config.activation)
        # q(y | x) starts uniform: no class is favoured before a label has been seen
        last = self.classifier.head[-1]  # type: ignore[index]
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def log_q(self, x: Tensor) -> Tensor:
        """Returns log q(y | x) [nats], shape (n, classes)."""
        logits = self.classifier(x)
        return F.log_softmax(logits.float() if logits.dtype == torch.bfloat16 else logits, dim=1)


class Noise(NamedTuple):
    """All that one evaluation of the objective draws, so that it can be drawn apart from it."""

    labelled: Tensor | None
    labelled_latent: Tensor
    unlabelled: Tensor | None
    unlabelled_latent: Tensor | None


class M2Objective(StackableObjective):
    """The loss above, over batches with "labelled" rows, their codes "y" and "unlabelled" rows.

    Args:
        network: the networks.
        n_labelled: labelled rows of the whole training set.
        n_unlabelled: unlabelled rows of the whole training set.
        alpha: weight of the mean cross-entropy of q(y | x) on labelled rows.
        observation: what the networks are shown of a stored row.
        labels_first_steps: steps at first in which q(y | x) learns from the labelled rows alone.
        class_warmup_steps: steps over which the weight of KL(q(y | x) || p(y)) rises from 0 to 1. Both count by "step"
            of the batch.
        class_by_class: marginalise the plain way, one bound a class (the reference; slower, same numbers).
    """

    def __init__(
        self,
        network: M2Network,
        *,
        n_labelled: int,
        n_unlabelled: int,
        alpha: float = 0.1,
        observation: Observation = "as is",
        labels_first_steps: int = 0,
        class_warmup_steps: int = 0,
        class_by_class: bool = False,
    ) -> None:
        super().__init__()
        self.network = network
        total = n_labelled + n_unlabelled
        self.labelled_weight, self.unlabelled_weight = n_labelled / total, n_unlabelled / total
        self.alpha = alpha
        self.observation: Observation = observation
        self.labels_first_steps, self.class_warmup_steps = labels_first_steps, class_warmup_steps
        self.class_by_class = class_by_class

    def noise(self, batch: Mapping[str, Tensor], generator: Generator | None = None) -> Noise:
        """Draws what `loss` needs for a batch."""

        def normal(*shape: int) -> Tensor:
            like = batch["labelled"]
            return torch.empty(shape, dtype=like.dtype, device=like.device).normal_(generator=generator)

        vae = self.network.vae
        labelled, unlabelled = batch["labelled"], batch.get("unlabelled")
        latent = vae.latent_shape[0]
        first = observation_noise(self.observation, labelled, generator), normal(len(labelled), latent)
        if unlabelled is None:
            return Noise(*first, None, None)
        second = observation_noise(self.observation, unlabelled, generator)
        return Noise(*first, second, normal(vae.classes, len(unlabelled), latent))

    def loss(self, batch: Mapping[str, Tensor], noise: Noise) -> tuple[Scalar, Metrics]:
        """Returns the loss [nats per row] and its parts, given its noise: no randomness of its own."""
        network, vae, y = self.network, self.network.vae, batch["y"]
        log_prior = -log(vae.classes)
        kl_weight: float | Tensor = 1.0
        x_l = observe(self.observation, batch["labelled"], noise.labelled)
        x_u = None
        if "unlabelled" in batch:
            x_u = observe(self.observation, batch["unlabelled"], noise.unlabelled)
        log_q = network.log_q(x_l if x_u is None else torch.cat([x_l, x_u]))
        log_q_l, log_q_u = log_q[: len(x_l)], log_q[len(x_l) :]
        labelled = -(vae.elbo(x_l, y, noise=noise.labelled_latent) + log_prior).mean()
        cross_entropy = F.nll_loss(log_q_l, y)
        loss = self.labelled_weight * labelled + self.alpha * cross_entropy
        metrics = {"labelled_nats": labelled.detach(), "cross_entropy_nats": cross_entropy.detach()}
        if x_u is not None:
            every_class = vae.elbo_class_by_class if self.class_by_class else vae.elbo_every_class
            bounds = every_class(x_u, noise=noise.unlabelled_latent).T
            if self.labels_first_steps:
                log_q_u = torch.where(batch["step"] < self.labels_first_steps, log_q_u.detach(), log_q_u)
            if self.class_warmup_steps:
                kl_weight = (batch["step"] / self.class_warmup_steps).clamp(max=1)
            unlabelled = -(log_q_u.exp() * (bounds - kl_weight * (log_q_u - log_prior))).sum(1).mean()
            loss = loss + self.unlabelled_weight * unlabelled
            metrics["unlabelled_nats"] = unlabelled.detach()
            metrics["class_entropy_nats"] = -(log_q_u.exp() * log_q_u).sum(1).mean().detach()
        return loss, {"loss_nats": loss.detach(), **metrics}
