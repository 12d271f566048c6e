"""Peers: what their virtual environments are made in, and how their processes answer."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from bench import cs_deepinv, imitation_peer, m2_peer, venvs
from core_models.errors import UserError


@pytest.fixture
def calls(monkeypatch):
    """Commands that would have been run."""
    found = []
    monkeypatch.setattr(venvs, "call", lambda *command, **more: found.append(command) or "")
    return found


def make(folder, requirements=("peer==1",), **more):
    more = {"install": lambda python: None, "probe": "pass", "leave_out": "add --skip_peer"} | more
    return venvs.environment(folder, requirements, **more)


def test_an_environment_is_made_once_and_anew_for_other_requirements(calls, tmp_path):
    folder, installed = tmp_path / "peer", []
    (folder / "bin").mkdir(parents=True)
    (folder / "pyvenv.cfg").touch()
    python = make(folder, install=installed.append)
    assert installed == [python] == [folder / "bin" / "python"] and "--clear" in calls[0] and calls[-1][-1] == "pass"
    python.touch()
    assert make(folder, install=installed.append) == python and len(installed) == 1
    make(folder, ("peer==2",), install=installed.append)
    assert len(installed) == 2


def test_one_that_could_not_be_made_is_one_line_and_made_anew_the_next_time(monkeypatch, tmp_path):
    def fail(*command, **more):
        raise subprocess.CalledProcessError(1, command, stderr="one\nNo matching distribution found\n")

    monkeypatch.setattr(venvs, "call", fail)
    with pytest.raises(UserError, match=r"could not make .* with peer==1 \(No matching .* found\): add --skip_peer"):
        make(tmp_path / "peer")
    assert not (tmp_path / "peer" / ".installed").exists()


@pytest.mark.parametrize(
    "peer_python",
    [m2_peer.peer_python, cs_deepinv.peer_python, imitation_peer.peer_python],
    ids=["pyro", "deepinv", "imitation"],
)
def test_every_peer_lies_in_the_users_cache_and_never_empties_a_folder_of_other_files(
    peer_python, calls, monkeypatch, tmp_path
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    places = []

    def stop(folder, requirements, *_):
        places.append(folder)
        raise UserError("enough")

    made = venvs.environment
    monkeypatch.setattr(venvs, "environment", stop)
    with pytest.raises(UserError, match="enough"):
        peer_python()
    (folder,) = places
    assert folder.parent == tmp_path / "genapps"
    folder.mkdir(parents=True)
    (folder / "thesis.tex").touch()
    monkeypatch.setattr(venvs, "environment", made)
    with pytest.raises(UserError, match=r"expected a folder to make a virtual environment in, .* with other files"):
        peer_python()
    assert not calls and (folder / "thesis.tex").exists()


def test_a_shared_environment_finds_what_is_installed_here(monkeypatch, tmp_path):
    added = []
    monkeypatch.setattr(venvs, "pip", lambda python, *arguments: added.append(arguments))
    python = venvs.shared_environment(tmp_path / "peer", ("peer==1",), "import yaml", "leave it out")
    assert added == [("--no-deps", "peer==1")]
    assert venvs.call(str(python), "-c", "import yaml; print(yaml.__file__)").startswith(str(venvs.LIBRARIES))


ECHO = """
import json, os, sys
settings = json.loads(sys.stdin.readline())
print(json.dumps({"folder": settings["folder"], "cwd": os.getcwd(), "OMP": os.environ["OMP_NUM_THREADS"]}), flush=True)
for line in sys.stdin:
    request = json.loads(line)
    if request["n"] < 0:
        raise SystemExit("no such number")
    print(json.dumps({"seconds": 2 * request["n"]}), flush=True)
"""


@pytest.fixture
def worker(tmp_path):
    (tmp_path / "worker.py").write_text(ECHO, encoding="utf-8")
    return tmp_path / "worker.py"


def test_a_peer_is_asked_line_by_line_in_a_folder_of_its_own(worker):
    with venvs.Peer(Path(sys.executable), worker, {"threads": 3}) as peer:
        folder = Path(peer.told["folder"])
        assert folder.is_dir() and folder.samefile(peer.told["cwd"]) and peer.told["OMP"] == "3"
        assert [peer.ask({"n": n})["seconds"] for n in (1, 2)] == [2, 4]
        with pytest.raises(RuntimeError, match="the peer ended with status 1: no such number"):
            peer.ask({"n": -1})
    assert not folder.exists()


def test_pyros_steps_are_asked_for_by_their_settings(worker, monkeypatch):
    text = ECHO.replace('request["n"] < 0', 'request["how"] != "by an expert"')
    text = text.replace('request["n"]', 'request["steps"]')
    worker.write_text(text, encoding="utf-8")
    monkeypatch.setattr(m2_peer, "WORKER", worker)
    with m2_peer.Peer(Path(sys.executable), "cpu", 1, "cpu") as peer:
        assert peer.contestant("by an expert", batch=10, labelled=5, steps=4)() == 8
        with pytest.raises(RuntimeError, match="the peer ended"):
            peer.contestant("otherwise", batch=10, labelled=5, steps=4)()


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        ("peak", set()),
        ("cs_memory", {"apps.compressed_sensing", ".peak"}),
        ("purify_memory", {"apps.pixeldefend", ".peak", "torch"}),
        ("m2_memory", {"apps.semi_supervised", "core_models.data", "core_models.errors", ".peak", "numpy", "torch"}),
    ],
)
def test_what_measures_memory_imports_no_more_than_what_it_measures(name, taken):
    tree = ast.parse(Path(venvs.__file__).with_name(f"{name}.py").read_text(encoding="utf-8"))
    found = {n.name for node in ast.walk(tree) if isinstance(node, ast.Import) for n in node.names}
    found |= {"." * n.level + (n.module or "") for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    others = {".".join(one.split(".")[:2]) for one in found if one.split(".")[0] not in sys.stdlib_module_names}
    assert others == taken
