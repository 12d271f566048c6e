"""p-values: the formulas counted out, exactly uniform over whichever image is under test, small under a shift."""

import numpy as np
import pytest
from scipy.stats import kstest

from apps.pixeldefend.detection import (
    detection_rate,
    permutation_p_value,
    threshold_at,
    typicality_p_value,
)
from core_models.errors import UserError

BOTH = pytest.mark.parametrize("p_value", [permutation_p_value, typicality_p_value])


def each_in_turn(p_value, scores):
    """The p-value of each score against all the others."""
    return np.array([p_value(scores[i], np.delete(scores, i))[0] for i in range(len(scores))])


@BOTH
@pytest.mark.parametrize("count", [2, 7, 40])  # of two images both are as far from their mean
def test_every_p_value_comes_exactly_once_when_all_images_are_of_one_kind(p_value, count):
    scores = np.random.default_rng(count).normal(3, 1, count + 1)
    expected = np.arange(1, count + 2) / (count + 1)
    np.testing.assert_allclose(np.sort(each_in_turn(p_value, scores)), expected, atol=1e-12)


@BOTH
def test_ties_make_p_values_larger_and_never_smaller_than_uniform(p_value):
    scores = np.random.default_rng(0).integers(0, 6, 60).astype(float)
    values = each_in_turn(p_value, scores)
    for k in range(1, 61):
        assert (values <= k / 60 + 1e-12).sum() <= k
    assert (each_in_turn(p_value, np.full(9, 0.1)) == 1).all()


def test_the_one_sided_p_value_is_the_formula_of_the_paper_in_log_probabilities():
    rng = np.random.default_rng(1)
    clean, tested = -rng.integers(0, 9, 50).astype(float), -rng.integers(-2, 12, 30).astype(float)
    expected = [(1 + sum(p_i <= p for p_i in clean)) / 51 for p in tested]
    np.testing.assert_array_equal(permutation_p_value(-tested, -clean), expected)


def test_the_two_sided_p_value_is_the_count_of_images_as_far_from_the_mean():
    rng = np.random.default_rng(2)
    clean, tested = rng.normal(3, 1, 41), np.append(rng.normal(3, 2, 30), clean_tie := 2.5)
    clean[7] = clean_tie
    for bits, p in zip(tested, typicality_p_value(tested, clean), strict=True):
        mean = (clean.sum() + bits) / 42
        assert p == (1 + sum(abs(own - mean) >= abs(bits - mean) - 1e-12 for own in clean)) / 42


def test_p_values_of_one_distribution_are_uniform_and_of_another_are_not():
    rng = np.random.default_rng(3)
    clean, same, shifted = rng.normal(3, 1, 4000), rng.normal(3, 1, 1000), rng.normal(5, 1, 1000)
    likelier = rng.normal(1, 1, 1000)
    for p_value in (permutation_p_value, typicality_p_value):
        assert kstest(p_value(same, clean), "uniform").pvalue > 0.01
        assert np.median(p_value(shifted, clean)) < 0.06
    # too likely is no less strange, and only the two-sided test says so
    assert np.median(permutation_p_value(likelier, clean)) > 0.9
    assert np.median(typicality_p_value(likelier, clean)) < 0.06


def test_an_image_without_probability_has_the_smallest_p_value():
    clean = np.arange(9.0)
    assert permutation_p_value(np.inf, clean) == typicality_p_value(np.inf, clean) == 0.1
    assert typicality_p_value(-np.inf, clean) == 0.1
    assert permutation_p_value(-np.inf, clean) == 1


@pytest.mark.parametrize("rate", [0, 0.001, 0.02, 0.05, 0.1, 0.5, 0.99, 1])
@pytest.mark.parametrize("count", [1, 19, 20, 99, 100])
def test_above_the_threshold_and_a_p_value_of_at_most_the_rate_are_one_thing(rate, count):
    rng = np.random.default_rng(count)
    clean = rng.integers(0, 40, count).astype(float)
    tested = np.concatenate([clean, rng.normal(20, 30, 50)])
    cut = threshold_at(rate, clean)
    np.testing.assert_array_equal(tested > cut, permutation_p_value(tested, clean) <= rate)
    assert detection_rate(clean, cut) <= rate


@BOTH
def test_what_can_not_be_ranked_is_refused_by_name(p_value):
    with pytest.raises(UserError, match="at least one calibration image, got none"):
        p_value([1.0], [])
    with pytest.raises(UserError, match="NaN for number 1"):
        p_value([0.0, np.nan], [1.0])
    with pytest.raises(UserError, match="each of the calibration images, got NaN"):
        p_value([0.0], [1.0, np.nan])
    with pytest.raises(UserError, match=r"rate from 0 to 1, got 1\.5"):
        threshold_at(1.5, [1.0])
    with pytest.raises(UserError, match="got an infinite one"):
        typicality_p_value([0.0], [1.0, np.inf])
