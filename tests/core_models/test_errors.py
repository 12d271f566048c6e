"""The hint at the end of a message."""

import pytest

from core_models.errors import suggestion


@pytest.mark.parametrize(
    ("word", "known", "hint"),
    [
        ("mnits", ["mnist", "omniglot"], "; did you mean mnist?"),
        ("cartpole", ["MountainCar-v1", "CartPole-v1"], "; did you mean CartPole-v1?"),
        ("FOURIER", {"fourier": 1, "dct": 2}, "; did you mean fourier?"),
        ("Lasso", ["lasso", "LASSO"], "; did you mean lasso?"),  # the first of those that differ in case alone
        ("xyz", ["mnist"], ""),
        ("x", [], ""),
    ],
)
def test_what_is_near_in_spelling_is_named_whatever_its_case(word, known, hint):
    assert suggestion(word, known) == hint
