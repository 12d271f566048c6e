"""Labels, scaling, shapes, saving and loading: what every semi-supervised classifier has from its base class."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import parametrize_with_checks
from tiny_rows import Nearest, blobs

from apps.semi_supervised.baselines import SVM, NeuralNetwork
from apps.semi_supervised.cae import ContractiveAutoencoder
from apps.semi_supervised.estimator import load
from apps.semi_supervised.improved_gan import ImprovedGAN
from apps.semi_supervised.labels import encode_labels
from apps.semi_supervised.ladder import Ladder
from apps.semi_supervised.tsvm import TransductiveSVM
from apps.semi_supervised.vat import VAT
from core_models.errors import UserError

QUICK = [
    NeuralNetwork(hidden=(16,), steps=30, learning_rate=3e-2, device="cpu"),
    SVM(C=10.0, gamma=1.0, folds=0),
    TransductiveSVM(C=10.0, gamma=1.0, unlabelled_weight=1.0, features=40, iterations=10, folds=0, device="cpu"),
    TransductiveSVM(
        kernel="linear", coupling="one-vs-rest", C=10.0, unlabelled_weight=1.0, iterations=10, folds=0, device="cpu"
    ),
    ContractiveAutoencoder(
        hidden=(16,), epochs=1, steps=30, learning_rate=1e-2, fine_tuning_rate=3e-2, device="cpu"
    ),
    VAT(hidden=(16,), epochs=15, eps=0.1, noise=0.0, labelled_batch_size=20, learning_rate=3e-2, device="cpu"),
    Ladder(hidden=(16,), denoising=(0.1,), noise=(0.1,), epochs=15, labelled_batch_size=20, learning_rate=3e-2,
           device="cpu"),
    ImprovedGAN(hidden=(16,), generator_hidden=(8,), latent=2, noise=(0.0, 0.0), epochs=15, labelled_batch_size=20,
                learning_rate=3e-2, ema=None, device="cpu"),
]  # fmt: skip


def known_exceptions(estimator):
    return {"check_classifiers_classes": "its last part has a class -1, which means unlabelled here"}


@parametrize_with_checks(QUICK, expected_failed_checks=known_exceptions)
def test_scikit_learn_conventions(estimator, check):
    check(estimator)


@pytest.mark.parametrize(
    "names",
    [
        np.array([3, 7, 11]),
        np.array([3, 7, 11], dtype=np.uint8),
        np.array([0.5, 2.0, 4.0]) * 2,
        np.array(["a", "bb", "ccc"]),
        np.array(["a", "bb", "ccc"], dtype=object),
        np.array([False, True]),
    ],
    ids=lambda names: names.dtype.str,
)
def test_labels_of_every_type_come_back_and_survive_saving(names, tmp_path):
    X, y = blobs(classes=len(names))
    model = Nearest().fit(X, names[y])
    model.save(tmp_path)
    again = load(tmp_path)
    for fitted in (model, again):
        assert fitted.predict(X).dtype == names.dtype
        assert fitted.classes_.tolist() == sorted(names.tolist())
        assert (fitted.predict(X) == names[y]).all()
        assert (fitted.transduction_ == names[y]).all()


@pytest.mark.parametrize(
    "names", [np.array([3, 7, 11]), np.array(["a", "bb", "ccc"], dtype=object)], ids=["int", "str"]
)
def test_given_labels_stay_and_hidden_ones_are_predicted(names):
    X, y = blobs()
    given = names[y]
    given[5:] = -1
    given[0] = names[(y[0] + 1) % 3]  # a wrong label of the user's stays the user's
    model = Nearest().fit(X, given)
    assert -1 not in model.classes_.tolist()
    assert model.transduction_[:5].tolist() == given[:5].tolist()
    assert model.transduction_[5:].tolist() == model.predict(X[5:]).tolist()
    assert (model.seen[1][5:] == -1).all()
    assert (given[5:] == -1).all()


def test_a_list_of_names_with_minus_one_is_understood():
    classes, codes = encode_labels(["cat", -1, "dog"])
    assert classes.tolist() == ["cat", "dog"]
    assert codes.tolist() == [0, -1, 1]


@pytest.mark.parametrize(
    ("y", "kind", "names"),
    [([3, -1, 7], "i", [3, 7]), ([0.0, -1, 2.0], "f", [0, 2]), ([False, -1, True], "b", [False, True])],
)
def test_numbers_and_booleans_beside_minus_one_in_an_object_array_are_classes(y, kind, names, tmp_path):
    model = Nearest().fit(np.eye(3), np.array(y, dtype=object))
    model.save(tmp_path)
    assert model.classes_.dtype.kind == kind and model.classes_.tolist() == names
    assert model.seen[1].tolist() == [0, -1, 1]
    assert model.transduction_[[0, 2]].tolist() == load(tmp_path).predict(np.eye(3))[[0, 2]].tolist() == names


def test_an_estimator_with_a_random_state_is_saved_without_it(tmp_path):
    X, y = blobs()
    model = Nearest(random_state=np.random.RandomState(0)).fit(X, y)
    model.save(tmp_path)
    assert load(tmp_path).random_state is None
    assert (load(tmp_path).predict(X) == model.predict(X)).all()


@pytest.mark.parametrize("kind", [">i2", ">i8", ">f4"])
def test_labels_in_the_other_byte_order_are_fitted_and_saved(kind, tmp_path):
    X, y = blobs()
    model = Nearest().fit(X, np.where(np.arange(30) < 15, y, -1).astype(kind))
    model.save(tmp_path)
    assert load(tmp_path).classes_.tolist() == [0, 1, 2]
    assert load(tmp_path).predict(X).tolist() == model.predict(X).tolist() == y.tolist()


@pytest.mark.parametrize(
    ("y", "words"),
    [
        (np.array([-1, -1, -1]), "labelled"),
        (np.array([1, -1, 1]), "1 class"),
        (np.array(["cat", "-1", "dog"]), "object array"),
        (np.array(["cat", "-1", "dog"], dtype=object), "object array"),
        (["cat", "-1", "dog"], "object array"),
        ([None, float("nan"), -1], "labelled"),
        (np.array([0.0, np.inf, 1.0]), "y contains infinity"),
        (np.array(["cat", 2, -1], dtype=object), "mixture"),
        (np.array([0.5, 1.2, 3.3]), "continuous"),
        (None, "requires y"),
    ],
)
def test_labels_that_make_no_sense_are_refused(y, words):
    with pytest.raises(ValueError, match=words):
        Nearest().fit(np.eye(3), y)


@pytest.mark.parametrize(
    ("X", "words"),
    [
        (np.zeros((3, 2, 2)), "channels, height, width"),
        (np.array([[np.nan], [0], [1]]), "NaN"),
        (np.zeros((2, 4)), "inconsistent"),
        (np.zeros(3), "Reshape your data"),
    ],
)
def test_rows_that_make_no_sense_are_refused(X, words):
    with pytest.raises(ValueError, match=words):
        Nearest().fit(X, np.array([0, 1, -1]))


def test_images_keep_their_shape_and_may_be_given_flat_later():
    images = np.random.default_rng(0).random((12, 1, 4, 3), dtype=np.float32)
    y = np.arange(12) % 3
    model = Nearest().fit(torch.from_numpy(images), torch.from_numpy(y))
    assert model.event_shape_ == (1, 4, 3)
    assert model.n_features_in_ == 12
    assert model.seen[0].shape == (12, 1, 4, 3)
    assert (model.predict_proba(images) == model.predict_proba(images.reshape(12, 12))).all()
    with pytest.raises(UserError, match=r"\(1, 4, 3\)"):
        model.predict(images.transpose(0, 1, 3, 2))
    with pytest.raises(ValueError, match="12 features"):
        model.predict(images.reshape(12, 12)[:, 1:])


def test_scaling_is_chosen_by_the_training_rows():
    rng = np.random.default_rng(0)
    y = np.arange(20) % 2
    pixels = rng.random((20, 5)).astype(np.float32)
    assert np.array_equal(Nearest().fit(pixels, y).seen[0].numpy(), pixels)

    x = Nearest().fit(1e6 + 3 * pixels.astype(np.float64), y).seen[0]
    assert torch.allclose(x.mean(0), torch.zeros(5), atol=1e-5)
    assert torch.allclose(x.std(0, correction=0), torch.ones(5), atol=1e-4)

    images = rng.integers(0, 256, (20, 1, 4, 4), dtype=np.uint8)
    images[0, 0, 0, :2] = 0, 255
    assert np.allclose(Nearest().fit(images, y).seen[0].numpy(), images / 255)

    photos = rng.normal([[[[1]], [[5]]]], [[[[1]], [[3]]]], (20, 2, 4, 4))
    x = Nearest(scale="standard").fit(photos, y).seen[0]
    assert torch.allclose(x.mean((0, 2, 3)), torch.zeros(2), atol=1e-5)
    assert torch.allclose(x.std((0, 2, 3), correction=0), torch.ones(2), atol=1e-4)
    with pytest.raises(UserError, match="standard"):
        Nearest(scale="log").fit(photos, y)


def test_flat_bytes_are_pixels_and_other_whole_numbers_are_not():
    rng = np.random.default_rng(0)
    y = np.arange(20) % 2
    rows = rng.integers(0, 256, (20, 16)).astype(np.float64)  # as fetch_openml gives MNIST
    rows[0, :2] = 0, 255
    assert np.allclose(Nearest().fit(rows, y).seen[0].numpy(), rows / 255)
    for counts in (rows - 1, rows // 2, rows + 0.5 * (np.arange(16) == 3)):
        assert Nearest().fit(counts, y).scaling_ == "standard"


BYTES = np.random.default_rng(0).integers(0, 256, (20, 16), dtype=np.uint8)
BYTES[0, :2] = 0, 255


@pytest.mark.parametrize("shape", [(20, 16), (20, 1, 4, 4)], ids=["flat", "images"])
@pytest.mark.parametrize(("trained", "given"), [(BYTES / 255, BYTES), (BYTES, BYTES / 255), (BYTES / 255, BYTES // 4)])
def test_rows_in_other_units_than_those_of_training_bring_a_warning(trained, given, shape, tmp_path):
    trained, given = trained.reshape(shape), given.reshape(shape)
    model = Nearest().fit(trained, np.arange(20) % 2)
    model.save(tmp_path)
    for fitted in (model, load(tmp_path)):
        with pytest.warns(UserWarning, match=r"expected rows in the units .* scale them alike") as caught:
            fitted.predict(given)
        assert len(caught) == 1
        # none for the very rows, a black image, one that is nearly so, or a shift and a factor that may well be real
        for rows in (trained, 0 * trained, trained // 16, 2 * trained, trained - trained.mean()):
            fitted.predict(rows)


def test_neither_a_dark_row_nor_a_glaring_training_pixel_brings_a_warning(recwarn):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 600, (20, 1, 4, 4)).astype(np.uint16)
    images[3, 0, 1, 2] = 65535
    model = Nearest().fit(images, np.arange(20) % 2)
    for rows in (images, images[:3], images[:1] // 200):
        model.predict(rows)
    assert not recwarn.list
    with pytest.warns(UserWarning, match="expected rows in the units"):
        model.predict(images[:3] // 200)


class Scaling(Nearest):
    """Keeps an array under a name that scikit-learn's own scalers have."""

    def _fit(self, x, y, *, run, resume):
        super()._fit(x, y, run=run, resume=resume)
        self.scale_ = np.ones(3)


