"""Purification: each image moved, within a box, to what the density holds likeliest, pixel after pixel.

Source: Song, Kim, Nowozin, Ermon and Kushman, "PixelDefend", ICLR 2018, section 4. Alone it is no defence against an
attacker who knows of it: Athalye, Carlini and Wagner 2018 left it 9 % accuracy at 8/255 on CIFAR-10.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from core_models.autoregressive import CausalImageModel
from core_models.base import Autoregressive, Labels
from core_models.errors import UserError
from core_models.modes import full_precision

from . import engines
from .greedy import Count, Greedy

Engine = Literal["auto", "naive", "cached", "fixed-point", "row"]
Images = Float[Tensor, "n channels height width"]

ENGINES: dict[str, Callable[[Greedy], Tensor]] = {
    "naive": engines.naive,
    "cached": engines.cached,
    "fixed-point": engines.fixed_point,
    "row": engines.row,
}


def purify(
    model: Autoregressive,
    x: Images,
    eps: int | Tensor,
    y: Labels | None = None,
    *,
    engine: Engine = "auto",
    batch_size: int = 64,
    count: Count | None = None,
) -> Images:
    """Purifies images; the answer doesn't depend on the engine, nor on how images are batched.

    Args:
        model: the density, in evaluation mode; its conditionals are distributions over levels.
        x: images (n, channels, height, width) in [0, 1], on the density's levels.
        eps: how far a value may move [levels], for all images or for each of them (n,).
        y: classes (n,), where the density is conditioned on them.
        engine: `naive` (one network pass for each pixel), `cached` (each layer's new column), `fixed-point` (all pixels
            at once until nothing changes), `row` (both, row by row), or `auto`, the fastest: for the models of
            `core_models.autoregressive` `cached`, or `row` for few images and on a GPU; `fixed-point` for any other.
        batch_size: images at a time.
        count: is told what it took.

    Returns:
        the purified images, of the type of x, no value farther than eps from where it was.

    Raises:
        UserError: when images are not of the density's shape, not in [0, 1] or not on its levels, when eps is out of
            range, or the engine needs a model of `core_models.autoregressive` and this is none.

    Example:
        >>> from core_models.autoregressive import PixelCNNPlusPlus, PixelCNNPlusPlusConfig
        >>> small = PixelCNNPlusPlusConfig(event_shape=(1, 4, 4), levels=8, filters=4, blocks=1, head="softmax")
        >>> density = PixelCNNPlusPlus(small).eval()
        >>> float((purify(density, torch.zeros(1, 1, 4, 4), eps=1) * 7).max()) <= 1
        True
    """
    if engine not in get_args(Engine):
        raise UserError(f"expected an engine among {', '.join(get_args(Engine))}, got {engine!r}")
    own = isinstance(model, CausalImageModel)
    if engine == "auto":
        engine = _fastest(own, min(len(x), batch_size), x.device.type)
    if engine in ("cached", "row") and not own:
        raise UserError(
            f"the engine {engine} reads the caches of core_models.autoregressive, {type(model).__name__} has none: "
            "choose fixed-point"
        )
    if isinstance(model, torch.nn.Module) and model.training:
        raise UserError("expected a density in evaluation mode (its dropout would stay on): call .eval() first")
    levels = image_levels(model, x)
    reach = _reaches(eps, len(x), model.levels).to(levels.device)
    if isinstance(model, CausalImageModel):
        y = model.check_labels(len(x), y)
    found = levels.clone()
    # what may not move is as it was
    moving = (reach > 0).nonzero()[:, 0]
    with torch.no_grad(), full_precision():  # in TF32 every other pixel would be a near-tie
        for some in moving.split(batch_size) if len(moving) else ():
            greedy = Greedy(model, levels[some], reach[some], None if y is None else y[some])
            if count is not None:
                greedy.count = count
            found[some] = ENGINES[engine](greedy)
    return found.to(x.dtype) / (model.levels - 1)


FEW = 12
"""Images below which `row` is faster than `cached` on a CPU: each small step takes its time whatever is computed."""


def _fastest(own: bool, n: int, device: str) -> Engine:
    if not own:
        return "fixed-point"
    return "cached" if n >= FEW and device == "cpu" else "row"


def image_levels(model: Autoregressive, x: Images) -> Tensor:
    """Returns images in [0, 1] as the density's levels.

    Raises:
        UserError: when they are not of its shape, not in [0, 1] or not on its levels.
    """
    return CausalImageModel.to_levels(model, x)  # type: ignore[arg-type]


def _reaches(eps: int | Tensor, n: int, levels: int) -> Tensor:
    reach = torch.as_tensor(eps)
    if reach.is_floating_point() and not bool((reach == reach.round()).all()):
        raise UserError(f"expected eps as a whole number of levels, got {eps}")
    if reach.dim() == 0:
        reach = reach.expand(n)
    if tuple(reach.shape) != (n,):
        raise UserError(f"expected one eps, or one for each of {n} images, got shape {tuple(reach.shape)}")
    if n and (int(reach.min()) < 0 or int(reach.max()) > 255):
        raise UserError(f"expected eps from 0 to 255 levels, got {int(reach.min())} to {int(reach.max())}")
    return reach.long()
