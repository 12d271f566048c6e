"""Settings as numpy and pathlib write them, and precisions, in estimators."""

from pathlib import Path

import jaxtyping
import numpy as np
import pytest

from apps.semi_supervised.baselines import SVM
from apps.semi_supervised.benchmark import benchmark
from apps.semi_supervised.cae import ContractiveAutoencoder
from apps.semi_supervised.estimator import load
from apps.semi_supervised.m1 import M1SVM
from apps.semi_supervised.m1_m2 import M1M2
from apps.semi_supervised.m2 import M2
from apps.semi_supervised.tsvm import TransductiveSVM
from core_models.errors import UserError
from core_models.training import RunFolder

RNG = np.random.default_rng(0)
Y = np.arange(60) % 2
X = (RNG.random((60, 6)) * 0.4 + 0.5 * Y[:, None]).astype(np.float32)
SHOWN = np.where(np.arange(60) < 20, Y, -1)
OF_M2 = {"latent": np.int64(3), "hidden": np.array([8]), "epochs": np.int64(1), "batch_size": np.int64(20)}
OF_M2 |= {"learning_rate": np.float32(1e-3)}
OF_M1 = {"m1_latent": np.int64(3), "m1_hidden": np.array([8]), "m1_epochs": np.int64(1), "m1_batch_size": np.int64(20)}
OF_M1 |= {"active_threshold": np.float32(0)}


def test_numbers_of_numpy_are_saved(tmp_path):
    model = SVM(C=np.logspace(0, 2, 3), random_state=np.int64(3)).fit(X, SHOWN)
    model.save(tmp_path / "saved")
    again = load(tmp_path / "saved")
    assert again.C == (1.0, 10.0, 100.0) and again.random_state == 3
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))


@pytest.mark.parametrize("model", [M2(**OF_M2), M1SVM(**OF_M1), M1M2(**OF_M2, **OF_M1)], ids=lambda m: type(m).__name__)
def test_networks_of_numpys_sizes_are_fitted_saved_and_loaded(model, tmp_path, monkeypatch):
    # as for users: the type checker of the tests takes no whole numbers but Python's
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    for resume in (False, True):
        model.fit(X, SHOWN, run=RunFolder(tmp_path / "run"), resume=resume).save(tmp_path / "saved")
    again = load(tmp_path / "saved")
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    for name, value in again.get_params().items():
        if name in OF_M2 | OF_M1:
            assert type(value) in (int, float, tuple) and value == model.get_params()[name]


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
