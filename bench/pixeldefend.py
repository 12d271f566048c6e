"""Speed of PixelDefend, as ratios measured in one run: `python -m bench.pixeldefend`.

Three parts: purification by each engine against one network pass per pixel, at the same batch, the output checked to
the byte before anything is timed; sampling from caches against one network pass per pixel; peak memory of purifying a
thousand and ten thousand images. The floor is the time of one full pass of the network: less than that no engine takes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Literal, get_args

import numpy as np
import torch
import yaml
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from apps.common.building import build_model
from apps.common.cells import Cell
from apps.common.cli import run_cli
from apps.common.options import at_least
from apps.common.presets import find_config
from apps.common.provenance import ROOT, device_words
from apps.pixeldefend.engines.fixed_point import all_pixels
from apps.pixeldefend.greedy import Count, Greedy
from apps.pixeldefend.loading import load_density
from apps.pixeldefend.purification import Engine, purify
from core_models.autoregressive import CausalImageModel, FullScan
from core_models.data import load as load_data
from core_models.errors import UserError
from core_models.files import hash_of
from core_models.training import resolve_device

from .ratios import Measure, Stopwatch, conditions, run_parts, speed_cell

Part = Literal["purify", "sample", "memory"]
PROTOCOL = "1"
NAIVE_AGAIN = 60.0
"""Naive purification that takes less is timed in every round, else once [s]."""
ENGINES: tuple[Engine, ...] = ("cached", "fixed-point", "row", "auto")


def bench(
    parts: tuple[Part, ...] = get_args(Part),
    density: str = "zoo:pixel_cnn_fashion_mnist",
    data: str = "fashion-mnist",
    batch_sizes: tuple[int, ...] = (1, 64),
    eps: int = 32,
    repeats: int = 5,
    threads: int = 1,
    device: str = "auto",
    name: str | None = None,
    write: bool = False,
    out: Path = Path("docs/results"),
) -> None:
    """Measures speed as ratios and prints them beside their targets.

    Args:
        parts: what to measure.
        density: the density: a run folder, zoo:NAME, or preset:NAME for a model that nobody trained, of drawn weights:
            the engines do the same work, save that the passes of fixed-point are those of a density that knows nothing.
        data: the data set whose test images are purified, after uniform noise of 25 levels was added.
        batch_sizes: images at a time.
        eps: how far purification may move a value [levels].
        repeats: rounds of each fast engine, of which the median counts; the naive one runs once.
        threads: CPU threads, the same for all.
        device: auto, cpu or cuda.
        name: what the density is called in the cells; its own name when left out.
        write: write result cells.
        out: folder of the result cells.
    """
    at_least(1, repeats=repeats, threads=threads, batch_sizes=min(batch_sizes, default=1))
    torch.set_num_threads(threads)
    where = resolve_device(device)
    if density.startswith("preset:"):
        spec = yaml.safe_load(find_config(density.removeprefix("preset:")).read_text())
        model = build_model(spec["model"], spec["model_config"], load_data(data), seed=0).to(where).eval()
    else:
        model = load_density(density, device, autoregressive=True)
    if not isinstance(model, CausalImageModel):
        raise UserError(f"expected a model of core_models.autoregressive, got {type(model).__name__}")
    if density.startswith("preset:") and "memory" in parts:
        print("memory is left out: it is of a model that lies somewhere", flush=True)
        parts = tuple(part for part in parts if part != "memory")
    title = name or density.removeprefix("zoo:")
    runs = Runs(model, density, title, data, batch_sizes, eps, repeats, Stopwatch(where))
    ways: dict[Part, Callable[[], Iterator[Measure]]] = {
        "purify": runs.purify,
        "sample": runs.sample,
        "memory": runs.memory,
    }
    words = device_words(where, threads)
    run_parts(parts, ways, lambda measure, took: runs.cell(measure, words, took), write, out)
    print(conditions(words, "wall", repeats))


class Runs:
    """The parts, with the settings that they share."""

    def __init__(
        self,
        model: CausalImageModel,
        density: str,
        title: str,
        data: str,
        batch_sizes: tuple[int, ...],
        eps: int,
        repeats: int,
        stopwatch: Stopwatch,
    ) -> None:
        self.model, self.density, self.title, self.data = model, density, title, data
        self.batch_sizes, self.eps, self.repeats, self.stopwatch = batch_sizes, eps, repeats, stopwatch
        found = load_data(data)
        clean = found.test_x[: max(batch_sizes)].int()
        noise = torch.randint(-25, 26, clean.shape, generator=torch.Generator().manual_seed(0))
        self.images = ((clean + noise).clamp(0, 255).float() / 255).to(stopwatch.device)

    def timed(self, work: Callable[[], object]) -> float:
        """Returns how long a piece of work takes [s]."""
        self.stopwatch.start()
        work()
        return self.stopwatch.stop()

    @torch.no_grad()
    def full_pass(self, x: Tensor) -> Callable[[], object]:
        """One pass of the whole network over a batch."""
        levels = self.model.to_levels(x)
        return lambda: self.model.features(levels)

    def flops(self, work: Callable[[], object]) -> int:
        """Returns the arithmetic of a piece of work, in its matrix products and convolutions."""
        with FlopCounterMode(display=False) as counter:
            work()
        return counter.get_total_flops()

    def purify(self) -> Iterator[Measure]:
        """Each engine against one network pass per pixel."""
        channels, height, width = self.model.event_shape
        for batch in self.batch_sizes:
            x, expected = self.images[:batch], []
            with torch.no_grad():
                full = self.full_pass(x)
                full()  # the first pass on a GPU loads what the others find
            slow = partial(purify, self.model, x, self.eps, engine="naive", batch_size=batch)
            naive = self.timed(lambda: expected.append(slow()))  # noqa: B023
            with torch.no_grad():
                one = median(self.timed(full) for _ in range(self.repeats))
                products = self.flops(full)
            counts = {engine: Count() for engine in ENGINES}
            works = {
                engine: partial(purify, self.model, x, self.eps, engine=engine, batch_size=batch) for engine in ENGINES
            }
            for engine, work in works.items():
                if not torch.equal(work(count=counts[engine]), expected[0]):
                    raise RuntimeError(f"{engine} gave other images than naive")
            # in rounds: a machine that slows down for a while then slows both sides of a ratio
            rounds = [
                {"naive": self.timed(slow) if naive < NAIVE_AGAIN else naive}
                | {engine: self.timed(work) for engine, work in works.items()}
                for _ in range(self.repeats)
            ]
            for engine, count in counts.items():
                times = [own[engine] for own in rounds]
                told = {
                    "time in full passes": median(times) / one,
                    "arithmetic in full passes": self.flops(works[engine]) / products,
                    "decided in double precision": count.settled,
                    "iterations, mean": float(np.mean(count.iterations)) if count.iterations else None,
                    "iterations, most": max(count.iterations, default=None),
                    "ms an image": 1000 * median(times) / batch,
                }
                target = {1: 30.0, 64: 200.0}.get(batch) if engine == "auto" and channels == 1 else None
                what = f"purify, {engine} against naive, batch {batch}"
                note = (
                    f"naive: {height * width} passes of {1000 * one:.1f} ms, {naive:.1f} s in all; this: "
                    f"{told['ms an image']:.1f} ms an image, {told['time in full passes']:.2f} passes of time, "
                    f"{told['arithmetic in full passes']:.2f} of arithmetic"
                )
                ratios = [own["naive"] / own[engine] for own in rounds]
                yield Measure(what, ratios, "higher", target, note=note, extra=told)
        yield self.single_pass(expected[0])

    @torch.no_grad()
    def single_pass(self, purified: Tensor) -> Measure:
        """How wrong a purification is that chooses all pixels at once, from the image as it came."""
        levels = self.model.to_levels(self.images[: len(purified)])
        greedy = Greedy(self.model, levels, torch.full((len(levels),), self.eps, device=levels.device))
        chosen, _ = all_pixels(greedy, levels, torch.arange(len(levels), device=levels.device))
        answer = self.model.to_levels(purified).permute(0, 2, 3, 1).flatten(1, 2)
        share = 100 * float((chosen != answer).any(-1).double().mean())
        channels, height, width = self.model.event_shape
        note = (
            f"network passes an image: 1, against {height * width} a pixel and {channels * height * width} a sub-pixel"
        )
        what = "one pass for all pixels, as in ART: share of pixels that come out wrong"
        return Measure(what, [share], "lower", None, unit="%", note=note)

    def sample(self) -> Iterator[Measure]:
        """Sampling from caches against one network pass per pixel."""
        n = max(self.batch_sizes)

        def draw(fast: bool) -> None:
            scan = self.model.scan(n) if fast else FullScan(self.model, n)
            generator = torch.Generator(self.stopwatch.device).manual_seed(0)
            while not scan.finished:
                drawn = torch.multinomial(scan.log_probs().exp(), 1, generator=generator)
                scan.choose(drawn.squeeze(-1))

        slow = self.timed(lambda: draw(False))
        times = [self.timed(lambda: draw(True)) for _ in range(self.repeats)]
        note = f"naive: {slow:.1f} s"
        target = 30.0 if self.model.event_shape[0] == 1 else None
        yield Measure(
            f"sampling from caches against naive, {n} images", [slow / t for t in times], "higher", target, note=note
        )

    def memory(self) -> Iterator[Measure]:
        """Peak memory of purifying, in processes of their own."""
        found = load_data(self.data)
        peaks = {}
        with tempfile.TemporaryDirectory() as folder:
            for n in (1000, 10_000):
                source = Path(folder) / f"{n}.npz"
                np.savez(source, x=found.test_x[:n].numpy())
                command = [sys.executable, "-m", "bench.purify_memory", str(source), self.density, str(self.eps)]
                done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
                peaks[n] = json.loads(done.stdout.splitlines()[-1])["gib"]
        note = ", ".join(f"{n:,} images: {gib:.3f} GiB" for n, gib in peaks.items())
        yield Measure(
            "peak memory of purifying 10,000 images against 1,000",
            [peaks[10_000] / peaks[1000]],
            "lower",
            1.05,
            note=note,
            extra={f"{n} images, GiB": v for n, v in peaks.items()},
        )

    def cell(self, measure: Measure, device: str, seconds: float) -> Cell:
        """Returns a measure as a result cell."""
        settings = {"density": self.title, "eps": self.eps, "data": self.data, "device": self.stopwatch.device.type}
        return speed_cell(
            "pixeldefend", measure, self.stopwatch.device, device, row=f"{self.title}: {measure.what}",
            config_hash=hash_of(settings), protocol=PROTOCOL, seconds=seconds,
        )  # fmt: skip


if __name__ == "__main__":
    sys.exit(run_cli(bench, prog="python -m bench.pixeldefend"))
