import numpy as np
import pytest
import torch

from apps.compressed_sensing import LASSO
from apps.compressed_sensing.diagnosis import scale_of
from apps.compressed_sensing.measurements import Stored
from apps.compressed_sensing.operators import (
    NAMES,
    Blur,
    Callables,
    Mask,
    Matrix,
    SubsampledDCT,
    SubsampledFourier,
    SuperResolution,
    base,
    build_operator,
    gaussian,
    measure,
)
from core_models.errors import UserError

SHAPE = (2, 6, 4)


def made(name, dtype=torch.float64):
    return build_operator(name, SHAPE, None if name in ("blur", "super-resolution") else 17, dtype=dtype)


@pytest.mark.parametrize("name", NAMES)
def test_the_adjoint_is_the_transposed_matrix(name):
    operator = made(name)
    by_columns = operator(torch.eye(operator.n, dtype=torch.float64).reshape(-1, *SHAPE)).T
    by_rows = operator.adjoint(torch.eye(operator.m, dtype=torch.float64)).flatten(1)
    torch.testing.assert_close(by_columns, by_rows)
    torch.testing.assert_close(operator.matrix(), by_columns)


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_is_measured_as_its_signals_one_by_one(name):
    operator, x = made(name), torch.randn(5, *SHAPE, dtype=torch.float64)
    torch.testing.assert_close(operator(x), torch.cat([operator(one[None]) for one in x]))