def test_a_method_may_keep_a_scale_of_its_own(tmp_path):
    model = Scaling().fit(BYTES, np.arange(20) % 2)
    model.save(tmp_path)
    for fitted in (model, load(tmp_path)):
        assert len(fitted.predict(BYTES)) == 20 and np.array_equal(fitted.scale_, np.ones(3))


def test_an_estimator_saved_without_the_range_of_its_training_rows_is_still_loaded(saved):
    fitted = json.loads((saved / "estimator.json").read_text())["fitted"]
    edit(saved, fitted={name: entry for name, entry in fitted.items() if name not in ("usual_most_", "scaling_")})
    assert len(load(saved).predict(1e6 * np.ones((2, 2)))) == 2


@pytest.mark.parametrize("channels", [1, 3])
def test_images_with_their_channels_last_are_refused(channels):
    images = np.random.default_rng(0).random((6, 8, 7, channels))
    y = np.arange(6) % 2
    with pytest.raises(UserError, match=r"with the channels last: transpose it to \(n, c, h, w\)"):
        Nearest().fit(images, y)
    model = Nearest().fit(images.transpose(0, 3, 1, 2), y)
    with pytest.raises(UserError, match="with the channels last"):
        model.predict(images)
    with pytest.raises(UserError, match=r"in training, got .*: transpose them to \(n, "):
        model.predict(images.transpose(0, 3, 2, 1))
    assert Nearest().fit(images[:, :, :1, :1].repeat(4, 1), y).event_shape_ == (32, 1, 1)  # features of a network


