r"""Importance-weighted bound.

.. math:: \mathcal{L}_k(x) = E_{z_1 \dots z_k \sim q(z|x)}
          \log \frac{1}{k} \sum_{i=1}^{k} \frac{p(x|z_i) p(z_i)}{q(z_i|x)}

which grows with k from the evidence lower bound (k = 1) to log p(x).

Source: Burda, Grosse and Salakhutdinov, "Importance weighted autoencoders", ICLR 2016, equation 8.
"""

from __future__ import annotations

from math import log

import torch
from torch import Generator, Tensor

from ..base import Events, Labels, PerExample, Variational
from ..errors import UserError
from .draws import draw

VALUES_AT_ONCE = {"cpu": 2**20, "cuda": 2**27}
"""Bound on draws x values decoded at once. A processor is fastest when what it has just computed is still in its
cache: about a thousand rows of 784 values; a GPU when it has much to do."""


def log_weights(
    model: Variational, x: Events, y: Labels | None = None, *, k: int, generator: Generator | None = None
) -> Tensor:
    """Returns log p(x | z) + log p(z) - log q(z | x) [nats] at k draws z of q(z | x), shape (k, n)."""
    posterior = model.encode(x, y)
    z = draw(posterior, k, generator)
    labels = None if y is None else y.repeat(k)
    # one event needs no copies: all its rows can be the same memory
    events = x.expand(k, *x.shape[1:]) if len(x) == 1 else x.repeat(k, *[1] * (x.dim() - 1))
    reconstruction = model.likelihood(z.flatten(0, 1), labels).log_prob(events).view(k, -1)
    return reconstruction + model.prior(y).log_prob(z) - posterior.log_prob(z)


def iwae(
    model: Variational, x: Events, y: Labels | None = None, *, k: int, generator: Generator | None = None
) -> PerExample:
    """Returns the k-sample bound on log p(x | y) [nats], shape (n,); draws in blocks that bound the memory.

    Differentiable in the model's parameters. k = 1 is the evidence lower bound with its KL term sampled.
    """
    if k < 1:
        raise UserError(f"expected k of at least 1, got {k}")
    rows = max(1, VALUES_AT_ONCE.get(x.device.type, VALUES_AT_ONCE["cpu"]) // max(1, x[0].numel()))
    together = max(1, rows // k)  # whole events, as many as fit; else one, its draws in blocks
    bounds = []
    for start in range(0, len(x), together):
        events, labels = x[start : start + together], None if y is None else y[start : start + together]
        blocks = [
            log_weights(model, events, labels, k=min(rows, k - done), generator=generator).logsumexp(0)
            for done in range(0, k, rows)
        ]
        bounds.append(torch.stack(blocks).logsumexp(0))
    return torch.cat(bounds) - log(k)
