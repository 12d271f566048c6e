"""Signals that don't lie in [0, 1]: ECG, CT, sparse ones with signs."""

import numpy as np
import pytest
import torch
from verb_targets import column, rows_of

from apps.compressed_sensing import BPDN, CSGM, LASSO, GuidedLASSO, SparseGen, Wiener, build_operator
from core_models.data import load

RECOVER = ["recover", "--input", "y.npz", "--method", "LASSO", "--method.alpha", 1e-3, "--diagnose", 0]
FREE = ["--method.box", "false", "--method.clip", "false"]


def signed(path, n=4, truth=True, scale=3.0):
    """Sparse signals of either sign and their measurements, in a file."""
    x = scale * np.random.default_rng(0).normal(size=(n, 40)) * (np.random.default_rng(1).random((n, 40)) < 0.1)
    operator = build_operator("gaussian", (40,), 30)
    y = operator(torch.from_numpy(x).float()).numpy()
    np.savez(path, y=y, A=operator.matrix().numpy(), **({"x": x} if truth else {}))
    return x


def test_signals_of_any_range_are_recovered_and_judged_where_nothing_holds_them(tmp_path, call):
    x = signed(tmp_path / "y.npz")
    status, _, error = call(*RECOVER, *FREE, "--out", "out")
    assert status == 0 and "warning" not in error, error
    with np.load(tmp_path / "out" / "recovered.npz") as loaded:
        np.testing.assert_allclose(loaded["x"], x, atol=0.02)
        mse = np.square(loaded["x"] - x).mean(1)
    np.testing.assert_allclose(column(rows_of(tmp_path / "out"), "mse"), mse, rtol=1e-3)


@pytest.mark.parametrize("kept", [[], FREE[:2], FREE[2:]])
def test_a_truth_outside_the_range_that_signals_are_held_in_is_refused_with_the_way_out(tmp_path, refused, kept):
    signed(tmp_path / "y.npz")
    error = refused(*RECOVER, *kept, "--out", "out")
    assert "expected floats in [0, 1], got" in error and "rescale them, or recover them as they are by" in error
    assert [name in error for name in ("--method.box false", "--method.clip false")] == [
        name not in kept for name in ("--method.box", "--method.clip")
    ]


@pytest.mark.parametrize(
    ("prior", "words"), [("FromZero", "rescale them, or take that signal out"), ("FromMinusOne", "--method.clip false")]
)
def test_clipping_is_named_where_the_prior_leaves_the_range(tmp_path, refused, prior, words):
    operator = build_operator("gaussian", (1, 4, 4), 10)
    x = 3 * torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    np.savez(tmp_path / "y.npz", y=operator(x).numpy(), A=operator.matrix().numpy(), x=x.numpy(), noise=0.1)
    np.savez(tmp_path / "x.npz", x=x.numpy())
    given = ["--method", "PosteriorSampling", "--fit_data", "x.npz", "--prior", f"planted_priors.{prior}"]
    error = refused("recover", "--input", "y.npz", *given, "--out", "out")
    assert error.rstrip().endswith(words) and ("clip" in error) == (prior == "FromMinusOne")


def test_measurements_that_signals_in_the_range_leave_unexplained_are_warned_of(tmp_path, call):
    signed(tmp_path / "y.npz", truth=False)
    quick = [*RECOVER, "--method.tolerance", 1e-3]
    status, _, error = call(*quick, "--out", "held")
    assert status == 0 and "warning: LASSO holds signals in [0, 1] and leaves" in error
    assert "give --method.box false --method.clip false" in error
    x = load("digits").images("test")[:4].flatten(1)
    operator = build_operator("gaussian", (64,), 30)
    np.savez(tmp_path / "y.npz", y=operator(x).numpy(), A=operator.matrix().numpy())
    status, _, error = call(*quick, "--out", "images")
    assert status == 0 and "warning" not in error


def test_signals_of_any_range_are_acquired_and_it_is_said(tmp_path, call, refused):
    x = np.random.default_rng(0).normal(size=(3, 1, 8, 8))
    np.savez(tmp_path / "x.npz", x=x)
    shown = ["--input", "x.npz", "--operator", "gaussian", "--m", 200]
    status, out, _ = call("acquire", *shown, "--keep_signals", "--out", "y.npz")
    assert status == 0 and f"the signals go from {x.min():.3g} to {x.max():.3g}, not from 0 to 1" in out
    assert call(*RECOVER, *FREE, "--out", "stored")[0] == 0
    assert call("recover", *shown, *RECOVER[3:], *FREE, "--out", "direct")[0] == 0
    for name in ("stored", "direct"):
        assert all(float(row["mse"]) < 1e-3 for row in rows_of(tmp_path / name))
    x[1, 0, 2, 2] = np.nan
    np.savez(tmp_path / "x.npz", x=x)
    assert "expected finite floats, got nan in signal 1" in refused("acquire", *shown, "--out", "other.npz")
    _, out, _ = call("acquire", "--input", "digits", *shown[2:], "--number", 3, "--out", "digits.npz")
    assert "not from 0 to 1" not in out


def test_in_python_acquire_warns_where_what_comes_back_is_held():
    operator = build_operator("gaussian", (1, 4, 4), 8)
    x = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    for method, words in (
        (LASSO(operator), r"LASSO recovers signals in \[0, 1\], .* or give box=False and clip=False$"),
        (BPDN(operator, box=False), "or give clip=False$"),
        (Wiener(operator), "or give clip=False$"),
        (SparseGen(operator), "rescale them$"),
        (GuidedLASSO(operator, box=False), "rescale them$"),
    ):
        with pytest.warns(UserWarning, match=words):
            method.acquire(x)
    for free in (LASSO(operator, box=False, clip=False), CSGM(operator), Wiener(operator, clip=False)):
        assert not free.bounded
        free.acquire(x)
    LASSO(operator).acquire(torch.rand(2, 1, 4, 4) * (1 + 1e-6))
