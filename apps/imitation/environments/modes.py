"""Labels of modes and how well modes that were found match them: for evaluation alone, no learner may look at them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int
from scipy.optimize import linear_sum_assignment

from core_models.errors import UserError


def label_of(options: dict[str, Any] | None, modes: int) -> dict[str, int]:
    """Returns what `reset(options=...)` says of the mode, to be put into every `info`.

    Raises:
        UserError: when the options hold something else than a code from 0 to modes - 1.
    """
    if not options:
        return {}
    code: Any = options.get("code")
    if set(options) != {"code"} or isinstance(code, bool) or code not in range(modes):
        raise UserError(f'expected options={{"code": a whole number from 0 to {modes - 1}}}, got {options}')
    return {"code": int(code)}


def matched_accuracy(found: Sequence[int | None] | Int[np.ndarray, " n"], codes: Int[np.ndarray, " n"]) -> float:
    """Returns the share of codes that are found, once the names of what was found are matched to them at their best.

    None, or a number below 0, is no mode, and never right. Clusters beyond the number of codes are never right either.

    Example:
        >>> matched_accuracy([1, 1, 0, None], np.array([0, 0, 1, 1]))
        0.75

    Raises:
        UserError: when there are not as many codes as modes, or there are none.
    """
    modes = np.array([-1 if mode is None else int(mode) for mode in found])
    codes = np.asarray(codes)
    if len(modes) != len(codes) or not len(codes):
        raise UserError(f"expected a mode for each of one or more codes, got {len(modes)} for {len(codes)}")
    names, truths = np.unique(modes[modes >= 0]), np.unique(codes)
    if not len(names):
        return 0.0
    together = np.array([[np.sum((modes == name) & (codes == truth)) for truth in truths] for name in names])
    return float(together[linear_sum_assignment(together, maximize=True)].sum() / len(codes))
