"""M1+SVM, M1+TSVM, M2 and M1+M2 as estimators."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.utils.estimator_checks import parametrize_with_checks

import core_models
from apps.semi_supervised.benchmark import shared_m1
from apps.semi_supervised.estimator import load
from apps.semi_supervised.experiment import Task, run_task
from apps.semi_supervised.m1 import M1SVM, M1TSVM
from apps.semi_supervised.m1_m2 import M1M2
from apps.semi_supervised.m2 import M2
from core_models.data import DataSet
from core_models.errors import UserError
from core_models.latent import VAE, VAEConfig
from core_models.training import RunFolder

SMALL_M1 = {"m1_latent": 5, "m1_hidden": (32,), "m1_epochs": 15, "m1_batch_size": 25, "m1_learning_rate": 1e-2}
SMALL_M1 |= {"m1_kl_warmup": 0, "active_threshold": 0.0, "device": "cpu"}
SMALL_M2 = {"latent": 2, "hidden": (32,), "epochs": 30, "learning_rate": 3e-2, "warmup_steps": 0, "device": "cpu"}
SMALL_M2 |= {"batch_size": 50, "labelled_batch_size": 50}
ESTIMATORS = [
    M2(**{**SMALL_M2, "epochs": 12}),
    M1M2(**{**SMALL_M2, **SMALL_M1, "epochs": 15}),
    M1SVM(**{**SMALL_M1, "m1_epochs": 8}),
    M1TSVM(**{**SMALL_M1, "m1_epochs": 8}),
]
GENERATIVE = [M2, M1M2]


@pytest.fixture(scope="module")
def digits():
    images, y = load_digits(return_X_y=True)
    x = (images / 16).astype(np.float32).reshape(-1, 1, 8, 8)[:600]
    y = y[:600]
    shown = np.full(600, -1)
    for c in range(10):
        chosen = np.flatnonzero(y == c)[:5]
        shown[chosen] = c
    return x, y, shown


def small(kind, **changes):
    settings = {**SMALL_M2, "epochs": 15, "learning_rate": 1e-2, **({} if kind is M2 else SMALL_M1)}
    return kind(**{**settings, **changes})


@pytest.fixture(scope="module", params=GENERATIVE, ids=lambda kind: kind.__name__)
def fitted(request, digits):
    x, _, shown = digits
    return small(request.param).fit(x, shown)


def known_exceptions(_):
    return {"check_classifiers_classes": "its last part has a class -1, which means unlabelled here"}


@parametrize_with_checks(ESTIMATORS, expected_failed_checks=known_exceptions)
def test_scikit_learn_conventions(estimator, check):
    check(estimator)


def test_transduction_keeps_given_labels(fitted, digits):
    x, _, shown = digits
    assert (fitted.transduction_[shown >= 0] == shown[shown >= 0]).all()
    np.testing.assert_array_equal(fitted.transduction_[shown < 0], fitted.predict(x)[shown < 0])


def test_latents_samples_and_analogies_have_the_shapes_and_units_of_the_data(fitted, digits):
    x, _, _ = digits
    assert fitted.transform(x[:7]).shape == (7, 2)
    assert fitted.sample(3, 4).shape == (4, 1, 8, 8)
    assert fitted.sample([1, 2, 3], 2).shape == (6, 1, 8, 8)
    assert fitted.analogies(x[:3]).shape == (3, 10, 1, 8, 8)
    assert fitted.manifold(5, size=4).shape == (4, 4, 1, 8, 8)
    assert fitted.sample(3, 4).min() >= 0 and fitted.sample(3, 4).max() <= 1
    with pytest.raises(UserError, match=r"expected labels among the classes 0, 1, .*, got 11"):
        fitted.sample(11)


def test_an_analogy_in_the_own_class_resembles_its_source(digits):
    x, y, shown = digits
    model = M2(**{**SMALL_M2, "latent": 10, "hidden": (64,), "epochs": 60, "learning_rate": 1e-2}).fit(x, shown)
    right = np.flatnonzero(model.predict(x) == y)[:100]
    own = model.analogies(x[right])[np.arange(len(right)), y[right]]
    average = np.stack([x[y == c].mean(0) for c in range(10)])[y[right]]
    # a style is carried over: closer to the source than the average image of its class
    assert ((own - x[right]) ** 2).mean() < 0.8 * ((average - x[right]) ** 2).mean()


def test_data_in_other_units_come_back_in_them(digits):
    x, _, shown = digits
    model = small(M2, epochs=3).fit(x * 255, shown)
    assert model.sample(3, 4).max() > 2 and model.sample(3, 4).max() <= 255


def test_flat_bytes_are_binarised_pixels_to_m2(digits):
    x, _, shown = digits
    rows = np.round(255 * x.reshape(len(x), 64))
    model = small(M2, epochs=1).fit(rows, shown)
    assert model.network_config_["likelihood"] == "bernoulli" and model.observation_ == "binarised"
    assert 1 < model.sample(3, 4).max() <= 255


def test_string_labels(digits):
    x, _, shown = digits
    names = np.array([f"class {c}" for c in range(10)], dtype=object)
    labels = np.array([names[c] if c >= 0 else -1 for c in shown], dtype=object)
    model = small(M2, epochs=3).fit(x, labels)
    assert set(model.predict(x)) <= set(names) and model.transduction_.dtype.kind in "OU"
    assert model.sample("class 3").shape == (1, 1, 8, 8)


def test_permuting_the_hidden_labels_leaves_training_bit_identical(digits):
    """The experiment knows all labels, for scoring: none of the hidden ones may reach the estimator."""
    x, y, shown = digits
    rng = np.random.default_rng(0)
    results = []
    for hidden in (y, rng.permutation(y)):
        truth = torch.from_numpy(np.where(shown >= 0, shown, hidden))
        levels = torch.from_numpy(np.round(x * 16).astype(np.uint8))
        data = DataSet("digits", levels, truth, levels[:50], truth[:50], tuple("0123456789"), "test", levels=17)
        estimator = small(M1M2, epochs=2, m1_epochs=2)
        outcome, _ = run_task(estimator, Task(data, x, shown, 50, 0, {}))
        assert outcome.seconds == estimator.m1_seconds_ + estimator.history_.seconds > estimator.history_.seconds
        results.append((estimator.predict_proba(x), outcome.pool_errors))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    assert results[0][1] != results[1][1]  # the permutation did change what is scored


@pytest.mark.parametrize("kind", [M2, M1M2, M1SVM, M1TSVM])
def test_saved_and_loaded_it_predicts_the_same(kind, digits, tmp_path):
    x, _, shown = digits
    settings = {"m1_epochs": 3} if kind is not M2 else {}
    base = SMALL_M1 if kind in (M1SVM, M1TSVM) else {**SMALL_M2, "epochs": 2, **(SMALL_M1 if kind is M1M2 else {})}
    model = kind(**{**base, **settings}).fit(x, shown)
    model.save(tmp_path / "saved")
    again = load(tmp_path / "saved")
    assert type(again) is kind and again.get_params() == model.get_params()
    np.testing.assert_array_equal(again.predict_proba(x), model.predict_proba(x))
    np.testing.assert_array_equal(again.transform(x), model.transform(x))
    if kind in GENERATIVE:
        np.testing.assert_array_equal(again.sample([1, 2], 2), model.sample([1, 2], 2))
    assert not [path for path in (tmp_path / "saved").rglob("*") if path.suffix in (".pkl", ".pickle", ".pt")]


@pytest.mark.parametrize("kind", GENERATIVE)
def test_trained_in_double_it_is_loaded_in_double(kind, digits, tmp_path):
    x, _, shown = digits
    changes = {"m1_epochs": 2} if kind is M1M2 else {}
    model = small(kind, epochs=2, precision="64-true", **changes).fit(x, shown)
    model.save(tmp_path / "saved")
    np.testing.assert_array_equal(load(tmp_path / "saved").predict_proba(x), model.predict_proba(x))


def test_same_seed_same_numbers_other_seed_other_numbers(digits):
    x, _, shown = digits
    first, second, other = (small(M2, epochs=2, random_state=s).fit(x, shown).predict_proba(x) for s in (0, 0, 1))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


class Shift(VAE):
    """A user's own model: any Variational will do as M1."""


