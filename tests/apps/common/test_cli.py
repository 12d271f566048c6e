"""The command line, with dummy methods in place of estimators."""

from __future__ import annotations

import os
import subprocess
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
import yaml

from apps.common import presets
from apps.common.cli import Verb, Verbs, command_line, configuration, run_cli
from core_models.errors import UserError


class Method(ABC):
    """What a verb asks for."""

    @abstractmethod
    def name(self) -> str:
        """Its name."""


class M2(Method):
    """One method.

    Args:
        epochs: Passes over the data.
        hidden: Units of each hidden layer.
        seed: Where it starts.
        verbose: Says more.
    """

    def __init__(
        self, epochs: int = 10, hidden: tuple[int, ...] = (500,), seed: int | None = None, verbose: bool = False
    ) -> None:
        if epochs < 0:
            raise UserError(f"epochs must be 0 or more, got {epochs}: give a positive number")
        self.settings = (epochs, hidden, seed, verbose)

    def name(self):
        return "M2"


class _Shared(Method):
    """Not to be offered to a user."""

    def name(self):
        return "shared"


class NN(_Shared):
    """Another, with a setting of the same name."""

    def __init__(self, epochs: int = 1) -> None:
        self.settings = (epochs,)

    def name(self):
        return "NN"


@dataclass(frozen=True)
class Training:
    """How to train."""

    rate: float = 1e-3
    """Step size of the optimiser."""
    schedule: Literal["constant", "cosine"] = "constant"
    """How the step size changes."""


CALLS = []


def train(
    method: Method,
    labels: int = 100,
    training: Training = Training(),
    resume: bool = False,
    time_limit: float | None = None,
    run: Path = Path("runs/x"),
    teacher: Method | None = None,
) -> None:
    """Trains a method.

    More words that belong to nobody.

    Args:
        method: Which method.
        labels: How many labels.
        training: How to train.
        resume: Goes on from the last checkpoint.
        time_limit: When to stop [s].
        run: The run's folder.
        teacher: Another method.
    """
    CALLS.append(
        {
            "method": method,
            "labels": labels,
            "training": training,
            "resume": resume,
            "time_limit": time_limit,
            "run": run,
        }
    )
    CALLS[-1] |= {"teacher": teacher, "command": command_line(), "configuration": configuration()}


def stop() -> int:
    """Stops."""
    return 3


@pytest.fixture
def cli(capsys):
    """Runs the command line: (status, call, output, error lines)."""

    def run(*argv):
        CALLS.clear()
        status = run_cli({"train": train, "stop": stop}, prog="genapps demo", description="A demo.", argv=argv)
        out, error = capsys.readouterr()
        return status, (CALLS[0] if CALLS else None), out, error.splitlines()

    return run


@pytest.fixture
def config(tmp_path):
    def write(text):
        path = tmp_path / "own.yaml"
        path.write_text(text)
        return str(path)

    return write


def test_a_method_is_chosen_by_its_name_with_its_own_options(cli):
    status, call, _, error = cli("train", "--method", "M2", "--method.epochs", "3", "--labels", "600")
    assert (status, error) == (0, [])
    assert isinstance(call["method"], M2)
    assert call["method"].settings == (3, (500,), None, False)
    assert call["labels"] == 600


def test_the_long_form_says_the_same(cli):
    _, call, _, _ = cli("train", "--method.class_path", "M2", "--method.init_args.hidden", "[300,300]")
    assert call["method"].settings == (10, (300, 300), None, False)


def test_hyphens_flags_and_dataclasses(cli):
    flags = ["--method.verbose", "--time-limit", "60", "--resume", "--training.schedule=cosine"]
    _, call, _, _ = cli("train", "--method", "M2", *flags)
    assert (call["resume"], call["time_limit"], call["method"].settings[-1]) == (True, 60.0, True)
    assert call["training"] == Training(schedule="cosine")
    assert cli("train", "--method", "M2", "--resume", "false")[1]["resume"] is False


def test_a_preset_lies_under_the_options(cli, config):
    path = config("method: {class_path: M2, init_args: {epochs: 9, hidden: [1, 2]}}\nlabels: 7\ntraining: {rate: 0.5}")
    _, call, _, _ = cli("train", "--config", path, "--method.epochs", "8", "--training.schedule", "cosine")
    assert call["method"].settings == (8, (1, 2), None, False)
    assert (call["labels"], call["training"]) == (7, Training(0.5, "cosine"))


def test_a_known_key_may_hold_nothing(cli, config):
    path = config("method: {class_path: M2, init_args: {}}\ntraining: {}")
    _, call, _, error = cli("train", "--config", path)
    assert error == [] and call["training"] == Training()
    assert cli("train", "--config", config("method: M2\ntraining.rate: 0.5"))[1]["training"] == Training(0.5)


