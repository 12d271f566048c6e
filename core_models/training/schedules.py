r"""Courses of the learning rate over a run.

With :math:`w` warm-up steps, :math:`T` steps in all and a floor :math:`f`, the factor of step :math:`t` (from 0) is

.. math:: \frac{t + 1}{w} \quad (t < w), \qquad f + (1 - f) \, s(u) \quad (t \ge w), \qquad u = \frac{t - w}{T - 1 - w}

where :math:`s(u)` is 1 (constant; the floor then has no effect), :math:`1 - u` (linear) or
:math:`\frac12 (1 + \cos \pi u)` (cosine; Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm
restarts", ICLR 2017, eq. 5 without restarts). Under `steps` the factor after the warm-up is
:math:`\max(f, \gamma^k)` with :math:`k` the number of fractions :math:`a` for which :math:`t \ge a T`.

With a hold :math:`h` the courses linear and cosine begin later: :math:`u` becomes :math:`\max(0, u - h) / (1 - h)`, and
stays 0 where h is 1.
"""

import math
from collections.abc import Sequence

from .config import Schedule


def factor(
    schedule: Schedule,
    step: int,
    total: int,
    *,
    warmup: int = 0,
    floor: float = 0.0,
    hold: float = 0.0,
    step_at: Sequence[float] = (0.5, 0.75),
    step_factor: float = 0.1,
) -> float:
    """Returns what the learning rate is multiplied with at a step, counted from 0, of `total` steps."""
    if step < warmup:
        return (step + 1) / warmup
    if schedule == "constant":
        return 1.0
    if schedule == "steps":
        return max(floor, step_factor ** sum(step >= at * total for at in step_at))
    done = min(1.0, (step - warmup) / max(1, total - 1 - warmup))
    done = max(0.0, done - hold) / (1.0 - hold) if hold < 1 else 0.0
    shape = 1.0 - done if schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))
    return floor + (1.0 - floor) * shape
