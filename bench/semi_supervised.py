"""Speed of the semi-supervised app, as ratios measured in one run: `python -m bench.semi_supervised`.

Six parts: an M2 epoch against the M2 of pyro-ppl; M2's step against one bound a class; a VAE epoch against its matrix
products alone; compiled against plain training; the training loop against a plain one; peak memory. Correctness is
checked before anything is timed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, get_args

import torch

from apps.common.cells import Cell
from apps.common.cli import run_cli
from apps.common.options import at_least
from apps.common.provenance import ROOT, device_words
from core_models.errors import UserError
from core_models.files import hash_of
from core_models.training import resolve_device

from . import m2_steps as work
from .m2_peer import Peer, peer_python
from .ratios import Clock, Measure, Stopwatch, conditions, interleaved, quotients, run_parts, speed_cell

Part = Literal["peer", "classes", "products", "compile", "loop", "memory"]
PROTOCOL = "1"
VAE_BATCH = 1000


def bench(
    parts: tuple[Part, ...] = get_args(Part),
    batch_sizes: tuple[int, ...] = (100, 200),
    repeats: int = 5,
    steps: int = 20,
    threads: int = 1,
    device: str = "auto",
    clock: Clock = "wall",
    skip_peer: bool = False,
    write: bool = False,
    out: Path = Path("docs/results"),
) -> None:
    """Measures speed as ratios and prints them beside their targets.

    Args:
        parts: what to measure.
        batch_sizes: unlabelled rows a step, for M2.
        repeats: rounds, of which the median counts; at least five for a figure to be kept.
        steps: steps of an epoch that are timed at batch 100, fewer at larger batches.
        threads: CPU threads, the same for all.
        device: auto, cpu or cuda.
        clock: wall, or cpu (computing time of the process, for one thread of a shared machine).
        skip_peer: leave out pyro-ppl, which is installed into bench-pyro in the user's cache otherwise.
        write: write result cells.
        out: folder of the result cells.
    """
    where = resolve_device(device)
    at_least(1, repeats=repeats, steps=steps, threads=threads, batch_sizes=min(batch_sizes, default=1))
    if clock == "cpu" and (where.type != "cpu" or threads > 1):
        raise UserError("clock: expected wall unless one CPU thread is timed, got cpu")
    if write and repeats < 5:
        raise UserError(f"repeats: expected at least 5 for cells to be written, got {repeats}")
    torch.set_num_threads(threads)
    python = peer_python() if "peer" in parts and not skip_peer else None  # a failure comes first
    work.check_every_class()
    runs = Runs(batch_sizes, repeats, steps, threads, where, clock, python)
    ways: dict[Part, Callable[[], Iterator[Measure]]] = {
        "peer": runs.peer,
        "classes": runs.classes,
        "products": runs.products,
        "compile": runs.compile,
        "loop": runs.loop,
        "memory": runs.memory,
    }
    words = device_words(where, threads)
    run_parts(parts, ways, lambda measure, took: runs.cell(measure, words, took), write, out)
    print(conditions(words, clock, repeats))


class Runs:
    """The parts, with the settings that they share."""

    def __init__(
        self,
        batch_sizes: tuple[int, ...],
        repeats: int,
        steps: int,
        threads: int,
        device: torch.device,
        clock: Clock,
        python: Path | None,
    ) -> None:
        self.batch_sizes, self.repeats, self.steps, self.threads = batch_sizes, repeats, steps, threads
        self.device, self.clock, self.stopwatch = device, clock, Stopwatch(device, clock)
        self.python = python

    def steps_at(self, batch: int) -> int:
        """Steps that are timed: the larger the batch, the fewer."""
        return max(2, self.steps * 100 // max(100, batch))

    def peer(self) -> Iterator[Measure]:
        """An M2 epoch, ours through the training loop, against pyro-ppl's."""
        if self.python is None:
            return
        with Peer(self.python, self.device, self.threads, self.clock) as peer:
            for batch in self.batch_sizes:
                n = self.steps_at(batch)
                ours = work.through_fit(work.m2_objective(), work.m2_batches(batch, self.device), n, self.stopwatch)
                # the preset's own precision; the peer's example has no other than single precision
                rounded = work.through_fit(
                    work.m2_objective(), work.m2_batches(batch, self.device), n, self.stopwatch, "bf16-mixed"
                )
                ways = ("as its example", "its unlabelled steps", "by an expert")
                times = interleaved(
                    {"ours": ours, "ours in bf16": rounded}
                    | {how: peer.contestant(how, batch, work.LABELLED, n) for how in ways},
                    self.repeats,
                )
                part = f"{n} of {(work.EPOCH_ROWS - work.LABELLED) // batch} steps timed"
                for how, target in zip(ways, (2.0, None, None), strict=True):
                    what = f"M2 epoch against pyro-ppl, {how}, batch {batch}"
                    yield Measure(what, quotients(times, how, "ours"), "higher", target, note=part, extra=peer.versions)
                what = f"M2 epoch in bf16 against pyro-ppl in single precision, as its example, batch {batch}"
                ratio = quotients(times, "as its example", "ours in bf16")
                yield Measure(what, ratio, "higher", None, note=part, extra=peer.versions)

    def classes(self) -> Iterator[Measure]:
        """M2's step, all classes at once against one bound a class."""
        for batch in self.batch_sizes:
            n, batches = max(2, self.steps_at(batch) // 4), work.m2_batches(batch, self.device)
            ways = {
                name: work.plain_loop(work.m2_objective(class_by_class=slow), batches, n, self.stopwatch)
                for name, slow in (("at once", False), ("class by class", True))
            }
            times = interleaved(ways, 2 * self.repeats)
            target = 4.0 if self.device.type == "cuda" else 1.4
            what = f"M2 step against one bound a class, batch {batch}"
            yield Measure(what, quotients(times, "class by class", "at once"), "higher", target)

    def products(self) -> Iterator[Measure]:
        """A VAE epoch through the training loop, against the same matrix products alone."""
        batches = work.vae_batches(VAE_BATCH, self.device)
        n = max(3, self.steps // 4)
        note = f"{n} of {work.EPOCH_ROWS // VAE_BATCH} steps timed"
        for precision, dtype in (("32-true", torch.float32), ("bf16-mixed", torch.bfloat16)):
            objective = work.vae_objective()
            epoch = work.through_fit(objective, batches, n, self.stopwatch, precision)  # type: ignore[arg-type]
            products = work.matrix_products(objective.model, VAE_BATCH, n, self.stopwatch, dtype)  # type: ignore[arg-type]
            times = interleaved({"epoch": epoch, "products": products}, self.repeats)
            what = f"VAE epoch in multiples of its matrix products, {precision}, batch {VAE_BATCH}"
            yield Measure(what, quotients(times, "epoch", "products"), "lower", 1.6, note=note)

    def compile(self) -> Iterator[Measure]:
        """An epoch of the M2 of M1+M2, plain against compiled."""
        batch = self.batch_sizes[0]
        n, batches = 4 * self.steps_at(batch), work.m2_batches_on_features(batch, self.device)
        ways = {
            name: work.through_fit(
                work.m2_objective_on_features(), batches, n, self.stopwatch, "bf16-mixed", compile=compiled
            )
            for name, compiled in (("plain", False), ("compiled", True))
        }
        times = interleaved(ways, self.repeats)
        what = f"M2 epoch on M1's latents, plain against compiled, bf16, batch {batch}"
        yield Measure(what, quotients(times, "plain", "compiled"), "higher", None, note=f"{n} steps timed")

    def loop(self) -> Iterator[Measure]:
        """The training loop against five lines of PyTorch, on M2."""
        batch = self.batch_sizes[0]
        n, batches = self.steps_at(batch), work.m2_batches(batch, self.device)
        ours = work.through_fit(work.m2_objective(), batches, n, self.stopwatch)
        plain = work.plain_loop(work.m2_objective(), batches, n, self.stopwatch)
        times = interleaved({"fit": ours, "plain": plain}, self.repeats)
        what = f"training loop in multiples of a plain loop, M2, batch {batch}"
        yield Measure(what, quotients(times, "fit", "plain"), "lower", None)

    def memory(self) -> Iterator[Measure]:
        """Peak memory of a run of M2 on MNIST, in a process of its own."""
        command = [sys.executable, "-m", "bench.m2_memory", str(self.threads)]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        note = f"{found['source']}, {found['steps']} steps on a CPU"
        yield Measure("peak memory of an M2 run", [found["gib"]], "lower", 2.0, unit="GiB", note=note)

    def cell(self, measure: Measure, device: str, seconds: float) -> Cell:
        """Returns a measure as a result cell; those of a CPU and a GPU lie side by side."""
        settings = {"steps": self.steps, "threads": self.threads, "clock": self.clock, "device": self.device.type}
        return speed_cell(
            "semi_supervised", measure, self.device, device,
            config_hash=hash_of(settings), protocol=PROTOCOL, seconds=seconds,
        )  # fmt: skip


if __name__ == "__main__":
    sys.exit(run_cli(bench, prog="python -m bench.semi_supervised"))
