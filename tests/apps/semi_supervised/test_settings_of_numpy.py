"""Settings as numpy and pathlib write them, and precisions, in estimators."""

from pathlib import Path

import numpy as np
import pytest

from apps.semi_supervised.baselines import SVM
from apps.semi_supervised.benchmark import benchmark
from apps.semi_supervised.cae import ContractiveAutoencoder
from apps.semi_supervised.estimator import load
from apps.semi_supervised.tsvm import TransductiveSVM
from core_models.errors import UserError

RNG = np.random.default_rng(0)
Y = np.arange(60) % 2
X = (RNG.random((60, 6)) * 0.4 + 0.5 * Y[:, None]).astype(np.float32)
SHOWN = np.where(np.arange(60) < 20, Y, -1)


def test_numbers_of_numpy_are_saved(tmp_path):
    model = SVM(C=np.logspace(0, 2, 3), random_state=np.int64(3)).fit(X, SHOWN)
    model.save(tmp_path / "saved")
    again = load(tmp_path / "saved")
    assert again.C == (1.0, 10.0, 100.0) and again.random_state == 3
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))


@pytest.mark.parametrize("kind", [SVM, TransductiveSVM])
def test_candidates_may_be_an_array(kind):
    values = [1.0, 10.0, 100.0]
    array, plain = kind(C=np.array(values)).fit(X, SHOWN), kind(C=tuple(values)).fit(X, SHOWN)
    np.testing.assert_array_equal(array.predict_proba(X), plain.predict_proba(X))


def test_cae_in_double_precision():
    model = ContractiveAutoencoder(hidden=(5, 4), epochs=1, steps=300, fine_tuning_rate=0.03, precision="64-true")
    assert model.fit(X, SHOWN).score(X, Y) > 0.9


def test_a_benchmark_has_an_m1_of_its_own(tmp_path):
    with pytest.raises(UserError, match="settings: m1 is the benchmark's own"):
        benchmark(["M1+SVM"], [100], 1, settings={"m1": str(Path("runs/vae"))}, results=str(tmp_path))
