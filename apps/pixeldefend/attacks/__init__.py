"""Attacks on classifiers of 8-bit images, by name: `attack("bim", classifier, x, y, 8)`.

Budgets are in 8-bit levels, and so is what comes back: no sub-pixel is further than `eps` levels from its own, and all
are multiples of 1/255. The attacks of the paper's tables do not know of a defence; `bpda` and `detector-aware` do, and
any of the others does once it is given a `Defended`. A new attack is one function, see `register`.
"""

from . import (  # noqa: F401 - each registers its own
    bpda,
    carlini_wagner,
    deepfool,
    detector_aware,
    library,
    random_noise,
)
from .registry import Attack, attack, describe, find, named, names, register
from .strongest import Strongest, correct, strongest

__all__ = [
    "Attack",
    "Strongest",
    "attack",
    "correct",
    "describe",
    "find",
    "named",
    "names",
    "register",
    "strongest",
]
