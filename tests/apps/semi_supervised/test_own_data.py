"""How many labels of one's own data are shown, and how many images are kept for the test."""

import json

import numpy as np
import pytest
import yaml

from apps.__main__ import main
from apps.semi_supervised.experiment import make_task
from core_models.errors import UserError

QUICK = ["--method", "M2", "--method.epochs", "1", "--method.latent", "2", "--method.hidden", "[8]"]
QUICK += ["--method.device", "cpu"]
SVM = ["--method", "SVM", "--method.C", "10", "--method.gamma", "1", "--method.folds", "0"]


def run(*arguments):
    return main(["semi-supervised", *map(str, arguments)])


def write(path, classes=3, each=20, unlabelled=30, **arrays):
    """Writes images of some classes, of each as many with a label, and some without one."""
    y = np.r_[np.arange(classes * each) % classes, np.full(unlabelled, -1)]
    x = np.random.default_rng(0).integers(0, 60, (len(y), 6, 6)).astype(np.uint8)
    for c in range(classes):
        x[y == c, c] += 180
    np.savez(path, x=x, y=y, **arrays)
    return str(path)


def test_where_no_number_is_given_all_labels_of_partly_labelled_data_are_shown(tmp_path):
    for classes in (2, 3):
        task = make_task(write(tmp_path / "own.npz", classes, each=40), "auto", 0, draws=tmp_path / "draws")
        assert task.labels == (task.y >= 0).sum() == 32 * classes and task.draw is None
    with pytest.raises(UserError, match=r"got 50: try 48, or train with --labels null, which shows all 96$"):
        make_task(str(tmp_path / "own.npz"), 50, 0, draws=tmp_path / "draws")


def test_where_no_number_is_given_five_of_each_class_are_shown_of_labelled_data(tmp_path):
    task = make_task(write(tmp_path / "own.npz", unlabelled=0), "auto", 0, draws=tmp_path / "draws")
    assert task.labels == 15 and np.bincount(task.y[task.y >= 0]).tolist() == [5, 5, 5]
    assert make_task("digits", "auto", 0, draws=tmp_path / "draws").labels == 50
    with pytest.raises(UserError, match=r"got 47: try 45$"):
        make_task(str(tmp_path / "own.npz"), 47, 0, draws=tmp_path / "draws")


def test_the_configuration_of_a_run_names_the_number_of_labels(tmp_path):
    data = write(tmp_path / "own.npz", unlabelled=0)
    options = ["train", *SVM, "--data", data, "--out", tmp_path / "run"]
    assert run(*options) == 0
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert config["labels"] == 15
    assert run(*options, "--labels", 15, "--resume") == 0
    assert run(*options, "--resume") == 0


def test_a_run_of_another_default_number_of_labels_is_resumed_with_its_own(tmp_path, capsys):
    options = ["train", *SVM, "--data", write(tmp_path / "own.npz", classes=2, each=40), "--out", tmp_path / "run"]
    assert run(*options, "--labels", 50) == 0
    assert run(*options, "--resume") == 0, capsys.readouterr().err
    assert run(*options, "--labels", "null", "--resume") == 2
    assert "labels (50 there, nothing here)" in capsys.readouterr().err.replace("None", "nothing")


def test_a_number_of_none_is_offered_only_where_it_helps(tmp_path):
    data, draws = write(tmp_path / "own.npz"), tmp_path / "draws"
    make_task(data, 6, 0, draws=draws)
    (kept,) = draws.iterdir()
    kept.write_text("nothing")
    loaded = make_task(data, None, 0).data
    for given, labels, words in ((data, 6, "remove it"), (loaded, 7, "try 6$")):
        with pytest.raises(UserError, match=words) as caught:
            make_task(given, labels, 0, draws=draws)
        assert "null" not in str(caught.value)


def test_a_run_of_before_an_option_is_resumed_where_the_option_is_left_out(tmp_path, capsys):
    options = ["train", *SVM, "--data", write(tmp_path / "own.npz"), "--out", tmp_path / "run"]
    assert run(*options) == 0
    config = tmp_path / "run" / "config.yaml"
    settings = yaml.safe_load(config.read_text())
    config.write_text(yaml.safe_dump({key: value for key, value in settings.items() if key != "test_fraction"}))
    assert run(*options, "--resume") == 0
    assert run(*options, "--resume", "--test_fraction", 0.5) == 2
    assert "test_fraction (nothing there, 0.5 here)" in capsys.readouterr().err


def test_with_none_held_out_all_labels_are_learnt_from_and_no_error_is_claimed(tmp_path, capsys):
    data = write(tmp_path / "own.npz", classes=2, each=1)  # too few to hold one out
    refused = ["train", *QUICK, "--data", data, "--out", tmp_path / "refused"]
    assert run(*refused) == 2 and "hold none out (test_fraction 0" in capsys.readouterr().err
    assert run("train", *QUICK, "--data", data, "--out", tmp_path / "run", "--test_fraction", 0) == 0
    told = capsys.readouterr().out
    assert "32 images of 1 x 6 x 6, 2 labelled, none for test" in told
    assert "no test error" in told and "nan %" not in told
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["labels"], summary["n_test"], summary["test_error_percent"]) == (2, 0, None)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "not measured" in page and "no test split" in page and ">None" not in page
    assert "latents of training images, coloured by predicted class" in page
    drawn = {path.name for path in (tmp_path / "run" / "figures").iterdir()}
    assert drawn == {"analogies.png", "curves.png", "manifold.png", "samples.png", "tsne.png"}
    assert not make_task(**summary["task"], draws=tmp_path).scored  # as `report` makes it again


def test_another_share_is_held_out(tmp_path):
    task = make_task(write(tmp_path / "own.npz"), None, 0, test_fraction=0.5)
    assert (task.labels, len(task.data.test_x)) == (30, 30) and task.asked["test_fraction"] == 0.5
