"""ROC curves and their areas, against scikit-learn, against counting, and by the coverage of the interval."""

import numpy as np
import pytest
from sklearn import metrics

from apps.pixeldefend.detection import area_under_curve, detection_rate, roc_curve
from core_models.errors import UserError


def scores(seed, ties):
    rng = np.random.default_rng(seed)
    clean, suspicious = rng.normal(0, 1, 37), rng.normal(1, 1.5, 23)
    return (np.round(clean), np.round(suspicious)) if ties else (clean, suspicious)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_curve_and_area_are_those_of_scikit_learn(seed, ties):
    clean, suspicious = scores(seed, ties)
    labels, values = np.repeat([0, 1], [37, 23]), np.concatenate([clean, suspicious])
    curve = roc_curve(clean, suspicious)
    expected = metrics.roc_curve(labels, values, drop_intermediate=False)
    for own, theirs in zip(
        (curve.false_positive_rate, curve.true_positive_rate, curve.thresholds), expected, strict=True
    ):
        np.testing.assert_allclose(own, theirs, atol=1e-12)
    area = area_under_curve(clean, suspicious)
    assert area.value == pytest.approx(metrics.roc_auc_score(labels, values), abs=1e-12)
    assert area.low < area.value < area.high
    assert (area.clean, area.suspicious) == (37, 23)


@pytest.mark.parametrize("ties", [False, True])
def test_the_standard_error_is_that_of_delong_counted_pair_by_pair(ties):
    clean, suspicious = scores(3, ties)
    above = (suspicious[:, None] > clean) + 0.5 * (suspicious[:, None] == clean)
    expected = above.mean(1).var(ddof=1) / 23 + above.mean(0).var(ddof=1) / 37
    assert area_under_curve(clean, suspicious).standard_error == pytest.approx(np.sqrt(expected), rel=1e-12)


def test_the_interval_holds_the_true_area_as_often_as_it_says():
    rng = np.random.default_rng(4)
    truth = 0.8  # P(N(d, 1) > N(0, 1)) = Phi(d / sqrt 2)
    shift = 1.1902321
    found = [area_under_curve(rng.normal(0, 1, 40), rng.normal(shift, 1, 60)) for _ in range(600)]
    covered = np.mean([own.low <= truth <= own.high for own in found])
    assert 0.92 <= covered <= 0.98
    assert np.std([own.value for own in found]) == pytest.approx(
        np.mean([own.standard_error for own in found]), rel=0.1
    )


def test_the_standard_error_of_images_made_of_clean_ones_is_the_spread_over_draws():
    rng = np.random.default_rng(5)
    found = []
    for _ in range(600):
        clean, own = rng.normal(0, 1, 50), rng.permutation(50)[:30]
        made = 0.9 * clean[own] + rng.normal(0.8, 0.6, 30)
        found.append((area_under_curve(clean, made, made_of=own), area_under_curve(clean, made)))
    assert all(pairs.value == apart.value and pairs.standard_error < apart.standard_error for pairs, apart in found)
    spread = np.std([pairs.value for pairs, _ in found])
    assert np.mean([pairs.standard_error for pairs, _ in found]) == pytest.approx(spread, rel=0.1)
    assert np.mean([apart.standard_error for _, apart in found]) > 1.3 * spread


@pytest.mark.parametrize(
    "made_of", [[0, 0], [-1, 0], [0, 50], [0.0, 1.0], [True, False], [0], [[0, 1]], list(range(48))]
)
def test_places_that_are_none_of_the_clean_images_are_refused(made_of):
    with pytest.raises(UserError, match="made_of: expected 2 different places among 50 clean images") as caught:
        area_under_curve(np.arange(50), [1, 2], made_of=made_of)
    assert "\n" not in str(caught.value)


def test_a_perfect_order_still_has_an_interval_that_narrows_with_the_number_of_images():
    few, many = area_under_curve(np.zeros(10), np.ones(10)), area_under_curve(np.zeros(1000), np.ones(1000))
    assert (few.value, few.high, few.standard_error) == (1, 1, 0)
    assert 0.6 < few.low < 0.95 < 0.99 < many.low < 1
    backward = area_under_curve(np.ones(10), np.zeros(10))
    assert backward.low == 0 and backward.high == pytest.approx(1 - few.low)
    alike = area_under_curve(np.zeros(10), np.zeros(10))
    assert alike.value == 0.5 and alike.low < 0.3 and alike.high > 0.7
    single = area_under_curve([0.0, 3.0], [1.0])
    assert single.value == 0.5 and 0 <= single.low < 0.5 < single.high <= 1


def test_infinite_scores_are_ranked_and_nan_is_refused():
    assert area_under_curve([0, np.inf], [np.inf]).value == 0.75
    assert roc_curve([0, 1], [np.inf]).true_positive_rate.tolist() == [0, 1, 1, 1]
    assert detection_rate([1, 2, np.inf], 1) == pytest.approx(2 / 3)
    for function in (roc_curve, area_under_curve):
        with pytest.raises(UserError, match="at least one clean image"):
            function([], [1])
        with pytest.raises(UserError, match="every suspicious image, got NaN"):
            function([1], [np.nan])
    with pytest.raises(UserError, match="confidence between 0 and 1, got 95"):
        area_under_curve([0], [1], confidence=95)
