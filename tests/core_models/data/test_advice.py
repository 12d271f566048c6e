"""What is advised does what is asked for."""

import numpy as np
import pytest

from core_models.data.advice import range_advice, shape_advice

GREY, COLOUR = (1, 5, 4), (3, 5, 4)


@pytest.mark.parametrize(
    ("wanted", "got", "advice"),
    [
        (GREY, (7, 5, 4), "reshape them to (n, 1, 5, 4)"),
        (GREY, (7, 20), "reshape them to (n, 1, 5, 4)"),
        (GREY, (7, 5, 4, 1), "reshape them to (n, 1, 5, 4)"),
        (GREY, (1, 5, 4), "reshape it to (n, 1, 5, 4), n being 1"),
        (COLOUR, (3, 5, 4), "reshape it to (n, 3, 5, 4), n being 1"),
        (COLOUR, (7, 60), "reshape them to (n, 3, 5, 4)"),
        (COLOUR, (7, 5, 4, 3), "transpose them to (n, 3, 5, 4)"),
        (GREY, (7, 1, 4, 5), "transpose them to (n, 1, 5, 4)"),
        (GREY, (7, 3, 5, 4), "convert them to grey"),
        (GREY, (7, 5, 4, 3), "convert them to grey"),
        (COLOUR, (7, 5, 4), "repeat their grey channel three times"),
        (COLOUR, (7, 5, 4, 1), "repeat their grey channel three times"),
        (GREY, (7, 1, 6, 4), "resize them to 5 x 4"),
        (GREY, (7, 512), "resize them to 5 x 4"),
        (GREY, (7,), "resize them to 5 x 4"),
    ],
)
def test_shapes(wanted, got, advice):
    assert shape_advice(wanted, got) == advice
    if advice.startswith("reshape"):
        assert np.zeros(got).reshape(-1, *wanted).shape[1:] == wanted


@pytest.mark.parametrize(
    ("low", "high", "divided"), [(0.0, 255.0, True), (0.0, 3.0, True), (0.0, 1.7, False), (-1.0, 9.0, False)]
)
def test_only_what_looks_like_levels_is_divided(low, high, divided):
    advice = range_advice(low, high)
    assert advice == ("divide by 255" if divided else "rescale or clip them into [0, 1]")
    assert range_advice(0.0, 300.0) != "divide by 255"
