"""Which rows stay when trajectories are picked or thinned (Ho and Ermon, GAIL, NIPS 2016, section 6)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int


def rows_of(trajectories: Int[np.ndarray, " n"], lengths: Int[np.ndarray, " trajectories"]) -> Int[np.ndarray, " rows"]:
    """Returns the rows of some trajectories, in their order.

    Example:
        >>> rows_of(np.array([2, 0]), np.array([2, 1, 3])).tolist()
        [3, 4, 5, 0, 1]
    """
    starts = np.cumsum(lengths) - lengths
    return np.concatenate([np.arange(starts[i], starts[i] + lengths[i]) for i in trajectories])


def kept_rows(
    lengths: Int[np.ndarray, " trajectories"], every: int, random: np.random.Generator
) -> tuple[Int[np.ndarray, " rows"], Int[np.ndarray, " trajectories"]]:
    """Returns every k-th row of each trajectory, from an offset drawn for each, and how many rows that leaves of each.

    A trajectory shorter than k keeps one row: offsets beyond its end would leave none.
    """
    offsets = random.integers(0, np.minimum(every, lengths))
    starts = np.cumsum(lengths) - lengths
    kept = [np.arange(s + o, s + n, every) for s, o, n in zip(starts, offsets, lengths, strict=True)]
    return np.concatenate(kept), np.array([len(rows) for rows in kept])
