"""The virtual environment of HumanCompatibleAI/imitation, and the process in which its GAIL runs."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import mujoco
import torch

from core_models.data import user_cache

from . import venvs

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
    return venvs.environment(
        folder or user_cache() / "bench-imitation", (*REQUIREMENTS, *SHARED), _install,
        "import imitation.algorithms.adversarial.gail, sb3_contrib", "leave out the part gail",
    )  # fmt: skip


def _install(python: Path) -> None:
    try:
        venvs.pip(python, SHARED[0])
    except subprocess.CalledProcessError:  # a build such as 2.13.0+cpu is not on PyPI
        venvs.pip(python, SHARED[0], "--index-url", WHEELS + (torch.__version__.partition("+")[2] or "cpu"))
    venvs.pip(python, *SHARED, *REQUIREMENTS)


class Peer(venvs.Peer):
    """The peer's GAIL, waiting in a process of its own until it is asked to take steps.

    Args:
        python: the interpreter that has it.
        settings: what `imitation_worker.Peer` takes, but for the folder.
    """

    def __init__(self, python: Path, settings: dict[str, Any]) -> None:
        super().__init__(python, WORKER, settings)
        self.versions: dict[str, str] = self.told["versions"]
        self.environment_step = float(self.told["environment step"])
        """Of the environment alone [s]."""
