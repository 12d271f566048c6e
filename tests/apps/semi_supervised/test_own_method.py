"""A method of the user's own on the command line, and what a program imports."""

import json
import shlex
import subprocess
import sys

import numpy as np
import pytest

import apps.semi_supervised
from apps.__main__ import main
from apps.common.cli_parser import Parser
from apps.semi_supervised.methods import own_class
from apps.semi_supervised.verbs import M2, train
from core_models.errors import UserError

METHOD = '''
import torch

from apps.semi_supervised import SemiSupervisedClassifier


class Nearest(SemiSupervisedClassifier):
    """The nearest class mean.

    Args:
        sharpness: how fast the probability falls off.
        scale: what happens to the inputs.
        random_state: without effect.
    """

    def __init__(self, sharpness: float = 1.0, scale: str = "auto", random_state: int = 0) -> None:
        self.sharpness, self.scale, self.random_state = sharpness, scale, random_state

    def _fit(self, x, y, *, run, resume):
        self.means_ = torch.stack([x[y == k].flatten(1).mean(0) for k in range(len(self.classes_))]).double()

    def _log_proba(self, x):
        return -self.sharpness * torch.cdist(x.flatten(1).double(), self.means_)


class NN(Nearest):
    """Called like a row of the table."""
'''


def run(*arguments):
    return main(["semi-supervised", *map(str, arguments)])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder, with images of two classes and modules of the user's own, as a console script finds it."""
    y = np.arange(40) % 2
    x = np.random.default_rng(0).integers(0, 60, (40, 3, 3)) + 150 * y[:, None, None]
    np.savez(tmp_path / "own.npz", x=x.astype(np.uint8), y=y)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    modules = ("own_first_methods", "own_second_methods")
    for name in modules:
        (tmp_path / f"{name}.py").write_text(METHOD)
    yield tmp_path
    for name in modules:
        sys.modules.pop(name, None)


def test_it_is_trained_used_and_shown_by_its_class_path(folder, capsys):
    options = ["--method", "own_first_methods.Nearest", "--method.sharpness", 2, "--data", "own.npz", "--out", "run"]
    assert run("train", *options) == 0, capsys.readouterr().err
    description = folder / "run" / "estimator.json"
    described = json.loads(description.read_text())
    assert described["class_path"] == "own_first_methods.Nearest" and described["params"]["sharpness"] == 2
    # a class that this process has not imported yet, as in a process of its own
    description.write_text(json.dumps({**described, "class_path": "own_second_methods.Nearest"}))
    verbs = (["predict", "--run", "run", "--input", "own.npz"], ["report", "--run", "run"])
    for verb in verbs:
        assert run(*verb) == 2
        assert "--method own_second_methods.Nearest" in capsys.readouterr().err
        assert "own_second_methods" not in sys.modules  # named by a file alone, it is not run
    for verb in verbs:
        assert run(*verb, "--method", "own_second_methods.Nearest") == 0
    labels = [line.split(",")[1] for line in (folder / "predictions.csv").read_text().splitlines()[1:]]
    assert labels == ["0", "1"] * 20


def test_the_benchmark_has_a_row_for_it_and_the_command_makes_the_cell_again(folder, capsys):
    options = ["--labels", "[4]", "--draws", 1, "--data", "own.npz", "--settings", '{"sharpness": 2}', "--results"]
    assert run("benchmark", "--methods", "[own_first_methods.Nearest]", *options, "one", "--work", "w") == 0
    cell = json.loads((folder / "one" / "semi_supervised" / "own" / "Nearest__4__0.json").read_text())
    assert cell["value"] == 0 and cell["extra"]["config"]["method"] == "own_first_methods.Nearest"
    assert cell["extra"]["config"]["sharpness"] == 2
    assert main([*shlex.split(cell["command"])[1:], "--results", "two", "--work", "w"]) == 0
    again = json.loads((folder / "two" / "semi_supervised" / "own" / "Nearest__4__0.json").read_text())
    assert again["config_hash"] == cell["config_hash"] and again["value"] == 0


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("own_first_methods.NN", "expected a class of another name, NN is a row of the table already"),
        ("own_first_methods.Absent", "expected a class path that can be imported, got 'own_first_methods.Absent'"),
        ("own_first_methods.torch", "expected a subclass of SemiSupervisedClassifier"),
        ("apps.semi_supervised.SemiSupervisedClassifier", "expected a subclass of SemiSupervisedClassifier"),
        ("apps.semi_supervised.M1SVM", "expected apps.semi_supervised.M1SVM by its row, M1+SVM, got its class path"),
        ("apps.semi_supervised.VAT", "expected apps.semi_supervised.VAT by its row, VAT, got"),
        (".Nearest", "expected a class path that can be imported"),
        ("M3", "or a class path, got 'M3'"),
    ],
)
def test_what_is_no_method_is_refused_by_the_benchmark(method, words, folder, capsys):
    assert run("benchmark", "--methods", f"[{method}]", "--data", "own.npz", "--results", "r", "--work", "w") == 2
    assert words in capsys.readouterr().err


def test_a_name_without_a_module_is_no_class_path():
    with pytest.raises(UserError, match=r"class path of a method of your own, such as my_methods\.Mine, got 'M2'"):
        own_class("M2")


def test_every_name_of_the_front_door_is_there_and_is_where_it_says():
    for name in apps.semi_supervised.__all__:
        found = getattr(apps.semi_supervised, name)
        assert found.__name__ == name and found.__module__.startswith("apps.semi_supervised.")
    methods = {kind.__name__ for kind in _concrete(apps.semi_supervised.SemiSupervisedClassifier)}
    assert methods < set(apps.semi_supervised.__all__) <= set(dir(apps.semi_supervised))
    assert not hasattr(apps.semi_supervised, "Nobody")


def _concrete(kind):
    below = [found for sub in kind.__subclasses__() for found in [sub, *_concrete(sub)]]
    ours = [found for found in below if found.__module__.startswith("apps.")]
    return [found for found in ours if not found.__abstractmethods__ and found.__name__[0] != "_"]


def test_a_class_may_be_named_beside_a_preset_of_its_own_whatever_path_leads_to_it():
    parser = Parser(train, prog="genapps semi-supervised train", description="")
    for words in ("--config semi_supervised/m2 --method M2", "--method M2 --config semi_supervised/m2"):
        values, _ = parser.read(words.split())
        assert type(values["method"]) is M2
    with pytest.raises(UserError, match="expected M2, which --config semi_supervised/m2 chose, got VAT"):
        parser.read(["--config", "semi_supervised/m2", "--method", "VAT"])


def test_importing_it_imports_nothing_heavy():
    heavy = "torch", "sklearn", "numpy"
    code = f"import sys, apps.semi_supervised; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
