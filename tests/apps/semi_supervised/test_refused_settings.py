"""Settings that make no sense are refused by their name, before anything is trained."""

import numpy as np
import pytest
from sklearn.base import clone
from tiny_rows import blobs

from apps.semi_supervised.baselines import SVM, NeuralNetwork
from apps.semi_supervised.cae import ContractiveAutoencoder
from apps.semi_supervised.m1 import M1SVM
from apps.semi_supervised.m2 import M2
from apps.semi_supervised.tsvm import TransductiveSVM
from core_models.errors import UserError


@pytest.mark.parametrize(
    ("estimator", "words"),
    [
        (SVM(gamma=0.0), "gamma: expected numbers of more than 0"),
        (SVM(C=()), "C: expected finite numbers"),
        (SVM(C=-1.0), "C: expected finite numbers"),
        (TransductiveSVM(C=()), "C: expected finite numbers"),
        (TransductiveSVM(gamma=(0.0, 1.0)), "gamma: expected numbers of more than 0"),
        (TransductiveSVM(unlabelled_weight=-1.0), "unlabelled_weight: expected finite numbers of at least 0"),
        (TransductiveSVM(features=0), "features: expected at least 1"),
        (ContractiveAutoencoder(penalty=-1.0), "penalty: expected finite numbers of at least 0"),
        (ContractiveAutoencoder(hessian_draws=0), "hessian_draws: expected a whole number of at least 1"),
        (ContractiveAutoencoder(steps=0), "steps: expected a whole number of at least 1"),
        (NeuralNetwork(steps=0), "steps: expected at least 1"),
        (NeuralNetwork(hidden=(8.5,)), "hidden: expected at least one hidden layer"),
        (M2(epochs=0), "epochs: expected at least 1"),
        (M2(hidden=0), "hidden: expected at least one hidden layer"),
        (M1SVM(m1_hidden=()), "m1_hidden: expected at least one hidden layer"),
    ],
    ids=lambda value: None if isinstance(value, str) else repr(value),
)
def test_settings_that_make_no_sense_are_refused_by_name(estimator, words):
    X, y = blobs()
    with pytest.raises(UserError, match=words):
        estimator.fit(X, y)


@pytest.mark.parametrize(
    "estimator",
    [
        NeuralNetwork(steps=2, device="cpu"),
        ContractiveAutoencoder(epochs=1, steps=2, device="cpu"),
        M2(epochs=1, latent=2, device="cpu"),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_one_hidden_layer_may_be_a_number(estimator):
    X, y = blobs()
    one, same = (clone(estimator).set_params(hidden=hidden).fit(X, y).predict_proba(X) for hidden in (4, (4,)))
    assert np.array_equal(one, same)