def test_a_feature_that_never_varies_does_no_harm():
    X, y = blobs()
    X = np.c_[X, np.full(len(X), 0.1)]
    assert np.isfinite(Nearest().fit(X, y).predict_proba(X)).all()


@pytest.mark.parametrize("estimator", QUICK, ids=lambda e: f"{type(e).__name__}-{getattr(e, 'kernel', '')}")
def test_a_saved_estimator_predicts_the_same(estimator, tmp_path):
    X, y = blobs()
    y = np.where(np.arange(30) < 15, y, -1)
    model = clone(estimator).fit(X, y)
    model.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"estimator.json", "model.safetensors"}
    again = load(tmp_path)
    assert type(again) is type(model)
    assert again.get_params() == model.get_params()
    assert np.array_equal(again.predict_proba(X), model.predict_proba(X))
    assert np.array_equal(again.transduction_, model.transduction_)
    again.save(tmp_path / "second")
    assert (tmp_path / "second" / "estimator.json").read_text() == (tmp_path / "estimator.json").read_text()


@pytest.mark.parametrize("estimator", QUICK, ids=lambda e: f"{type(e).__name__}-{getattr(e, 'kernel', '')}")
def test_same_seed_same_numbers(estimator):
    X, y = blobs()
    y = np.where(np.arange(30) < 15, y, -1)
    first, second = (clone(estimator).fit(X, y).predict_proba(X) for _ in range(2))
    assert np.array_equal(first, second)


