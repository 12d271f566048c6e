"""What a model sees of a stored row, drawn anew at every step: binary pixels, or a draw of M1's posterior."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Observation = Literal["as is", "binarised", "posterior"]


def observation_noise(how: Observation, rows: Tensor, generator: torch.Generator | None) -> Tensor | None:
    """Draws the noise that `observe` takes for rows (n, ...); None where it takes none."""
    if how == "binarised":
        return torch.rand(rows.shape, dtype=rows.dtype, device=rows.device, generator=generator)
    if how == "posterior":
        shape = (*rows.shape[:-1], rows.shape[-1] // 2)
        return torch.empty(shape, dtype=rows.dtype, device=rows.device).normal_(generator=generator)
    return None


def observe(how: Observation, rows: Tensor, noise: Tensor | None) -> Tensor:
    """Turns stored rows into what the model is shown.

    Args:
        how: "as is"; "binarised": pixels in [0, 1] become 1 with that probability; "posterior": rows hold means and
            standard deviations (n, 2 d) of Gaussians, of which one draw (n, d) is returned.
        rows: stored rows.
        noise: of `observation_noise`; None for the expectation (the pixels, the means) that predictions rest on.
    """
    if how == "binarised":
        return rows if noise is None else (noise < rows).to(rows.dtype)
    if how == "posterior":
        mean, deviation = rows.chunk(2, dim=-1)
        return mean if noise is None else mean + deviation * noise
    return rows
