r"""A fully connected network with batch normalisation and noise in every layer, as ladder networks and VAT train it.

.. math:: z_l = \mathrm{normalised}(W_l h_{l-1}) + \mathrm{noise}, \qquad
          h_l = \max(0, z_l + \beta_l), \qquad \mathrm{logits} = \gamma (z_L + \beta_L)

In training the means and variances are those of the batch, apart for every group of rows in it: labelled rows are few
and the same over and over, and would shift those of the others. A ReLU layer needs no scale of its own, since the next
one is normalised.

Where the logits are not normalised they are :math:`W_L h_{L-1} + \beta_L`, without a scale; programs for VAT call the
switch for it `top_bn`.

For predictions the statistics are those of all training rows, computed once after the training, layer by layer (the
authors of the ladder take those of the labelled rows).

Source: Rasmus, Valpola, Honkala, Berglund and Raiko, "Semi-supervised learning with ladder networks", NIPS 2015,
section 3.1; Ioffe and Szegedy, "Batch normalization", ICML 2015.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .discriminative import ClassifyingNetwork, widths

EPSILON = 1e-10
"""What is added to a variance."""


class Encoded(NamedTuple):
    """What the layers made of rows; lists run from the input (0) to the logits (L)."""

    z: list[Tensor]
    """Values after normalisation and noise, (n, width); the noisy input at 0."""
    mean: list[Tensor]
    """Batch means before normalisation, of the last group of rows, (width,); 0 where there is no normalisation."""
    deviation: list[Tensor]
    """Batch standard deviations, likewise; 1 where there is none."""
    logits: Float[Tensor, "n classes"]


class NormalisedNetwork(ClassifyingNetwork):
    """Maps rows to logits.

    Args:
        inputs: values of a row.
        hidden: units of the hidden layers.
        classes: number of classes.
        normalise_logits: whether the last layer is normalised and scaled too.
    """

    def __init__(self, inputs: int, hidden: Sequence[int], classes: int, *, normalise_logits: bool = True) -> None:
        super().__init__()
        self.widths = (inputs, *widths("hidden", hidden), classes)
        self.layers = nn.ModuleList(product(a, b) for a, b in pairwise(self.widths))
        self.shifts = nn.ParameterList(torch.zeros(width) for width in self.widths[1:])
        self.normalised = len(self.layers) if normalise_logits else len(self.layers) - 1
        if normalise_logits:
            self.scale = nn.Parameter(torch.ones(classes))
        for i, width in enumerate(self.widths[1 : self.normalised + 1], 1):
            self.register_buffer(f"mean_{i}", torch.zeros(width))
            self.register_buffer(f"deviation_{i}", torch.ones(width))

    def encode(self, x: Float[Tensor, "n inputs"], sizes: Sequence[int], noise: Sequence[Tensor | None]) -> Encoded:
        """Runs the layers on groups of rows that are normalised apart.

        Args:
            x: the groups, one after the other.
            sizes: rows of each group.
            noise: for the input and every layer, what is added to its first rows, (at most n, width), or None.
        """
        h = _added(x, noise[0])
        z, means, deviations = [h], [torch.zeros_like(x[0])], [torch.ones_like(x[0])]
        for i, layer in enumerate(self.layers):
            parts = []
            for part in layer(h).to(x.dtype).split(list(sizes)):
                mean, deviation = torch.zeros_like(part[0]), torch.ones_like(part[0])
                if i < self.normalised:
                    mean = part.mean(0)
                    deviation = (part.var(0, correction=0) + EPSILON).sqrt()
                    part = (part - mean) / deviation
                parts.append(part)
            z.append(_added(torch.cat(parts), noise[i + 1]))
            means.append(mean)
            deviations.append(deviation)
            h = z[-1] + self.shifts[i]
            if i < len(self.layers) - 1:
                h = h.relu()
        return Encoded(z, means, deviations, self._scaled(h))

    def logits(self, x: Float[Tensor, "n inputs"]) -> Float[Tensor, "n classes"]:
        """Returns the logits under the statistics that `settle` found."""
        h = x
        for i, layer in enumerate(self.layers, 1):
            h = layer(h)
            if i <= self.normalised:
                h = (h - self.get_buffer(f"mean_{i}")) / self.get_buffer(f"deviation_{i}")
            h = h + self.shifts[i - 1]
            if i < len(self.layers):
                h = h.relu()
        return self._scaled(h)

    def _scaled(self, h: Float[Tensor, "n classes"]) -> Float[Tensor, "n classes"]:
        return h * self.scale if self.normalised == len(self.layers) else h

    def settle(self, x: Float[Tensor, "n inputs"]) -> None:
        """Computes the statistics of training rows, layer by layer."""
        h = x
        for i, layer in enumerate(self.layers[: self.normalised], 1):
            z = torch.cat([layer(rows) for rows in h.split(5000)])
            self.get_buffer(f"mean_{i}").copy_(z.mean(0))
            self.get_buffer(f"deviation_{i}").copy_((z.var(0, correction=0) + EPSILON).sqrt())
            h = z.sub_(self.get_buffer(f"mean_{i}")).div_(self.get_buffer(f"deviation_{i}")).add_(self.shifts[i - 1])
            h = h.relu_()


def product(inputs: int, outputs: int) -> nn.Linear:
    """Builds a layer without a shift, whose initial weights keep the variance of its input."""
    layer = nn.Linear(inputs, outputs, bias=False)
    nn.init.normal_(layer.weight, std=inputs**-0.5)
    return layer


def _added(values: Tensor, noise: Tensor | None) -> Tensor:
    """Adds noise to the first rows."""
    if noise is None:
        return values
    if len(noise) == len(values):
        return values + noise
    return torch.cat([values[: len(noise)] + noise, values[len(noise) :]])
