"""The baselines: they learn from the labelled rows, and from nothing else."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.svm import SVC
from sklearn.utils.estimator_checks import parametrize_with_checks

from apps.semi_supervised.baselines import SVM, ConvolutionalNetwork, NeuralNetwork, fitted_temperature
from apps.semi_supervised.estimator import load
from core_models.errors import UserError
from core_models.layers.networks import conv_encoder
from core_models.training import RunFolder

QUICK = [
    NeuralNetwork(hidden=(64,), steps=100, learning_rate=1e-2, device="cpu"),
    ConvolutionalNetwork(channels=(8,), width=32, steps=60, learning_rate=2e-2, device="cpu"),
    SVM(),
]
IDS = [type(estimator).__name__ for estimator in QUICK]


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    images = (data.images / 16).astype(np.float32)[:, None]
    y = data.target
    shown = np.full(len(y), -1)
    for k in range(10):
        rows = np.flatnonzero(y == k)[:10]
        shown[rows] = k
    return images, y, shown


@pytest.mark.parametrize("estimator", QUICK, ids=IDS)
def test_digits_are_learnt_from_ten_labels_each(estimator, digits):
    X, y, shown = digits
    model = clone(estimator).fit(X, shown)
    hidden = shown == -1
    assert (model.predict(X[hidden]) == y[hidden]).mean() > 0.72
    assert (model.transduction_[~hidden] == y[~hidden]).all()


@pytest.mark.parametrize("estimator", QUICK, ids=IDS)
def test_unlabelled_rows_change_nothing(estimator, digits):
    X, _, shown = digits
    order = np.r_[np.flatnonzero(shown >= 0), np.flatnonzero(shown < 0)][:300]
    X, shown = X[order], shown[order]
    labelled = shown >= 0
    settings = {"steps": 5} if hasattr(estimator, "steps") else {}
    some = clone(estimator).set_params(**settings).fit(X, shown).predict_proba(X)
    none = clone(estimator).set_params(**settings).fit(X[labelled], shown[labelled]).predict_proba(X)
    assert np.array_equal(some, none)


class FlatConvolutionalNetwork(ConvolutionalNetwork):
    """scikit-learn checks with rows of any length, which are no images: here they become the pixels of one row."""

    def _build(self):
        self.image_shape_ = (1, 4, 4 * -(-self.n_features_in_ // 16))
        missing = int(np.prod(self.image_shape_)) - self.n_features_in_
        network = conv_encoder(torch.Size(self.image_shape_), (16,), 64, len(self.classes_), "relu")
        pad = torch.nn.ConstantPad1d((0, missing), 0.0)
        return torch.nn.Sequential(torch.nn.Flatten(), pad, torch.nn.Unflatten(1, self.image_shape_), network)


@parametrize_with_checks(
    [FlatConvolutionalNetwork(steps=20, learning_rate=2e-2, device="cpu")],
    expected_failed_checks=lambda _: {
        "check_classifiers_classes": "its last part has a class -1, which means unlabelled here"
    },
)
def test_scikit_learn_conventions(estimator, check):
    check(estimator)


def test_a_convolutional_network_asks_for_images(digits):
    X, _, shown = digits
    with pytest.raises(UserError, match="image_shape"):
        ConvolutionalNetwork(steps=1, device="cpu").fit(X.reshape(len(X), -1), shown)
    flat = ConvolutionalNetwork(channels=(4,), steps=2, image_shape=(1, 8, 8), device="cpu")
    images = clone(flat).set_params(image_shape=None)
    one = flat.fit(X.reshape(len(X), -1), shown).predict_proba(X.reshape(len(X), -1))
    assert np.array_equal(one, images.fit(X, shown).predict_proba(X))


def test_units_of_the_hidden_layer_are_dropped_in_training_alone(digits, tmp_path):
    X, _, shown = digits
    model = ConvolutionalNetwork(channels=(4,), width=50, steps=2, dropout=0.0, hidden_dropout=0.4, device="cpu")
    plain = clone(model).set_params(hidden_dropout=0.0).fit(X, shown)
    model.fit(X, shown)
    assert not np.array_equal(model.predict_proba(X), plain.predict_proba(X))
    assert model._network.state_dict().keys() == plain._network.state_dict().keys()
    model.save(tmp_path)
    assert np.array_equal(load(tmp_path).predict_proba(X), model.predict_proba(X))
    activated = model._network[3].head[0].train()
    h = activated(torch.ones(200, 50))
    assert (h == 0).float().mean().item() == pytest.approx(0.4, abs=0.02)
    assert torch.allclose(h[h > 0], torch.tensor(1 / 0.6))
    for name in ("dropout", "hidden_dropout"):
        for share in (1.0, -0.1):
            with pytest.raises(UserError, match=f"{name}: expected"):
                clone(model).set_params(**{name: share}).fit(X, shown)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_the_svm_votes_as_scikit_learn_does(classes):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(90, 4)), rng.integers(0, classes, 90)
    model = SVM(C=2.0, gamma=1.5, folds=0, scale="none").fit(X, y)
    peer = SVC(C=2.0, gamma=model.gamma_, break_ties=True).fit(X.astype(np.float32).astype(np.float64), y)
    assert (model.predict(X) == peer.predict(X)).all()
    scores = np.log(model.predict_proba(X)) * model.temperature_
    decision = peer.decision_function(X.astype(np.float32))
    decision = np.c_[-decision, decision] if classes == 2 else decision
    assert np.allclose(scores - scores[:, :1], decision - decision[:, :1], atol=1e-6)


def test_the_svm_is_chosen_by_held_out_labels(digits):
    X, _, shown = digits
    model = SVM(C=(1e-4, 10.0), gamma=(1e-4, 1.0)).fit(X[:300], shown[:300])
    assert model.C_ == 10.0
    assert model.gamma_ > 1e-3


def test_temperature_minimises_the_cross_entropy():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(20_000, 3))
    p = torch.from_numpy(scores / 0.25).softmax(1).numpy()
    codes = (p.cumsum(1) > rng.random((len(p), 1))).argmax(1)
    assert fitted_temperature(scores, codes) == pytest.approx(0.25, rel=0.05)


def test_a_run_folder_keeps_the_curve_and_a_resumed_fit_is_the_same(digits, tmp_path):
    X, _, shown = digits
    model = NeuralNetwork(hidden=(8,), steps=10, device="cpu").fit(X, shown, run=RunFolder(tmp_path / "run"))
    assert (tmp_path / "run" / "metrics.jsonl").read_text().count("\n") == 10
    again = clone(model).fit(X, shown, run=RunFolder(tmp_path / "run"), resume=True)
    assert np.array_equal(again.predict_proba(X), model.predict_proba(X))


def test_a_convolutional_network_is_saved(digits, tmp_path):
    X, _, shown = digits
    model = ConvolutionalNetwork(channels=(4,), width=8, steps=2, device="cpu").fit(X, shown)
    model.save(tmp_path)
    assert np.array_equal(load(tmp_path).predict_proba(X), model.predict_proba(X))
