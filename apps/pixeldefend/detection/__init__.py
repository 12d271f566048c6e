"""Which images are suspicious: scores from a density, p-values against a calibration set, and how well they detect.

A score is a number per image that is larger the more suspicious the image is. `SCORES` of them are computed together;
each of `TESTS` turns one of them into a p-value.
"""

from core_models.persistence import fingerprint

from .by_name import TESTS, Test, p_value
from .calibration import Calibration, calibrate
from .complexity import codecs, compressed_bits, input_complexity
from .controls import controls
from .likelihood_ratio import likelihood_ratio, mutate
from .p_values import permutation_p_value, threshold_at, typicality_p_value
from .roc import Auc, Roc, area_under_curve, detection_rate, roc_curve
from .scores import SCORES, bits_per_dim, scores_of

__all__ = [
    "SCORES",
    "TESTS",
    "Auc",
    "Calibration",
    "Roc",
    "Test",
    "area_under_curve",
    "bits_per_dim",
    "calibrate",
    "codecs",
    "compressed_bits",
    "controls",
    "detection_rate",
    "fingerprint",
    "input_complexity",
    "likelihood_ratio",
    "mutate",
    "p_value",
    "permutation_p_value",
    "roc_curve",
    "scores_of",
    "threshold_at",
    "typicality_p_value",
]
