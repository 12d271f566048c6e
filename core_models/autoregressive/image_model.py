r"""What all causal networks of images have in common: a density that is a product over pixels, in raster order.

.. math:: \log p(x \mid y) = \sum_{r,c} \log p(x_{r,c} \mid x_{<(r,c)}, y)

A network gives the features of every pixel from the pixels before it, by two streams: one that sees the rows above and
one that sees its own row as well. A head turns features into probabilities.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Generator, Size, Tensor
from torch.distributions import Categorical, Distribution

from ..base import Autoregressive, Events, GenerativeModel, Labels, PerExample
from ..data.advice import shape_advice
from ..errors import UserError
from ..layers.networks import refuse_labels, wrong_labels
from ..layers.row_scan import RowScan
from .heads import HeadName, head
from .scan import PixelScan

Levels = Int[Tensor, "n channels height width"]


@dataclass(frozen=True)
class ImageModelConfig:
    """What every causal image model is told."""

    event_shape: tuple[int, ...] = (3, 32, 32)
    """Channels, height and width of an image [pixels]."""
    levels: int = 256
    """Values that a sub-pixel can take."""
    head: HeadName = "logistic"
    """Distribution of a pixel: a free probability for each level, or a mixture of discretised logistics."""
    mixtures: int = 10
    """Components of the mixture."""
    classes: int = 0
    """Number of classes that the network is conditioned on; 0 for none."""


class CausalImageModel(GenerativeModel, Autoregressive):
    """A density of 8-bit images (or of any number of levels) in [0, 1], one pixel after the other.

    Args:
        config: shape, levels and head.
        features: numbers that the network gives for a pixel.
    """

    def __init__(self, config: ImageModelConfig, features: int) -> None:
        super().__init__()
        shape = tuple(config.event_shape)
        if len(shape) != 3 or min(shape) < 1:
            raise UserError(f"expected an event_shape of channels, height and width, got {shape}")
        if config.levels < 2:
            raise UserError(f"expected at least two pixel levels, got levels = {config.levels}")
        if config.mixtures < 1:
            raise UserError(f"expected at least one mixture component, got mixtures = {config.mixtures}")
        if config.classes < 0:
            raise UserError(f"expected no classes (0) or some, got classes = {config.classes}")
        self.config, self.levels = config, config.levels
        self.event_shape = Size(shape)
        self.head = head(config.head, features, shape[0], config.levels, config.mixtures)

    @abstractmethod
    def rows_above(self, x: Tensor | None, y: Tensor | None, scan: RowScan | None) -> Any:
        """Returns what the rows above say, in a form of the network's own.

        Args:
            x: images (n, height, width, channels + 1); None in a scan, which knows the rows above.
            y: classes (n,).
            scan: the scan under way.
        """

    @abstractmethod
    def own_row(self, x: Tensor | None, above: Any, y: Tensor | None, scan: RowScan | None) -> Tensor:
        """Returns features (n, height, width, features), or in a scan (columns, n, features) of the columns under way.

        Args:
            x: images (n, height, width, channels + 1); None in a scan, which knows what was written.
            above: what `rows_above` returned.
            y: classes (n,).
            scan: the scan under way.
        """

    @property
    def classes(self) -> int:
        """Number of classes that the model is conditioned on; 0 for none."""
        return self.config.classes

    def scaled(self, levels: Int[Tensor, "*pixels channels"]) -> Float[Tensor, "*pixels inputs"]:
        """Returns levels as the network takes them: in [-1, 1], and a channel of ones that padding lacks."""
        weight = next(self.parameters())
        x = levels.to(weight.dtype) * (2 / (self.levels - 1)) - 1
        return torch.cat([x, torch.ones_like(x[..., :1])], -1)

    def to_levels(self, x: Events) -> Levels:
        """Returns the levels of images in [0, 1].

        Raises:
            UserError: when the images are not of the model's shape, or not on its levels.
        """
        if tuple(x.shape[1:]) != tuple(self.event_shape):
            advice = shape_advice(self.event_shape, x.shape)
            raise UserError(f"expected images of shape {tuple(self.event_shape)}, got {tuple(x.shape[1:])}: {advice}")
        scaled = x.detach() * (self.levels - 1)
        levels = scaled.round()
        # the negation refuses NaN too
        if not bool(((scaled - levels).abs() <= 1e-3).all() & (levels >= 0).all() & (levels < self.levels).all()):
            if bool(torch.isnan(x).any()):
                raise UserError("expected images in [0, 1], got NaN")
            low, high = float(x.min()), float(x.max())
            if low < 0 or high > 1:
                raise UserError(f"expected images in [0, 1], got values from {low:g} to {high:g}")
            raise UserError(
                f"expected images of {self.levels} levels (multiples of 1/{self.levels - 1}), got values between them: "
                "round them first"
            )
        return levels.long()

    def check_labels(self, n: int, y: Labels | None) -> Labels | None:
        """Returns the classes to condition on, or None where the model has none.

        Raises:
            UserError: when it needs them and there are none, or they are out of range.
        """
        if not self.classes:
            return None
        if y is None:
            raise UserError(f"{type(self).__name__} is conditioned on {self.classes} classes: give y")
        if tuple(y.shape) != (n,) or (n and (int(y.min()) < 0 or int(y.max()) >= self.classes)):
            raise wrong_labels(y, n, self.classes)
        return y

    def features(self, levels: Levels, y: Labels | None = None) -> Float[Tensor, "n height width features"]:
        """Returns the features of every pixel of images given as levels; each depends on the pixels before only."""
        x = self.scaled(levels.permute(0, 2, 3, 1))
        return self.own_row(x, self.rows_above(x, y, None), y, None)

    def pixel_log_probs(self, x: Events, y: Labels | None = None) -> Float[Tensor, "n height width"]:
        """Returns log p(pixel | pixels before) [nats] of every pixel."""
        levels = self.to_levels(x)
        h = self.features(levels, self.check_labels(len(x), y))
        with torch.autocast(h.device.type, enabled=False):
            # in the type of the head's weights: single precision too where mixed precision gave features of half
            weight = next(self.head.parameters())
            return self.head.log_prob(h.to(weight.dtype), levels.permute(0, 2, 3, 1))

    def log_prob(self, x: Events, y: Labels | None = None) -> PerExample:
        """Returns log p(x | y) [nats] of images (n, channels, height, width) in [0, 1].

        Images lie on the model's levels, but the log-probability has a gradient in them: through what the network and
        the head read, exactly, and through the value whose probability is asked for, by the slope between the levels
        on both sides of it.

        Raises:
            UserError: when the images are not of the model's shape, not in [0, 1], or not on its levels.
        """
        if x.requires_grad and torch.is_grad_enabled():
            return self._log_prob_with_slope(x, y)
        return self.pixel_log_probs(x, y).flatten(1).sum(1)

    def _log_prob_with_slope(self, x: Events, y: Labels | None) -> PerExample:
        top = self.levels - 1
        levels, y = self.to_levels(x).permute(0, 2, 3, 1), self.check_labels(len(x), y)
        moving = x.to(next(self.parameters()).dtype).permute(0, 2, 3, 1) * top
        inputs = torch.cat([moving * (2 / top) - 1, torch.ones_like(moving[..., :1])], -1)
        parameters = self.head.parameters_of(self.own_row(inputs, self.rows_above(inputs, y, None), y, None))
        found = torch.zeros_like(moving[..., 0])
        for c in range(levels.shape[-1]):
            at = levels[..., c, None]
            above, below = (at + 1).clamp(max=top), (at - 1).clamp(min=0)
            three = self.head.channel_at(parameters, moving[..., :c], torch.cat([at, above, below], -1))
            score, upper, lower = three.split(1, -1)
            slope = (upper - lower).detach() / (above - below)
            # zero, and with the slope as its gradient
            moved = (moving[..., c, None] - moving[..., c, None].detach()) * slope
            found = found + (score + moved).squeeze(-1)
        return found.flatten(1).sum(1)

    def conditionals(self, x: Events, y: Labels | None = None) -> Distribution:
        """Returns p(level of sub-pixel i | sub-pixels before i, y) for all i at once, of batch shape that of x."""
        levels = self.to_levels(x).permute(0, 2, 3, 1)
        h = self.features(levels.permute(0, 3, 1, 2), self.check_labels(len(x), y))
        return Categorical(logits=self.head.all_channels(h, levels).permute(0, 3, 1, 2, 4), validate_args=False)

    def scan(self, n: int, y: Labels | None = None) -> PixelScan:
        """Returns a scan of n images: the same conditionals, one position at a time, from caches.

        Raises:
            UserError: when the model needs classes and y has none, or is out of range.
        """
        return PixelScan(self, n, self.check_labels(n, y))

    @torch.no_grad()
    def sample(self, n: int, y: Labels | None = None, *, generator: Generator | None = None) -> Events:
        """Draws n images (n, channels, height, width) in [0, 1].

        Raises:
            UserError: when the model needs classes and y has none, or is out of range; or when it has none and y has.
        """
        if not self.classes:
            refuse_labels(self, y)
        scan = self.scan(n, y)
        while not scan.finished:
            probabilities = scan.log_probs().exp()
            scan.choose(torch.multinomial(probabilities, 1, generator=generator).squeeze(-1))
        return scan.images()
