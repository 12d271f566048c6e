"""The peer's virtual environment, and the process in which it runs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from apps.common.provenance import ROOT
from core_models.errors import UserError

from .ratios import Clock

# what pyro-ppl needs, without torch and numpy, which it shares with us
REQUIREMENTS = ("pyro-ppl>=1.9.1,<2", "pyro-api>=0.1.1", "opt-einsum>=2.3.2", "tqdm>=4.36")
WORKER = Path(__file__).with_name("pyro_worker.py")


def peer_python(folder: Path = ROOT / ".bench-venv") -> Path:
    """Returns an interpreter that has the peer beside the torch that runs here; makes it the first time.

    Raises:
        UserError: when it can't be made, most likely for want of a package index.
    """
    python, mark = folder / "bin" / "python", folder / ".installed"
    libraries = str(Path(torch.__file__).parents[1])
    wanted = "\n".join([sys.version, libraries, *REQUIREMENTS])
    if python.exists() and mark.exists() and mark.read_text(encoding="utf-8") == wanted:
        return python
    print(f"installing {REQUIREMENTS[0]} into {folder.name} ...", flush=True)
    try:
        _call(sys.executable, "-m", "venv", "--clear", "--without-pip", str(folder))
        site = _call(str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
        (Path(site) / "shared.pth").write_text(libraries + "\n", encoding="utf-8")
        quiet = ("--quiet", "--disable-pip-version-check", "--no-deps")
        _call(sys.executable, "-m", "pip", "--python", str(python), "install", *quiet, *REQUIREMENTS)
        _call(str(python), "-c", "import pyro")
    except subprocess.CalledProcessError as error:
        last = (error.stderr or "").strip().splitlines()[-1:] or ["no word why"]
        raise UserError(f"could not make {folder.name} with {REQUIREMENTS[0]} ({last[0]}): add --skip_peer") from error
    mark.write_text(wanted, encoding="utf-8")
    return python


def _call(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


class Peer:
    """The peer, waiting in a process of its own until it is asked to take steps."""

    def __init__(self, python: Path, device: torch.device, threads: int, clock: Clock) -> None:
        self.clock = clock
        self._process = subprocess.Popen(
            [str(python), str(WORKER), str(device), str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.versions = self._answer()

    def contestant(self, how: str, batch: int, labelled: int, steps: int) -> Callable[[], float]:
        """Returns a function that lets the peer take steps and returns their time [s]."""
        request = {"how": how, "batch": batch, "labelled": labelled, "steps": steps, "clock": self.clock}

        def ask() -> float:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            return float(self._answer()["seconds"])

        return ask

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the peer ended with status {self._process.wait()}; its words are above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()
        self._process.communicate()
