"""The scores that a density gives an image, all in bits per dimension and larger for more suspicious images.

- `bits_per_dim`: minus log2 p(x) over the number of sub-pixels (Song et al. 2018, section 3).
- `complexity`: the same less the bits of a lossless compressor (Serrà et al. 2020, see `complexity`).
- `ratio`: the same less the bits of a background model (Ren et al. 2019, see `likelihood_ratio`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import log, prod

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from core_models.base import ExactLikelihood
from core_models.errors import UserError
from core_models.evaluation import per_event

from .complexity import compressed_bits

SCORES = ("bits_per_dim", "complexity", "ratio")

Images = Float[Tensor, "n c h w"]
Scores = Float64[np.ndarray, " n"]


def as_images(x: Images | np.ndarray) -> Images:
    """Returns images of a tensor, as they are, or of an array of floats, as float32.

    Raises:
        UserError: when they are neither.
    """
    if isinstance(x, np.ndarray) and np.issubdtype(x.dtype, np.floating):
        return torch.as_tensor(np.ascontiguousarray(x), dtype=torch.float32)
    if isinstance(x, Tensor):
        return x
    came = f"an array of {x.dtype}: divide 8-bit levels by 255" if isinstance(x, np.ndarray) else type(x).__name__
    raise UserError(f"expected a tensor or an array of images (n, channels, height, width) in [0, 1], got {came}")


def bits_per_dim(
    density: nn.Module,
    x: Images | np.ndarray,
    *,
    batch_size: int = 64,
    on_batch: Callable[[int], None] | None = None,
) -> Scores:
    """Returns minus log2 p(x) per sub-pixel [bits/dim].

    Args:
        density: a module with an exact likelihood; put in evaluation mode for the time of the call.
        x: images (n, c, h, w) in [0, 1], a tensor or an array; moved to the model's device batch by batch.
        batch_size: images at a time.
        on_batch: called after each batch with the images done.

    Raises:
        UserError: when the model has no exact likelihood or gives an image NaN, the batch size is below 1, or x is
            neither tensor nor array of floats.
    """
    if not isinstance(density, ExactLikelihood):
        raise UserError(
            f"expected a density with an exact likelihood (log_prob), got {type(density).__name__}: "
            "train one with genapps pixeldefend train-density"
        )
    if batch_size < 1:
        raise UserError(f"batch_size: expected 1 or more, got {batch_size}")
    x = as_images(x)
    device = device_of(density)
    parts = []
    for start in range(0, len(x), batch_size):
        batch = x[start : start + batch_size].to(device)
        parts.append(per_event(density, batch, estimator="exact", batch_size=batch_size).numpy())  # type: ignore[arg-type]
        if on_batch:
            on_batch(start + len(batch))
    bits = np.concatenate(parts) / (prod(x.shape[1:]) * log(2)) if parts else np.empty(0)
    if np.isnan(bits).any():
        place = int(np.isnan(bits).argmax())
        raise UserError(
            f"{type(density).__name__} gives image {place} of a batch no probability (NaN): check its weights"
        )
    return bits


def scores_of(
    density: nn.Module,
    x: Images | np.ndarray,
    *,
    background: nn.Module | None = None,
    codecs: Sequence[str] = (),
    batch_size: int = 64,
    on_batch: Callable[[int], None] | None = None,
) -> dict[str, Scores]:
    """Returns the scores (n,) of images by name [bits/dim]: those of `SCORES` for which there is what they need.

    Args:
        density: the model.
        x: images (n, c, h, w) in [0, 1], of 256 levels, a tensor or an array.
        background: the model that the likelihood ratio is taken with; no `ratio` where None.
        codecs: the compressors of the complexity; no `complexity` where there are none.
        batch_size: images at a time.
        on_batch: called after each batch of the density with the images done.

    Raises:
        UserError: when a model has no exact likelihood, a compressor is unknown, or x is neither tensor nor array of
            floats.
    """
    x = as_images(x)
    bits = bits_per_dim(density, x, batch_size=batch_size, on_batch=on_batch)
    found = {"bits_per_dim": bits}
    if codecs:
        found["complexity"] = bits - compressed_bits(x, codecs) / prod(x.shape[1:])
    if background is not None:
        found["ratio"] = bits - bits_per_dim(background, x, batch_size=batch_size)
    return found


def device_of(model: nn.Module) -> torch.device:
    """Returns where a model's parameters, or else its buffers, lie: the CPU when it has none."""
    tensors = (tensor for source in (model.parameters(), model.buffers()) for tensor in source)
    first = next(tensors, None)
    return torch.device("cpu") if first is None else first.device
