"""`genapps pixeldefend demo` and `report`, through the command line, on a tiny density and classifier."""

import contextlib
import io
import json
import re
import shutil

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

import core_models
from apps.common.report import write_report
from apps.pixeldefend import attacks
from apps.pixeldefend import demo as demo_module
from apps.pixeldefend import report as report_module
from apps.pixeldefend.__main__ import main
from apps.pixeldefend.defended import CAUTION, Defended, Purifier
from apps.pixeldefend.detection import bits_per_dim, calibrate
from apps.pixeldefend.purification import purify
from core_models.autoregressive import PixelCNNPlusPlus, PixelCNNPlusPlusConfig
from core_models.classifiers import ResNet, ResNetConfig
from core_models.data import NoSourceError

SHAPE = (1, 8, 8)
OPTIONS = {"images": 10, "eps": 20, "eps_defend": 30, "bpda_images": 4, "bpda_steps": 2, "batch_size": 3, "seed": 3}


def smooth(n, seed):
    """Levels (n, 8, 8) of waves with some noise."""
    rng = np.random.default_rng(seed)
    row, column = np.mgrid[:8, :8]
    waves = np.sin(rng.uniform(0, 1, (n, 1, 1)) * row + rng.uniform(0, 1, (n, 1, 1)) * column + rng.uniform(0, 6))
    return np.clip(127 + 90 * waves + rng.normal(0, 6, (n, 8, 8)), 0, 255).round().astype(np.uint8)


