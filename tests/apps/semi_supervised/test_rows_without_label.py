"""What says that a row has no label, and scores of data with such rows."""

import numpy as np
import pytest
import torch
from sklearn.model_selection import cross_val_score
from tiny_rows import Nearest, blobs

from apps.semi_supervised.labels import encode_labels
from core_models.errors import UserError


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (["a", None, "b"], "string"),
        (["a", None, "b"], "object"),
        (["a", None, "b"], "category"),
        ([3, None, 7], "Int64"),
        ([3, None, 7], "float64"),
        ([False, None, True], "boolean"),
    ],
)
def test_a_label_that_pandas_misses_is_none(values, dtype):
    y = pytest.importorskip("pandas").Series(values, dtype=dtype)
    classes, codes = encode_labels(y)
    assert classes.tolist() == [values[0], values[2]] and codes.tolist() == [0, -1, 1]
    kind = float if dtype == "float64" else type(values[0])
    assert all(type(label) is kind for label in classes.tolist())


@pytest.mark.parametrize(
    "y",
    [
        ["cat", None, "dog", -1],
        ["cat", float("nan"), "dog", -1],
        np.array(["cat", np.nan, "dog", None], dtype=object),
        [0, None, 1, -1],
        np.array([0.0, np.nan, 1.0, -1.0]),
        np.array([0.0, np.nan, 1.0, np.nan], dtype=">f4"),
        [False, None, True, -1],
    ],
    ids=str,
)
def test_a_missing_label_is_none(y):
    model = Nearest().fit(np.eye(4), y)
    assert model.seen[1].tolist() == [0, -1, 1, -1]
    assert model.classes_.tolist() == [y[0], y[2]] and set(model.transduction_) <= {y[0], y[2]}


@pytest.mark.parametrize("missing", [-1, None, float("nan")])
@pytest.mark.parametrize("names", [[3, 7, 11], ["a", "bb", "ccc"]], ids=["int", "str"])
def test_the_score_leaves_rows_without_a_label_out(names, missing):
    X, y = blobs()
    model = Nearest().fit(X, np.array(names)[y])
    given = np.array([names[k] for k in y], dtype=object)
    given[0] = names[(y[0] + 1) % 3]
    assert model.score(X, given) == pytest.approx(29 / 30)
    given[10:] = missing
    weights = np.r_[5.0, np.ones(29)]
    for rows in (X, torch.from_numpy(X), X.tolist(), pytest.importorskip("pandas").DataFrame(X)):
        assert model.score(rows, given) == pytest.approx(9 / 10)
    assert model.score(X, given, sample_weight=weights) == pytest.approx(9 / 14)
    with pytest.raises(UserError, match="some labelled rows to score by"):
        model.score(X[10:], given[10:])
    with pytest.raises(ValueError, match="inconsistent"):
        model.score(X, given[:20])


def test_cross_validation_of_few_labels_scores_by_them_alone():
    X, y = blobs()
    assert cross_val_score(Nearest(), X, np.where(np.arange(30) < 15, y, -1), cv=3).tolist() == [1.0, 1.0, 1.0]
