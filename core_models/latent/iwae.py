r"""Importance-weighted bound.

.. math:: \mathcal{L}_k(x) = E_{z_1 \dots z_k \sim q(z|x)} \log \frac{1}{k} \sum_{i=1}^{k} \frac{p(x|z_i) p(z_i)}{q(z_i|x)}

which grows with k from the evidence lower bound (k = 1) to log p(x).

Source: Burda, Grosse and Salakhutdinov, "Importance weighted autoencoders", ICLR 2016, equation 8.
"""

from __future__ import annotations

from math import log, prod

import torch
from torch import Generator, Tensor

from ..base import Events, Labels, PerExample, Variational
from ..errors import UserError

VALUES_AT_ONCE = 2**23
"""Bound on draws x values held at once: 32 MiB a tensor in single precision."""


def log_weights(
    model: Variational, x: Events, y: Labels | None = None, *, k: int, generator: Generator | None = None
) -> Tensor:
    """Returns log p(x | z) + log p(z) - log q(z | x) [nats] at k draws z of q(z | x), shape (k, n)."""
    posterior = model.encode(x, y)
    # reparameterised by hand where the posterior is Gaussian, since torch's rsample takes no generator
    mean, scale = posterior.mean, posterior.stddev
    noise = torch.empty((k, *mean.shape), dtype=mean.dtype, device=mean.device).normal_(generator=generator)
    z = mean + scale * noise
    labels = None if y is None else y.repeat(k)
    flat = z.flatten(0, 1)
    reconstruction = model.likelihood(flat, labels).log_prob(x.repeat(k, *[1] * (x.dim() - 1))).view(k, -1)
    return reconstruction + model.prior(y).log_prob(z) - posterior.log_prob(z)


def iwae(
    model: Variational, x: Events, y: Labels | None = None, *, k: int, generator: Generator | None = None
) -> PerExample:
    """Returns the k-sample bound on log p(x | y) [nats], shape (n,); draws in blocks that bound the memory.

    Differentiable in the model's parameters. k = 1 is the evidence lower bound with its KL term sampled.
    """
    if k < 1:
        raise UserError(f"expected k of at least 1, got {k}")
    block = max(1, min(k, VALUES_AT_ONCE // max(1, len(x) * prod(x.shape[1:]))))
    total: Tensor | None = None
    for start in range(0, k, block):
        weights = log_weights(model, x, y, k=min(block, k - start), generator=generator).logsumexp(0)
        total = weights if total is None else torch.logaddexp(total, weights)
    assert total is not None
    return total - log(k)