@pytest.fixture
def saved(tmp_path):
    X, y = blobs()
    Nearest().fit(X, y).save(tmp_path)
    return tmp_path


def edit(folder: Path, **changes):
    path = folder / "estimator.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("cut", [0, 5, -1])
def test_truncated_weights_are_refused(saved, cut):
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(UserError, match=r"model\.safetensors"):
        load(saved)


def test_altered_weights_are_refused(saved):
    path = saved / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="not the file"):
        load(saved)


@pytest.mark.parametrize("name", ["model.safetensors", "estimator.json"])
def test_a_missing_file_is_named(saved, name):
    (saved / name).unlink()
    with pytest.raises(UserError, match=name):
        load(saved)


@pytest.mark.parametrize(
    "class_path",
    ["subprocess.Popen", "apps.semi_supervised.estimator.encode_labels", "apps.nowhere.Model", "antigravity.x"],
)
def test_only_estimators_are_instantiated(saved, class_path):
    edit(saved, class_path=class_path)
    with pytest.raises(UserError, match="names the class"):
        load(saved)


@pytest.mark.parametrize(
    "changes", [{"format": 99}, {"params": {"depth": 3}}, {"fitted": {"means_": {"array": "<f4"}}}]
)
def test_an_altered_description_is_refused(saved, changes):
    edit(saved, **changes)
    if "fitted" in changes:
        with pytest.raises((UserError, NotFittedError)):
            load(saved).predict(np.zeros((1, 2)))
    else:
        with pytest.raises(UserError):
            load(saved)


def test_another_kind_of_estimator_is_refused(saved):
    with pytest.raises(UserError, match="found a Nearest"):
        SVM.load(saved)


def test_what_cannot_be_written_is_said_before_anything_is_overwritten(saved):
    before = (saved / "model.safetensors").read_bytes()
    X, y = blobs(40)
    with pytest.raises(UserError, match="extra"):
        Nearest(extra=object()).fit(X, y).save(saved)
    assert (saved / "model.safetensors").read_bytes() == before


def test_an_unfitted_estimator_is_not_saved(tmp_path):
    with pytest.raises(NotFittedError):
        Nearest().save(tmp_path)
