"""What is minimised to train a latent-variable model: a bound, on freshly binarised pixels where it asks for them."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from math import isfinite

import torch
from torch import Generator, Tensor

from ..base import Metrics, Objective, Scalar, Variational
from ..data.pixels import Binarisation, binarise, dequantise
from ..errors import UserError
from .iwae import iwae


class NegativeELBO(Objective):
    """Minus the evidence lower bound, averaged over the batch; `importance_samples` > 1 for the tighter IWAE-k.

    Args:
        model: any `Variational` model.
        binarisation: how the pixels of a batch become events; "dynamic" draws them anew at every step. "static" is
            refused: its draw is made of a whole split, before there are batches.
        importance_samples: k of the importance-weighted bound; 1 uses the model's own `elbo`.
        kl_warmup_steps: training steps over which the weight of the KL term rises linearly to `kl_weight`, which
            the model's `elbo` must take. It keeps latents from being switched off before the decoder can use them
            (Sønderby et al., "Ladder variational autoencoders", NIPS 2016, section 2.3).
        kl_weight: what the weight of the KL term is, or rises to, in training: beta of Higgins et al., "beta-VAE",
            ICLR 2017, equation 4. In evaluation mode it is 1: what is measured is the bound.
        dequantise: levels that a pixel can take, each spread evenly over its share of [0, 1) anew at every step, for a
            likelihood over continuous values; 0 leaves pixels as they are. On levels alone such a density grows for
            ever: it is compared with nothing.

    A model that has `check_values`, as `VAE` has, is shown the first batch by it, unless the objective is compiled.
    """

    step: Tensor
    # attributes of the class, and of an object only where it differs: checkpoints of before know neither
    kl_weight = 1.0
    dequantise = 0

    def __init__(
        self,
        model: Variational,
        *,
        binarisation: Binarisation = "none",
        importance_samples: int = 1,
        kl_warmup_steps: int = 0,
        kl_weight: float = 1.0,
        dequantise: int = 0,
    ) -> None:
        super().__init__()
        if dequantise and binarisation != "none":
            raise UserError(
                f"expected levels to dequantise or a binarisation, got both: {dequantise} and {binarisation}"
            )
        if binarisation == "static":
            raise UserError("expected pixels that are binarised before training, got static: binarise the whole split")
        if importance_samples < 1:
            raise UserError(f"expected importance_samples of at least 1, got {importance_samples}")
        if kl_warmup_steps < 0:
            raise UserError(f"expected a KL warm-up of 0 steps or more, got {kl_warmup_steps}")
        if not (kl_weight >= 0 and isfinite(kl_weight)):
            raise UserError(f"expected a kl_weight of 0 or more, got {kl_weight}")
        if kl_warmup_steps and importance_samples > 1:
            raise UserError("expected a KL term to warm up, but the importance-weighted bound has none: choose one")
        if kl_weight != 1 and importance_samples > 1:
            raise UserError("expected a KL term to weigh, but the importance-weighted bound has none: choose one")
        if (kl_warmup_steps or kl_weight != 1) and "kl_weight" not in signature(model.elbo).parameters:
            name, what = type(model).__name__, "the warm-up" if kl_warmup_steps else "kl_weight"
            raise UserError(f"expected {name}.elbo to take kl_weight, which {what} sets, it doesn't: leave it out")
        self.model = model
        self.binarisation: Binarisation = binarisation
        self.importance_samples = importance_samples
        self.kl_warmup_steps = kl_warmup_steps
        if kl_weight != 1:
            self.kl_weight = float(kl_weight)
        if dequantise:
            self.dequantise = dequantise
        self._checked = False
        # part of the state, so that a resumed run goes on at the same weight
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def forward(self, batch: Mapping[str, Tensor], generator: Generator | None = None) -> tuple[Scalar, Metrics]:
        """Returns the loss [nats] of a batch with images "x" (n, *event_shape) and, where there are, labels "y".

        Raises:
            UserError: when the first batch has values that the model's likelihood isn't of.
        """
        if not (self._checked or torch.compiler.is_compiling()):  # once: reading would make a GPU wait at every step
            if callable(check := getattr(self.model, "check_values", None)):
                check(batch["x"], between_levels=True)
            self._checked = True
        x = binarise(batch["x"], self.binarisation, generator)
        x = dequantise(x, self.dequantise, generator) if self.dequantise else x
        y = batch.get("y")
        if self.importance_samples > 1:
            bound = iwae(self.model, x, y, k=self.importance_samples, generator=generator)
        elif self.kl_warmup_steps and self.training:
            self.step += 1
            weight = self.kl_weight * (self.step / self.kl_warmup_steps).clamp(max=1)
            bound = self.model.elbo(x, y, generator=generator, kl_weight=weight)  # type: ignore[call-arg]
        elif self.kl_weight != 1 and self.training:
            bound = self.model.elbo(x, y, generator=generator, kl_weight=self.kl_weight)  # type: ignore[call-arg]
        else:
            bound = self.model.elbo(x, y, generator=generator)
        loss = -bound.mean()
        return loss, {"negative_bound_nats": loss.detach()}
