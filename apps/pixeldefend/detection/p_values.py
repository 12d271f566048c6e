r"""p-values of images against a calibration set, exactly uniform when both come from one distribution.

One-sided (Song et al., "PixelDefend", ICLR 2018, section 3.2), :math:`x_1, ..., x_N` being the calibration images:

.. math:: p = \frac{1 + \#\{i : p(x_i) \le p(x')\}}{N + 1}

Two-sided, the test of typicality (Nalisnick et al., "Detecting out-of-distribution inputs to deep generative models
using typicality", 2019, section 3) for a single image, h being its bits and H their mean:

.. math:: p = \frac{1 + \#\{i : |h_i - H| \ge |h' - H|\}}{N + 1}, \qquad H = \frac{h' + \sum_i h_i}{N + 1}

There H is the mean over the training images and the distribution comes from a validation set. Here the N calibration
images serve for both, and the image under test counts in H: all N + 1 images then play the same part, and the p-value
is exactly uniform on {1, ..., N + 1} / (N + 1) for any N, not only in the limit (ties make it larger).

Scores are larger the more suspicious the image is: bits per dimension, for which "p(x_i) <= p(x')" reads "s_i >= s'".
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64
from numpy.typing import ArrayLike

from core_models.errors import UserError

Scores = Float64[np.ndarray, " n"]


def permutation_p_value(scores: ArrayLike, calibration: ArrayLike) -> Scores:
    """Returns the share of the calibration images, and the image itself, that are at least as suspicious.

    Args:
        scores: of the images under test (n,), larger for more suspicious; infinite is allowed.
        calibration: scores of the calibration images (N,), in any order.

    Raises:
        UserError: when there is no calibration image, or a score is NaN.
    """
    scores, ordered = _checked(scores, calibration)
    at_least = len(ordered) - np.searchsorted(ordered, scores, side="left")
    return (1 + at_least) / (len(ordered) + 1)


def typicality_p_value(scores: ArrayLike, calibration: ArrayLike) -> Scores:
    """Returns the share of the calibration images, and the image itself, that are at least as far from the mean.

    Args:
        scores: of the images under test (n,).
        calibration: scores of the calibration images (N,), in any order; finite.

    Raises:
        UserError: when there is no calibration image, one's score is infinite, or a score is NaN.
    """
    scores, ordered = _checked(scores, calibration)
    if not np.isfinite(ordered).all():
        raise UserError("expected finite scores of the calibration images, got an infinite one: leave that image out")
    count = len(ordered)
    infinite = ~np.isfinite(scores)
    own = np.where(infinite, 0.0, scores)
    mean = (ordered.sum() + own) / (count + 1)
    # the image's own side is compared with its score itself, so that ties on it are exact
    mirrored = 2 * mean - own
    above = count - np.searchsorted(ordered, np.maximum(own, mirrored), side="left")
    below = np.searchsorted(ordered, np.minimum(own, mirrored), side="right")
    # both bounds meet where the score is the mean: every image counts once
    farther = np.where(own == mirrored, count, above + below)
    return (1 + np.where(infinite, 0, farther)) / (count + 1)


def threshold_at(false_positive_rate: float, clean: ArrayLike) -> float:
    """Returns the score above which, strictly, an image is called suspicious at a rate of false alarms.

    It is the k-th largest clean score with k = floor(rate (N + 1)), so that `score > threshold` says the same as
    `permutation_p_value(score, clean) <= rate`; infinite when N is too small for any alarm at that rate.

    Args:
        false_positive_rate: the largest share of clean images to be called suspicious, from 0 to 1.
        clean: scores of held-out clean images (N,).

    Raises:
        UserError: when the rate lies outside of [0, 1], there is no score, or one is NaN.
    """
    if not 0 <= false_positive_rate <= 1:
        raise UserError(f"expected a false-positive rate from 0 to 1, got {false_positive_rate}")
    _, ordered = _checked([], clean)
    # the same rounding as the p-value's: the largest k with k / (N + 1) <= rate
    shares = np.arange(1, len(ordered) + 2) / (len(ordered) + 1)
    k = int(np.searchsorted(shares, false_positive_rate, side="right"))
    if k == 0:
        return float("inf")
    return -float("inf") if k > len(ordered) else float(ordered[-k])


def _checked(scores: ArrayLike, calibration: ArrayLike) -> tuple[Scores, Scores]:
    """Returns both as float64, the calibration in ascending order."""
    own, ordered = (np.asarray(values, dtype=np.float64).reshape(-1) for values in (scores, calibration))
    if not len(ordered):
        raise UserError("expected at least one calibration image, got none")
    for what, values in (("the images", own), ("the calibration images", ordered)):
        if np.isnan(values).any():
            place = int(np.isnan(values).argmax())
            raise UserError(f"expected a score for each of {what}, got NaN for number {place}: check the density")
    # sorting what is sorted costs little, and what was altered would give wrong p-values silently
    return own, np.sort(ordered)