def test_an_auto_encoder_of_the_users_own_as_an_object_and_from_a_folder(digits, tmp_path):
    x, _, shown = digits
    torch.manual_seed(0)
    own = Shift(VAEConfig(event_shape=(64,), latent=6, hidden=(32,)))  # flat events: the rows are reshaped
    model = M1SVM(m1=own, active_threshold=0.0, device="cpu").fit(x, shown)
    assert type(model.m1_) is Shift
    core_models.save(own, tmp_path / "own")
    from_folder = M1SVM(m1=str(tmp_path / "own"), active_threshold=0.0, device="cpu").fit(x, shown)
    np.testing.assert_array_equal(model.predict_proba(x), from_folder.predict_proba(x))
    model.save(tmp_path / "saved")
    np.testing.assert_array_equal(load(tmp_path / "saved").predict_proba(x), model.predict_proba(x))


def test_m1_has_a_precision_of_its_own(digits, tmp_path):
    x, _, shown = digits
    model = small(M1M2, epochs=1, m1_epochs=1, m1_precision="64-true").fit(x, shown)
    kinds = {part: {p.dtype for p in part.parameters()} for part in (model.m1_, model.network_)}
    assert list(kinds.values()) == [{torch.float64}, {torch.float32}]
    # what M2 is trained in does not change whose M1 a benchmark shares
    task = Task(SimpleNamespace(name="digits"), x, shown, 50, 0, {})
    alone, apart, other = (
        shared_m1(small(M1M2, m1_epochs=1, **precisions), task, tmp_path, {"data": "digits"})[0]
        for precisions in (
            {"precision": "64-true"},
            {"precision": "32-true", "m1_precision": "64-true"},
            {"precision": "32-true"},
        )
    )
    assert alone == apart != other
    given = M1SVM(m1=str(alone), active_threshold=0.0, device="cpu").fit(x, shown)
    assert {parameter.dtype for parameter in given.m1_.parameters()} == {torch.float64}


