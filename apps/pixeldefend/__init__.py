"""PixelDefend: detects and purifies adversarial images with an autoregressive density, and measures its worth.

Example:
    >>> from apps.pixeldefend import Defended, Normalised, Purifier, attack
    >>> from core_models import zoo
    >>> density = zoo.load("pixel_cnn_fashion_mnist")  # doctest: +SKIP
    >>> classifier = Normalised(own, mean=0.286, std=0.353)  # where its training images were # doctest: +SKIP
    >>> defended = Defended(Purifier(density, eps=32), classifier)  # doctest: +SKIP
    >>> attack("bpda", defended, x, y, eps=8)  # doctest: +SKIP
"""

from typing import TYPE_CHECKING

from apps.common.lazy_names import lazy_names

if TYPE_CHECKING:
    from .art_adapter import art_preprocessor as art_preprocessor
    from .attacks import attack as attack
    from .attacks import describe as describe
    from .attacks import register as register
    from .attacks.strongest import correct as correct
    from .attacks.strongest import strongest as strongest
    from .defended import Defended as Defended
    from .defended import Purifier as Purifier
    from .detection import Calibration as Calibration
    from .detection import area_under_curve as area_under_curve
    from .detection import bits_per_dim as bits_per_dim
    from .detection import calibrate as calibrate
    from .detection import detection_rate as detection_rate
    from .detection import p_value as p_value
    from .detection import roc_curve as roc_curve
    from .detection import scores_of as scores_of
    from .detection import threshold_at as threshold_at
    from .feature_squeezing import FeatureSqueezing as FeatureSqueezing
    from .normalised import Normalised as Normalised
    from .purification import purify as purify

_DETECTION = ("Calibration", "area_under_curve", "bits_per_dim", "calibrate", "detection_rate", "p_value", "roc_curve",
              "scores_of", "threshold_at")  # fmt: skip
_HOME = {
    **dict.fromkeys(("attack", "describe", "register"), "attacks"),
    **dict.fromkeys(("correct", "strongest"), "attacks.strongest"),
    **dict.fromkeys(("Defended", "Purifier"), "defended"),
    **dict.fromkeys(_DETECTION, "detection"),
    "FeatureSqueezing": "feature_squeezing",
    "Normalised": "normalised",
    "art_preprocessor": "art_adapter",
    "purify": "purification",
}
"""The module of each name."""

__all__ = list(_HOME)
__getattr__, __dir__ = lazy_names(__name__, _HOME)
