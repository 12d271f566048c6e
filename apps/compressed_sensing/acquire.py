"""`genapps compressed-sensing acquire`: signals of a data set, folder or .npz, measured into a .npz."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from core_models.data import Split
from core_models.errors import UserError
from core_models.files import atomic, require_new

from .measurements import Simulated
from .measuring import measuring_of, rank_of
from .operators.dense import Scaling
from .recovery import SLACK
from .signals import RESCALE, open_signals

CHUNK = 1000


def acquire(
    input: str,
    out: Path,
    operator: str | None = None,
    m: int | None = None,
    noise: float = 0.0,
    matrix: Path | None = None,
    learned: str | None = None,
    scaling: Scaling = "unit",
    width: float = 1.0,
    factor: int = 2,
    mask: Path | None = None,
    kernel: Path | None = None,
    split: Split = "test",
    number: int | None = None,
    seed: int = 0,
    keep_signals: bool = False,
    dense: bool = False,
) -> None:
    """Measures signals: y = A x + e.

    Args:
        input: A data set by name, a folder of PNG, JPEG or WebP images, or a .npz with an array x; floats of any range
            but for --learned, which knows [0, 1] alone.
        out: The .npz for y (signals, m), the operator's recipe or A, noise and signal_shape.
        operator: gaussian, bernoulli, dct, fourier, mask, blur or super-resolution.
        m: Measurements of a signal; blur and super-resolution have their own number.
        noise: Standard deviation of each measurement's noise [units of y].
        matrix: A .npy or .npz with a matrix of your own (m, n), instead of a name.
        learned: A trained uncertainty autoencoder whose encoder measures, instead of a name.
        scaling: Variance of the entries of gaussian and bernoulli: unit, 1, or isometric, 1/m.
        width: Of the blur [pixels].
        factor: Of super-resolution.
        mask: A .npy or .npz, true for the pixels that mask keeps, or the frequencies, zero first, as numpy.fft.fft2 has
            them (ifftshift a centred mask), that fourier keeps, instead of m that are drawn. Its y is real, in an order
            of its own: operator.from_spectrum(k) makes it of k-space.
        kernel: A .npy or .npz with a kernel of two odd sides for blur, instead of a normal density.
        split: Of a data set by name.
        number: The first so many signals; all when left out.
        seed: Of the operator and of the noise.
        keep_signals: Keep the true signals in the file, so that recoveries can be judged.
        dense: Write A itself, not its recipe.
    """
    if out.suffix != ".npz":
        raise UserError(f"--out: expected a .npz file, got {out}: end it in .npz")
    require_new(out)
    if not -(2**63) <= seed < 2**63:
        raise UserError(f"--seed: expected a whole number of at most 64 bits, got {seed}")
    measuring = measuring_of(
        mask, kernel, operator=operator, m=m, matrix=matrix, learned=learned, seed=seed, scaling=scaling, width=width,
        factor=factor,
    )  # fmt: skip
    signals = open_signals(input, split, outside=None if learned is None else RESCALE).first(number)
    made = measuring.build(signals.signal_shape)
    source = Simulated(signals, made, noise, seed)
    y, x, low, high = [], [], 0.0, 1.0
    with torch.no_grad():
        for batch in source.batches(CHUNK):
            if batch.faults:
                place, why = next(iter(batch.faults.items()))
                raise UserError(f"{batch.names[place]}: {why}")
            y.append(batch.x.numpy())
            assert batch.truth is not None
            low, high = min(low, float(batch.truth.min())), max(high, float(batch.truth.max()))
            if keep_signals:
                x.append(batch.truth.numpy())
    arrays: dict[str, Any] = {
        "y": np.concatenate(y),
        **measuring.arrays(made, dense=dense),
        "noise": np.array(float(noise)),
        "signal_shape": np.array(signals.signal_shape),
    }
    if keep_signals:
        arrays["x"] = np.concatenate(x)
    with atomic(out) as temporary:
        np.savez(temporary, **arrays)
    rank = rank_of(made)
    told = "" if rank is None else f", rank {rank}"
    numbers = int(np.prod(signals.signal_shape))
    told += f", more than the {numbers} numbers of a signal" if made.m > numbers else ""
    print(
        f"{len(source):,} signals of shape {signals.signal_shape}, {made.m} measurements each{told}, "
        f"noise {noise:g}; wrote {out}"
    )
    if low < -SLACK or high > 1 + SLACK:
        print(
            f"the signals go from {low:.3g} to {high:.3g}, not from 0 to 1: recover them by a method that doesn't hold "
            "them there, e.g. LASSO with --method.box false --method.clip false"
        )