def test_m1_hands_its_device_and_its_words_on_to_its_svm(digits, capsys):
    x, _, shown = digits
    own = VAE(VAEConfig(event_shape=(64,), latent=2, hidden=(4,)))
    few = np.flatnonzero((shown == 0) | (shown == 1))
    model = M1TSVM(m1=own, active_threshold=0.0, device="cpu", verbose=True).fit(x[few], shown[few])
    assert model.classifier_.device == "cpu" and "held out" in capsys.readouterr().out
    M1TSVM(m1=own, active_threshold=0.0, device="cpu").fit(x[few], shown[few])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("likelihood", ["bernoulli", "discretised-logistic"])
@pytest.mark.parametrize(("kind", "option"), [(M2, "likelihood"), (M1SVM, "m1_likelihood")])
def test_a_likelihood_of_pixels_is_refused_outside_their_range(kind, option, likelihood, digits):
    x, _, shown = digits
    rows = 16 * x.reshape(len(x), 64)
    for scale, least in (("auto", r"-\d"), ("none", "0")):
        with pytest.raises(UserError, match=f"^{option}: expected {likelihood}, .* got values from {least}") as caught:
            kind(**{option: likelihood}, scale=scale).fit(rows, shown)
        assert "\n" not in str(caught.value)
    small = {**SMALL_M2, "epochs": 1} if kind is M2 else {**SMALL_M1, "m1_epochs": 1}
    assert np.isfinite(kind(**small, **{option: likelihood}, scale="unit").fit(rows, shown).predict_proba(rows)).all()


def test_an_auto_encoder_of_other_events_is_refused(digits):
    x, _, shown = digits
    own = VAE(VAEConfig(event_shape=(7,), latent=2, hidden=(4,)))
    with pytest.raises(UserError, match="expected m1 to model events of 64 values like the rows, got"):
        M1SVM(m1=own, device="cpu").fit(x, shown)


def test_clone_keeps_every_argument():
    for estimator in ESTIMATORS:
        assert clone(estimator).get_params() == estimator.get_params()


@pytest.mark.parametrize("kind", [M2, M1M2])
def test_colour_images_by_convolutions(kind):
    generator = np.random.default_rng(0)
    y = np.arange(80) % 2
    x = generator.uniform(0, 0.3, (80, 3, 8, 8)).astype(np.float32)
    x[y == 1, 0] += 0.6  # one class is red
    shown = np.where(np.arange(80) < 10, y, -1)
    common = {"network": "conv", "channels": (4,)} if kind is M2 else {"m1_network": "conv", "m1_channels": (4,)}
    if kind is M1M2:
        common["m1_epochs"] = 150
    model = small(kind, epochs=60, batch_size=10, weight_prior=0.01, **common)
    model.fit(np.round(x * 255) / 255, shown)
    assert model.score(x, y) > 0.95
    assert model.sample(1, 2).shape == (2, 3, 8, 8)


@pytest.mark.parametrize("kind", GENERATIVE)
def test_the_weights_and_steps_of_the_loss_follow_from_the_rows(kind, digits):
    x, _, shown = digits
    labelled, rows = int((shown >= 0).sum()), len(shown)
    model = small(kind, epochs=4, weight_prior=3.0, alpha=0.7, labels_first=2, class_warmup=0.5)
    scaled, codes = model._begin(x, shown)
    problem = model._prepare(scaled, torch.from_numpy(codes), run=None, resume=False)
    objective, epoch = problem.objective, problem.batches.steps_per_epoch
    assert model._training_config(rows).weight_decay == pytest.approx(3 / rows)
    assert (objective.labelled_weight, objective.unlabelled_weight) == (labelled / rows, 1 - labelled / rows)
    assert objective.alpha == 0.7
    assert (objective.labels_first_steps, objective.class_warmup_steps) == (2 * epoch, 2 * epoch)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"alpha": -1.0}, "alpha: expected at least 0, got -1.0"),
        ({"weight_prior": -1.0}, "weight_prior: expected at least 0"),
        ({"labels_first": 16}, "labels_first: expected 0 to 15, got 16"),
        ({"class_warmup": 5.0}, "class_warmup: expected 0 to 1, got 5.0"),
    ],
)
def test_settings_out_of_range_are_refused(changes, words, digits):
    x, _, shown = digits
    with pytest.raises(UserError, match=words):
        small(M2, **changes).fit(x, shown)


def test_a_run_is_not_resumed_with_another_loss(digits, tmp_path):
    x, _, shown = digits
    small(M2, epochs=2, alpha=0.1).fit(x, shown, run=RunFolder(tmp_path))
    with pytest.raises(UserError, match=r"another model: alpha \(0.1 there, 0.5 here\)"):
        small(M2, epochs=2, alpha=0.5).fit(x, shown, run=RunFolder(tmp_path), resume=True)
