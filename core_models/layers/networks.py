r"""Networks that may be conditioned on a class: a stem, a row of weights per class, a head.

.. math:: f(x, y) = \mathrm{head}(\mathrm{stem}(x) + R_y)

With an affine stem this is the first layer of a network applied to x and the one-hot y joined together,
:math:`W [x; e_y] + b = W_x x + b + W_y e_y`. Written apart, the product with x is computed once whatever the number
of classes that are tried on it, which is what marginalising over the class asks for.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod, sqrt
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Size, Tensor, nn

from ..base import Labels
from ..errors import UserError

Activation = Literal["relu", "softplus", "silu", "elu", "tanh"]
Architecture = Literal["mlp", "conv"]

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "softplus": nn.Softplus,
    "silu": nn.SiLU,
    "elu": nn.ELU,
    "tanh": nn.Tanh,
}


def activation(name: Activation) -> nn.Module:
    """Builds an activation by name."""
    if name not in _ACTIVATIONS:
        raise UserError(f"expected an activation among {', '.join(get_args(Activation))}, got {name!r}")
    return _ACTIVATIONS[name]()


def wrong_labels(y: Tensor, n: int, classes: int) -> UserError:
    """Says what is wrong with labels that are not one class for each of n events."""
    shape = tuple(y.shape)
    got = f"y of shape {shape}" if shape != (n,) else f"y from {y.min().item()} to {y.max().item()}"
    return UserError(f"expected {n} classes from 0 to {classes - 1}, got {got}: give each event its class")


def refuse_labels(model: nn.Module, y: Labels | None) -> None:
    """Refuses classes that a model is asked to draw from and doesn't have.

    Raises:
        UserError: when there are some.
    """
    if y is not None:
        raise UserError(
            f"expected no y, since {type(model).__name__} has no classes to draw from, got some: leave it out"
        )


class ConditionalNetwork(nn.Module):
    """head(stem(x) + R_y), with a cheap way to try every class.

    Args:
        stem: maps the input (n, ...) to (n, width), before the first activation that the class takes part in.
        head: maps (n, width) to the output (n, out); begins with an activation.
        width: size of what the stem returns.
        fan_in: number of inputs of the stem's last layer, for the spread of the initial rows R.
        classes: number of classes; 0 for a network that takes none.
    """

    def __init__(self, stem: nn.Module, head: nn.Module, width: int, fan_in: int, classes: int = 0) -> None:
        super().__init__()
        self.stem, self.head, self.classes = stem, head, classes
        bound = 1 / sqrt(fan_in + classes)  # as nn.Linear would draw the weights of the joined input
        self.rows = nn.Parameter(torch.empty(classes, width).uniform_(-bound, bound)) if classes else None

    def forward(self, x: Float[Tensor, "n ..."], y: Labels | None = None) -> Float[Tensor, "n out"]:
        """Returns the output for inputs x (n, ...) of classes y (n,).

        Raises:
            UserError: when there is not one class for each input or, on a CPU, one is out of range.
        """
        hidden = self.stem(x)
        if self.rows is not None:
            if y is None:
                raise UserError("expected a label for each input of a class-conditional network, got none: give y")
            hidden = hidden + self._rows_of(y, len(hidden))
        return self.head(hidden)

    def _rows_of(self, y: Labels, n: int) -> Float[Tensor, "n width"]:
        """Returns the rows of weights of classes y (n,)."""
        assert self.rows is not None
        if tuple(y.shape) != (n,):
            raise wrong_labels(y, n, self.classes)
        # -1, which stands for no label, would be the last class; on a GPU the check would cost every step two kernels
        found = torch.where(y < 0, self.classes, y) if y.device.type == "cpu" else y
        try:
            return self.rows[found]
        except IndexError as error:
            raise wrong_labels(y, n, self.classes) from error

    def every_class(self, x: Tensor, *, per_class: bool = False) -> Float[Tensor, "k n out"]:
        """Returns the outputs (k, n, out) under each of the k classes.

        Args:
            x: inputs (n, ...), the same for every class; or (k, n, ...), one set a class, with `per_class`.
            per_class: whether x has one set of inputs a class.
        """
        if self.rows is None:
            raise UserError("expected a class-conditional network, got one without classes")
        k = self.classes
        if per_class:
            hidden = self.stem(x.flatten(0, 1)).unflatten(0, (k, -1)) + self.rows.unsqueeze(1)
        else:
            hidden = self.stem(x).unsqueeze(0) + self.rows.unsqueeze(1)
        return self.head(hidden.flatten(0, 1)).unflatten(0, (k, -1))


def mlp(inputs: int, hidden: tuple[int, ...], outputs: int, act: Activation, *, classes: int = 0) -> ConditionalNetwork:
    """Builds a perceptron with at least one hidden layer; flattens its input."""
    if not hidden or min(hidden) < 1:
        raise UserError(f"expected at least one hidden layer of at least one unit, got hidden = {hidden}")
    layers: list[nn.Module] = []
    for width, following in zip(hidden, (*hidden[1:], outputs), strict=True):
        layers += [activation(act), nn.Linear(width, following)]
    stem = nn.Sequential(nn.Flatten(), nn.Linear(inputs, hidden[0]))
    return ConditionalNetwork(stem, nn.Sequential(*layers), hidden[0], inputs, classes)


def conv_encoder(
    event_shape: Size, channels: tuple[int, ...], width: int, outputs: int, act: Activation, *, classes: int = 0
) -> ConditionalNetwork:
    """Builds a convolutional encoder: each stage halves the sides, then one hidden layer of `width` units."""
    _check_image(event_shape, channels, width)
    stages: list[nn.Module] = []
    before = event_shape[0]
    for after in channels:
        stages += [nn.Conv2d(before, after, 4, stride=2, padding=1), activation(act)]
        before = after
    flat = channels[-1] * (event_shape[1] >> len(channels)) * (event_shape[2] >> len(channels))
    stem = nn.Sequential(*stages, nn.Flatten(), nn.Linear(flat, width))
    return ConditionalNetwork(stem, nn.Sequential(activation(act), nn.Linear(width, outputs)), width, flat, classes)


def conv_decoder(
    latent: int, width: int, channels: tuple[int, ...], event_shape: Size, outputs: int, act: Activation,
    *, classes: int = 0,
) -> ConditionalNetwork:  # fmt: skip
    """Builds the mirror of `conv_encoder`: latents (n, latent) to `outputs` flattened maps of the event's sides."""
    _check_image(event_shape, channels, width)
    small = (channels[-1], event_shape[1] >> len(channels), event_shape[2] >> len(channels))
    layers: list[nn.Module] = [activation(act), nn.Linear(width, prod(small)), activation(act)]
    layers.append(nn.Unflatten(1, small))
    for i, before in reversed(list(enumerate(channels))):
        after = channels[i - 1] if i else outputs
        layers.append(nn.ConvTranspose2d(before, after, 4, stride=2, padding=1))
        if i:
            layers.append(activation(act))
    layers.append(nn.Flatten())
    return ConditionalNetwork(nn.Linear(latent, width), nn.Sequential(*layers), width, latent, classes)


def _check_image(event_shape: Size, channels: tuple[int, ...], width: int) -> None:
    if not channels or min(channels) < 1:
        raise UserError(
            f"expected at least one stage of at least one channel of a convolutional network, got channels = {channels}"
        )
    if width < 1:
        raise UserError(f"expected a hidden layer of at least one unit, got {width}")
    halvings = len(channels)
    if len(event_shape) != 3:
        raise UserError(f"expected events of shape (channels, height, width), got {tuple(event_shape)}: use 'mlp'")
    for side in event_shape[1:]:
        if side % (1 << halvings):
            raise UserError(
                f"expected image sides divisible by {1 << halvings} for {halvings} convolutional stages, got "
                f"{event_shape[1]} x {event_shape[2]}: use fewer channels or resize"
            )
