"""Classifiers, densities and attacks of one's own on the command line, by their path; and which of one's images."""

import json
import sys

import numpy as np
import pytest
import torch
from batch_targets import SHAPE, Bright, Smooth, attacked, png_folder, rows_of
from PIL import Image

from apps.__main__ import main
from apps.common.building import load_model
from apps.pixeldefend.attacks import find, named
from apps.pixeldefend.attacks.registry import forget, register
from core_models.base import Autoregressive, GenerativeModel
from core_models.errors import UserError


class Darker(Bright):
    """Needs an argument."""

    def __init__(self, by: float):
        super().__init__()


class Shapeless(Smooth):
    """Doesn't tell of what images it is."""

    def __init__(self):
        super().__init__()
        del self.event_shape


class Sampleless(torch.nn.Module, Autoregressive):
    event_shape, levels = SHAPE, 256
    conditionals, log_prob = Smooth.conditionals, Smooth.log_prob


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The working folder, from which modules are imported; afterwards they are forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        if name.startswith("own_"):
            del sys.modules[name]


@pytest.fixture
def run(capsys):
    def called(*argv):
        status = main(["pixeldefend", *map(str, argv), "--device", "cpu", "--threads", "1"])
        out, error = capsys.readouterr()
        return status, out, error

    return called


def own_images(path, n=10):
    """Writes labelled images, of both classes, and returns their levels."""
    levels = attacked(n)[1]
    levels[::2, ..., :2] //= 2
    np.savez(path, x=levels, y=np.arange(n) % 2)
    return levels


def test_models_by_their_class_path_give_what_their_folders_give(here, call, models):
    np.savez("in.npz", x=attacked(6)[1])
    (here / "own_nets.py").write_text("from batch_targets import Bright\n\n\nclass Net(Bright):\n    '''My own.'''\n")
    for verb in ("detect", "purify"):
        given = [verb, "in.npz"]
        more = [] if verb == "purify" else ["--threshold", 3]
        assert call(*given, f"{verb}_folder", "--classifier", models / "classifier", *more)[0] == 0
        paths = ["--classifier", "own_nets.Net", "--density", "batch_targets.Smooth"]
        status, _, error = call(*given, f"{verb}_path", *paths, *more)
        assert status == 0, error
        by_path, by_folder = rows_of(here / f"{verb}_path"), rows_of(here / f"{verb}_folder")
        for one, other in zip(by_path, by_folder, strict=True):
            shared = [key for key in one if not key.startswith("p_") and "complexity" not in key]
            assert [one[key] for key in shared] == [other[key] for key in shared] and one["prediction"]


def test_a_trained_model_is_in_evaluation_mode_and_a_folder_goes_before_a_class(here, models):
    assert not load_model("batch_targets.Smooth").training
    (here / "batch_targets.Smooth").symlink_to(models / "classifier")
    assert type(load_model("batch_targets.Smooth")) is Bright


@pytest.mark.parametrize(
    ("option", "path", "message"),
    [
        ("classifier", "own_nowhere.Net", "No module named 'own_nowhere'"),
        ("classifier", "batch_targets.Dark", "no attribute 'Dark'"),
        ("classifier", f"{__name__}.Darker", "Darker needs a value for 'by', got none: give it (by its class path"),
        ("classifier", "batch_targets.attacked", "expected a subclass of torch.nn"),
        ("classifier", "batch_targets.Smooth", "expected a classifier, got the density Smooth"),
        ("density", "batch_targets.Bright", "autoregressive model, such as a PixelCNN, got Bright"),
        ("density", f"{__name__}.Shapeless", "GenerativeModel with event_shape and levels, got Shapeless: make it one"),
        ("density", f"{__name__}.Sampleless", "expected a core_models.base.GenerativeModel with"),
    ],
)
def test_what_is_no_such_model_is_refused_in_one_line(here, refused, option, path, message):
    np.savez("in.npz", x=attacked(2)[1])
    if path.endswith("Shapeless"):
        assert not hasattr(Shapeless(), "event_shape") and isinstance(Shapeless(), GenerativeModel)
    assert message in refused("purify", "in.npz", "out", f"--{option}", path)


def test_a_class_path_is_not_calibrated(here, run):
    own_images("mine.npz")
    status, _, error = run("calibrate", "--density", "batch_targets.Smooth", "--data", "mine.npz", "--validation", 3)
    assert status == 2 and "expected a run folder, beside whose weights the scores are kept" in error
    assert not (here / "batch_targets.Smooth").exists()


PLAIN = """
def darken(classifier, x, y, *, eps, generator, share: float = 1.0):
    return x - share * eps / 255
"""
DECORATED = """
from apps.pixeldefend import register


@register("own_darkening", title="Darkening", source="here")
def darken(classifier, x, y, *, eps, generator, share: float = 1.0):
    return x - share * eps / 255
"""


