"""What is minimised to train a latent-variable model: a bound, on freshly binarised pixels where it asks for them."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature

import torch
from torch import Generator, Tensor

from ..base import Metrics, Objective, Scalar, Variational
from ..data.pixels import Binarisation, binarise
from ..errors import UserError
from .iwae import iwae


class NegativeELBO(Objective):
    """Minus the evidence lower bound, averaged over the batch; `importance_samples` > 1 for the tighter IWAE-k.

    Args:
        model: any `Variational` model.
        binarisation: how the pixels of a batch become events; "dynamic" draws them anew at every step. "static" is
            refused: its draw is made of a whole split, before there are batches.
        importance_samples: k of the importance-weighted bound; 1 uses the model's own `elbo`.
        kl_warmup_steps: training steps over which the weight of the KL term rises linearly to 1; the model's `elbo`
            must take a `kl_weight`. It keeps latents from being switched off before the decoder can use them
            (Sønderby et al., "Ladder variational autoencoders", NIPS 2016, section 2.3).
    """

    step: Tensor

    def __init__(
        self,
        model: Variational,
        *,
        binarisation: Binarisation = "none",
        importance_samples: int = 1,
        kl_warmup_steps: int = 0,
    ) -> None:
        super().__init__()
        if binarisation == "static":
            raise UserError("expected pixels that are binarised before training, got static: binarise the whole split")
        if importance_samples < 1:
            raise UserError(f"expected importance_samples of at least 1, got {importance_samples}")
        if kl_warmup_steps < 0:
            raise UserError(f"expected a KL warm-up of 0 steps or more, got {kl_warmup_steps}")
        if kl_warmup_steps and importance_samples > 1:
            raise UserError("expected a KL term to warm up, but the importance-weighted bound has none: choose one")
        if kl_warmup_steps and "kl_weight" not in signature(model.elbo).parameters:
            name = type(model).__name__
            raise UserError(f"expected {name}.elbo to take kl_weight, which the warm-up sets, it doesn't: leave it out")
        self.model = model
        self.binarisation: Binarisation = binarisation
        self.importance_samples = importance_samples
        self.kl_warmup_steps = kl_warmup_steps
        # part of the state, so that a resumed run goes on at the same weight
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def forward(self, batch: Mapping[str, Tensor], generator: Generator | None = None) -> tuple[Scalar, Metrics]:
        """Returns the loss [nats] of a batch with images "x" (n, *event_shape) and, where there are, labels "y"."""
        x = binarise(batch["x"], self.binarisation, generator)
        y = batch.get("y")
        if self.importance_samples > 1:
            bound = iwae(self.model, x, y, k=self.importance_samples, generator=generator)
        elif self.kl_warmup_steps and self.training:
            self.step += 1
            weight = (self.step / self.kl_warmup_steps).clamp(max=1)
            bound = self.model.elbo(x, y, generator=generator, kl_weight=weight)  # type: ignore[call-arg]
        else:
            bound = self.model.elbo(x, y, generator=generator)
        loss = -bound.mean()
        return loss, {"negative_bound_nats": loss.detach()}
