"""`genapps semi-supervised`, every verb through the command line, on tiny data."""

import csv
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from apps.__main__ import main
from apps.semi_supervised import load
from apps.semi_supervised.experiment import make_task
from core_models.training import Interrupted

QUICK = ["--method.epochs", "2", "--method.latent", "2", "--method.hidden", "[8]", "--method.batch_size", "20"]
QUICK += ["--method.device", "cpu"]


def run(*arguments):
    return main(["semi-supervised", *map(str, arguments)])


def fails(capsys, *arguments):
    """Runs a command that the user got wrong; returns its one line."""
    assert run(*arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("genapps: error: ")
    return error


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """120 images of three classes, as an .npz."""
    rng = np.random.default_rng(0)
    y = np.arange(120) % 3
    x = rng.integers(0, 60, (120, 6, 6)).astype(np.uint8)
    for c in range(3):
        x[y == c, 2 * c : 2 * c + 2] += 180
    path = tmp_path_factory.mktemp("data") / "bars.npz"
    names = np.array(["low", "middle", "top"])
    np.savez(path, x=x[:90], y=names[y[:90]], test_x=x[90:], test_y=names[y[90:]])
    return path


@pytest.fixture(scope="module")
def trained(images, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "m2"
    assert run("train", "--method", "M2", *QUICK, "--data", images, "--labels", 9, "--out", out) == 0
    return out


def test_train_leaves_a_whole_run(trained):
    summary = json.loads((trained / "summary.json").read_text())
    assert summary["labels"] == 9 and summary["n_test"] == 30
    assert summary["test_error_percent"] == pytest.approx(100 * summary["error_count"] / 30)
    assert load(trained).classes_.tolist() == ["low", "middle", "top"]
    names = {path.name for path in trained.iterdir()}
    assert {"config.yaml", "metrics.jsonl", "checkpoint", "model.safetensors", "estimator.json", "figures"} <= names
    figures = {path.name for path in (trained / "figures").iterdir()}
    assert figures == {"analogies.png", "confusion.png", "curves.png", "manifold.png", "samples.png", "tsne.png"}
    page = (trained / "report.html").read_text()
    assert f"{summary['test_error_percent']:.2f} %" in page and page.count("data:image/png;base64,") == 6


def test_a_run_is_not_overwritten(trained, images, capsys):
    before = (trained / "model.safetensors").read_bytes()
    error = fails(capsys, "train", "--method", "M2", "--data", images, "--out", trained)
    assert "already holds a run: add --resume" in error
    assert (trained / "model.safetensors").read_bytes() == before


def test_resuming_a_finished_run_changes_nothing(trained, images, capsys):
    before = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    same = ["--method", "M2", *QUICK, "--data", images, "--labels", 9, "--out", trained, "--resume"]
    assert run("train", *same) == 0
    assert {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()} == before


def test_a_single_latent_has_no_map(images, tmp_path):
    given = ["--method", "M2", *QUICK, "--method.latent", 1, "--data", images, "--labels", 9, "--out", tmp_path / "run"]
    assert run("train", *given) == 0
    assert (tmp_path / "run" / "summary.json").is_file()
    drawn = {path.name for path in (tmp_path / "run" / "figures").iterdir()}
    assert "confusion.png" in drawn and not drawn & {"tsne.png", "manifold.png"}


def test_names_of_digits_stay_as_they_are_written(images, tmp_path):
    with np.load(images) as found:
        y = np.array(["007", "010", "1"])[np.searchsorted(["low", "middle", "top"], found["y"])]
        np.savez(tmp_path / "numbered.npz", x=found["x"], y=y)
    assert make_task(str(tmp_path / "numbered.npz"), 9, 0, draws=tmp_path).names.tolist() == ["007", "010", "1"]


def test_report_draws_the_page_again(trained):
    (trained / "report.html").unlink()
    assert run("report", "--run", trained) == 0
    assert "test error" in (trained / "report.html").read_text()


def test_predict_labels_a_folder_of_images(trained, images, tmp_path, capsys):
    with np.load(images) as data:
        for i, pixels in enumerate(data["test_x"][:5]):
            (tmp_path / "mine" / "deeper").mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / "mine" / "deeper" / f"{i}.png")
    assert run("predict", "--run", trained, "--input", tmp_path / "mine", "--out", tmp_path / "out.csv") == 0
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    assert [row["image"] for row in rows] == [f"deeper/{i}.png" for i in range(5)]
    with np.load(images) as data:
        expected = load(trained).predict(data["test_x"][:5, None].astype(np.float32) / 255)
    assert [row["label"] for row in rows] == expected.tolist()
    for row in rows:
        assert sum(float(row[f"p({label})"]) for label in ("low", "middle", "top")) == pytest.approx(1, abs=1e-5)


def test_predict_refuses_images_of_another_shape(trained, tmp_path, capsys):
    np.savez(tmp_path / "other.npz", x=np.zeros((2, 7, 7), dtype=np.uint8))
    error = fails(capsys, "predict", "--run", trained, "--input", tmp_path / "other.npz", "--out", tmp_path / "o.csv")
    assert "expected images of 1 x 6 x 6" in error and "got 1 x 7 x 7" in error
    assert not (tmp_path / "o.csv").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["--method.latent", 3], "method.latent (2 there, 3 here)"),
        (["--method", "NeuralNetwork"], "method (apps.semi_supervised.m2.M2 there"),
        (["--labels", 12], "labels (9 there, 12 here)"),
    ],
)
def test_a_run_is_not_resumed_as_another_one(changes, words, trained, images, capsys):
    before = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    arguments = ["--method", "M2", *QUICK, "--data", images, "--labels", 9, "--out", trained, "--resume", "true"]
    if "--method" in changes:
        arguments = [*changes, "--data", images, "--labels", 9, "--out", trained, "--resume", "true"]
        changes = []
    error = fails(capsys, "train", *arguments, *changes)
    assert "is of another run" in error and words in error
    now = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file() and "draws" not in path.parts}
    assert now == {path: content for path, content in before.items() if "draws" not in path.parts}


