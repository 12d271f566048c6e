"""`genapps compressed-sensing report`: the page of a run, and the curves of a table; `tune` and `benchmark`."""

import html
import json

import numpy as np
import pytest
import torch
from PIL import Image

from apps.common.cells import Cell, read_cells, write_cell
from apps.common.published import Published
from apps.compressed_sensing import figures
from apps.compressed_sensing import report as report_module
from apps.compressed_sensing.account import PARTS
from apps.compressed_sensing.figures import Curve, Point
from apps.compressed_sensing.lasso import LASSO
from apps.compressed_sensing.tables import benchmark as table
from apps.compressed_sensing.tables import curves, rows
from core_models.data import load
from core_models.errors import UserError

UNIT = "mean squared error of a pixel"


@pytest.fixture
def drawn(monkeypatch):
    """What is handed to the grid of images, call by call."""
    grid, seen = figures.recovery_grid, []

    def noted(images, path, **more):
        seen.append({name: np.asarray(own) for name, own in (images | (more["stds"] or {})).items()})
        return grid(images, path, **more)

    monkeypatch.setattr(report_module, "recovery_grid", noted)
    return seen


@pytest.fixture
def canvases(monkeypatch):
    """The figures that are drawn."""
    seen = []
    canvas = figures.canvas

    class Kept:
        def __init__(self, *given):
            self.inner = canvas(*given)

        def __enter__(self):
            seen.append(self.inner.__enter__())
            return seen[-1]

        def __exit__(self, *given):
            return self.inner.__exit__(*given)

    monkeypatch.setattr(figures, "canvas", Kept)
    return seen


def recover(call, *options, out="run"):
    measured = ["--operator", "gaussian", "--m", 20, "--noise", 0.1, "--number", 8, "--out", out]
    status, _, error = call("recover", *options, *measured)
    assert status == 0, error


def test_a_run_on_a_data_set_shows_the_truth_the_std_and_the_measurement_errors(tmp_path, call, drawn, monkeypatch):
    monkeypatch.setattr(report_module, "CHUNK", 2)
    recover(call, "--input", "digits", "--method", "Wiener", "--fit_data", "digits", "--batch_size", 3)
    status, told, error = call("report", "--run", "run", "--images", 5)
    assert (status, told.strip(), error) == (0, "run/report.html", "")
    with np.load(tmp_path / "run" / "recovered.npz") as loaded:
        np.testing.assert_array_equal(drawn[0]["recovered"], loaded["x"][:5])
        np.testing.assert_array_equal(drawn[0]["std"], loaded["std"][:5])
    np.testing.assert_array_equal(drawn[0]["truth"], load("digits").images("test")[:5])
    page = (tmp_path / "run" / "report.html").read_text()
    assert page.count("data:image/png") == 2 and "coverage" in page and "genapps compressed-sensing recover" in page
    assert "Wiener: 8 signals of 64 values from 20 measurements" in page
    first = {path.name: path.read_bytes() for path in (tmp_path / "run" / "figures").iterdir()}
    assert set(first) == {"recovered.png", "measurement_error.png"}
    assert call("report", "--run", "run", "--images", 5)[0] == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "run" / "figures").iterdir()} == first


def test_a_run_on_a_file_finds_the_truth_by_its_input_and_believes_only_errors(tmp_path, call, drawn):
    made = ["--operator", "gaussian", "--m", 20, "--number", 6, "--keep_signals"]
    assert call("acquire", "--input", "digits", "--out", "y.npz", *made)[0] == 0
    assert call("recover", "--input", "y.npz", "--method", "LASSO", "--out", "run")[0] == 0
    assert call("report", "--run", "run")[0] == 0
    np.testing.assert_allclose(drawn[0]["truth"], load("digits").images("test")[:6], atol=1e-6)
    np.savez(tmp_path / "y.npz", x=np.zeros((6, 8, 8), np.float32))  # others now
    status, _, error = call("report", "--run", "run")
    assert status == 0 and "drawn without the truth" in error and "their errors are not those" in error
    assert set(drawn[1]) == {"recovered"}


