"""CSGM against deepinv's latent solver, which lives in a virtual environment of its own.

That environment shares the packages that run here, torch among them, and adds deepinv and torchvision, which deepinv
imports and which has no place beside a torch for the CPU.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from apps.common.provenance import ROOT
from apps.compressed_sensing.generative.csgm import CSGM
from core_models.data import user_cache
from core_models.errors import UserError

from . import venvs
from .cs_search import M, Task
from .ratios import Clock, Measure, interleaved, quotients

TARGET = 5.0


def requirements(torch_version: str = torch.__version__) -> tuple[str, ...]:
    """Returns what the environment adds: deepinv, its own dependencies, and the torchvision of this torch."""
    minor = int(torch_version.split(".")[1])
    torchvision = f"torchvision==0.{minor + 15}.*"  # 0.21 with torch 2.6, and so on
    return ("deepinv==0.5.0", torchvision, "torchmetrics", "lightning-utilities", "einops", "natsort", "h5py", "tqdm",
            "requests", "urllib3", "idna", "certifi", "charset-normalizer")  # fmt: skip


def peer_python(folder: Path | None = None) -> Path:
    """Returns an interpreter that has deepinv beside the torch that runs here; makes it the first time (seconds).

    Args:
        folder: of the virtual environment; one in the user's cache when left out.

    Raises:
        UserError: when it can't be made, most likely for want of a package index.
    """
    # the worker imports it in a way of its own: here it is enough that it is installed
    return venvs.shared_environment(
        folder or user_cache() / "bench-deepinv", requirements(),
        "from importlib.metadata import version; version('deepinv')", "leave out the part deepinv",
    )  # fmt: skip


def ask(python: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Lets deepinv recover signals in a process of its own, and returns what it says.

    Raises:
        UserError: when it can't be imported, or fails.
    """
    env = os.environ | {"OMP_NUM_THREADS": str(settings["threads"])}
    command = (str(python), "-m", "bench.cs_deepinv_worker")
    try:
        told = venvs.call(*command, cwd=ROOT, env=env, input=json.dumps(settings) + "\n")
    except subprocess.CalledProcessError as error:
        words = venvs.last_words(error)
        raise UserError(f"deepinv could not recover anything ({words}): leave out the part deepinv") from error
    answer: dict[str, Any] = json.loads(told.splitlines()[-1])
    return answer


def against_deepinv(
    task: Task, prior: str, python: Path, *, signals: int, repeats: int, threads: int, clock: Clock
) -> Iterator[Measure]:
    """Yields time per signal of deepinv's latent solver over that of CSGM with one start, at the same steps.

    Args:
        task: images, ours all at once.
        prior: what the prior is loaded by.
        python: the interpreter that has deepinv.
        signals: how many deepinv recovers a turn, one after another.
        repeats: rounds.
        threads: CPU threads of each.
        clock: of both.
    """
    one = CSGM(task.operator, task.prior, penalty=0.0, steps=task.steps, restarts=1, batch=len(task.y))
    found: list[Any] = []
    answers: list[dict[str, Any]] = []
    ours = task.timed(lambda: one.recover(task.y), found)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "measurements.npz"
        np.savez(file, A=task.operator.matrix().numpy(), y=task.y[:signals].numpy())
        settings = {"measurements": str(file), "prior": prior, "steps": task.steps, "threads": threads, "clock": clock}

        def peer() -> float:
            answers.append(ask(python, settings))
            return float(answers[-1]["seconds"]) / signals

        times = interleaved({"deepinv": peer, "ours": lambda: ours() / len(task.y)}, repeats)
    ms = {name: 1000 * median(taken) for name, taken in times.items()}
    loss = float((task.y - task.operator(found[0].x)).square().mean(1)[:signals].mean())
    yield Measure(
        f"CSGM, m = {M}, one start x {task.steps} steps: {len(task.y)} signals at once against deepinv's "
        "CSGMGenerator, a signal",
        quotients(times, "deepinv", "ours"), "higher", TARGET,
        note=f"{ms['deepinv']:.0f} ms against {ms['ours']:.1f} a signal; mean (y - A x)^2 {answers[-1]['loss']:.3f} "
        f"and {loss:.3f}",
        extra={
            "settings": {**task.settings, "restarts": 1, "penalty": 0.0, "signals of deepinv": signals},
            "ms a signal": ms, "loss": {"deepinv": answers[-1]["loss"], "ours": loss},
            "versions": {"deepinv": answers[-1]["deepinv"]},
        },
    )  # fmt: skip
