r"""One step of purification: the likeliest value of a pixel within a box, given the pixels already purified.

.. math:: x'_i = \arg\max_{v \,\in\, [x_i - \epsilon,\; x_i + \epsilon] \cap [0, 255]} p(v \mid x'_{<i})

Channels of a pixel follow one another in the same way. The box is centred on the input, never on what became of it.

Floating-point sums differ in their last digits with the shape of a batch, so two ways to the same conditional may
disagree on an argmax that is nearly a tie. Where the best two values are closer than such differences, the pixel is
decided anew in double precision; of values equal even then, the lowest is taken. So the answer depends on the weights
and the image alone.

Source: Song, Kim, Nowozin, Ermon and Kushman, "PixelDefend", ICLR 2018, section 4 and algorithm 1.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from core_models.autoregressive import CausalImageModel
from core_models.base import Autoregressive
from core_models.errors import UserError

Levels = Int[Tensor, "n channels height width"]

LEAST_TIE = 2e-5
"""Least margin [nats] between the best two values that single precision is trusted with, at best."""
EQUAL = 1e-9
"""Margin [nats] below which two values are equal in double precision."""


@dataclass
class Count:
    """What a purification took."""

    passes: float = 0.0
    """Network passes over one whole image, summed over the images; a part of an image counts for its part (and in the
    engine `row`, for all of the network, though its vertical half is run once only)."""
    settled: int = 0
    """Pixels decided in double precision."""
    iterations: list[int] = field(default_factory=list)
    """Iterations of each image (`fixed-point`) or of each row (`row`) until nothing changed."""


class Greedy:
    """The greedy choice for a batch of images, pixel by pixel.

    Args:
        model: the density.
        levels: the images to purify, as levels.
        eps: how far a value may move [levels], one for each image.
        y: classes (n,), where the density is conditioned on them.
    """

    def __init__(self, model: Autoregressive, levels: Levels, eps: Int[Tensor, " n"], y: Tensor | None = None) -> None:
        self.model, self.input, self.y = model, levels, y
        top = model.levels - 1
        reach = eps.view(-1, 1, 1, 1)
        self.low, self.high = (levels - reach).clamp(min=0), (levels + reach).clamp(max=top)
        # no box is wider: of what lies beyond nothing is asked
        width = min(model.levels, 2 * int(eps.max()) + 1) if len(eps) else 1
        self.offsets = torch.arange(max(2, width), device=levels.device)
        self.count = Count()
        self.precise = precise(model, levels[:1], self.classes(torch.arange(min(1, len(levels)))))

    def classes(self, images: Tensor) -> Tensor | None:
        """Returns the classes of some of the images."""
        return None if self.y is None else self.y[images]

    def asked(self, low: Int[Tensor, " m"]) -> Int[Tensor, "m width"]:
        """Returns the values of each box from its lowest on, and the highest level where it has no more of them."""
        return (low[:, None] + self.offsets).clamp(max=self.model.levels - 1)

    def best(
        self, scores: Float[Tensor, "m width"], low: Int[Tensor, " m"], high: Int[Tensor, " m"]
    ) -> tuple[Int[Tensor, " m"], Bool[Tensor, " m"]]:
        """Returns the best value within each box, and whether single precision can't tell it from the next.

        Args:
            scores: of the values that are `asked` for.
            low: the lowest value of each box.
            high: the highest.
        """
        outside = self.offsets > (high - low)[:, None]
        if scores.dtype == torch.float64:
            scores = scores.masked_fill(outside, -torch.inf)
            if bool(scores.isnan().any()):
                raise UserError(f"{type(self.model).__name__} gives values no probability (NaN): check its weights")
            # where a box holds no value of any probability all are equal in it, and outside it none is
            near = (scores >= scores.amax(-1, keepdim=True) - EQUAL) & ~outside
            return low + near.int().argmax(-1), torch.zeros_like(low, dtype=torch.bool)
        best, index = scores.masked_fill(outside, -torch.inf).topk(2, -1)
        # a box of one value has no second; NaN in the margin counts as a tie
        clear = (best[:, 0] - best[:, 1]) > self.precise.tie
        return low + index[:, 0], ~clear

    def pixels(
        self, parameters: Float[Tensor, "m outputs"], low: Int[Tensor, "m channels"], high: Int[Tensor, "m channels"]
    ) -> tuple[Int[Tensor, "m channels"], Bool[Tensor, " m"]]:
        """Chooses whole pixels, one channel after the other, from what the head makes of their features.

        Returns:
            the levels, and which pixels are too close to a tie for single precision.
        """
        assert isinstance(self.model, CausalImageModel)
        head = self.model.head
        chosen, close = low[:, :0], torch.zeros(len(low), dtype=torch.bool, device=low.device)
        for c in range(low.shape[1]):
            scores = head.scores_at(parameters, chosen, self.asked(low[:, c]))
            value, tie = self.best(scores, low[:, c], high[:, c])
            chosen, close = torch.cat([chosen, value[:, None]], 1), close | tie
        return chosen, close

    def settle(
        self, levels: Levels, images: Int[Tensor, " n"], rows: Int[Tensor, " n"], columns: Int[Tensor, " n"]
    ) -> Int[Tensor, "n channels"]:
        """Decides one pixel of each of some images in double precision.

        Args:
            levels: these images, final before the pixel in question.
            images: their numbers.
            rows: row of each one's pixel.
            columns: column of each one's pixel.
        """
        self.count.settled += len(images)
        height = int(rows.max()) + 1  # what comes later has no say
        self.count.passes += len(images) * height / levels.shape[2]
        each = torch.arange(len(images), device=levels.device)
        low, high = self.low[images, :, rows, columns], self.high[images, :, rows, columns]
        double, y = self.precise.model, self.classes(images)
        if isinstance(double, CausalImageModel):
            h = double.features(levels[:, :, :height], y)[each, rows, columns]
            parameters = double.head.parameters_of(h)
            chosen = low[:, :0]
            for c in range(low.shape[1]):
                scores = double.head.scores_at(parameters, chosen, self.asked(low[:, c]))
                value, _ = self.best(scores, low[:, c], high[:, c])
                chosen = torch.cat([chosen, value[:, None]], 1)
            return chosen
        levels = levels.clone()
        for c in range(low.shape[1]):
            scores = conditional_scores(double, levels, y)[each, c, rows, columns].gather(-1, self.asked(low[:, c]))
            levels[each, c, rows, columns], _ = self.best(scores, low[:, c], high[:, c])
        return levels[each, :, rows, columns]


def conditional_scores(model: Autoregressive, levels: Levels, y: Tensor | None) -> Tensor:
    """Returns log p(value | what comes before) [nats] of every sub-pixel, (n, channels, height, width, levels).

    Raises:
        UserError: when the model's conditionals are not distributions over levels.
    """
    assert isinstance(model, torch.nn.Module)
    dtype = next((p.dtype for p in model.parameters()), torch.get_default_dtype())
    found = model.conditionals(levels.to(dtype) / (model.levels - 1), y)
    logits = getattr(found, "logits", None)
    if logits is None or tuple(logits.shape) != (*levels.shape, model.levels):
        raise UserError(
            f"expected conditionals of {type(model).__name__} to be a Categorical over its {model.levels} levels for "
            f"every sub-pixel, got {type(found).__name__}"
        )
    return logits


@dataclass
class Precise:
    """A density in double precision, and how far single precision is to be trusted.

    Attributes:
        checksum: tells the weights that it was made of, and where they lie.
        model: the copy.
        tie: margin [nats] above which single precision surely names the better of two values.
    """

    checksum: tuple[str, float, float]
    model: Autoregressive
    tie: float


_PRECISE: WeakKeyDictionary[torch.nn.Module, Precise] = WeakKeyDictionary()


def precise(model: Autoregressive, levels: Levels, y: Tensor | None) -> Precise:
    """Returns a density's copy in double precision, made anew when its weights have changed.

    Single precision is trusted with margins of four times the largest error of a score on one image, all its pixels and
    levels: a margin's error is at most twice a score's.

    Args:
        model: the density.
        levels: one image, as levels.
        y: its class (1,), where the density is conditioned on it.
    """
    assert isinstance(model, torch.nn.Module)
    parameters = [p.detach() for p in (*model.parameters(), *model.buffers())]
    # the second sum tells weights in another order apart
    flat = torch.cat([torch.zeros(0, device=levels.device), *(p.flatten().float() for p in parameters)])
    checksum = (
        str(levels.device),
        float(sum(p.abs().sum().double() for p in parameters)),
        float(flat @ torch.linspace(0.5, 1.5, len(flat), device=flat.device)),
    )
    found = _PRECISE.get(model)
    if found is None or found.checksum != checksum:
        double = deepcopy(model).double()
        # of values of no probability, -inf, there is no difference
        error = (_scores(double, levels, y) - _scores(model, levels, y)).abs().nan_to_num(nan=0.0).max()
        found = _PRECISE[model] = Precise(checksum, double, max(LEAST_TIE, 4 * float(error)))
    return found


def _scores(model: Autoregressive, levels: Levels, y: Tensor | None) -> Tensor:
    """Returns the scores of all levels of every sub-pixel, in the form that the engines compare."""
    if not isinstance(model, CausalImageModel):
        return conditional_scores(model, levels, y)
    parameters, seen = model.head.parameters_of(model.features(levels, y)), levels.permute(0, 2, 3, 1)
    return torch.stack([model.head.scores(parameters, seen[..., :c]) for c in range(levels.shape[1])], -2)
