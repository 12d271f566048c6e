"""Virtual environments for peers, and the processes in which they run.

A peer is what ours is timed against. It has an environment of its own, in the user's cache, since it asks for packages
that have no place beside ours; there it is installed the first time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from core_models.errors import UserError

LIBRARIES = Path(torch.__file__).parents[1]
"""Where the packages lie that run here."""


def environment(
    folder: Path, requirements: tuple[str, ...], install: Callable[[Path], object], probe: str, leave_out: str
) -> Path:
    """Returns the interpreter of a virtual environment that has a peer; makes it the first time.

    Args:
        folder: of the environment.
        requirements: all that decides what is in it, the peer first; where another list made it, it is made anew.
        install: installs them by an interpreter that has no packages.
        probe: code that fails where the peer isn't ready.
        leave_out: what a user does without it, "add --skip_peer".

    Raises:
        UserError: when the folder holds something else, or the environment can't be made, most likely for want of a
            package index.
    """
    folder = folder.absolute()
    python, mark = folder / "bin" / "python", folder / ".installed"
    wanted = "\n".join([sys.version, *requirements])
    if python.exists() and mark.exists() and mark.read_text(encoding="utf-8") == wanted:
        return python
    # making an environment empties its folder
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "pyvenv.cfg").exists():
        raise UserError(
            f"peer: expected a folder to make a virtual environment in, got {folder} with other files in it"
        )
    print(f"installing {requirements[0]} into {folder} ...", flush=True)
    try:
        call(sys.executable, "-m", "venv", "--clear", "--without-pip", str(folder))
        install(python)
        call(str(python), "-c", probe)
    except subprocess.CalledProcessError as error:
        raise UserError(f"could not make {folder} with {requirements[0]} ({last_words(error)}): {leave_out}") from error
    mark.write_text(wanted, encoding="utf-8")
    return python


def shared_environment(folder: Path, requirements: tuple[str, ...], probe: str, leave_out: str) -> Path:
    """Returns the interpreter of an environment that finds the packages that run here too, torch among them.

    Args:
        folder: of the environment.
        requirements: what is added, the peer first, with all that they need and isn't here: no more is installed.
        probe: as in `environment`.
        leave_out: as in `environment`.

    Raises:
        UserError: as `environment`.
    """

    def install(python: Path) -> None:
        site = call(str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
        (Path(site) / "shared.pth").write_text(f"{LIBRARIES}\n", encoding="utf-8")
        pip(python, "--no-deps", *requirements)

    return environment(folder, (*requirements, str(LIBRARIES)), install, probe, leave_out)


def pip(python: Path, *arguments: str) -> None:
    """Installs packages for an interpreter, by the pip of ours."""
    quiet = ("--quiet", "--disable-pip-version-check")
    call(sys.executable, "-m", "pip", "--python", str(python), "install", *quiet, *arguments)


def call(*command: str, **more: Any) -> str:
    """Runs a command and returns what it prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True, **more).stdout


def last_words(error: subprocess.CalledProcessError) -> str:
    """Returns the last line that a command told its error in."""
    return ((error.stderr or "").strip().splitlines() or ["no word why"])[-1]


class Peer:
    """A worker's script in a process of its own, which answers one line of JSON by another.

    Its first line are its settings, with a `folder` to write to that is removed in the end.

    Args:
        python: the interpreter that has the peer.
        worker: the script.
        settings: what it takes, `threads` among them.
    """

    def __init__(self, python: Path, worker: Path, settings: dict[str, Any]) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._words = Path(self._folder.name) / "words.txt"
        # threads as ours, no bars; MuJoCo writes a log into the folder that it runs in
        env = os.environ | {"OMP_NUM_THREADS": str(settings["threads"]), "TQDM_DISABLE": "1"}
        env.pop("PYTHONPATH", None)
        with self._words.open("w", encoding="utf-8") as words:
            self._process = subprocess.Popen(
                # -P: the workers' folder has an imitation.py, which is not the package
                [str(python), "-P", str(worker)], cwd=self._folder.name, env=env, text=True, stderr=words,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            )  # fmt: skip
        try:
            self.told = self.ask({**settings, "folder": self._folder.name})
            """The answer to the settings."""
        except RuntimeError:
            self.close()
            raise

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Sends a request and returns the answer.

        Raises:
            RuntimeError: when the process ended.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            last = self._words.read_text(encoding="utf-8").strip().splitlines()[-3:]
            raise RuntimeError(f"the peer ended with status {self._process.wait()}: {' | '.join(last)}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
