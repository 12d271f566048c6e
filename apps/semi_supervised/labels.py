"""Labels as users write them, and the codes that methods work with."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import assert_all_finite, column_or_1d
from torch import Tensor

from core_models.errors import UserError

UNLABELLED = -1


def checked_labels(y: Any, name: str = "classifier") -> tuple[np.ndarray, np.ndarray]:
    """Returns labels as an array (n,), and which rows have none: those of -1, None, NaN or pandas' NA.

    Arguments and errors as of `encode_labels`, but for what that says of classes.
    """
    if y is None:
        raise ValueError(f"{name} requires y to be passed, but the target y is None")
    if isinstance(y, Tensor):
        y = y.detach().cpu().numpy()
    if not isinstance(getattr(y, "dtype", None), np.dtype | None):
        y = np.asarray(y, dtype=object)  # pandas' own kinds: with a gap, NumPy would make floats of whole numbers
    if isinstance(y, list | tuple) and any(isinstance(label, str) for label in y):
        y = np.array(y, dtype=object)  # NumPy alone would turn -1 into the text "-1"
    y = column_or_1d(y, warn=True)
    if y.dtype.kind in "OU" and any(isinstance(label, str) and label == str(UNLABELLED) for label in y):
        raise UserError(
            'y holds the text "-1": with string labels expected an object array that holds the integer -1 for '
            "unlabelled rows, as in np.array(['cat', -1], dtype=object)"
        )
    if y.dtype.kind in "iuf":
        y = y.astype(y.dtype.newbyteorder("="))  # files of other machines; torch takes no other order
    if y.dtype.kind == "O":
        hidden = np.array([_missing(v) or (not isinstance(v, str | bool) and v == UNLABELLED) for v in y], dtype=bool)
    elif y.dtype.kind in "bU":  # True and False are classes
        hidden = np.zeros(len(y), dtype=bool)
    else:
        hidden = (y == UNLABELLED) | (y != y)
    assert_all_finite(y[~hidden], input_name="y")
    return y, hidden


def _missing(label: Any) -> bool:
    """Says whether a label is None, NaN or pandas' NA, which alone refuses to say whether it differs from itself."""
    try:
        return label is None or bool(label != label)
    except TypeError:
        return True


def encode_labels(y: Any, name: str = "classifier") -> tuple[np.ndarray, np.ndarray]:
    """Returns the sorted classes and the position of each label among them, -1 for the unlabelled rows.

    Args:
        y: (n,) numbers with -1 or NaN for unlabelled rows, an object array of strings, numbers or booleans with -1,
            None, NaN or pandas' NA, or plain strings (then every row is labelled).
        name: who asks, for the messages.

    Raises:
        ValueError: no labelled row, fewer than two classes, or labels that are not classes.
    """
    y, hidden = checked_labels(y, name)
    labelled = y[~hidden]
    if y.dtype.kind == "O" and not any(isinstance(label, str) for label in labelled):
        labelled = np.array(labelled.tolist())  # numbers, or True and False, beside -1 or missing ones
    if not len(labelled):
        raise UserError(f"expected some labelled rows (y other than {UNLABELLED}), got none among {len(y)} rows")
    if len({isinstance(label, str) for label in labelled.tolist()}) > 1:
        raise UserError("expected labels that are all strings or all numbers beside -1 or missing ones, got a mixture")
    check_classification_targets(labelled.astype(str) if isinstance(labelled[0], str) else labelled)
    classes, positions = np.unique(labelled, return_inverse=True)
    if len(classes) < 2:
        raise UserError(
            f"expected labels of at least two classes, got 1 class ({classes.tolist()[0]!r}) in {len(y)} rows"
        )
    codes = np.full(len(y), UNLABELLED, dtype=np.int64)
    codes[~hidden] = positions
    return classes, codes
