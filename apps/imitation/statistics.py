"""How good a policy is, with how sure that is: means, interquartile means, and bootstrap intervals.

The interquartile mean leaves out the lowest and the highest quarter: it is as robust as a median and uses more of the
runs. Intervals are percentiles of resampled statistics; where there are several tasks, runs are resampled within each,
so that every sample has as many of each task as was measured.

Source: Agarwal, Schwarzer, Castro, Courville and Bellemare, "Deep reinforcement learning at the edge of the statistical
precipice", NeurIPS 2021, section 4 (stratified bootstrap: section 4.1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.stats import trim_mean

from core_models.errors import UserError


def mean(values: Sequence[float] | np.ndarray) -> Any:
    """Returns the mean over the last axis: a float of one sample, (samples,) of (samples, n)."""
    return _plain(np.mean(np.asarray(values, dtype=float), axis=-1))


def interquartile_mean(values: Sequence[float] | np.ndarray) -> Any:
    """Returns the mean of the middle half over the last axis: a float of one sample, (samples,) of (samples, n).

    Example:
        >>> interquartile_mean([0, 1, 2, 100])
        1.5
    """
    return _plain(trim_mean(np.asarray(values, dtype=float), 0.25, axis=-1))


def _plain(values: Any) -> Any:
    return float(values) if np.ndim(values) == 0 else values


def bootstrap(
    values: Sequence[float] | np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray] = mean,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Returns the ends of a percentile interval of a statistic.

    Args:
        values: independent: episodes of a policy, or runs; or (k, n), of which the n columns are.
        statistic: of samples (resamples, n), over the last axis.
        resamples: drawn with replacement.
        level: share of the resamples that lies within.
        seed: of the draws.

    Raises:
        UserError: when the statistic isn't one over the last axis.
    """
    return stratified_bootstrap([values], statistic, resamples=resamples, level=level, seed=seed)


def stratified_bootstrap(
    strata: Sequence[Sequence[float] | np.ndarray],
    statistic: Callable[[np.ndarray], np.ndarray] = mean,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Returns the ends of a percentile interval of a statistic of several groups taken together.

    Args:
        strata: the runs of each task, on one scale; values are drawn with replacement within their own group. Of a
            group (k, n) the n columns are drawn: k values that share what they were measured on count as one.
        statistic: of all values drawn, (resamples, values), over the last axis.
        resamples: how many.
        level: share of the resamples that lies within.
        seed: of the draws.

    Raises:
        UserError: when the statistic isn't one over the last axis.
    """
    groups = [np.asarray(values, dtype=float) for values in strata]
    rng = np.random.default_rng(seed)
    # drawn one resample after the other, so that the draws are those of a plain loop, and measured all at once
    drawn = [np.concatenate([_resampled(values, rng) for values in groups]) for _ in range(resamples)]
    found = statistic(np.stack(drawn))
    if np.shape(found) != (resamples,):  # np.mean by itself takes all resamples for one
        raise UserError(f"expected a statistic over the last axis, ({resamples},) of ({resamples}, n) values, got "
                        f"{np.shape(found)}: np.mean(values, axis=-1), say")  # fmt: skip
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _resampled(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    n = values.shape[-1]
    return values[..., rng.integers(n, size=n)].ravel()
