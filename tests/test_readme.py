"""The README's commands and Python, run as they stand, in an empty folder."""

import re
import shlex
from pathlib import Path

import pytest

from apps.__main__ import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(kind):
    found = re.findall(rf"<!-- {kind} -->\n```\w*\n(.*?)```", README, re.DOTALL)
    assert found, f"the README has no block marked {kind}"
    return found


def commands(kind):
    lines = [line for block in blocks(kind) for line in block.splitlines() if line.strip()]
    return [shlex.split(line, comments=True) for line in lines]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("readme")


def test_commands_run(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    for command in commands("run"):
        assert command[0] == "genapps"
        assert main(command[1:]) == 0, shlex.join(command)
    assert (folder / "runs" / "digits" / "report.html").exists()


def test_python_runs(folder, monkeypatch):
    monkeypatch.chdir(folder)  # where the commands left runs/vae
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), {"__name__": "readme"})


def test_longer_commands_parse(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    for command in commands("command"):
        assert main([*command[1:], "--print_config"]) == 0, shlex.join(command)


def test_make_targets_exist():
    targets = set(re.findall(r"^make (\w+)", README, re.MULTILINE))
    assert targets == {"demo", "test"}
    makefile = (ROOT / "Makefile").read_text()
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_pictures_and_pages_exist():
    for path in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / path).exists(), path
