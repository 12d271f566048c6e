"""The virtual environment of HumanCompatibleAI/imitation, and the process in which its GAIL runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import mujoco
import torch

from core_models.data import user_cache
from core_models.errors import UserError

# it asks for gymnasium 0.29 and stable-baselines3 2.2, which ask for a numpy below 2
REQUIREMENTS = (
    "imitation==1.0.1", "stable-baselines3==2.2.1", "sb3-contrib==2.2.1", "gymnasium==0.29.1", "seals==0.2.1",
    "numpy==1.26.4", "imageio",
)  # fmt: skip
SHARED = (f"torch=={torch.__version__}", f"mujoco=={mujoco.__version__}")
"""The releases that run here, so that networks and physics are not what differs."""
WORKER = Path(__file__).with_name("imitation_worker.py")
WHEELS = "https://download.pytorch.org/whl/"


def peer_python(folder: Path | None = None) -> Path:
    """Returns an interpreter that has the peer and nothing of ours; installs it the first time (minutes, 2 GB).

    Args:
        folder: of the virtual environment; one in the user's cache when left out.

    Raises:
        UserError: when it can't be made, most likely for want of a package index.
    """
    folder = (folder or user_cache() / "bench-imitation").absolute()
    python, mark = folder / "bin" / "python", folder / ".installed"
    wanted = "\n".join([sys.version, *SHARED, *REQUIREMENTS])
    if python.exists() and mark.exists() and mark.read_text(encoding="utf-8") == wanted:
        return python
    if folder.exists() and any(folder.iterdir()) and not (folder / "pyvenv.cfg").exists():
        raise UserError(
            f"peer: expected a folder to make a virtual environment in, got {folder} with other files in it"
        )
    print(f"installing {REQUIREMENTS[0]} into {folder} ...", flush=True)
    install = (sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet")
    try:
        _call(sys.executable, "-m", "venv", "--clear", "--without-pip", str(folder))
        try:
            _call(*install, SHARED[0])
        except subprocess.CalledProcessError:  # a build such as 2.13.0+cpu is not on PyPI
            _call(*install, SHARED[0], "--index-url", WHEELS + (torch.__version__.partition("+")[2] or "cpu"))
        _call(*install, *SHARED, *REQUIREMENTS)
        _call(str(python), "-c", "import imitation.algorithms.adversarial.gail, sb3_contrib")
    except subprocess.CalledProcessError as error:
        last = (error.stderr or "").strip().splitlines()[-1:] or ["no word why"]
        raise UserError(
            f"could not make {folder} with {REQUIREMENTS[0]} ({last[0]}): leave out the part gail"
        ) from error
    mark.write_text(wanted, encoding="utf-8")
    return python


def _call(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


class Peer:
    """The peer's GAIL, waiting in a process of its own until it is asked to take steps.

    Args:
        python: the interpreter that has it.
        settings: what `imitation_worker.Peer` takes.
    """

    def __init__(self, python: Path, settings: dict[str, Any]) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._words = Path(self._folder.name) / "words.txt"
        # one thread as ours, no bars; MuJoCo writes a log into the folder that it runs in
        env = os.environ | {"OMP_NUM_THREADS": str(settings["threads"]), "TQDM_DISABLE": "1"}
        env.pop("PYTHONPATH", None)
        with self._words.open("w", encoding="utf-8") as words:
            self._process = subprocess.Popen(
                # -P: the worker's folder has an imitation.py, which is not the package
                [str(python), "-P", str(WORKER)], cwd=self._folder.name, env=env, text=True, stderr=words,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            )  # fmt: skip
        try:
            told = self.ask({**settings, "folder": self._folder.name})
        except RuntimeError:
            self.close()
            raise
        self.versions: dict[str, str] = told["versions"]
        self.environment_step = float(told["environment step"])
        """Of the environment alone [s]."""

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
