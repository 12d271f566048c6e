"""The tests by name: which score each takes, and how it becomes a p-value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
from jaxtyping import Float64
from numpy.typing import ArrayLike

from core_models.errors import UserError

from .calibration import Calibration
from .p_values import permutation_p_value, typicality_p_value

Test = Literal["likelihood", "typicality", "complexity", "ratio"]
"""likelihood: the paper's one-sided p-value of bits/dim; typicality: two-sided; complexity: of bits/dim less those of a
compressor; ratio: of bits/dim less those of a background model."""

TESTS: dict[str, tuple[str, Callable[[ArrayLike, ArrayLike], Float64[np.ndarray, " n"]]]] = {
    "likelihood": ("bits_per_dim", permutation_p_value),
    "typicality": ("bits_per_dim", typicality_p_value),
    "complexity": ("complexity", permutation_p_value),
    "ratio": ("ratio", permutation_p_value),
}


def p_value(test: Test, scores: Mapping[str, ArrayLike], calibration: Calibration) -> Float64[np.ndarray, " n"]:
    """Returns the p-values (n,) of images by a test.

    Args:
        test: the name of the test.
        scores: the scores (n,) of the images by name, as `scores_of` gives them.
        calibration: the scores of the calibration images.

    Raises:
        UserError: when the test is unknown, or its score is missing from the images or the calibration.
    """
    if test not in TESTS:
        raise UserError(f"expected a test among {', '.join(TESTS)}, got {test!r}")
    score, function = TESTS[test]
    for what, found in (("scores", scores), ("a calibration", calibration.scores)):
        if score not in found:
            need = "a background model" if score == "ratio" else "compressors"
            raise UserError(f"the test {test} expects {what} with {score!r}, got {', '.join(found)}: it needs {need}")
    return function(scores[score], calibration.scores[score])
