"""What a method learns from training signals first, kept beside the results so that a resumed run has the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core_models.errors import UserError
from core_models.files import hash_of
from core_models.modes import evaluating
from core_models.persistence import load_tensors, save_tensors
from core_models.training import seed_of

from .diagnosis import nearest_latents
from .generative.residual_covariance import ResidualCovariance
from .methods import method_of, settings_of
from .recovery import Recovery
from .signals import Signals

SEARCHED = 500
"""Signals whose latents are searched at once, for a prior that doesn't encode."""


def fit_or_load(
    method: Recovery, source: Signals, number: int, seed: int, out: Path, prior: str | None
) -> dict[str, Any]:
    """Fits a method to training signals, or takes what an earlier run into the same folder fitted.

    Args:
        method: with its operator and prior.
        source: signals to learn from.
        number: signals, drawn by the seed; all where there are fewer.
        seed: of the draw.
        out: the folder of the results.
        prior: identifies the prior.

    Returns:
        What identifies the fit, as plain values.

    Raises:
        UserError: when the signals have another shape than the operator's.
    """
    shape = tuple(method.measuring.signal_shape)
    if source.signal_shape != shape:
        raise UserError(
            f"--fit_data {source.path}: expected signals {shape}, as those to recover, got {source.signal_shape}"
        )
    told = {"signals": source.identity(), "number": min(number, len(source)), "seed": seed}
    decides = [method_of(method).name, settings_of(method), prior, told]
    path = out / f"fitted-{hash_of(decides)}.safetensors"
    if path.exists():
        for name, tensor in load_tensors(path).items():
            setattr(method, name, tensor)
        print(f"fitted before: {path}")
        return told
    if number < 2:
        raise UserError(f"--fit_number: expected at least 2, got {number}")
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(seed_of(seed, "fit")))
    chosen = torch.zeros(len(source), dtype=torch.bool)
    chosen[order[:number]] = True
    rows = []
    for batch in source.batches(1000):
        kept = [place for place in range(len(batch.names)) if place not in batch.faults]
        rows.append(batch.x[chosen[batch.start + torch.tensor(kept, dtype=torch.int64)]])
    x = torch.cat(rows)
    print(f"fitting {type(method).__name__} to {len(x):,} signals of {source.path}", flush=True)
    _fit(method, x)
    save_tensors(fitted_values(method), path)
    return told


def fitted_values(method: Recovery) -> dict[str, Tensor]:
    """Returns what a method has learnt from signals, by the names of its attributes, which end in `_`."""
    return {
        name: value
        for name, value in vars(method).items()
        if name.endswith("_") and not name.startswith("_") and isinstance(value, Tensor)
    }


def _fit(method: Recovery, x: Tensor) -> None:
    if isinstance(method, ResidualCovariance) and not callable(getattr(method.prior, "encode", None)):
        parts = []
        for own in x.split(SEARCHED):
            z = nearest_latents(method.prior, own)
            with torch.no_grad(), evaluating(method.prior):
                parts.append((own - method.prior.decode(z)).flatten(1))
        method.fit_residuals(torch.cat(parts))
    else:
        method.fit(x)
