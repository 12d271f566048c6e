"""A scan: the conditionals of an image model one position at a time, from caches, the caller choosing each value.

Source: Ramachandran et al., "Fast generation for convolutional autoregressive models", ICLR 2017 workshop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.distributions import Categorical, Distribution

from ..base import Autoregressive, GenerativeModel
from ..layers.row_scan import RowScan

if TYPE_CHECKING:
    from .image_model import CausalImageModel

Row = Int[Tensor, "columns n channels"]


class RowByRow:
    """The features of n images, a row at a time; within a row as often, and from as far left, as the caller likes.

    Args:
        model: the image model.
        n: images.
        y: classes (n,), where the model has them.
    """

    def __init__(self, model: CausalImageModel, n: int, y: Tensor | None = None) -> None:
        channels, height, width = model.event_shape
        self.model, self.n, self.y = model, n, y
        self._rows = RowScan(n, (channels + 1, height, width), next(model.parameters()))
        self._above: Any = None

    @property
    def row(self) -> int:
        """The row under way."""
        return self._rows.row

    def begin_row(self) -> None:
        """Takes in the rows above, all of which are known."""
        self._above = self.model.rows_above(None, self.y, self._rows)

    def write(self, start: int, levels: Row) -> None:
        """Sets levels (columns, n, channels) of the row under way, from a column on."""
        self._rows.write(start, self.model.scaled(levels))

    def features(self, start: int, stop: int) -> Float[Tensor, "columns n features"]:
        """Returns the features of columns [start, stop) of the row under way, from what was written to their left.

        The first call in a row starts at column 0. What is to the left of `start` must be as it was when it was last
        computed.
        """
        self._rows.columns = (start, stop)
        y = None if self.y is None else self.y[self._rows.images]
        return self.model.own_row(None, self._above, y, self._rows)

    def select(self, kept: Int[Tensor, " kept"]) -> None:
        """Goes on with some of the images until the row ends; `kept` are positions among the present ones."""
        self._rows.select(kept)

    def end_row(self) -> None:
        """Takes the row, as written, as final for all images."""
        self._rows.end_row()


class PixelScan:
    """One position after the other: channel after channel, column after column, row after row.

    Args:
        model: the image model.
        n: images.
        y: classes (n,), where the model has them.

    Example:
        >>> scan = model.scan(16)  # doctest: +SKIP
        >>> while not scan.finished:  # doctest: +SKIP
        ...     scan.choose(scan.conditional().sample())
        >>> images = scan.images()  # doctest: +SKIP
    """

    def __init__(self, model: CausalImageModel, n: int, y: Tensor | None = None) -> None:
        self.model = model
        self.channels, self.height, self.width = model.event_shape
        self._rows = RowByRow(model, n, y)
        weight = next(model.parameters())
        self._levels = torch.zeros(self.height, self.width, n, self.channels, dtype=torch.long, device=weight.device)
        self.position = 0
        self._parameters: Tensor | None = None

    @property
    def finished(self) -> bool:
        """Whether every value is chosen."""
        return self.position == self.height * self.width * self.channels

    @property
    def place(self) -> tuple[int, int, int]:
        """Row, column and channel of the position whose turn it is."""
        pixel, channel = divmod(self.position, self.channels)
        return (*divmod(pixel, self.width), channel)

    @torch.no_grad()
    def log_probs(self) -> Float[Tensor, "n levels"]:
        """Returns log p(each level | everything chosen so far) [nats] of the position whose turn it is."""
        row, column, channel = self.place
        if self._parameters is None:
            if column == 0:
                if row:
                    self._rows.end_row()
                self._rows.begin_row()
            self._parameters = self.model.head.parameters_of(self._rows.features(column, column + 1)[0])
        return self.model.head.channel(self._parameters, self._levels[row, column, :, :channel])

    def conditional(self) -> Distribution:
        """Returns the distribution of the level of the position whose turn it is, of batch shape (n,)."""
        return Categorical(logits=self.log_probs(), validate_args=False)

    def choose(self, levels: Int[Tensor, " n"]) -> None:
        """Sets the level of the position whose turn it is, and moves to the next."""
        if self._parameters is None:
            self.log_probs()
        row, column, channel = self.place
        self._levels[row, column, :, channel] = levels
        if channel == self.channels - 1:
            self._rows.write(column, self._levels[row, column : column + 1])
            self._parameters = None
        self.position += 1

    def images(self) -> Float[Tensor, "n channels height width"]:
        """Returns what was chosen, in [0, 1]; zero where nothing was yet."""
        return self._levels.permute(2, 3, 0, 1).to(next(self.model.parameters()).dtype) / (self.model.levels - 1)


class FullScan:
    """The scan of a model without caches, or of one whose caches are to be checked: all conditionals at every position.

    Args:
        model: a model of images (channels, height, width) that has `conditionals`.
        n: images.
        y: classes (n,), where the model has them.
    """

    def __init__(self, model: Autoregressive, n: int, y: Tensor | None = None) -> None:
        assert isinstance(model, GenerativeModel)
        self._conditionals, self.y = model.conditionals, y
        self.levels = model.levels
        self.channels, self.height, self.width = model.event_shape
        weight = next(model.parameters())
        self._levels = torch.zeros(n, *model.event_shape, dtype=torch.long, device=weight.device)
        self._dtype = weight.dtype
        self.position = 0

    @property
    def finished(self) -> bool:
        """Whether every value is chosen."""
        return self.position == self._levels[0].numel()

    @property
    def place(self) -> tuple[int, int, int]:
        """Row, column and channel of the position whose turn it is."""
        pixel, channel = divmod(self.position, self.channels)
        return (*divmod(pixel, self.width), channel)

    @torch.no_grad()
    def log_probs(self) -> Float[Tensor, "n levels"]:
        """Returns log p(each level | everything chosen so far) [nats] of the position whose turn it is."""
        row, column, channel = self.place
        found = self._conditionals(self.images(), self.y)
        assert isinstance(found, Categorical)
        return found.logits[:, channel, row, column]

    def conditional(self) -> Distribution:
        """Returns the distribution of the level of the position whose turn it is, of batch shape (n,)."""
        return Categorical(logits=self.log_probs(), validate_args=False)

    def choose(self, levels: Int[Tensor, " n"]) -> None:
        """Sets the level of the position whose turn it is, and moves to the next."""
        row, column, channel = self.place
        self._levels[:, channel, row, column] = levels
        self.position += 1

    def images(self) -> Float[Tensor, "n channels height width"]:
        """Returns what was chosen, in [0, 1]; zero where nothing was yet."""
        return self._levels.to(self._dtype) / (self.levels - 1)
