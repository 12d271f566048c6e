r"""Maximum likelihood, for every model whose density can be evaluated.

.. math:: \mathcal{L} = -\frac{1}{n} \sum_i \log p(x_i \mid y_i)

A latent-variable model is trained by a bound instead: `core_models.latent.NegativeELBO`.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Generator, Tensor

from .base import ExactLikelihood, Metrics, Objective, Scalar
from .data.pixels import Binarisation, binarise, dequantise
from .errors import UserError


class NegativeLogLikelihood(Objective):
    """Minus the log-likelihood, averaged over the batch.

    Args:
        model: any `ExactLikelihood` model.
        binarisation: how the pixels of a batch become events; "dynamic" draws them anew at every step. "static" is
            refused: its draw is made of a whole split, before there are batches.
        dequantise: levels that a pixel can take, each spread evenly over its share of [0, 1) anew at every step, for a
            density over continuous values; 0 leaves pixels as they are. On levels alone such a density grows for ever.
    """

    def __init__(self, model: ExactLikelihood, *, binarisation: Binarisation = "none", dequantise: int = 0) -> None:
        super().__init__()
        if dequantise and binarisation != "none":
            raise UserError(
                f"expected levels to dequantise or a binarisation, got both: {dequantise} and {binarisation}"
            )
        if binarisation == "static":
            raise UserError("expected pixels that are binarised before training, got static: binarise the whole split")
        self.model = model
        self.binarisation: Binarisation = binarisation
        self.dequantise = dequantise

    def forward(self, batch: Mapping[str, Tensor], generator: Generator | None = None) -> tuple[Scalar, Metrics]:
        """Returns the loss [nats] of a batch with images "x" (n, *event_shape) and, where there are, labels "y"."""
        x = binarise(batch["x"], self.binarisation, generator)
        x = dequantise(x, self.dequantise, generator) if self.dequantise else x
        loss = -self.model.log_prob(x, batch.get("y")).mean()
        return loss, {"negative_log_likelihood_nats": loss.detach()}
