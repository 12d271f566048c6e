"""What is to be done about images that don't fit, in words: how a message about them ends."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod


def shape_advice(wanted: Sequence[int], got: Sequence[int]) -> str:
    """Returns what makes images of one shape of images of another: resizing only where nothing less will do.

    Args:
        wanted: of one image: channels, height and width.
        got: of all of them: their number, and the axes of an image in any order or run together; or of one image.

    Example:
        >>> shape_advice((1, 28, 28), (5, 784))
        'reshape them to (n, 1, 28, 28)'
        >>> shape_advice((3, 32, 32), (5, 32, 32, 3))
        'transpose them to (n, 3, 32, 32)'
    """
    wanted, one = tuple(wanted), tuple(got[1:])
    shape = f"(n, {', '.join(map(str, wanted))})"
    if tuple(got) == wanted:
        return f"reshape it to {shape}, n being 1"
    if prod(one) == prod(wanted):
        # axes of one value may stand anywhere
        own, sides = ([side for side in axes if side > 1] for axes in (one, wanted))
        turned = own != sides and sorted(own) == sorted(sides)
        return f"{'transpose' if turned else 'reshape'} them to {shape}"
    sides = list(wanted[1:])
    if wanted[0] == 1 and one in ((3, *sides), (*sides, 3)):
        return "convert them to grey"
    if wanted[0] == 3 and one in ((*sides,), (1, *sides), (*sides, 1)):
        return "repeat their grey channel three times"
    return f"resize them to {' x '.join(map(str, sides))}"


def range_advice(low: float, high: float) -> str:
    """Returns what brings values that should lie in [0, 1] there, from the lowest and the highest of them.

    What hardly exceeds 1 is no 8-bit image: divided by 255 it would be black.
    """
    return "divide by 255" if low >= 0 and 2 < high <= 255 else "rescale or clip them into [0, 1]"
