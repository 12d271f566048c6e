"""Cross-validation judges by rows that it has not trained on."""

import numpy as np
import pytest

from apps.semi_supervised.baselines import SVM, labelled_folds
from apps.semi_supervised.tsvm import TransductiveSVM


def test_folds_share_no_row_and_hold_out_each_once():
    codes = np.arange(31) % 3
    splits = labelled_folds(codes, 5, seed=0)
    assert all(not set(train) & set(test) for train, test in splits)
    assert sorted(np.concatenate([test for _, test in splits])) == list(range(31))


@pytest.mark.parametrize("kind", [SVM, TransductiveSVM])
def test_labels_drawn_by_lot_are_found_to_tell_nothing(kind):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(150, 5)).astype(np.float32), rng.integers(0, 3, 150)
    y[90:] = -1
    shown = slice(0, 90) if kind is SVM else slice(None)
    model = kind(random_state=0).fit(x[shown], y[shown])
    # judged by rows that it was trained on, it would be sure of itself: 0.98 and 0.96
    assert model.predict_proba(x[:90]).max(1).mean() < 0.5
