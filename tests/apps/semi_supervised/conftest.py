"""Data that several modules learn from."""

import numpy as np
import pytest
from sklearn.datasets import load_digits


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    X, y = (data.images / 16).astype(np.float32)[:, None], data.target
    shown = np.full(len(y), -1)
    for k in range(10):
        shown[np.flatnonzero(y == k)[:10]] = k
    return X, y, shown