def test_the_users_truth_is_taken_or_refused(tmp_path, call, refused, drawn):
    x = load("digits").images("test")[:8].numpy()
    np.savez(tmp_path / "x.npz", x=x[:, 0])
    recover(call, "--input", "x.npz", "--method", "LASSO")
    assert call("report", "--run", "run", "--truth", "x.npz")[0] == 0
    np.testing.assert_array_equal(drawn[0]["truth"], x)
    np.savez(tmp_path / "other.npz", x=x[::-1, 0])
    assert "their errors are not those" in refused("report", "--run", "run", "--truth", "other.npz")
    np.savez(tmp_path / "few.npz", x=x[:3, 0])
    assert "expected at least 8 signals" in refused("report", "--run", "run", "--truth", "few.npz")
    assert "got 'nothing'" in refused("report", "--run", "run", "--truth", "nothing")


@pytest.fixture
def parted(monkeypatch):
    """What is handed to the figure of a diagnosis."""
    draw, seen = figures.error_parts, []

    def noted(parts, path, **more):
        seen.append(dict(parts))
        return draw(parts, path, **more)

    monkeypatch.setattr(report_module, "error_parts", noted)
    return seen


def test_where_the_error_comes_from_is_a_table_and_a_figure(tmp_path, call, parted, vae):
    searched = ["--input", "digits", "--method", "CSGM", "--method.steps", 5, "--prior", vae]
    recover(call, *searched, "--diagnose", 6)
    assert call("report", "--run", "run")[0] == 0
    told = json.loads((tmp_path / "run" / "summary.json").read_text())["diagnosis"]
    assert parted[0] == told["per_signal"]
    page = html.unescape((tmp_path / "run" / "report.html").read_text())
    assert page.count("data:image/png") == 3 and "Where the error comes from: the first 6 signals" in page
    verdict = told["words"]["verdict"]
    assert f"{verdict[0].upper()}{verdict[1:]}." in page and f"Bound: {told['words']['bound']}." in page
    for name, own in told["means"].items():
        assert f"<td>{report_module.NORMS[name]}</td><td>{own['mean']:.4g}</td><td>± {own['half_width']:.2g}" in page
    for name, share in told["parts"].items():
        assert f"<tr><td>{name}</td><td>{PARTS[name]}</td><td>{100 * share:.1f} %</td></tr>" in page
    assert f"<td>{told['s_rec']['least']:.4g}</td>" in page and "Input: digits; images 8, split test" in page
    recover(call, *searched, "--diagnose", 0, out="none")
    assert call("report", "--run", "none")[0] == 0 and len(parted) == 1
    assert "Where the error comes from" not in (tmp_path / "none" / "report.html").read_text()


def test_the_figure_of_a_method_that_recovers_beside_its_prior_says_so(tmp_path, call, parted, vae):
    options = ["--input", "digits", "--method", "ResidualCovariance", "--method.steps", 5, "--prior", vae]
    recover(call, *options, "--fit_data", "digits", "--fit_number", 50)
    assert call("report", "--run", "run")[0] == 0
    assert "bound" not in parted[0] and "complete_error" not in parted[0]
    page = (tmp_path / "run" / "report.html").read_text()
    assert "ResidualCovariance recovers something beside" in page and "Parts of the squared error" not in page


def test_the_curves_of_a_diagnosis_are_sorted_by_the_error(tmp_path, canvases):
    parts = {"error": [3.0, 1.0, 2.0], "representation_error": [0.3, 0.1, 0.2], "bound": [30.0, 10.0, 20.0],
             "complete_error": [2.5, 0.5, 1.5], "noise_norm": [1.0, 1.0, 1.0]}  # fmt: skip
    figures.error_parts(parts, tmp_path / "a.png")
    (axes,) = canvases[0].axes
    assert axes.get_yscale() == "log" and len(axes.lines) == 4
    drawn = {line.get_label(): list(line.get_ydata()) for line in axes.lines}
    for name, label in figures.ERROR_PARTS.items():
        assert drawn[label] == sorted(parts[name])
    figures.error_parts({"error": [1.0], "representation_error": [0.0]}, tmp_path / "b.png")
    assert canvases[1].axes[0].get_yscale() == "linear"  # 0 has no logarithm
    with pytest.raises(UserError, match="at least one signal"):
        figures.error_parts({"error": [], "representation_error": []}, tmp_path / "c.png")


