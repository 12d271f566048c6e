"""Several seeds of one training, each in a process of its own: `genapps imitation train --seeds '[0, 1, 2]' --jobs 2`.

Each seed is a run as `train` makes it, in a folder `seed_N` with what it printed in `seed_N.log` beside it. One that
fails leaves the others as they are.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from apps.common.cli import command_line, configuration
from apps.common.options import at_least
from core_models.errors import UserError
from core_models.files import read_json, require_writable, write_json
from core_models.training import RunFolder
from core_models.training.progress import Progress

from .evaluate import group_words, over_runs
from .seeds_report import write_seeds_report

SUMMARY = "seeds.json"
"""What the seeds reached together, in the folder that holds theirs."""
OWN = ("seeds", "jobs", "out", "resume")
"""Options that are of all seeds, and not handed to each."""
PATIENCE = 30.0
"""How long an interrupted process may take to end [s]."""


def train_seeds(
    seeds: Sequence[int], jobs: int, out: Path, *, resume: bool, threads: int | None, asked: Sequence[str] = ()
) -> int:
    """Runs the present command once for each seed; returns 1 where one of them failed, else 0.

    Args:
        seeds: of the learner.
        jobs: how many run at a time.
        out: the folder of their run folders.
        resume: go on with those that were stopped; those that have ended are left.
        threads: CPU threads of each.
        asked: names of the settings that runs to be told of together must share.

    Raises:
        UserError: when seeds or jobs are none that can be run, a folder holds a run already, or one of other settings,
            or this isn't called by the command line.
    """
    at_least(1, jobs=jobs)
    at_least(0, seeds=min(seeds, default=0))
    if not seeds or len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds: expected one or more that differ, got {list(seeds)}")
    settings = {name: value for name, value in configuration().items() if name not in OWN}
    if not settings:
        raise UserError("seeds: expected the command line; from Python, call train once for each seed")
    folders = {seed: RunFolder(out / f"seed_{seed}") for seed in seeds}
    whole = RunFolder(out)
    for run in (whole, *folders.values()):
        if (run is whole or not resume) and (run.summary.exists() or run.stages()):
            hint = (
                "choose another folder" if run is whole else "add --resume to go on with it, or choose another folder"
            )
            raise UserError(f"{run.path} already holds a run: {hint} with --out")
    for run in folders.values():
        had, keys = run.read_config(), (*asked, *(["steps"] if run.summary.exists() else []))
        others = [key for key in keys if had and _without_seed(had.get(key)) != _without_seed(settings.get(key))]
        if others:
            raise UserError(f"{run.path}: its {', '.join(others)} was another: begin anew in another folder")
    whole.write_config(settings)
    require_writable(out / SUMMARY)
    argv = ["train", "--config", str(whole.config), *(["--resume"] if resume else [])]
    left = {seed: run for seed, run in folders.items() if not run.summary.exists()}
    failed = _run(left, argv, jobs, threads) if left else {}
    ended = [run for seed, run in folders.items() if seed not in failed]
    records = [read_json(run.summary) for run in ended]
    groups = over_runs(records)
    for seed, words in failed.items():
        print(f"genapps: error: seed {seed} failed: {words}; {_log(folders[seed])}", file=sys.stderr)
    for group in groups:
        print(group_words(group), flush=True)
    runs = [{"run": run.path.name, **record} for run, record in zip(ended, records, strict=True)]
    told = {"runs": runs, "failed": sorted(failed), "over_runs": groups, "command": command_line()}
    write_json(out / SUMMARY, told)
    print(f"report: {write_seeds_report(out, told)}", flush=True)
    return 1 if failed else 0


def _without_seed(value: Any) -> str:
    """Returns a setting as text, a learner's without its seed."""
    plain = json.loads(json.dumps(value))
    if isinstance(plain, dict):
        plain.get("init_args", {}).pop("seed", None)
    return json.dumps(plain, sort_keys=True)


def _run(folders: dict[int, RunFolder], argv: list[str], jobs: int, threads: int | None) -> dict[int, str]:
    """Runs all seeds, so many at a time; returns the last words of those that failed."""
    # spawned, not forked: torch's threads don't survive a fork
    context = multiprocessing.get_context("spawn")
    waiting, failed = list(folders), dict[int, str]()
    running: dict[int, Any] = {}
    with Progress("seeds", len(folders), unit="seed") as bar, _environment(OMP_NUM_THREADS=str(threads or 1)):
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    seed = waiting.pop(0)
                    run = folders[seed]
                    run.path.parent.mkdir(parents=True, exist_ok=True)
                    given = [*argv, "--out", str(run.path), "--learner.seed", str(seed)]
                    running[seed] = context.Process(target=_one, args=(given, str(_log(run))))
                    running[seed].start()
                wait([process.sentinel for process in running.values()], timeout=1.0)
                for seed, process in list(running.items()):
                    if process.exitcode is None:
                        continue
                    running.pop(seed).join()
                    if process.exitcode or not folders[seed].summary.exists():
                        failed[seed] = _last_line(_log(folders[seed])) or f"exit status {process.exitcode}"
                    else:
                        print(f"seed {seed}: {_last_line(_log(folders[seed]))}", flush=True)
                done = len(folders) - len(waiting) - len(running)
                if bar.due(time.monotonic()):
                    bar.update(done, "; ".join(_state(seed, folders[seed]) for seed in running))
            bar.update(len(folders), last=True)
        except KeyboardInterrupt as stop:
            _interrupt(list(running.values()))
            raise KeyboardInterrupt("interrupted: the same command with --resume goes on with each seed") from stop
        finally:
            for process in running.values():
                process.terminate()
    return failed


def _one(argv: list[str], log: str) -> None:
    """What a process does; what it prints goes to a file."""
    with Path(log).open("a", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    from .__main__ import main

    sys.exit(main(argv))


def _interrupt(processes: list[Any]) -> None:
    """Lets processes end as an interrupted run does."""
    for process in processes:
        if process.pid is not None and process.exitcode is None:
            os.kill(process.pid, signal.SIGINT)
    for process in processes:
        process.join(PATIENCE)


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Sets environment variables, which processes inherit, for the length of a block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _log(run: RunFolder) -> Path:
    return run.path.with_name(f"{run.path.name}.log")


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.is_file() else []
    told = [line.strip() for line in lines if line.strip()]
    return told[-1].removeprefix("genapps: error: ") if told else ""


def _state(seed: int, run: RunFolder) -> str:
    records = run.read_metrics()
    last = records[-1] if records else {}
    if "step" not in last:
        return f"seed {seed}"
    told = f", return {last['true_return']:.1f}" if last.get("true_return") is not None else ""
    return f"seed {seed}: {last['step']:,.0f} steps{told}"
