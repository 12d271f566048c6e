"""`genapps compressed-sensing demo`, tiny, on the digits that scikit-learn carries; and what a program imports."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

import apps.compressed_sensing
import core_models
from apps.common import demo_data
from apps.common.report import write_report
from apps.compressed_sensing import demo
from apps.compressed_sensing.lasso import LASSO
from apps.compressed_sensing.operators import gaussian
from core_models.data import NoSourceError, load

METHODS = ["LASSO, pixels", "LASSO, DCT", "CSGM", "residual covariance", "posterior sampling"]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(demo, "EPOCHS", 2)
    monkeypatch.setattr(demo, "STEPS", dict.fromkeys(demo.STEPS, 20))
    monkeypatch.setattr(demo, "PARTICLES", 8)


def summary_of(folder):
    return json.loads((folder / "compressed_sensing" / "summary.json").read_text())


def test_it_adds_its_section_and_says_what_the_methods_are_worth(tmp_path, call):
    write_report(tmp_path / "out" / "report.html", title="Of another app")
    options = ["demo", "--out", "out", "--data", "digits", "--images", 12, "--m", 20]
    status, told, error = call(*options)
    assert status == 0, error
    summary = summary_of(tmp_path / "out")
    assert list(summary["methods"]) == METHODS and (summary["m"], summary["n"], summary["images"]) == (20, 64, 12)
    x = load("digits").images("test")[:12]
    with np.load(tmp_path / "out" / "compressed_sensing" / "recovered.npz") as loaded:
        np.testing.assert_array_equal(loaded["x"], x)
        y = torch.from_numpy(loaded["y"])
        for name in METHODS:
            errors = np.square(loaded[name].astype(np.float64) - x.numpy()).mean((1, 2, 3))
            mse = summary["methods"][name]["mse"]
            assert mse["mean"] == pytest.approx(errors.mean()) and mse["n"] == 12
            assert mse["half_width"] == pytest.approx(1.96 * errors.std(ddof=1) / 12**0.5)
            assert f"{mse['mean']:.5f}" in told
        away, std = np.abs(loaded[demo.SURE] - x.numpy()), loaded[f"std, {demo.SURE}"]
        found, sure = summary["methods"][demo.SURE], std < demo.UNCERTAIN
        assert found["coverage"]["0.95"] == pytest.approx((away <= 1.959964 * std).mean())
        assert found["coverage_uncertain"]["0.95"] == pytest.approx((away <= 1.959964 * std)[~sure].mean())
        lasso = loaded["LASSO, pixels"]
    operator = gaussian((1, 8, 8), 20, seed=0)
    assert 0.05 < float((operator(x) - y).std()) < 0.15  # the noise
    np.testing.assert_allclose(lasso, LASSO(operator, basis="pixels", alpha=0.1).reconstruct(y), atol=1e-4)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Of another app" in page and page.count('<section id="compressed_sensing">') == 1
    assert page.count("data:image/png") == 2 and "posterior sampling: MSE" in page
    assert core_models.load(tmp_path / "out" / "compressed_sensing" / "prior").latent_shape == (10,)
    assert call(*options)[0] == 0  # again: the same numbers, one section
    again = summary_of(tmp_path / "out")
    assert [own["mse"] for own in again["methods"].values()] == [own["mse"] for own in summary["methods"].values()]
    assert (tmp_path / "out" / "report.html").read_text().count('<section id="compressed_sensing">') == 1


def test_without_mnist_it_takes_the_small_digits_and_says_so(tmp_path, call, monkeypatch):
    def out_of_reach(name):
        if name == "mnist":
            raise NoSourceError("no network")
        return load(name)

    monkeypatch.setattr(demo_data, "load", out_of_reach)
    status, told, error = call("demo", "--out", "out", "--images", 3)
    assert status == 0 and "MNIST is out of reach (no network)" in error and "data: digits" in told
    assert summary_of(tmp_path / "out")["m"] == demo.MEASUREMENTS["digits"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--data", "fashion-mnist"], "expected auto, mnist or digits"),
        (["--images", 1], "--images: expected 2 to 360"),
        (["--fit_number", 1], "--fit_number: expected at least 2"),
        (["--m", 0], "--m: expected at least 1 measurement, got 0"),
    ],
)
def test_mistakes_are_one_line_and_leave_what_stood(tmp_path, refused, options, words):
    standing = tmp_path / "out" / "compressed_sensing" / "summary.json"
    standing.parent.mkdir(parents=True)
    standing.write_text("{}")
    assert words in refused("demo", "--out", "out", "--images", 3, "--data", "digits", *options)
    assert standing.read_text() == "{}"


def test_every_name_of_the_front_door_is_there_and_is_where_it_says():
    for name in apps.compressed_sensing.__all__:
        found = getattr(apps.compressed_sensing, name)
        assert found.__name__ == name and found.__module__.startswith("apps.compressed_sensing.")
    assert set(apps.compressed_sensing.__all__) <= set(dir(apps.compressed_sensing))
    assert not hasattr(apps.compressed_sensing, "Nobody")


def test_importing_it_imports_nothing_heavy():
    heavy = "torch", "sklearn", "numpy"
    code = f"import sys, apps.compressed_sensing; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
