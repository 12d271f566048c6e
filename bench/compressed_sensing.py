"""Speed of the compressed-sensing app, as ratios measured in one run: `python -m bench.compressed_sensing`.

- `lasso`: the engine on a batch of images against each cvxpy solver, an image at a time, at equal objective.
- `csgm`: images x restarts as one batch against restarts one after another, 50 images at a time; annealed, too.
- `batch`: time per signal over the size of a batch, for CSGM and the LASSO.
- `memory`: peak memory of recovering ten thousand signals against one thousand.
- `deepinv`: CSGM against deepinv's CSGMGenerator, installed into a virtual environment of its own the first time.

Run it with OMP_NUM_THREADS=1 where threads is 1, for what isn't PyTorch.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

import core_models
from apps.common.cells import Cell
from apps.common.cli import run_cli
from apps.common.options import at_least, known_names
from apps.common.provenance import ROOT, device_words
from apps.compressed_sensing.generative.csgm import checked_prior
from apps.compressed_sensing.operators import gaussian, measure
from core_models.data import load as load_data
from core_models.errors import UserError
from core_models.files import hash_of

from .cs_deepinv import against_deepinv, peer_python
from .cs_lasso import LADDERS, against_cvxpy
from .cs_search import Task, batch_sizes, one_batch
from .ratios import Clock, Measure, Stopwatch, conditions, run_parts, speed_cell

Part = Literal["lasso", "csgm", "batch", "memory", "deepinv"]
PROTOCOL = "1"
CPU = torch.device("cpu")


def bench(
    parts: tuple[Part, ...] = get_args(Part),
    m: tuple[int, ...] = (100, 400),
    images: int = 300,
    solvers: tuple[str, ...] = tuple(LADDERS),
    prior: str = "zoo:vae_mnist",
    csgm_images: int = 100,
    steps: int = 1000,
    restarts: int = 10,
    batch_steps: int = 30,
    sizes: tuple[int, ...] = (1, 10, 100, 300),
    counts: tuple[int, int] = (1000, 10_000),
    peer: Path | None = None,
    peer_signals: int = 3,
    repeats: int = 5,
    threads: int = 1,
    clock: Clock = "wall",
    write: bool = False,
    out: Path = Path("docs/results"),
) -> None:
    """Measures speed as ratios and prints them beside their targets.

    Args:
        parts: what to measure.
        m: for lasso, numbers of measurements.
        images: for lasso, MNIST test images, the first ones.
        solvers: for lasso, of cvxpy.
        prior: the generative prior, zoo:NAME or a run folder.
        csgm_images: for csgm and deepinv, images searched at once.
        steps: for csgm and deepinv, of Adam.
        restarts: for csgm and batch.
        batch_steps: for batch, of Adam.
        sizes: for batch, signals at once, the smallest first.
        counts: for memory, signals.
        peer: folder of the virtual environment with deepinv, made where it is missing. When left out, bench-deepinv in
            the user's cache.
        peer_signals: for deepinv, how many it recovers a round, one after another.
        repeats: rounds, of which the median counts; at least three for a figure to be kept.
        threads: CPU threads, the same for all.
        clock: wall, or cpu (computing time of the process, for one thread of a shared machine).
        write: write result cells.
        out: folder of the result cells.
    """
    at_least(1, m=min(m, default=1), images=images, csgm_images=csgm_images, steps=steps, restarts=restarts)
    at_least(1, batch_steps=batch_steps, sizes=min(sizes, default=1), counts=min(counts), peer_signals=peer_signals)
    at_least(1, repeats=repeats, threads=threads)
    known_names("solvers", solvers, LADDERS)
    if clock == "cpu" and threads > 1:
        raise UserError("clock: expected wall unless one CPU thread is timed, got cpu")
    if write and repeats < 3:
        raise UserError(f"repeats: expected at least 3 for cells to be written, got {repeats}")
    torch.set_num_threads(threads)
    x = load_data("mnist").images("test")
    stopwatch = Stopwatch(CPU, clock)

    def task(number: int, of_steps: int) -> Task:
        model: Any = core_models.load(prior).eval()
        checked_prior(model, gaussian(tuple(x.shape[1:]), 1))
        return Task(x[:number], model, of_steps, restarts, stopwatch)

    def lasso() -> Iterator[Measure]:
        for number in m:
            for box in (False, True):
                yield from against_cvxpy(
                    x[:images], number, box=box, solvers=solvers, repeats=repeats, stopwatch=stopwatch
                )

    def deepinv() -> Iterator[Measure]:
        try:
            yield from against_deepinv(
                task(csgm_images, steps), prior, peer_python(peer), signals=min(peer_signals, csgm_images),
                repeats=repeats, threads=threads, clock=clock,
            )  # fmt: skip
        except UserError as error:  # where there is no package index the other parts stand
            print(f"deepinv: not measured: {error}", flush=True)

    ways: dict[Part, Callable[[], Iterator[Measure]]] = {
        "lasso": lasso,
        "csgm": lambda: one_batch(task(csgm_images, steps), repeats),
        "batch": lambda: batch_sizes(task(max(sizes), batch_steps), tuple(sorted(sizes)), repeats),
        "memory": lambda: memory(x, counts, prior),
        "deepinv": deepinv,
    }
    words = device_words(CPU, threads)

    def cell(found: Measure, took: float) -> Cell:
        hashed = hash_of({**found.extra["settings"], "prior": prior, "threads": threads, "clock": clock})
        return speed_cell("compressed_sensing", found, CPU, words, config_hash=hashed, protocol=PROTOCOL, seconds=took)

    run_parts(parts, ways, cell, write, out)
    print(conditions(words, clock, repeats))


def memory(x: Tensor, counts: tuple[int, int], prior: str) -> Iterator[Measure]:
    """Yields the peak memory of `recover` on many signals over that on few, in processes of their own."""
    few, many = sorted(counts)
    operator = gaussian(tuple(x.shape[1:]), 100, seed=0)
    options = ["--method", "CSGM", "--method.steps", "3", "--method.restarts", "2", "--prior", prior]
    peaks = {}
    with tempfile.TemporaryDirectory() as folder:
        for n in (few, many):
            source = Path(folder) / f"{n}.npz"
            own = x[torch.arange(n) % len(x)]
            y = measure(operator, own, 0.1, torch.Generator().manual_seed(0))
            np.savez(source, A=operator.matrix().numpy(), y=y.numpy(), noise=np.array(0.1))
            command = [sys.executable, "-m", "bench.cs_memory", str(source), *options]
            done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
            peaks[n] = float(json.loads(done.stdout.splitlines()[-1])["gib"])
    yield Measure(
        f"peak memory of recovering {many:,} signals against {few:,}", [peaks[many] / peaks[few]], "lower", 1.05,
        note=", ".join(f"{n:,} signals: {gib:.3f} GiB" for n, gib in peaks.items()),
        extra={"settings": {"signals": [few, many], "m": 100, "options": options},
               **{f"{n} signals, GiB": gib for n, gib in peaks.items()}},
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(run_cli(bench, prog="python -m bench.compressed_sensing"))
