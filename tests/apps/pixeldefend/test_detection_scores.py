"""Scores of images, what they are corrected by, controls, and the calibration file."""

import io
import math
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from apps.pixeldefend import detection
from apps.pixeldefend.detection import Calibration, calibrate
from apps.pixeldefend.detection.complexity import compress
from core_models.base import ExactLikelihood, GenerativeModel
from core_models.errors import UserError


class Independent(GenerativeModel, ExactLikelihood):
    """Sub-pixels drawn independently, levels below 128 with probability q in all."""

    def __init__(self, q=0.75, shape=(1, 4, 4)):
        super().__init__()
        self.event_shape = torch.Size(shape)
        self.q = nn.Parameter(torch.tensor(q), requires_grad=False)
        self.dropout = nn.Dropout(0.5)

    def log_prob(self, x, y=None):
        levels = (x * 255).round()
        dark = self.dropout(torch.ones(())) * self.q  # other than in evaluation mode, another number
        return torch.where(levels < 128, (dark / 128).log(), ((1 - dark) / 128).log()).flatten(1).sum(1)

    def sample(self, n, y=None, *, generator=None):
        dark = torch.rand(n, *self.event_shape, generator=generator) < self.q
        levels = torch.randint(128, dark.shape, generator=generator)
        return torch.where(dark, levels, levels + 128) / 255


def images(n=6, shape=(1, 4, 4), seed=0):
    return torch.randint(256, (n, *shape), generator=torch.Generator().manual_seed(seed)) / 255


def test_bits_per_dim_is_the_log_likelihood_in_bits_over_the_sub_pixels_in_evaluation_mode():
    model = Independent(shape=(3, 2, 2)).train()
    x = torch.cat([torch.zeros(1, 3, 2, 2), torch.ones(1, 3, 2, 2)])
    expected = [-math.log2(0.75 / 128), -math.log2(0.25 / 128)]
    np.testing.assert_allclose(detection.bits_per_dim(model, x, batch_size=1), expected, rtol=1e-6)
    assert model.training and model.dropout.training
    assert detection.bits_per_dim(model, x[:0]).shape == (0,)
    with pytest.raises(UserError, match="exact likelihood"):
        detection.bits_per_dim(nn.Linear(2, 2), x)
    with pytest.raises(UserError, match="batch_size: expected 1 or more, got 0"):
        detection.bits_per_dim(model, x, batch_size=0)
    model.q.fill_(torch.nan)
    with pytest.raises(UserError, match="no probability"):
        detection.bits_per_dim(model, x)