@pytest.mark.parametrize(
    ("text", "path", "name", "title"),
    [
        (PLAIN, "own_attacks.darken", "own_attacks.darken", "darken"),
        (PLAIN, "own_attacks:darken", "own_attacks:darken", "darken"),
        (DECORATED, "own_attacks.darken", "own_darkening", "Darkening"),
    ],
)
def test_an_attack_of_ones_own_by_its_path(here, run, text, path, name, title):
    levels = own_images("mine.npz")
    (here / "own_attacks.py").write_text(text)
    given = ["attack", "--data", "mine.npz", "--classifier", "batch_targets.Bright", "--split", "all", "--eps", 8]
    try:
        for share in (0.5, 1):
            more = ["--attack", path, "--parameters", f"{{share: {share}}}", "--out", "out.npz"]
            status, _, error = run(*given, *more)
            assert status == 0, error
            with np.load("out.npz") as found:
                expected = np.maximum(found["clean"].astype(int) - 8 * share, 0)
                np.testing.assert_array_equal(found["x"], expected)
                assert len(found["x"]) == len(levels)
            told = json.loads((here / "out.json").read_text())
            assert (told["attack"], told["share"]) == (title, share)
        assert find(name).name == name
    finally:
        forget(name)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("own_nowhere.darken", "or module.function of your own, got 'own_nowhere.darken' (No module named"),
        ("batch_targets.darken", "has no attribute 'darken'"),
        (".darken", "expected an attack among"),
        ("..darken", "or module.function of your own, got '..darken'"),
        ("batch_targets.SHAPE", "which takes no classifier"),
        ("torchattacks.PGD", "got 'PGD', which takes no classifier"),
        ("bimm", "did you mean bim"),
    ],
)
def test_what_is_no_attack_is_refused_in_one_line(here, run, path, message):
    own_images("mine.npz")
    given = ["--data", "mine.npz", "--classifier", "batch_targets.Bright", "--out", "out.npz"]
    status, _, error = run("attack", *given, "--attack", path)
    assert (status, len(error.strip().splitlines())) == (2, 1) and message in error


def test_an_attack_is_found_by_the_name_that_it_was_registered_by():
    def mine(classifier, x, y, *, eps, generator):
        return x

    try:
        register("My_own", title="Mine", source="here")(mine)
        assert find("My_own").function is mine and named("My_own") == "My_own"
    finally:
        forget("My_own")
    with pytest.raises(UserError, match="'<lambda>', which takes no generator"):
        register("mine", title="Mine", source="here")(lambda classifier, x, y, *, eps: x)


def test_of_ones_own_images_those_held_out_are_attacked_or_all_and_it_says_which(here, run):
    levels = own_images("mine.npz")
    given = ["attack", "--data", "mine.npz", "--classifier", "batch_targets.Bright", "--attack", "rand", "--eps", 1]
    rows = {}
    for split in ("test", "train", "all"):
        status, out, error = run(*given, *(["--split", split] if split != "test" else []), "--out", f"{split}.npz")
        assert status == 0, error
        with np.load(f"{split}.npz") as found:
            rows[split] = found["names"].astype(int).tolist()
            np.testing.assert_array_equal(found["clean"], levels[rows[split]])
            assert found["y"].tolist() == [row % 2 for row in rows[split]]
        assert "a fifth held out for the test" in out
        of = "10 of the 10 images:" if split == "all" else f"of the {split} split (--split all: of 10):"
        assert of in out and json.loads((here / f"{split}.json").read_text())["split"] == split
    assert len(rows["test"]) == 2 and rows["all"] == rows["train"] + rows["test"]
    assert sorted(rows["all"]) == list(range(10))


def test_images_of_other_sizes_are_resized_where_that_is_asked_for(here, call, refused):
    levels = attacked(3)[1]
    png_folder(here / "right", levels)
    png_folder(here / "twice", levels.repeat(2, 2).repeat(2, 3))
    Image.fromarray(np.full((7, 30), 90, np.uint8)).save(here / "twice" / "odd" / "wide.png")
    message = refused("purify", "twice", "no")
    assert "got 10 x 8: add --resize true or take it out" in message and not (here / "no").exists()
    status, _, error = call("purify", "twice", "out", "--resize", "true")
    assert status == 0, error
    with Image.open(here / "out" / "purified" / "odd" / "wide.png") as image:
        assert (image.height, image.width) == SHAPE[1:]
    assert call("detect", "twice", "scores", "--resize", "true")[0] == 0
    assert call("detect", "right", "same", "--resize", "true")[0] == 0
    assert call("detect", "right", "plain")[0] == 0
    assert rows_of(here / "same") == rows_of(here / "plain") and len(rows_of(here / "scores")) == 4
    np.savez("in.npz", x=levels)
    assert "--resize: expected a folder of images beside it" in refused("detect", "in.npz", "no", "--resize", "true")
