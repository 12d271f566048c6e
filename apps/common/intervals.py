"""The 95 % interval of a cell's value over what it was measured on, test images say: `extra["interval"]`."""

from __future__ import annotations

Z = 1.96
"""Standard errors to either side of a mean that 95 % lie within."""


def of_share(hits: int, n: int) -> list[float]:
    """Returns the ends of the interval of a share [%].

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
    """
    from scipy.stats import binomtest  # more than a second, which `genapps results` does without

    found = binomtest(hits, n).proportion_ci(method="wilson")
    return [100 * float(found.low), 100 * float(found.high)]


def around(mean: float, half_width: float) -> list[float]:
    """Returns the ends of the interval of a mean of many, whose half width is Z standard errors."""
    return [mean - half_width, mean + half_width]
