"""What VAT, the ladder network and the improved GAN have in common: they learn, are saved, go on and refuse."""

import numpy as np
import pytest
from sklearn.base import clone
from tiny_rows import IDS, QUICK

from apps.semi_supervised.baselines import NeuralNetwork
from apps.semi_supervised.estimator import OutOfTime, load
from apps.semi_supervised.improved_gan import ImprovedGAN
from apps.semi_supervised.ladder import Ladder
from apps.semi_supervised.vat import VAT
from core_models.errors import UserError
from core_models.training import RunFolder


@pytest.fixture(scope="module")
def alone(digits):
    """The share of the hidden rows that a network taught by the labelled ones alone has right."""
    X, y, shown = digits
    hidden = shown == -1
    return (NeuralNetwork(hidden=(100, 50), device="cpu").fit(X, shown).predict(X[hidden]) == y[hidden]).mean()


@pytest.fixture(scope="module", params=QUICK, ids=IDS)
def fitted(request, digits):
    return clone(request.param).fit(digits[0], digits[2])


def test_the_unlabelled_rows_help(fitted, digits, alone):
    X, y, shown = digits
    hidden = shown == -1
    assert (fitted.predict(X[hidden]) == y[hidden]).mean() > alone + 0.02


def test_a_saved_one_predicts_the_same(fitted, digits, tmp_path):
    fitted.save(tmp_path)
    assert np.array_equal(load(tmp_path).predict_proba(digits[0]), fitted.predict_proba(digits[0]))


def test_predictions_do_not_depend_on_neighbours(fitted, digits):
    some = fitted.predict_proba(digits[0][:40])
    assert np.allclose(fitted.predict_proba(digits[0][:3]), some[:3], rtol=1e-9)


@pytest.mark.parametrize("estimator", QUICK, ids=IDS)
def test_a_stopped_run_goes_on_as_if_it_had_not(estimator, digits, tmp_path):
    X, _, shown = digits
    short = clone(estimator).set_params(epochs=2)
    whole = clone(short).fit(X, shown).predict_proba(X)
    with pytest.raises(OutOfTime):
        clone(short).set_params(time_limit=1e-3).fit(X, shown, run=RunFolder(tmp_path))
    assert np.array_equal(clone(short).fit(X, shown, run=RunFolder(tmp_path), resume=True).predict_proba(X), whole)


@pytest.mark.parametrize("estimator", QUICK, ids=IDS)
def test_every_row_may_be_labelled(estimator, digits):
    X, y, _ = digits
    model = clone(estimator).set_params(epochs=30).fit(X[:600], y[:600])
    assert (model.predict(X[:600]) == y[:600]).mean() > 0.9


@pytest.mark.parametrize(
    ("estimator", "name"),
    [
        (VAT(hidden=()), "hidden"),
        (VAT(eps=-1.0), "eps"),
        (VAT(power_iterations=0), "power_iterations"),
        (VAT(batch_size=0), "batch_size"),
        (Ladder(noise=()), "noise"),
        (Ladder(noise=(0.1, float("nan"))), "noise"),
        (Ladder(noise="much"), "noise"),
        (Ladder(denoising=(1.0, -1.0)), "denoising"),
        (Ladder(hidden=(4,), denoising=(1.0, 1.0, 1.0, 1.0)), "denoising: expected at most 3"),
        (Ladder(hold=2.0), "^hold"),
        (VAT(eps=float("inf")), "eps"),
        (VAT(labelled_batch_size=1), "at least two labelled rows"),
        (Ladder(batch_size=1), "at least two unlabelled rows"),
        (ImprovedGAN(generator_hidden=()), "generator_hidden"),
        (ImprovedGAN(noise=(0.3,)), "noise"),
        (ImprovedGAN(hidden=()), "hidden"),
        (ImprovedGAN(latent=0), "latent"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_settings_out_of_range_are_refused_by_name(estimator, name, digits):
    with pytest.raises(UserError, match=name):
        estimator.fit(digits[0], digits[2])


@pytest.mark.parametrize("estimator", QUICK, ids=IDS)
@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed"])
def test_other_precisions_train_and_are_saved(estimator, precision, digits, tmp_path):
    X, _, shown = digits
    model = clone(estimator).set_params(epochs=2, precision=precision).fit(X, shown)
    model.save(tmp_path)
    assert np.array_equal(load(tmp_path).predict_proba(X), model.predict_proba(X))


def test_saved_whole_numbers_may_come_first(fitted, digits):
    # A safetensors file gives its tensors back in any order, and a batch normalisation counts in whole numbers.
    state = dict(sorted(fitted._state().items(), key=lambda entry: entry[1].is_floating_point()))
    other = clone(fitted)
    for name, value in vars(fitted).items():
        if name.endswith("_") and name not in ("network_", "history_"):
            setattr(other, name, value)
    other._restore(state)
    assert np.array_equal(other.predict_proba(digits[0]), fitted.predict_proba(digits[0]))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (Ladder(hidden=(9,)), {"noise": (0.9,)}),
        (Ladder(hidden=(9,)), {"denoising": (1.0,)}),
        (VAT(hidden=(9,)), {"eps": 1.0}),
        (ImprovedGAN(hidden=(9,), generator_hidden=(9,)), {"noise": (0.1, 0.1)}),
    ],
)
def test_a_run_does_not_go_on_with_other_settings(before, after, digits, tmp_path):
    X, _, shown = digits
    with pytest.raises(OutOfTime):
        clone(before).set_params(time_limit=1e-3).fit(X, shown, run=RunFolder(tmp_path))
    with pytest.raises(UserError, match="another model"):
        clone(before).set_params(**after).fit(X, shown, run=RunFolder(tmp_path), resume=True)


def test_settings_may_be_numbers_and_arrays(digits):
    X, _, shown = digits
    model = Ladder(hidden=np.array([9, 7]), noise=0.3, epochs=1).fit(X, shown)
    assert model.network_.widths == (64, 9, 7, 10)


@pytest.mark.parametrize("estimator", [QUICK[0], QUICK[1]], ids=IDS[:2])
def test_the_rate_is_held_and_then_falls(estimator, digits):
    X, _, shown = digits
    model = clone(estimator).set_params(epochs=4, hold=0.5, learning_rate=1e-3).fit(X, shown)
    rates = [line["learning_rate"] for line in model.history_.metrics]
    assert rates[:2] == [1e-3] * 2 and 0 < rates[2] < 1e-3 and rates[3] == 0


@pytest.mark.parametrize("fitted", QUICK[2:], ids=IDS[2:], indirect=True)
def test_gan_draws_rows_of_the_data(fitted, digits):
    rows = fitted.sample(7)
    assert rows.shape == (7, 1, 8, 8) and rows.min() >= 0 and rows.max() <= 1
    assert np.array_equal(rows, fitted.sample(7))
    mean = digits[0].mean(0)
    assert np.corrcoef(fitted.sample(200).mean(0).ravel(), mean.ravel())[0, 1] > 0.8