def test_measurements_without_a_truth_and_unreadable_images(tmp_path, call, drawn):
    y = torch.randn(4, 5, generator=torch.Generator().manual_seed(0)).numpy()
    np.savez(tmp_path / "y.npz", y=y, A=np.eye(5, 12, dtype=np.float32))
    assert call("recover", "--input", "y.npz", "--method", "LASSO", "--out", "flat")[0] == 0
    status, _, error = call("report", "--run", "flat")
    assert status == 0 and "are no images" in error and not drawn  # neither images nor noise
    assert (tmp_path / "flat" / "report.html").read_text().count("data:image/png") == 1
    shape = ["--signal_shape", "[1,3,4]"]
    assert call("recover", "--input", "y.npz", "--method", "LASSO", *shape, "--out", "images")[0] == 0
    assert call("report", "--run", "images")[0] == 0 and set(drawn[0]) == {"recovered"}
    folder = tmp_path / "in"
    folder.mkdir()
    for i, image in enumerate((load("digits").images("test")[:5] * 255).round().byte().numpy()):
        Image.fromarray(image[0]).save(folder / f"{i}.png")
    (folder / "1.png").write_bytes(b"torn")
    options = ["--input", "in", "--operator", "mask", "--m", 40, "--method", "LASSO"]
    assert call("recover", *options, "--out", "torn")[0] == 1
    assert call("report", "--run", "torn", "--images", 3)[0] == 0
    assert drawn[1]["truth"].shape == (3, 1, 8, 8)
    true = load("digits").images("test")[[0, 2, 3]]
    np.testing.assert_allclose(drawn[1]["truth"], true, atol=1 / 255)
    assert "1 signals could not be read" in (tmp_path / "torn" / "report.html").read_text()


def cell(row, column, value, draw=0, half=None, **more):
    extra = {"n_test": 1000} | ({} if half is None else {"errors": {"mse": {"half_width": half}}})
    return Cell(
        app="compressed_sensing", table="mnist", row=row, column=column, value=value, unit=UNIT, better="lower",
        draw=draw, seed=draw, config_hash="a", protocol="1", device="d", seconds=1.0, extra=extra, **more,
    )  # fmt: skip


@pytest.fixture
def filed(tmp_path, monkeypatch):
    """Cells of two methods, and one whose column is no number; and two published figures."""
    made = [
        cell("Wiener", "100", 0.02, half=0.002), cell("Wiener", "100", 0.04, draw=1, half=0.004),
        cell("Wiener", "25", 0.08), cell("CSGM", "25", 0.05, half=0.01), cell("CSGM", "100", 0.5, half=0.01),
        cell("CSGM", "best", 0.06),
    ]  # fmt: skip
    for own in made:
        write_cell(tmp_path / "results", own)
    facts = [
        Published("compressed_sensing", "mnist", row, "25", value, None, UNIT, "lower", ours, "a paper")
        for row, value, ours in (("CSGM", 0.022, "run"), ("Another", 0.0043, "quoted"))
    ]
    monkeypatch.setattr(curves, "published", lambda app: facts if app == "compressed_sensing" else [])
    return tmp_path / "results"


@pytest.fixture
def plotted(monkeypatch):
    """The curves that are drawn, by the name of the figure."""
    draw, seen = figures.error_curves, {}

    def noted(given, path, **more):
        seen[path.name] = (list(given), more)
        return draw(given, path, **more)

    monkeypatch.setattr(curves, "error_curves", noted)
    return seen