def test_a_preset_is_found_by_name_from_anywhere(cli, tmp_path, monkeypatch):
    folder = tmp_path / "configs"
    (folder / "demo").mkdir(parents=True)
    (folder / "demo" / "m2.yaml").write_text("method: M2\nlabels: 7\n")
    monkeypatch.setattr(presets, "presets_folder", lambda: folder)
    monkeypatch.chdir("/")
    assert cli("train", "--config", "demo/m2")[1]["labels"] == 7
    assert cli("train", "--config", "configs/demo/m2.yaml")[1]["labels"] == 7
    for slip in ("demo/m22", "m2", "dem/m2"):
        status, call, _, error = cli("train", "--config", slip)
        assert (status, call, len(error)) == (2, None, 1)
        assert error[0].startswith(f"genapps: error: --config: expected a file or a preset's name, got {slip!r}")
        assert error[0].endswith("closest presets: demo/m2")


MISTAKES = {
    "--method M2 --method.epoch 5": "--method: M2 has no setting 'epoch'; did you mean epochs?",
    "--method M2 --method.zzz 5": "--method: M2 has no setting 'zzz'; it takes epochs, hidden, seed, verbose",
    "--method M2 --method.epochs five": "--method.epochs of M2: expected int, got 'five'",
    "--method M2 --method.seed five": "--method.seed of M2: expected int or null, got 'five'",
    "--method M2 --method.epochs -1": "epochs must be 0 or more, got -1: give a positive number",
    "--method M22": "--method: expected one of M2, NN, or the import path of a class of that kind, got 'M22';"
    " did you mean M2?",
    "--method.epochs 5": "--method: expected one of M2, NN, or the import path of a class of that kind, got '{base}'",
    "--method collections.OrderedDict": "--method: expected one of M2, NN, or the import path of a class of that kind,"
    " got 'collections.OrderedDict'",
    "--method os.system": "--method: importing 'os.system' from a configuration is not allowed",
    "": "missing --method",
    "--method M2 --lables 5": "unknown option --lables; did you mean --labels?",
    "--method M2 --label 5": "unknown option --label; did you mean --labels?",  # no abbreviations
    "--method M2 stray": "expected options that begin with --, got 'stray'",
    "--method M2 --labels many": "--labels: expected int, got 'many'",
    "--method M2 --labels": "--labels: expected a value, got none",
    "--method M2 --time_limit soon": "--time_limit: expected float or null, got 'soon'",
    "--method M2 --resume maybe": "--resume: expected bool, got 'maybe'",
    "--method M2 --training.schedule sine": "--training.schedule: expected one of constant, cosine, got 'sine'",
    "--method M2 --training.rat 5": "unknown option --training.rat; did you mean --training.rate?",
    "--method M2 --teacher M2 --teacher.epochs x": "--teacher.epochs of M2: expected int, got 'x'",
    "--method M2 --teacher M3": "--teacher: expected one of M2, NN, or the import path of a class of that kind,"
    " got 'M3'",
}


@pytest.mark.parametrize("argv", MISTAKES)
def test_a_mistake_is_one_line_and_status_2(cli, argv):
    status, call, out, error = cli("train", *argv.split())
    expected = MISTAKES[argv].format(base=f"{__name__}.Method")
    assert (status, call, out, error) == (2, None, "", [f"genapps: error: {expected}"])


BROKEN = {
    "method: {class_path: M2, init_args: {epoch: 9}}": "--method: M2 has no setting 'epoch'; did you mean epochs?",
    "method: M2\nlables: 3": "unknown key 'lables'; did you mean labels?",
    "method: M2\ntraining: {rates: 3}": "unknown key 'training.rates'; did you mean training.rate?",
    # an empty mapping is no reason to pass a key over
    "method: M2\ntrainig: {}": "unknown key 'trainig'; did you mean training?",
    "method: M2\ntraining: {rates: {}}": "unknown key 'training.rates'; did you mean training.rate?",
    "method: {class_path: M2, init_args: {epoch: {}}}": "unknown key 'method.init_args.epoch'",
    "method: M2\nlabels: many": "--labels: expected int, got 'many'",
    "- 3": "a configuration must be a mapping of settings to values, got '- 3'",
    "": "a configuration must be a mapping of settings to values, got ''",
    "labels: [": "the configuration is not valid YAML: while parsing a flow node did not find expected node content"
    ", line 2, column 1",
}


@pytest.mark.parametrize("text", BROKEN)
def test_a_mistake_in_a_file_names_the_file(cli, config, text):
    path = config(text)
    status, call, _, error = cli("train", "--config", path, "--time_limit", "5")
    assert (status, call, error) == (2, None, [f"genapps: error: in --config {path}: {BROKEN[text]}"])


def test_one_class_cannot_take_over_the_settings_of_another(cli, config):
    path = config("method: {class_path: M2, init_args: {epochs: 9}}")
    status, call, _, error = cli("train", "--config", path, "--method", "NN")
    assert (status, call) == (2, None)
    assert "--method: expected M2, which --config" in error[0]
    assert cli("train", "--method", "NN", "--config", path)[0] == 2
    assert cli("train", "--config", path, "--method", "M2")[1]["method"].settings[0] == 9


def test_print_config_can_be_read_back(cli, config):
    _, call, out, _ = cli("train", "--method", "M2", "--method.epochs", "4", "--labels", "7", "--print_config")
    assert call is None
    _, call, _, _ = cli("train", "--config", config(out))
    assert (call["method"].settings[0], call["labels"]) == (4, 7)