def test_an_ended_run_is_resumed_as_it_is_on_another_number_of_threads(trained, images, capsys):
    same = ["--method", "M2", *QUICK, "--data", images, "--labels", 9, "--out", trained, "--resume", "true"]
    assert run("train", *same, "--method.threads", 1) == 0
    assert "has ended" in capsys.readouterr().out


def test_predict_does_not_put_a_file_in_the_place_of_a_pipe(trained, images, tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe")
    error = fails(capsys, "predict", "--run", trained, "--input", images, "--out", tmp_path / "pipe")
    assert "expected a file to write" in error
    assert (tmp_path / "pipe").is_fifo()


def test_predict_refuses_pixels_out_of_range(trained, tmp_path, capsys):
    np.savez(tmp_path / "loud.npz", x=np.full((2, 6, 6), 3.5, dtype=np.float32))
    assert "[0, 1]" in fails(capsys, "predict", "--run", trained, "--input", tmp_path / "loud.npz")


@pytest.fixture(scope="module")
def results(images, tmp_path_factory):
    """A grid of two methods, run twice."""
    folder = tmp_path_factory.mktemp("grid")
    settings = json.dumps({"epochs": 1, "m1_epochs": 1, "m1_hidden": [8], "active_threshold": 0.0, "steps": 5})
    command = ["benchmark", "--methods", "[NN, M1+M2]", "--labels", "[9]", "--draws", "2", "--data", images]
    command += ["--results", folder / "results", "--work", folder / "work", "--device", "cpu", "--settings", settings]
    assert run(*command) == 0
    return folder, command


def test_a_task_shows_as_many_labels_as_were_asked_for_and_they_are_true(images, tmp_path):
    task = make_task(str(images), 9, 0, draws=tmp_path)
    shown = task.y >= 0
    assert shown.sum() == 9 and (np.bincount(task.y[shown]) == 3).all()
    assert (task.y[shown] == task.data.train_y.numpy()[shown]).all()
    targets = task.targets()
    assert [label for label in targets if label != -1] == [task.names[code] for code in task.y[shown]]


def test_benchmark_writes_a_cell_for_each_draw(results):
    folder, _ = results
    cells = sorted((folder / "results" / "semi_supervised" / "bars").glob("*.json"))
    assert [path.stem for path in cells] == ["M1+M2__9__0", "M1+M2__9__1", "NN__9__0", "NN__9__1"]
    cell = json.loads(cells[0].read_text())
    assert cell["value"] == pytest.approx(100 * cell["extra"]["error_count"] / 30)
    assert cell["command"].startswith("genapps semi-supervised benchmark --methods '[M1+M2]' --labels '[9]' --draws 1")
    draws = sorted(path.name for path in (folder / "results" / "semi_supervised" / "draws").iterdir())
    assert draws == ["bars_9_0.txt", "bars_9_1.txt"]


@pytest.mark.parametrize("name", ["M1+M2__9__1", "NN__9__0"])
def test_the_command_in_a_cell_makes_the_cell_again(name, results, images, tmp_path, monkeypatch):
    folder, _ = results
    where = Path("semi_supervised", "bars", f"{name}.json")
    cell = json.loads((folder / "results" / where).read_text())
    assert str(images.parent) not in cell["command"]  # no path of this machine
    monkeypatch.chdir(images.parent)
    options = ["--results", str(tmp_path / "results"), "--work", str(tmp_path / "work"), "--device", "cpu"]
    assert main([*shlex.split(cell["command"])[1:], *options]) == 0
    again = json.loads((tmp_path / "results" / where).read_text())
    assert {key: again[key] for key in ("value", "config_hash", "command")} == {
        key: cell[key] for key in ("value", "config_hash", "command")
    }


def test_benchmark_leaves_finished_cells_alone_and_shares_m1(results, capsys):
    folder, command = results
    assert len(list((folder / "work").glob("m1_*"))) == 1
    before = {path: path.read_bytes() for path in (folder / "results").rglob("*.json")}
    assert run(*command) == 0
    assert capsys.readouterr().out.count("stands") == 4
    assert {path: path.read_bytes() for path in (folder / "results").rglob("*.json")} == before


def test_benchmark_trains_draws_as_one_stack(images, tmp_path, capsys):
    settings = json.dumps({"epochs": 1, "hidden": [8], "latent": 2})
    command = ["benchmark", "--methods", "[M2]", "--labels", "[9]", "--draws", "2", "--data", images, "--stack", "true"]
    command += [
        "--results",
        tmp_path / "results",
        "--work",
        tmp_path / "work",
        "--device",
        "cpu",
        "--settings",
        settings,
    ]
    assert run(*command) == 0
    cells = [json.loads(path.read_text()) for path in (tmp_path / "results").rglob("*.json")]
    assert [cell["extra"]["stacked_draws"] for cell in cells] == [2, 2]
    assert all(cell["extra"]["interval"][0] <= cell["value"] <= cell["extra"]["interval"][1] for cell in cells)
    assert {cell["draw"] for cell in cells} == {0, 1}


def test_benchmark_stops_at_its_time_limit_and_goes_on(images, tmp_path, capsys):
    settings = json.dumps({"epochs": 120, "hidden": [8], "latent": 2, "batch_size": 10})
    command = ["benchmark", "--methods", "[M2]", "--labels", "[9]", "--draws", "1", "--data", images]
    command += [
        "--results",
        tmp_path / "results",
        "--work",
        tmp_path / "work",
        "--device",
        "cpu",
        "--settings",
        settings,
    ]
    assert run(*command, "--time_limit", "0.5") == 0
    assert "the same command goes on" in capsys.readouterr().out
    assert not list((tmp_path / "results").rglob("*.json"))
    assert run(*command) == 0
    assert len(list((tmp_path / "results").rglob("*.json"))) == 1


@pytest.mark.parametrize(
    ("again", "later"), [([], "the same command goes on"), (["--again", "true"], "with --again it begins anew")]
)
def test_an_interrupted_benchmark_says_how_it_goes_on(again, later, images, tmp_path, capsys, monkeypatch):
    def ctrl_c(*_, **__):
        raise Interrupted(7, 90, tmp_path / "m2.safetensors")

    monkeypatch.setattr("apps.semi_supervised.generative.fit", ctrl_c)
    command = ["benchmark", "--methods", "[M2]", "--labels", "[9]", "--draws", "1", "--data", images]
    assert run(*command, "--results", tmp_path / "r", "--work", tmp_path / "w", "--device", "cpu", *again) == 130
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error == f"genapps: error: M2, 9 labels, draw 0: interrupted at step 7; {later}"


def test_results_shows_the_cells(results, capsys):
    folder, _ = results
    assert main(["results", "--folder", str(folder / "results"), "--app", "semi_supervised", "--json"]) == 0
    found = {(r["row"], r["column"]): r for r in json.loads(capsys.readouterr().out) if r["table"] == "bars"}
    assert found["M1+M2", "9"]["n"] == 2 and found["M1+M2", "9"]["better"] == "lower"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--method", "M2", "--labels", "10"], "multiple of the 3 classes, got 10"),
        (["--method", "M2", "--labels", "900"], "expected at most 90 labels, as many as exist, got 900"),
        (["--method", "M2", "--labels", "2"], "at least one label for each of the 3 classes"),
        (["--method", "M2", "--method.epoch", "2"], "epoch"),
        (["--method", "M2", "--method.epochs", "many"], "many"),
        (["--method", "M3"], "M3"),
        (["--lables", "9"], "lables"),
        (["--config", "semi_supervised/m22"], "semi_supervised/m2"),
        (["--method", "M2", "--labels", "9", "--method.hidden", "[]"], "hidden layer"),
        (["--method", "M2", "--method.activation", "swish"], "swish"),
    ],
)
def test_a_mistake_is_one_line(arguments, expected, images, tmp_path, capsys):
    out = tmp_path / "run"
    assert expected in fails(capsys, "train", "--data", images, "--out", out, *arguments)
    assert not (out / "summary.json").exists()


