r"""How well a score tells clean images from suspicious ones.

The area under the ROC curve is the Mann-Whitney statistic, exactly, ties counted half:

.. math:: \mathrm{AUC} = P(s_{suspicious} > s_{clean}) + \tfrac12 P(s_{suspicious} = s_{clean})

Its standard error is that of DeLong, DeLong and Clarke-Pearson, "Comparing the areas under two or more correlated
receiver operating characteristic curves", Biometrics 44, 1988, by mid-ranks (Sun and Xu, IEEE Signal Processing Letters
21, 2014); where suspicious images are clean ones with something done to them, with the covariance of each pair, as
Obuchowski, "Nonparametric analysis of clustered ROC curve data", Biometrics 53, 1997, has it for clusters. The interval
is taken on the logit scale, so that it stays inside (0, 1). Where no image is out of order, or
the standard error is nothing, the interval solves (AUC - a)^2 = z^2 V(a) with the variance V of Hanley and McNeil,
Radiology 143, 1982, for exponential scores (Newcombe, Statistics in Medicine 25, 2006, method 5).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log, sqrt

import numpy as np
from jaxtyping import Float64, Int64
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.stats import norm, rankdata

from core_models.errors import UserError


@dataclass(frozen=True, eq=False)
class Roc:
    """A ROC curve: of the images with a score of at least each threshold, the shares in both classes."""

    false_positive_rate: Float64[np.ndarray, " k"]
    """Share of the clean images, ascending from 0 to 1."""
    true_positive_rate: Float64[np.ndarray, " k"]
    """Share of the suspicious images, ascending from 0 to 1."""
    thresholds: Float64[np.ndarray, " k"]
    """Scores, descending; the first is infinite: nothing is called suspicious."""


@dataclass(frozen=True)
class Auc:
    """An area under a ROC curve, with what it is worth."""

    value: float
    standard_error: float
    """DeLong's, of pairs Obuchowski's; 0 where no image is out of order, or pairs cancel each other."""
    low: float
    """Lower end of the confidence interval."""
    high: float
    clean: int
    """Number of clean images."""
    suspicious: int


def roc_curve(clean: ArrayLike, suspicious: ArrayLike) -> Roc:
    """Returns the ROC curve of scores that are larger for suspicious images.

    Args:
        clean: scores of clean images (n,).
        suspicious: scores of images to be detected (m,).

    Raises:
        UserError: when either is empty or holds NaN.
    """
    negatives, positives = _checked(clean, suspicious)
    thresholds = np.unique(np.concatenate([negatives, positives]))[::-1]
    rates = [
        np.concatenate([[0.0], 1 - np.searchsorted(np.sort(values), thresholds, side="left") / len(values)])
        for values in (negatives, positives)
    ]
    return Roc(rates[0], rates[1], np.concatenate([[np.inf], thresholds]))


def area_under_curve(
    clean: ArrayLike, suspicious: ArrayLike, *, made_of: ArrayLike | None = None, confidence: float = 0.95
) -> Auc:
    """Returns the area under the ROC curve and its confidence interval.

    Args:
        clean: scores of clean images (n,).
        suspicious: scores of images to be detected (m,).
        made_of: where these are clean ones with something done to them: the place of each one's own among the clean
            images (m,), no two of the same. Images drawn independently of the clean ones when left out.
        confidence: of the interval.

    Raises:
        UserError: when either is empty or holds NaN, the confidence is not between 0 and 1, or the places are no such.
    """
    if not 0 < confidence < 1:
        raise UserError(f"expected a confidence between 0 and 1, got {confidence}")
    negatives, positives = _checked(clean, suspicious)
    n, m = len(negatives), len(positives)
    ranks = rankdata(np.concatenate([positives, negatives]))
    # placement values: for each image the share of the other class that is below it, ties half
    v10 = (ranks[:m] - rankdata(positives)) / n
    v01 = 1 - (ranks[m:] - rankdata(negatives)) / m
    area = float(np.clip(v10.mean(), 0, 1))
    variance = sum(float(v.var(ddof=1)) / len(v) if len(v) > 1 else float("nan") for v in (v10, v01))
    if made_of is not None:
        own = _places(made_of, n, m)
        together = float(((v10 - area) * (v01[own] - area)).sum())
        # where pairs cancel each other rounding is left, and no variance
        rest = variance + (2 * n / (n - 1) * together / (n * m) if n > 1 else 0.0)
        variance = 0.0 if rest < 1e-12 * variance else rest
    error = sqrt(variance) if variance == variance else float("nan")
    z = float(norm.ppf((1 + confidence) / 2))
    if 0 < area < 1 and error > 0:
        half = z * error / (area * (1 - area))
        low, high = (_expit(log(area / (1 - area)) + side * half) for side in (-1, 1))
    else:
        low, high = _score_interval(area, m, n, z)
    return Auc(area, error, low, high, n, m)


def _places(made_of: ArrayLike, n: int, m: int) -> Int64[np.ndarray, " _m"]:
    found = np.asarray(made_of)
    whole = found.shape == (m,) and np.issubdtype(found.dtype, np.integer)
    if not whole or len(np.unique(found)) < m or found.min() < 0 or found.max() >= n:
        raise UserError(f"made_of: expected {m} different places among {n} clean images, got others")
    return found.astype(np.int64)


def detection_rate(scores: ArrayLike, threshold: float) -> float:
    """Returns the share of scores strictly above a threshold, such as `threshold_at` gives."""
    values = np.asarray(scores, dtype=np.float64).reshape(-1)
    if not len(values) or np.isnan(values).any():
        raise UserError("expected at least one score and none NaN: check the images and the density")
    return float((values > threshold).mean())


def _score_interval(area: float, m: int, n: int, z: float) -> tuple[float, float]:
    """Returns the areas whose distance from the one observed is z of their own standard errors."""
    degrees = (m + n) / 2 - 1

    def excess(a: float) -> float:
        variance = a * (1 - a) * (1 + degrees * (1 - a) / (2 - a) + degrees * a / (1 + a)) / (m * n)
        return (area - a) ** 2 - z * z * variance

    tiny = 1e-12
    low = 0.0 if area <= tiny else brentq(excess, 0.0, area - tiny)
    high = 1.0 if area >= 1 - tiny else brentq(excess, area + tiny, 1.0)
    return float(low), float(high)


def _expit(value: float) -> float:
    return 1 / (1 + exp(-value)) if value >= 0 else exp(value) / (1 + exp(value))


def _checked(clean: ArrayLike, suspicious: ArrayLike) -> list[Float64[np.ndarray, " _n"]]:
    found = [np.asarray(values, dtype=np.float64).reshape(-1) for values in (clean, suspicious)]
    for what, values in zip(("clean", "suspicious"), found, strict=True):
        if not len(values):
            raise UserError(f"expected scores of at least one {what} image, got none")
        if np.isnan(values).any():
            raise UserError(f"expected a score for every {what} image, got NaN: check the density")
    return found