def test_a_verb_knows_its_command_and_configuration(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    argv = ("train", "--method", "M2", "--run", str(tmp_path / "runs" / "a b"))
    _, call, _, _ = cli(*argv)
    assert call["command"] == "genapps demo train --method M2 --run 'runs/a b'"
    assert call["configuration"]["method"]["init_args"] == {
        "epochs": 10,
        "hidden": [500],
        "seed": None,
        "verbose": False,
    }
    assert yaml.safe_load(yaml.safe_dump(call["configuration"])) == call["configuration"]
    monkeypatch.chdir("/usr")
    assert cli(*argv[:-1], "/somewhere/else/mnist")[1]["command"].endswith("--run path/to/mnist")
    assert cli("train", "--method=M2", "--run=/somewhere/else")[1]["command"].endswith("--run=path/to/else")


def test_verbs_are_listed_helped_and_checked(cli):
    for argv in ((), ("--help",)):
        status, _, out, _ = cli(*argv)
        assert status == 0
        assert "  train  Trains a method.\n  stop   Stops.\n" in out
    status, _, out, _ = cli("train", "--help")
    assert status == 0
    assert out.startswith("usage: genapps demo train ")
    for words in ("How many labels.", "Step size of the optimiser.", "default: 100"):
        assert words in out
    status, _, out, _ = cli("train", "--method.help", "M2")
    assert (status, "Passes over the data." in out) == (0, True)
    assert cli("trian")[3] == [
        "genapps: error: expected a verb of genapps demo (train, stop), got 'trian'; did you mean train?"
    ]
    assert cli("stop")[0] == 3


def raising(error):
    def verb() -> None:
        """Goes wrong."""
        raise error

    return verb


def test_how_a_verb_can_end(capsys):
    def run(error):
        return run_cli(raising(error), prog="genapps x", argv=[]), capsys.readouterr().err

    assert run(UserError("expected this,\n got that")) == (2, "genapps: error: expected this, got that\n")
    assert run(KeyboardInterrupt()) == (130, "genapps: error: interrupted\n")
    assert run(KeyboardInterrupt("go on with --resume")) == (130, "genapps: error: go on with --resume\n")
    with pytest.raises(ZeroDivisionError):  # a bug of ours keeps its traceback
        run(ZeroDivisionError())


def test_help_does_not_import_the_verbs(capsys):
    assert run_cli({"train": Verb("no.such.module:f", "Trains.")}, prog="genapps x", argv=["--help"]) == 0
    assert "  train  Trains.\n" in capsys.readouterr().out
    assert run_cli({"stop": Verb(f"{__name__}:stop", "Stops.")}, prog="genapps x", argv=["stop"]) == 3


def test_verbs_may_stand_under_a_word_of_their_own(capsys):
    def inspect(file: str = "none") -> None:
        """Says its command."""
        print(command_line(), configuration())

    def run(*argv):
        verbs = {"demos": Verbs({"inspect": inspect, "record": Verb("no.such:f", "Records.")}, "about demonstrations")}
        return run_cli(verbs, prog="genapps x", argv=argv), *capsys.readouterr()

    assert run("demos", "inspect", "--file", "a") == (0, "genapps x demos inspect --file a {'file': 'a'}\n", "")
    assert "  demos  about demonstrations\n" in run()[1]
    for argv in (("demos",), ("demos", "--help")):
        status, out, _ = run(*argv)
        assert status == 0 and out.startswith("usage: genapps x demos VERB [options]\n\nabout demonstrations\n\n")
        assert "  inspect  Says its command.\n  record   Records.\n" in out
    assert run("demos", "inspct") == (
        2,
        "",
        "genapps: error: expected a verb of genapps x demos (inspect, record), got 'inspct'; did you mean inspect?\n",
    )


def genapps(*argv, **options):
    command = [sys.executable, "-W", "error", "-m", "apps", *argv]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=presets.ROOT, **options)


def test_the_switchboard_lists_apps_without_importing_torch():
    done = genapps("--help", env={**os.environ, "PYTHONPROFILEIMPORTTIME": "1"})
    assert done.returncode == 0
    for name in ("model", "semi-supervised", "results"):
        assert f"\n  {name} " in done.stdout
    assert "torch" not in done.stderr
    assert "jsonargparse" not in done.stderr
    assert genapps("--version").stdout.startswith("genapps ")


def test_an_unknown_app_is_one_line_with_the_closest():
    done = genapps("semi_supervised", "train")
    assert (done.returncode, done.stdout) == (2, "")
    expected = "expected an app (model, semi-supervised, imitation, pixeldefend, compressed-sensing, results), "
    expected += "got 'semi_supervised'; did you mean semi-supervised?"
    assert done.stderr == f"genapps: error: {expected}\n"


def test_a_closed_pipe_is_quiet():
    line = f"'{sys.executable}' -W error -m apps results --json | head -c 1"
    done = subprocess.run(line, shell=True, capture_output=True, text=True, timeout=60, cwd=presets.ROOT)
    assert (done.stdout, done.stderr) == ("[", "")