def test_faults_of_data_are_one_line(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert "empty" in fails(capsys, "train", "--method", "M2", "--data", tmp_path / "empty", "--out", tmp_path / "a")
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04 nothing")
    command = ["train", "--method", "M2", "--data", tmp_path / "cut.npz", "--out", tmp_path / "b"]
    assert "cut.npz" in fails(capsys, *command)
    y = np.array([0, 0, 1, -1, -1, -1])
    x = np.zeros((6, 4, 4), dtype=np.uint8)
    np.savez(tmp_path / "some.npz", x=x, y=np.where(y == 1, -1, y), test_x=x, test_y=np.array([0, 1, 0, 1, 0, 1]))
    error = fails(
        capsys, "train", "--method", "M2", "--data", tmp_path / "some.npz", "--labels", "null", "--out", tmp_path / "c"
    )
    assert "expected test labels among those of training, got '1'" in error  # a class with no labelled example


def test_killed_and_resumed_it_ends_with_the_same_numbers(images, tmp_path):
    """SIGKILL at two moments of M1+M2, whose two trainings follow one another in one run folder."""
    arguments = ["--method", "M1M2", "--data", str(images), "--labels", "9", "--method.device", "cpu"]
    arguments += ["--method.epochs", "15", "--method.m1_epochs", "15", "--method.m1_hidden", "[16]"]
    arguments += ["--method.hidden", "[16]", "--method.active_threshold", "0", "--method.batch_size", "10"]
    assert run("train", *arguments, "--out", tmp_path / "whole") == 0
    command = [sys.executable, "-m", "apps", "semi-supervised", "train", *arguments, "--out", str(tmp_path / "cut")]
    stages = tmp_path / "cut" / "checkpoint"
    for stage in ("m1", "m2"):
        process = subprocess.Popen([*command, "--resume"], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 90
        while not (stages / f"{stage}.safetensors").exists() and process.poll() is None:
            assert time.monotonic() < deadline, "no checkpoint came"
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert subprocess.run([*command, "--resume"], capture_output=True, env=os.environ).returncode == 0
    for name in ("model.safetensors", "m1/model.safetensors", "metrics.jsonl"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()
