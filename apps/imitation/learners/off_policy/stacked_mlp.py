"""Multilayer perceptrons of one shape as one network, their gradients written out: little else runs than the products.

    h_0 = x,   h_l = f(h_{l-1} W_l + b_l),   y = h_{L-1} W_L + b_L        for every copy at once

At the sizes of continuous control (256 rows, 256 units) an automatic differentiation engine spends as long on its own
bookkeeping as on half of the products, and it cannot be told that only some columns of an input need a gradient.
All parameters lie in one tensor, so Adam and a moving average are one call each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor

Activation = Literal["relu", "tanh"]


class StackedMLP:
    """Copies of a perceptron, each with weights of its own.

    Args:
        copies: how many.
        sizes: values in, units of each hidden layer, values out.
        activation: of the hidden layers.
        generator: draws the first weights, uniform within 1/sqrt(values in), as `torch.nn.Linear` does.

    Example:
        >>> twins = StackedMLP(2, (3, 8, 1), generator=torch.Generator().manual_seed(0))
        >>> layers = twins.forward(torch.ones(5, 3))
        >>> tuple(layers[-1].shape), tuple(twins.backward(layers, torch.ones(2, 5, 1), slice(1, 3)).shape)
        ((2, 5, 1), (2, 5, 2))
    """

    def __init__(
        self, copies: int, sizes: Sequence[int], activation: Activation = "relu", *, generator: Generator
    ) -> None:
        self.copies, self.sizes, self.activation = copies, tuple(sizes), activation
        shapes = [shape for n, m in pairwise(sizes) for shape in ((copies, n, m), (copies, 1, m))]
        self.flat = torch.empty(sum(prod(shape) for shape in shapes))
        """Every weight and bias, layer after layer."""
        self.flat.grad = torch.zeros_like(self.flat)
        self.weights, self.biases = _layers(self.flat, shapes)
        self.weight_grads, self.bias_grads = _layers(self.flat.grad, shapes)
        for w, b in zip(self.weights, self.biases, strict=True):
            bound = w.shape[1] ** -0.5
            w.uniform_(-bound, bound, generator=generator)
            b.uniform_(-bound, bound, generator=generator)
        self._spaces: dict[tuple[int, str], list[Tensor]] = {}

    def clone(self) -> StackedMLP:
        """Returns a copy with the same weights."""
        other = StackedMLP(self.copies, self.sizes, self.activation, generator=Generator())
        other.flat.copy_(self.flat)
        return other

    def forward(self, x: Float[Tensor, "*copies rows values"]) -> list[Tensor]:
        """Returns the input and what comes out of each layer, (copies, rows, units) each; the last is the output.

        They are overwritten by the next pass over as many rows.

        Args:
            x: input, the same for all copies where it has no axis for them.
        """
        layers = [x.expand(self.copies, -1, -1)]
        for w, b, out in zip(self.weights, self.biases, self._space(x.shape[-2], "forward"), strict=True):
            torch.baddbmm(b, layers[-1], w, out=out)
            layers.append(out if w is self.weights[-1] else activate_(out, self.activation))
        return layers

    def backward(
        self,
        layers: Sequence[Tensor],
        grad: Float[Tensor, "copies rows out"],
        columns: slice | None = None,
        *,
        parameters: bool = True,
    ) -> Tensor | None:
        """Writes the gradients of the parameters, in place of those that were there.

        Args:
            layers: what `forward` returned.
            grad: gradient of the output.
            columns: of the input, whose gradient is wanted.
            parameters: False leaves the gradients of the parameters as they are, and spares half of the work.

        Returns:
            the gradient of these columns, (copies, rows, columns), or None.
        """
        space = self._space(grad.shape[1], "backward")
        for layer in reversed(range(len(self.weights))):
            below, w = layers[layer], self.weights[layer]
            if parameters:
                torch.bmm(below.transpose(1, 2), grad, out=self.weight_grads[layer])
                torch.sum(grad, 1, keepdim=True, out=self.bias_grads[layer])
            if layer:
                grad = torch.bmm(grad, w.transpose(1, 2), out=space[layer - 1])
                back_(grad, below, self.activation)
        return None if columns is None else torch.bmm(grad, w[:, columns].transpose(1, 2))

    def _space(self, rows: int, what: str) -> list[Tensor]:
        """Returns memory for the layers of so many rows, each time the same.

        Tensors of this size, allocated anew, are memory that the system hands out page by page: it would take as long
        as the products.
        """
        if (rows, what) not in self._spaces:
            self._spaces[rows, what] = [torch.empty(self.copies, rows, units) for units in self.sizes[1:]]
        return self._spaces[rows, what]

    def act_function(self) -> Callable[[np.ndarray], np.ndarray]:
        """Returns the first copy as a function of arrays (rows, values), on the same memory: what acting needs.

        For one row NumPy takes a fifth of the time of torch.
        """
        weights, biases = [w[0].numpy() for w in self.weights], [b[0].numpy() for b in self.biases]

        def act(x: np.ndarray) -> np.ndarray:
            for w, b in zip(weights[:-1], biases[:-1], strict=True):
                x = x @ w
                x += b
                x = np.maximum(x, 0, out=x) if self.activation == "relu" else np.tanh(x, out=x)
            return x @ weights[-1] + biases[-1]

        return act


def activate_(x: Tensor, activation: Activation) -> Tensor:
    """Applies an activation in place."""
    if activation == "relu":
        return x.relu_()
    # tanh by the logistic function, which on a CPU takes a quarter of the time
    return x.mul_(2).sigmoid_().mul_(2).sub_(1)


def back_(grad: Tensor, activated: Tensor, activation: Activation) -> Tensor:
    """Multiplies a gradient by the activation's derivative, in place."""
    if activation == "relu":
        return torch.ops.aten.threshold_backward.grad_input(grad, activated, 0, grad_input=grad)
    return torch.ops.aten.tanh_backward.grad_input(grad, activated, grad_input=grad)


def _layers(flat: Tensor, shapes: Sequence[tuple[int, ...]]) -> tuple[list[Tensor], list[Tensor]]:
    parts = [part.view(shape) for part, shape in zip(flat.split([prod(s) for s in shapes]), shapes, strict=True)]
    return parts[::2], parts[1::2]