def test_arrays_are_scored_as_tensors_are_and_anything_else_is_refused_in_a_line():
    model, x = Independent(), images()
    expected = detection.scores_of(model, x, codecs=("zlib",))
    for array in (x.numpy(), x.double().numpy(), x.numpy()[:, :, :, ::-1][:, :, :, ::-1]):
        found = detection.scores_of(model, array, codecs=("zlib",))
        assert {name: values.tolist() for name, values in found.items()} == {
            name: values.tolist() for name, values in expected.items()
        }
        assert detection.bits_per_dim(model, array).tolist() == expected["bits_per_dim"].tolist()
        made = calibrate(model, array, data="d", split="test", codecs=()).scores["bits_per_dim"]
        assert made.tolist() == sorted(expected["bits_per_dim"].tolist())
    for wrong, words in (
        ((x * 255).byte().numpy(), "an array of uint8: divide 8-bit levels by 255"),
        ([1.0], "got list"),
    ):
        for score in (detection.bits_per_dim, detection.scores_of):
            with pytest.raises(UserError, match=words) as caught:
                score(model, wrong)
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("channels", [1, 3])
def test_compressors_lose_nothing_and_the_shortest_counts(channels):
    x = images(5, (channels, 12, 9))
    x[0] = 0.2
    levels = (x * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    lengths = []
    for codec in detection.codecs():
        for image in levels:
            data = compress(image, codec)
            if codec == "zlib":
                back = np.frombuffer(zlib.decompress(data), np.uint8).reshape(image.shape)
            else:
                with Image.open(io.BytesIO(data)) as opened:
                    back = np.asarray(opened.convert("L" if channels == 1 else "RGB")).reshape(image.shape)
            np.testing.assert_array_equal(back, image)
            lengths.append(8 * len(data))
    assert {"png", "zlib"} <= set(detection.codecs())
    np.testing.assert_array_equal(
        detection.compressed_bits(x), np.reshape(lengths, (len(detection.codecs()), 5)).min(axis=0)
    )
    assert (detection.compressed_bits(x, ["png"]) >= detection.compressed_bits(x, ["png", "zlib"])).all()
    with pytest.raises(UserError, match=r"compressor among png, zlib.*'gif'"):
        detection.compressed_bits(x, ["gif"])
    with pytest.raises(UserError, match="1 or 3"):
        detection.compressed_bits(x[:, :0])


def test_complexity_and_ratio_are_the_bits_less_those_of_the_other_code():
    model, background, x = Independent(0.75), Independent(0.5), images(7)
    bits = detection.bits_per_dim(model, x)
    found = detection.scores_of(model, x, background=background, codecs=["png", "zlib"], batch_size=2)
    assert tuple(found) == detection.SCORES
    np.testing.assert_array_equal(found["bits_per_dim"], bits)
    np.testing.assert_allclose(found["complexity"], bits - detection.compressed_bits(x, ["png", "zlib"]) / 16)
    np.testing.assert_allclose(found["complexity"], detection.input_complexity(model, x, ["png", "zlib"]))
    np.testing.assert_allclose(found["ratio"], bits - 8, rtol=1e-5)  # the background gives every level 1/256
    np.testing.assert_allclose(found["ratio"], detection.likelihood_ratio(model, background, x))
    assert list(detection.scores_of(model, x)) == ["bits_per_dim"]


def test_complexity_finds_smooth_images_that_the_density_alone_rates_likely():
    model = Independent(0.75, (1, 16, 16))
    clean = model.sample(40, generator=torch.Generator().manual_seed(0))
    dark = torch.full((1, 1, 16, 16), 0.1)
    calibration = calibrate(model, clean, data="toy", split="test")
    scores = detection.scores_of(model, dark, codecs=calibration.codecs)
    assert detection.p_value("likelihood", scores, calibration) == 1
    assert detection.p_value("complexity", scores, calibration) == pytest.approx(1 / 41)
    assert detection.p_value("typicality", scores, calibration) == pytest.approx(1 / 41)


def test_mutation_replaces_the_stated_share_by_levels_drawn_uniformly():
    x = images(40, (1, 50, 50))
    draw = lambda rate: detection.mutate(x, rate, generator=torch.Generator().manual_seed(1))  # noqa: E731
    changed = (draw(0.2) != x).float().mean()
    assert changed == pytest.approx(0.2 * 255 / 256, abs=0.005)
    assert torch.equal(draw(0), x) and torch.equal(draw(0.2), draw(0.2))
    levels = (draw(1) * 255).round()
    assert torch.equal(levels / 255, draw(1))
    counts = torch.bincount(levels.long().flatten(), minlength=256).double()
    expected = x.numel() / 256
    assert ((counts - expected) ** 2 / expected).sum() < 340  # the 0.9998 quantile of chi-square(255)
    with pytest.raises(UserError, match=r"rate from 0 to 1, got 1\.2"):
        detection.mutate(x, 1.2)


def test_controls_are_what_they_are_called():
    x = images(30, (3, 6, 5))
    before = torch.random.get_rng_state()
    found = detection.controls(x, seed=3, salt_and_pepper=0.25, others={"other": 1 - images(50, (3, 6, 5), seed=9)})
    assert torch.equal(torch.random.get_rng_state(), before)
    assert list(found) == [
        "constant", "uniform noise", "horizontal flip", "vertical flip", "salt and pepper", "other"
    ]  # fmt: skip
    for name, own in found.items():
        assert own.shape == x.shape and own.dtype == torch.float32, name
        torch.testing.assert_close((own * 255).round() / 255, own, rtol=0, atol=1e-7)
    flat = found["constant"].flatten(1)
    assert torch.equal(flat.amin(1), flat.amax(1)) and flat.min() == 0 and flat.max() == 1
    assert torch.equal(found["horizontal flip"][..., 0], x[..., -1])
    assert torch.equal(found["vertical flip"][..., 0, :], x[..., -1, :])
    struck = (found["salt and pepper"] != x).any(1)
    assert struck.float().mean() == pytest.approx(0.25, abs=0.06)
    at = found["salt and pepper"].permute(0, 2, 3, 1)[struck]
    assert set(at.unique().tolist()) == {0, 1} and torch.equal(at.amin(1), at.amax(1))
    assert torch.equal(found["uniform noise"], detection.controls(x, seed=3)["uniform noise"])
    with pytest.raises(UserError, match=r"letters: expected images of shape \(3, 6, 5\)"):
        detection.controls(x, others={"letters": images(2)})
    with pytest.raises(UserError, match="at least one image"):
        detection.controls(x[:0])
    with pytest.raises(UserError, match="share of pixels"):
        detection.controls(x, salt_and_pepper=2)


def test_a_calibration_is_written_and_read_again_and_says_what_it_is_of(tmp_path):
    model, background = Independent(0.75), Independent(0.5)
    made = calibrate(model, images(9), data="toy", split="test", background=background, batch_size=4)
    made.save(tmp_path / "calibration.npz")
    read = Calibration.load(tmp_path / "calibration.npz")
    assert read.scores.keys() == set(detection.SCORES)
    for name, values in read.scores.items():
        np.testing.assert_array_equal(values, made.scores[name])
        assert (np.diff(values) >= 0).all() and len(read) == len(values) == 9
    assert (read.data, read.split, read.codecs, read.background) == (
        "toy", "test", detection.codecs(), detection.fingerprint(background)
    )  # fmt: skip
    assert str(read) == "9 held-out images (test split) of toy"
    assert str(calibrate(model, images(9), data="toy", split="train")) == "9 training images of toy"
    read.check(model, background)
    read.check(Independent(0.75))


def test_a_calibration_of_other_weights_is_refused():
    made = calibrate(Independent(0.75), images(3), data="toy", split="test")
    with pytest.raises(UserError, match=r"calibration of these weights .* got one of others"):
        made.check(Independent(0.74))
    with pytest.raises(UserError, match="got one made without one"):
        made.check(Independent(0.75), Independent(0.5))
    with pytest.raises(UserError, match=r"'ratio'.* needs a background model"):
        detection.p_value("ratio", {"bits_per_dim": [1.0], "ratio": [1.0]}, made)
    with pytest.raises(UserError, match="a test among likelihood"):
        detection.p_value("luck", {}, made)
    with pytest.raises(UserError, match="at least one image"):
        calibrate(Independent(), images(0), data="toy", split="test")


def test_a_file_that_is_no_calibration_is_refused(tmp_path):
    path = tmp_path / "calibration.npz"
    with pytest.raises(UserError, match="found nothing"):
        Calibration.load(path)
    made = calibrate(Independent(0.75), images(5), data="toy", split="test")
    made.save(path)
    data = path.read_bytes()
    with np.load(path) as loaded:
        arrays = dict(loaded)
    for broken in (data[: len(data) // 2], b"", b"{}"):
        path.write_bytes(broken)
        with pytest.raises(UserError, match="expected a calibration file"):
            Calibration.load(path)
    for change in (
        {"bits_per_dim": arrays["bits_per_dim"][::-1]},
        {"bits_per_dim": arrays["bits_per_dim"][:-1]},
        {"bits_per_dim": np.full(5, np.nan)},
        {"about": np.array("[]")},
        {"about": np.array({"data": 1}, dtype=object)},
        {"strange": arrays["bits_per_dim"]},
    ):
        np.savez(path, **{**arrays, **change})
        with pytest.raises(UserError, match="expected"):
            Calibration.load(path)


def test_the_fingerprint_is_of_names_shapes_types_and_values():
    model = Independent(0.75)
    same = detection.fingerprint(model)
    assert same == detection.fingerprint(Independent(0.75)) and len(same) == 64
    assert same != detection.fingerprint(Independent(0.7500001))
    assert same != detection.fingerprint(Independent(0.75).double())
