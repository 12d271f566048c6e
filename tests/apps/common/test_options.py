"""What runners ask of options: counts that make sense, names that there are."""

import pytest

from apps.common.options import at_least, known_names
from core_models.errors import UserError


def test_the_least_is_taken_and_less_is_refused_by_the_options_name():
    at_least(1, images=1, steps=9, limit=None)
    at_least(0, **{"learner.seed": 0})
    with pytest.raises(UserError, match=r"^--learner.seed: expected 0 or more, got -1$"):
        at_least(0, **{"seed": 0, "learner.seed": -1})


@pytest.mark.parametrize(
    ("known", "given", "message"),
    [
        (["BC", "GAIL"], ["BC", "GIAL"], "--methods: expected some of BC, GAIL, got 'GIAL'; did you mean GAIL?"),
        ({"LASSO, DCT": 1, "CSGM": 2}, ["x"], "--methods: expected some of LASSO, DCT; CSGM; got 'x'"),
    ],
)
def test_a_name_that_is_not_known_is_refused_with_those_that_are(known, given, message):
    assert known_names("methods", list(known), known) == list(known)
    with pytest.raises(UserError) as refused:
        known_names("methods", given, known)
    assert str(refused.value) == message
