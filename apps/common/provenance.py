"""Where a number came from: the commit, the machine in words and the command that made it."""

from __future__ import annotations

import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
"""The folder that holds `apps`: the checkout, or site-packages when installed from a wheel."""


@dataclass(frozen=True)
class Invocation:
    """What `run_cli` is running just now."""

    prog: str
    """The words before the arguments, e.g. "genapps semi-supervised train"."""
    argv: tuple[str, ...] = ()
    """The arguments as typed."""
    configuration: dict[str, Any] = field(default_factory=dict)
    """Every option's resolved value, as plain JSON-like values."""


_current: ContextVar[Invocation | None] = ContextVar("invocation", default=None)


@contextmanager
def invocation(prog: str, argv: Sequence[str], configuration: dict[str, Any]) -> Iterator[None]:
    """Makes the command known to `command_line` and `configuration` for the length of a block."""
    token = _current.set(Invocation(prog, tuple(argv), configuration))
    try:
        yield
    finally:
        _current.reset(token)


def command_line() -> str:
    """Returns the command being run, quoted for a shell, without this machine's absolute paths.

    A path below the working directory becomes relative to it; of any other absolute path only the last part stays,
    after `path/to/`.
    """
    current = _current.get() or Invocation(Path(sys.argv[0]).name or "python", tuple(sys.argv[1:]))
    return shlex.join([*current.prog.split(), *map(_without_machine_path, current.argv)])


def configuration() -> dict[str, Any]:
    """Returns the resolved options of the command being run, for a run folder's config.yaml; {} outside `run_cli`."""
    current = _current.get()
    return dict(current.configuration) if current else {}


def _without_machine_path(argument: str) -> str:
    option, equals, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
    path = Path(value).expanduser() if value.startswith("~") else Path(value)
    if not path.is_absolute():
        return argument
    here = Path.cwd()
    short = path.relative_to(here).as_posix() if path.is_relative_to(here) else f"path/to/{path.name}"
    return f"{option}{equals}{short}"


@lru_cache(maxsize=1)
def commit() -> str:
    """Returns the commit of the code that is running, "+dirty" after it where tracked files were changed.

    Returns "unknown" outside a git checkout. Result files under docs/results don't make a checkout dirty: a benchmark
    writes them while it runs. The answer is that of the first call: code loaded then is the code that runs.
    """
    # Installed in a virtual environment inside somebody's repository, git would answer for that repository.
    top = _git("rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != ROOT:
        return "unknown"
    head = _git("rev-parse", "--verify", "--quiet", "HEAD")
    if not head:
        return "unknown"
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)docs/results")
    return head + ("+dirty" if changed else "")


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def device_words(device: Any = "cpu", threads: int | None = None) -> str:
    """Returns a device in words: "Intel Xeon Platinum 8370C, 2 threads" or "NVIDIA H200".

    Args:
        device: a torch.device, or its name.
        threads: CPU threads used; torch's own count where None.
    """
    import torch

    device = torch.device(device)
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    threads = threads or torch.get_num_threads()
    name = _cpu_name() if device.type == "cpu" else device.type
    return f"{name}, {threads} thread{'s' if threads > 1 else ''}"


@lru_cache(maxsize=1)
def _cpu_name() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    name = found[1] if found else platform.processor() or platform.machine() or "CPU"
    return re.sub(r"\s+", " ", re.sub(r"\((R|TM)\)| CPU| Processor", "", name)).strip()
