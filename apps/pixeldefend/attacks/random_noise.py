"""RAND: a point drawn uniformly from the box, which needs no classifier.

It is the first column of the tables of Song et al., "PixelDefend", ICLR 2018, section 5: what noise of an attack's size
does by itself.
"""

from __future__ import annotations

from torch import Generator, nn

from .box import Images, Labels, random_start
from .registry import register


@register("rand", title="RAND", source="Song et al. 2018, section 2.3")
def rand(classifier: nn.Module, x: Images, y: Labels, *, eps: float, generator: Generator) -> Images:
    """Draws every sub-pixel's change uniformly from the whole levels of -eps to eps, cut off at 0 and 255."""
    return random_start(x, eps, generator)