def pixels(levels):
    return torch.from_numpy(levels.reshape(-1, *SHAPE)).float() / 255


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A density and its calibration, a classifier, and images that it classifies rightly but for one."""
    folder = tmp_path_factory.mktemp("demo_models")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        density = PixelCNNPlusPlus(PixelCNNPlusPlusConfig(event_shape=SHAPE, filters=4, blocks=1, resolutions=1)).eval()
        net = ResNet(ResNetConfig(event_shape=SHAPE, classes=3, widths=(4, 4), units=1)).eval()
    core_models.save(density, folder / "density")
    core_models.save(net, folder / "classifier")
    calibrate(density, pixels(smooth(59, 1)), data="waves", split="valid", batch_size=60).save(
        folder / "density" / "calibration.npz"
    )
    x = smooth(12, 2)
    y = net(pixels(x)).argmax(1).numpy()
    y[1] = (y[1] + 1) % 3
    np.savez(folder / "waves.npz", train_x=smooth(3, 3), train_y=[0, 1, 2], test_x=x, test_y=y)
    return folder


@pytest.fixture
def call(capsys, models):
    """Runs the demo and returns the exit status, stdout and stderr."""

    def run(out, **more):
        given = {
            "data": models / "waves.npz", "density": models / "density", "classifier": models / "classifier",
            "device": "cpu", **OPTIONS, **more,
        }  # fmt: skip
        status = main(["demo", "--out", str(out), *(str(word) for k, v in given.items() for word in (f"--{k}", v))])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture(scope="module")
def done(tmp_path_factory, models):
    """A finished demo: its folder; what it printed is in `printed.txt` there."""
    out = tmp_path_factory.mktemp("demo") / "run"
    given = {"data": models / "waves.npz", "density": models / "density", "classifier": models / "classifier"}
    words = [str(word) for k, v in {**given, **OPTIONS, "device": "cpu"}.items() for word in (f"--{k}", v)]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main(["demo", "--out", str(out), *words]) == 0
    (out / "printed.txt").write_text(printed.getvalue())
    return out


@pytest.fixture(scope="module")
def arrays(done):
    with np.load(done / "pixeldefend" / "images.npz", allow_pickle=False) as found:
        return dict(found)


@pytest.fixture
def summary(done):
    return json.loads((done / "pixeldefend" / "summary.json").read_text())


def test_the_images_are_those_of_the_attacks_and_of_the_purifier(arrays, models):
    density, net = core_models.load(models / "density"), core_models.load(models / "classifier")
    x, y = pixels(smooth(12, 2)[:10]), torch.from_numpy(arrays["y"])
    assert arrays["names"].tolist() == ["clean", "RAND", "FGSM", "BIM", "BPDA"]
    target = Defended(Purifier(density, eps=30), net)
    expected = {
        "clean": x,
        **{name: attacks.attack(name.lower(), net, x, y, 20, seed=3) for name in ("RAND", "FGSM", "BIM")},
        "BPDA": attacks.attack("bpda", target, x[:4], y[:4], 20, seed=3, steps=2),
    }
    for name, images in expected.items():
        np.testing.assert_array_equal(arrays[f"{name}/x"], (images * 255).round().byte())
        z = purify(density, images, 30)
        np.testing.assert_array_equal(arrays[f"{name}/purified"], (z * 255).round().byte())
        np.testing.assert_allclose(arrays[f"{name}/bits"], bits_per_dim(density, images), atol=1e-5)
        np.testing.assert_allclose(arrays[f"{name}/bits_purified"], bits_per_dim(density, z), atol=1e-5)
        np.testing.assert_array_equal(arrays[f"{name}/predicted"], net(images).argmax(1))
        np.testing.assert_array_equal(arrays[f"{name}/predicted_purified"], net(z).argmax(1))
    assert (arrays["BIM/x"] != arrays["clean/x"]).any() and (arrays["clean/purified"] != arrays["clean/x"]).any()


def test_the_table_follows_from_what_was_saved(arrays, summary, models):
    y, clean, x = arrays["y"], arrays["clean/bits"], arrays["clean/x"]
    with np.load(models / "density" / "calibration.npz") as found:
        held_out = found["bits_per_dim"]
    threshold = np.quantile(held_out, 0.9)
    assert [row["images"] for row in summary["rows"]] == arrays["names"].tolist()
    for row in summary["rows"]:
        name, truth = row["images"], y[: row["n"]]
        get = {key: arrays[f"{name}/{key}"] for key in ("bits", "p_value", "predicted", "predicted_purified")}
        p = [(1 + (held_out >= own).sum()) / 60 for own in get["bits"]]
        np.testing.assert_allclose(get["p_value"], p)
        moved = [i for i in range(row["n"]) if name == "clean" or (arrays[f"{name}/x"][i] != x[i]).any()]
        assert row["suspicious"] == pytest.approx(100 * (np.array(p)[moved] <= 0.05).mean())
        assert row["median_p_value"] == pytest.approx(np.median(np.array(p)[moved]))
        assert row["bits_per_dim"] == pytest.approx(get["bits"][moved].mean())
        assert row["purified"] == pytest.approx(100 * (get["predicted_purified"] == truth).mean())
        if name == "BPDA":  # made on another target than these columns are of
            assert 0 < row["changed"] < row["n"] == 4, "an image that the defence got wrong should have been left"
            assert row["undefended"] is row["adaptive"] is None
        else:
            assert row["n"] == 10
            assert row["undefended"] == pytest.approx(100 * (get["predicted"] == truth).mean())
            kept = get["bits"] <= threshold
            answered = [get["predicted" if own else "predicted_purified"][i] for i, own in enumerate(kept)]
            assert row["adaptive"] == pytest.approx(100 * (answered == truth).mean())
        if name == "clean":
            assert row["auc"] is row["changed"] is None and row["undefended"] == 90
        else:
            assert row["changed"] == len(moved)
            labels = np.repeat([0, 1], [10, len(moved)])
            assert row["auc"] == pytest.approx(roc_auc_score(labels, np.concatenate([clean, get["bits"][moved]])))


def test_the_caution_gives_the_figure_of_bpda_found_here(summary, arrays):
    right = int((arrays["BPDA/predicted_purified"] == arrays["y"][:4]).sum())
    before = 100 * (arrays["clean/predicted_purified"][:4] == arrays["y"][:4]).mean()
    low, high = binomtest(right, 4).proportion_ci(method="wilson")
    assert summary["caution"] == (
        f"{CAUTION}. Here, at 20 levels, BPDA with at most 2 steps leaves it {25 * right:.1f} % "
        f"(95 %: {100 * low:.1f} to {100 * high:.1f}; {right} of 4 images), from {before:.1f} % without attack."
    )


def test_what_is_printed_is_what_was_found(summary, done):
    out = (done / "printed.txt").read_text()
    table = {words[0]: words[1:] for words in (line.split() for line in out.splitlines()) if words}
    assert table["images"] == ["n", "undefended", "purified", "adaptive", "changed", "AUC", "suspicious"]
    for row in summary["rows"]:
        cells = ["-" if row[k] is None else f"{row[k]:.1f}" for k in ("undefended", "purified", "adaptive")]
        more = ["-", "-"] if row["auc"] is None else [str(row["changed"]), f"{row['auc']:.3f}"]
        words = [word for word in table[row["images"]] if word != "%"]
        assert words == [str(row["n"]), *cells, *more, f"{row['suspicious']:.1f}"]
    assert "AUC and suspicious of the images that they changed" in out
    assert re.search(r"purified 44 images in [\d.]+ s: [\d.]+ images/s", out)
    assert summary["caution"] in out and f"report: {done / 'report.html'}" in out
    assert "calibration: 59 held-out images (valid split) of waves" in out


def test_the_page_has_every_figure_and_the_caution(done, summary):
    page = (done / "report.html").read_text()
    names = {path.name for path in (done / "pixeldefend" / "figures").iterdir()}
    images = {f"images_{name}.png" for name in ("rand", "fgsm", "bim", "bpda")}
    assert names == images | {"bits_per_dim.png", "roc.png"}
    assert page.count("<img ") == 6 and page.count("<section ") == 1
    assert summary["caution"] in page and summary["command"] in page
    assert "AUC and suspicious are of the images that the attack changed" in page
    assert "called suspicious. Only images that the attack changed are counted." in page
    assert "made on the whole defence" in page and "the attacker knows the defence" in page


def test_the_figures_of_detection_leave_out_what_an_attack_left_alone(done, summary, arrays, tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(
        report_module, "density_histograms", lambda clean, pairs, path, **_: drawn.update(pairs) or path
    )
    monkeypatch.setattr(report_module, "roc_curves", lambda clean, scores, path, **_: drawn.update(roc=scores) or path)
    folder = report_module.folder_of(shutil.copytree(done, tmp_path / "run"))
    report_module.draw_figures(folder, summary, *report_module.load_examined(folder))
    moved = (arrays["BPDA/x"] != arrays["clean/x"][:4]).any((1, 2, 3))
    for found in (drawn["BPDA"][0], drawn["roc"]["BPDA"]):
        np.testing.assert_array_equal(found, arrays["BPDA/bits"][moved])
    np.testing.assert_array_equal(drawn["BPDA"][1], arrays["BPDA/bits_purified"][moved])


def test_attacks_that_change_nothing_say_nothing_of_detection(tmp_path, call, monkeypatch):
    monkeypatch.setattr(demo_module.registry, "attack", lambda name, net, x, *_, **__: x)
    status, out, error = call(tmp_path / "run")
    assert status == 0, error
    rows = json.loads((tmp_path / "run" / "pixeldefend" / "summary.json").read_text())["rows"][1:]
    assert {(row["changed"], row["auc"], row["suspicious"], row["bits_per_dim"]) for row in rows} == {
        (0,) + (None,) * 3
    }
    assert re.search(r"BPDA +4 .* 0 +- +-\n", out)
    page = (tmp_path / "run" / "report.html").read_text()
    assert page.count("<img ") == 4 and "detection by bits/dim" not in page


def test_report_draws_the_same_again_beside_what_others_wrote(tmp_path, done, capsys):
    run = tmp_path / "run"
    shutil.copytree(done, run)
    page = (run / "report.html").read_text()
    figures = {path: path.read_bytes() for path in (run / "pixeldefend" / "figures").iterdir()}
    for path in figures:
        path.write_bytes(b"")
    assert main(["report", "--run", str(run)]) == 0
    assert capsys.readouterr().out == f"{run / 'report.html'}\n"
    assert {path: path.read_bytes() for path in figures} == figures
    assert (run / "report.html").read_text() == page
    # onto a page of another run
    (run / "report.html").unlink()
    write_report(run / "report.html", title="Another run")
    assert main(["report", "--run", str(run)]) == 0
    both = (run / "report.html").read_text()
    assert both.count("<h1>") == 2 and both.count("<img ") == 6
    assert both.partition("<section ")[2] == page.partition("<section ")[2]


def test_data_out_of_reach_is_said_and_is_no_error(tmp_path, call, monkeypatch):
    def nowhere(name, folder):
        raise NoSourceError("expected files,\nfound none")

    monkeypatch.setattr(demo_module, "load_as_trained", nowhere)
    status, out, error = call(tmp_path / "run", data="fashion-mnist")
    assert (status, out) == (0, "")
    line = "fashion-mnist is out of reach (expected files, found none): the demo of PixelDefend is left out\n"
    assert error == line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"eps": 0}, "--eps: expected levels from 1 to 255, got 0"),
        ({"eps_defend": 256}, "--eps_defend: expected levels from 0 to 255, got 256"),
        ({"images": 0}, "--images: expected 1 or more, got 0"),
        ({"images": 13}, "--images: expected at most the 12 test images, got 13"),
        ({"bpda_images": 0}, "--bpda_images: expected 1 or more, got 0"),
        ({"bpda_steps": 0}, "--bpda_steps: expected 1 or more, got 0"),
        ({"false_positive_rate": 1.0}, "--false_positive_rate: expected a share between 0 and 1, got 1"),
        ({"attacks": "[bpda]"}, "--attacks: expected attacks on the classifier alone, got bpda"),
        ({"attacks": "[bin]"}, "did you mean bim"),
        ({"data": "digits"}, "--data digits: expected 8-bit images"),
        ({"density": "zoo:nothing"}, "expected a model of the zoo among"),
    ],
)
def test_bad_options_are_one_line(tmp_path, call, options, why):
    status, _, error = call(tmp_path / "run", **options)
    (line,) = [line for line in error.splitlines() if line.startswith("genapps: error: ")]
    assert status == 2 and why in line and "Traceback" not in error


def test_what_is_missing_is_named(tmp_path, call, models, capsys):
    shutil.copytree(models / "density", tmp_path / "bare")
    (tmp_path / "bare" / "calibration.npz").unlink()
    status, _, error = call(tmp_path / "run", density=tmp_path / "bare")
    assert status == 2 and "expected a calibration at" in error and "genapps pixeldefend calibrate" in error
    assert main(["report", "--run", str(tmp_path / "run")]) == 2
    assert "run genapps pixeldefend demo first" in capsys.readouterr().err
    shutil.copytree(tmp_path / "bare", tmp_path / "run" / "pixeldefend")
    (tmp_path / "run" / "pixeldefend" / "summary.json").write_text("{}")
    (tmp_path / "run" / "pixeldefend" / "images.npz").write_bytes(b"torn")
    assert main(["report", "--run", str(tmp_path / "run")]) == 2
    assert "expected the images of a demo" in capsys.readouterr().err


def test_the_page_is_headed_by_the_attack_that_leaves_the_defence_least(tmp_path):
    def row(images, undefended, purified, auc=None):
        told = {"images": images, "n": 9, "undefended": undefended, "purified": purified, "adaptive": 50.0}
        return {**told, "changed": 9, "auc": auc, "suspicious": 50.0}

    rows = [row("clean", 90.0, 85.0), row("BIM", 0.0, 74.0, 0.987), row("FGSM", 19.0, 68.0, 0.876)]
    summary = {
        "rows": rows, "knowing": [], "images_per_second": 1.0, "device": "none", "false_positive_rate": 0.1, "eps": 25,
        "eps_defend": 32, "adaptive_threshold": 3.0, "adaptive_quantile": 0.9, "data": "waves", "caution": "mind",
        "notes": [], "command": "genapps",
    }  # fmt: skip
    page = report_module.write_page(tmp_path, summary, []).read_text()
    assert "FGSM: accuracy" in page and "19 → 68 %" in page and "FGSM: AUC" in page and "BIM: accuracy" not in page