def test_the_curves_of_a_table_are_means_over_draws_with_published_points(tmp_path, call, filed, plotted):
    status, told, error = call("report", "--table", "mnist", "--figures", "figures", "--results", "results")
    assert status == 0, error
    assert told.split() == ["figures/mnist.png"]
    found, more = plotted["mnist.png"]
    assert [(curve.name, curve.published) for curve in found] == [
        ("CSGM", False), ("CSGM", True), ("Wiener", False), ("Another", True),
    ]  # fmt: skip
    assert found[0].points == [Point(25, 0.05, 0.01), Point(100, 0.5, 0.01)] and found[1].points == [Point(25, 0.022)]
    assert found[2].points[0] == Point(25, 0.08, None)
    last = found[2].points[1]
    assert (last.m, last.mean, last.half_width) == (100, pytest.approx(0.03), pytest.approx(0.003))
    assert more == {"unit": UNIT, "title": "MNIST, 1,000 test images"}
    for name in told.split():
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_some_methods_of_a_table_in_their_order(call, filed, plotted):
    options = ["report", "--table", "mnist", "--figures", "figures", "--results", "results"]
    status, told, error = call(*options, "--methods", "[Wiener]")
    assert status == 0, error
    assert [curve.name for curve in plotted["mnist.png"][0]] == ["Wiener"] and told.split() == ["figures/mnist.png"]
    assert call(*options, "--methods", "[Another, Wiener]")[0] == 0
    assert [curve.name for curve in plotted["mnist.png"][0]] == ["Another", "Wiener"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "expected a run or a table, got neither"),
        (["--run", "run", "--table", "mnist"], "got both"),
        (["--table", "mnist"], "give --figures FOLDER"),
        (["--table", "omniglot", "--figures", "f", "--results", "results"], "expected cells of the table omniglot"),
        (["--table", "mnist", "--figures", "f", "--results", "results", "--methods", "[Wienr]"], "got 'Wienr'"),
        (["--run", "nowhere"], "expected a finished run of genapps compressed-sensing recover in nowhere"),
        (["--run", "nowhere", "--images", 0], "--images: expected 1 or more"),
    ],
)
def test_mistakes_are_one_line(refused, filed, options, words):
    assert words in refused("report", *options)


def test_axes_are_logarithmic_and_bars_are_those_given(tmp_path, canvases):
    figures.error_curves(
        [Curve("A", [Point(10, 0.1, 0.02), Point(100, 0.01, 0.5)]), Curve("A", [Point(10, 0.2)], published=True)],
        tmp_path / "a.png", unit=UNIT,
    )  # fmt: skip
    (axes,) = canvases[0].axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["A", "A, published"]
    bars = axes.containers[0][2][0].get_segments()
    np.testing.assert_allclose([bar[:, 1] for bar in bars], [[0.08, 0.12], [0.0005, 0.51]])  # never to 0
    figures.measurement_errors([0.5, 1.5, np.nan], 0.1, 100, tmp_path / "b.png")
    band = canvases[1].axes[0].patches[-1].get_extents().transformed(canvases[1].axes[0].transData.inverted())
    noise = 0.1 * torch.randn(20_000, 100, generator=torch.Generator().manual_seed(0)).norm(dim=1)
    inside = ((noise > band.x0) & (noise < band.x1)).double().mean()
    assert inside == pytest.approx(0.95, abs=0.006)


def test_figures_refuse_what_they_cannot_draw(tmp_path):
    for draw in (
        lambda: figures.error_curves([Curve("A", [])], tmp_path / "a.png", unit=UNIT),
        lambda: figures.error_curves([Curve("A", [Point(1, 0.0)])], tmp_path / "a.png", unit=UNIT),
        lambda: figures.recovery_grid({"a": np.zeros((2, 1, 3, 3)), "b": np.zeros((1, 1, 3, 3))}, tmp_path / "a.png"),
        lambda: figures.recovery_grid({"a": np.zeros((0, 1, 3, 3))}, tmp_path / "a.png"),
        lambda: figures.measurement_errors([np.nan], 0.1, 3, tmp_path / "a.png"),
    ):
        with pytest.raises(UserError, match="expected"):
            draw()
    assert not list(tmp_path.iterdir())


def test_tune_and_benchmark_are_verbs(tmp_path, call, refused, monkeypatch):
    small = {"LASSO": rows.Row(LASSO, {"box": True}, {"alpha": [10.0, 0.01]})}
    monkeypatch.setattr(table, "ROWS", small)
    monkeypatch.setattr(rows, "ROWS", small)
    monkeypatch.setattr(table, "errors", lambda a, b: {"mse": (a - b).double().square().flatten(1).mean(1)})
    status, told, error = call("tune", "--data", "digits", "--m", "[20]", "--images", 5, "--out", "chosen.json")
    assert status == 0, error
    assert "LASSO, m = 20" in told and rows.chosen("digits", "LASSO", 20, tmp_path / "chosen.json") == {"alpha": 0.01}
    options = ["--data", "digits", "--m", "[20]", "--images", 4, "--group", 2, "--results", "results"]
    assert call("benchmark", *options)[0] == 0
    (found,) = read_cells(tmp_path / "results", "compressed_sensing", "digits_4_by_2")
    assert found.row == "LASSO" and found.command.startswith("genapps compressed-sensing benchmark")
    assert "got 'LASO'" in refused("benchmark", *options, "--methods", "[LASO]")
