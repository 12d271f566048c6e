"""Bases of images and of lines, by name and of one's own: orthonormal, along the axes that they should be."""

import numpy as np
import pytest
import pywt
import scipy.fft
import torch

from apps.compressed_sensing import BPDN, LASSO, build_operator
from apps.compressed_sensing.bases import DCT, Basis, build_basis
from core_models.errors import UserError


@pytest.mark.parametrize("shape", [(1, 8, 8), (2, 4, 8), (16,), (1, 1, 16), (2, 16, 1)])
@pytest.mark.parametrize("name", ["pixels", "dct", "wavelet", "db2"])
def test_bases_are_orthonormal_and_analyse_what_they_synthesise(name, shape):
    basis = build_basis(name, shape)
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    w = basis.analyse(x)
    assert w.shape == x.shape
    torch.testing.assert_close(basis.synthesise(w), x)
    columns = basis.columns(x)
    if columns is not None:
        torch.testing.assert_close(columns @ columns.T, torch.eye(basis.n, dtype=torch.float64))
        torch.testing.assert_close(w.flatten(1) @ columns, x.flatten(1))


@pytest.mark.parametrize("shape", [(16,), (1, 1, 16)])
def test_lines_have_the_transforms_of_scipy_and_pywavelets(shape):
    x = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = build_basis("dct", shape).analyse(x).flatten()
    np.testing.assert_allclose(found, scipy.fft.dct(x.flatten().numpy(), norm="ortho"), atol=1e-12)
    found = build_basis("wavelet", shape).analyse(x).flatten()
    wanted = np.concatenate(pywt.wavedec(x.flatten().numpy(), "haar", mode="periodization", level=4))
    np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_a_basis_of_ones_own_is_an_object_or_a_matrix():
    operator = build_operator("gaussian", (16,), 10)
    y = operator(torch.rand(2, 16))
    options = {"alpha": 0.1, "box": False, "clip": False, "tolerance": 1e-9}
    named = LASSO(operator, basis="dct", **options).reconstruct(y)
    own = DCT((16,))
    for basis in (own, own.synthesise(torch.eye(16, dtype=torch.float64)).T):
        torch.testing.assert_close(LASSO(operator, basis=basis, **options).reconstruct(y), named)
    assert BPDN(operator, basis=torch.eye(16), noise=0.1, tolerance=1e-2).reconstruct(y).shape == (2, 16)


@pytest.mark.parametrize(
    ("basis", "shape", "words"),
    [
        ("db2", (1, 27, 27), r"sides that are even, divisible by 2\^levels, for a wavelet, got 27 x 27 values"),
        ("haar", (27,), "got 27 values: pad or crop them"),
        ("dct", (4, 4), r"images \(channels, height, width\) or lines \(n,\), got signals of shape \(4, 4\)"),
        ("dct", (10_001,), "sides of at most 10,000 values"),
        (torch.eye(5), (16,), r"a real matrix \(16, 16\), its columns the basis vectors"),
        (2 * torch.eye(16), (16,), "expected an orthonormal basis, B.T B differs from the identity by 3.0e"),
        (torch.full((16, 16), torch.nan), (16,), "expected an orthonormal basis"),
        (DCT((8,)), (16,), r"a basis of signals \(16,\), as the operator measures, got one of \(8,\)"),
        (3, (16,), "a basis by name, a Basis or a matrix"),
    ],
)
def test_mistakes_are_named(basis, shape, words):
    with pytest.raises(UserError, match=words):
        build_basis(basis, shape)


def test_levels_are_those_that_the_sides_can_be_halved():
    from apps.compressed_sensing.bases import Wavelet

    assert isinstance(Wavelet((1, 12, 8), "haar", 2), Basis)
    with pytest.raises(
        UserError, match=r"expected 1 to 2 levels, 2\^levels dividing the sides, for 12 x 8 values, got 3"
    ):
        Wavelet((1, 12, 8), "haar", 3)


def test_a_basis_by_name_is_made_once_of_steps_that_are_those_of_pywavelets(monkeypatch):
    basis = build_basis("db2", (1, 64, 24))
    assert build_basis("db2", [1, 64, 24]) is basis
    for vertical, horizontal in basis.steps:
        for own in (vertical, horizontal):
            wanted = [np.concatenate(pywt.dwt(unit, "db2", mode="periodization")) for unit in np.eye(len(own))]
            np.testing.assert_array_equal(own, np.stack(wanted, axis=1))
    asked, dwt = [], pywt.dwt
    monkeypatch.setattr(
        pywt, "dwt", lambda unit, *more, **options: asked.append(len(unit)) or dwt(unit, *more, **options)
    )
    build_basis("db2", (1024,))
    assert asked.count(1024) == 2  # of a long line the first two values say all
    with pytest.raises(UserError, match="which is so only nearly"):
        build_basis("dmey", (512,))
