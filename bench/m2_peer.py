"""The virtual environment of pyro-ppl, and the process in which its M2 takes steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from core_models.data import user_cache

from . import venvs
from .ratios import Clock

# what pyro-ppl needs, without torch and numpy, which it shares with us
REQUIREMENTS = ("pyro-ppl>=1.9.1,<2", "pyro-api>=0.1.1", "opt-einsum>=2.3.2", "tqdm>=4.36")
WORKER = Path(__file__).with_name("m2_pyro_worker.py")


def peer_python() -> Path:
    """Returns an interpreter that has the peer beside the torch that runs here; makes it the first time (seconds).

    Raises:
        UserError: when it can't be made, most likely for want of a package index.
    """
    return venvs.shared_environment(user_cache() / "bench-pyro", REQUIREMENTS, "import pyro", "add --skip_peer")


class Peer(venvs.Peer):
    """The peer, waiting in a process of its own until it is asked to take steps."""

    def __init__(self, python: Path, device: torch.device, threads: int, clock: Clock) -> None:
        super().__init__(python, WORKER, {"device": str(device), "threads": threads, "clock": clock})
        self.versions: dict[str, str] = self.told

    def contestant(self, how: str, batch: int, labelled: int, steps: int) -> Callable[[], float]:
        """Returns a function that lets the peer take steps and returns their time [s]."""
        request = {"how": how, "batch": batch, "labelled": labelled, "steps": steps}
        return lambda: float(self.ask(request)["seconds"])