@pytest.mark.parametrize("own", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_signals_of_either_precision_are_measured_in_that_of_the_operator(name, own):
    operator, x = made(name, own), torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    one, other = operator(x), operator(x.double())
    assert one.dtype == other.dtype == own
    assert torch.equal(one, other)


@pytest.mark.parametrize("m", [3, 5, 6, 7, 11])
def test_the_blocks_of_an_operator_are_its_matrix_and_tell_its_scale(m, monkeypatch):
    weight = torch.randn(m, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    operator = Callables(lambda x: x.flatten(1) @ weight.T, signal_shape=(2, 3), dtype=torch.float64)
    monkeypatch.setattr(base, "BYTES", 2 * 8 * max(m, 6))  # two rows, or columns, at a time
    blocks = list(operator.blocks())
    assert max(len(block) for block in blocks) == 2 and len(blocks) == -(-min(m, 6) // 2)
    joined = torch.cat(blocks)
    torch.testing.assert_close(joined if m <= 6 else joined.T, weight)
    torch.testing.assert_close(operator.matrix(), weight)
    for same in (operator, Matrix(weight)):
        assert scale_of(same) == pytest.approx((6 / float(weight.square().sum())) ** 0.5)


@pytest.mark.parametrize("kind", [SubsampledDCT, SubsampledFourier])
@pytest.mark.parametrize("shape", [(1, 4, 4), (2, 5, 3), (1, 6, 7)])
def test_all_coefficients_together_are_an_orthonormal_transform(kind, shape):
    n = shape[0] * shape[1] * shape[2]
    matrix = kind(shape, n, dtype=torch.float64).matrix()
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(n, dtype=torch.float64))


def test_the_lowest_fourier_coefficient_is_the_mean():
    x = torch.rand(1, 1, 5, 4, dtype=torch.float64)
    y = SubsampledFourier((1, 5, 4), 1, dtype=torch.float64)(x)
    assert float(y) == pytest.approx(float(x.sum()) / 20**0.5)


def test_fourier_measurements_are_the_parts_of_numpys_transform():
    shape = (1, 6, 4)
    operator, x = SubsampledFourier(shape, 24, dtype=torch.float64), torch.rand(1, *shape, dtype=torch.float64)
    spectrum = torch.fft.fft2(x[0, 0], norm="ortho").flatten()
    seen = operator(x)[0]
    assert float(seen.square().sum()) == pytest.approx(float(spectrum.abs().square().sum()))  # Parseval
    parts = torch.cat([spectrum.real, spectrum.imag, 2**0.5 * spectrum.real, 2**0.5 * spectrum.imag])
    assert all(float((parts - value).abs().min()) < 1e-12 for value in seen)


@pytest.mark.parametrize("shape", [(2, 6, 5), (1, 4, 8), (7,), (8,)])
def test_measured_spectra_make_the_measurements_of_their_signals(shape):
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    spectrum = torch.fft.fftn(x, dim=(-2, -1) if len(shape) > 1 else -1, norm="ortho")
    drawn = SubsampledFourier(shape, x[0].numel() // 2, dtype=torch.float64)
    torch.testing.assert_close(drawn.from_spectrum(spectrum), drawn(x))
    torch.testing.assert_close(drawn.from_spectrum(spectrum.numpy()), drawn(x))
    for seed in range(4):
        mask = torch.rand(shape[-2:], generator=torch.Generator().manual_seed(seed)) < 0.4
        mask.view(-1)[1] = True
        operator = SubsampledFourier.of_frequencies(shape, mask, dtype=torch.float64)
        off = torch.where(mask, spectrum, torch.nan)  # what wasn't measured doesn't count
        for k in (off, spectrum[..., mask]):
            torch.testing.assert_close(operator.from_spectrum(k), operator(x))


def test_a_frequency_and_its_negative_are_averaged_and_other_orders_refused():
    mask = torch.zeros(4, 4, dtype=torch.bool)
    mask[1, 0] = mask[3, 0] = True
    operator = SubsampledFourier.of_frequencies((1, 4, 4), mask)
    y = operator.from_spectrum(torch.tensor([[[1 + 2j, 3 - 6j]]]))
    torch.testing.assert_close(y, 2**0.5 * torch.tensor([[2.0, 4.0]]))
    for wrong in (
        torch.zeros(1, 1, 4, 4),
        torch.zeros(1, 3, dtype=torch.cfloat),
        torch.zeros(4, 4, dtype=torch.cfloat),
    ):
        with pytest.raises(
            UserError, match=r"expected complex Fourier coefficients \(batch, 1, 4, 4\) or, in the mask"
        ):
            operator.from_spectrum(wrong)
    with pytest.raises(UserError, match="finite"):
        operator.from_spectrum(torch.full((1, 1, 2), torch.nan, dtype=torch.cfloat))


def test_complex_measurements_of_fourier_are_told_of_from_spectrum(tmp_path):
    k = np.fft.fft2(np.random.default_rng(0).random((2, 1, 4, 4)), norm="ortho")
    with pytest.raises(UserError, match="from_spectrum"):
        LASSO(SubsampledFourier((1, 4, 4), 8)).recover(torch.from_numpy(k[:, 0, :2].reshape(2, 8)))
    np.savez(tmp_path / "y.npz", y=k, operator="fourier", m=8, signal_shape=[1, 4, 4])
    with pytest.raises(UserError, match="from_spectrum"):
        Stored(tmp_path / "y.npz")


@pytest.mark.parametrize("name", ["dct", "fourier"])
def test_lines_are_transformed_along_their_only_axis(name):
    x = torch.rand(2, 8, dtype=torch.float64)
    line, image = (build_operator(name, shape, 5, dtype=torch.float64) for shape in ((8,), (1, 1, 8)))
    torch.testing.assert_close(line(x), image(x.reshape(2, 1, 1, 8)))
    assert line.adjoint(line(x)).shape == (2, 8)


def test_lines_too_long_for_a_matrix_are_refused():
    with pytest.raises(UserError, match="sides of at most 10,000 values, got 10,001"):
        build_operator("dct", (10_001,), 5)


def test_known_answers():
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert SuperResolution((1, 4, 4), 2)(x).tolist() == [[2.5, 4.5, 10.5, 12.5]]
    mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    mask[0, 1, 2] = mask[0, 3, 0] = True
    assert Mask(mask)(x).tolist() == [[6.0, 12.0]]
    kernel = torch.tensor([[0.0, 0, 0], [0, 0, 1], [0, 0, 0]])  # a convolution: moves an image one pixel to the right
    assert Blur((1, 4, 4), kernel)(x).reshape(4, 4)[0].tolist() == [0.0, 0.0, 1.0, 2.0]
    assert float(Blur.gaussian((1, 9, 9), 1.0).kernel.sum()) == pytest.approx(1)


def test_entries_have_the_variance_of_their_scaling():
    unit, isometric = gaussian((1, 28, 28), 100), gaussian((1, 28, 28), 100, scaling="isometric")
    assert float(unit.weight.var()) == pytest.approx(1, rel=0.02)
    assert float(isometric.weight.var()) == pytest.approx(0.01, rel=0.02)
    signs = build_operator("bernoulli", (1, 28, 28), 100).matrix()
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    assert abs(float(signs.mean())) < 0.02


def test_noise_has_its_standard_deviation_and_is_seeded():
    operator, x = gaussian((1, 4, 4), 8), torch.rand(4000, 1, 4, 4)
    y = measure(operator, x, 0.1, torch.Generator().manual_seed(0))
    assert float((y - operator(x)).std()) == pytest.approx(0.1, rel=0.02)
    assert torch.equal(y, measure(operator, x, 0.1, torch.Generator().manual_seed(0)))
    assert torch.equal(measure(operator, x, 0), operator(x))


def test_rank_of_what_repeats_itself():
    row = torch.randn(1, 6)
    assert Matrix(torch.cat([row, row, torch.randn(1, 6)])).rank() == 2
    assert made("mask").rank() == 17


def test_a_function_gets_its_adjoint_from_automatic_differentiation():
    weight = torch.randn(3, 8, dtype=torch.float64)
    operator = Callables(lambda x: x.flatten(1) @ weight.T, signal_shape=(2, 4), dtype=torch.float64)
    torch.testing.assert_close(operator.matrix(), weight)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Callables(lambda x: x[:, :2], lambda y: torch.zeros(len(y), 4), signal_shape=(4,)), "adjoint"),
        (lambda: Callables(lambda x: x[:, :2] + 1, signal_shape=(4,)), "linear"),
        (lambda: Callables(lambda x: x[:, :2] ** 3, signal_shape=(4,)), "linear"),
        (lambda: Callables(lambda x: x.sum(), signal_shape=(4,)), r"\(batch, m\)"),
        (lambda: Matrix(torch.zeros(2, 4)), "all zeros"),
        (lambda: Matrix(torch.full((2, 4), float("nan"))), "NaN"),
        (lambda: Matrix(torch.ones(2, 4), (1, 3, 3)), "9 columns"),
        (lambda: build_operator("gausian", (4,), 2), "did you mean gaussian"),
        (lambda: build_operator("gaussian", (4,)), "give m"),
        (lambda: build_operator("mask", (1, 2, 2), 5), "1 to 4"),
        (lambda: build_operator("super-resolution", (1, 5, 4)), "divides"),
        (lambda: build_operator("blur", (4,)), "images"),
        (lambda: build_operator("super-resolution", (1, 4, 4), 5), "makes 4"),
        (lambda: Mask(torch.zeros(4, dtype=torch.bool)), "keeps none"),
        (lambda: gaussian((4,), 2)(torch.zeros(1, 5)), "shape"),
        (lambda: gaussian((4,), 2).adjoint(torch.zeros(1, 3)), r"\(batch, 2\)"),
        (lambda: measure(gaussian((4,), 2), torch.zeros(1, 4), -1), "noise of 0 or more"),
    ],
)
def test_mistakes_are_named(make, words):
    with pytest.raises(UserError, match=words):
        make()
