"""`genapps model evaluate`: a trained model's likelihood, with estimator and binarisation named.

Every image's value is kept in the run folder, `evaluations/`, as it is computed: an evaluation that was stopped goes on
where it was, and one that was done is read back. The noise of a batch follows from the seed and the batch's place, so
the numbers do not depend on where it was stopped.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Generator, Tensor

from apps.common.cells import Cell, write_cell
from apps.common.intervals import Z, around
from apps.common.machine import set_threads
from apps.common.objectives import choose_binarisation, default_estimator, density_over
from apps.common.options import at_least
from apps.common.provenance import device_words
from apps.common.training import load_as_trained
from core_models.base import GenerativeModel
from core_models.data import Binarisation, DataSet, Split
from core_models.errors import UserError
from core_models.evaluation import estimator_for, per_event, summarise
from core_models.files import hash_of, write_atomic
from core_models.training import seed_of
from core_models.training.config import FREE_ON_RESUME
from core_models.training.progress import Progress

from .measuring import in_words, record
from .pixels import Pixels, prepare
from .runs import TrainedModel, open_run

PROTOCOL = "1"
DRAWS_AT_ONCE = 50_000
"""Draws x images between two saves and two movements of the bar: about a second on one thread."""
SAVE_SECONDS = 20.0


def evaluate(
    run: Path,
    data: str | None = None,
    split: Split = "test",
    estimator: str | None = None,
    binarisation: Binarisation | None = None,
    limit: int | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    device: str = "auto",
    threads: int | None = None,
    again: bool = False,
    cell: bool = False,
    row: str | None = None,
    results: Path = Path("docs/results"),
) -> None:
    """Prints a trained model's negative log-likelihood, or a bound on it, in nats and where it is one in bits/dim.

    Args:
        run: The run folder, or any folder that core_models.save wrote.
        data: A data set by name or path; the run's own when left out.
        split: Which of its images: train, valid or test.
        estimator: exact, elbo or iwae-k (iwae-5000 is the usual one); exact or else elbo when left out.
        binarisation: How greys become zeros and ones; the run's own when left out.
        limit: Only the first so many images.
        seed: Seeds a dynamic binarisation and the noise of the bound; a static one is the same whatever the seed.
        batch_size: Images at a time; about 50,000 draws when left out.
        device: auto, cpu, cuda or cuda:N.
        threads: CPU threads.
        again: Compute anew what was computed before.
        cell: Keep the figure as a result cell of table models/density (`genapps results`), of the test images alone.
        row: Name of the cell's row; the model's name when left out.
        results: The folder of result cells.
    """
    set_threads(threads)
    if cell and split != "test":
        raise UserError(f"--cell: expected --split test, since cells hold figures of test images, got {split}")
    trained = open_run(run, device, keeps=True)
    model = trained.model
    wanted = data or trained.settings.get("data")
    if wanted is None:
        raise UserError(f"expected --data, since {run} does not say what the model was trained on, got none")
    estimator = estimator or default_estimator(model)
    estimator_for(model, estimator)  # refuses before anything is loaded
    at_least(1, limit=limit)
    data_set = load_as_trained(wanted, trained.run.path)
    known: Binarisation | None = trained.settings.get("binarisation") if data is None else None
    chosen = choose_binarisation(binarisation or known, density_over(model), data_set)
    pixels = prepare(data_set, split, model, chosen)
    draws = int(match[1]) if (match := re.fullmatch(r"iwae-(\d+)", estimator)) else 1
    size = batch_size if batch_size is not None else max(1, min(500, DRAWS_AT_ONCE // draws))
    kept = _Kept.open(trained, data_set, split, estimator, chosen, seed, size, len(pixels), pixels.spread, again)
    number = min(limit or len(pixels), len(pixels))
    _fill(kept, model, pixels, estimator, seed, size, number)
    found = record(summarise(kept.values[:number], estimator, model.event_shape), model, chosen, pixels.levels)
    print(in_words(found, f"{data_set.name} {split}"))
    if cell:
        place = next(model.parameters()).device
        seconds = float(trained.summary.get("seconds", 0)) + kept.seconds_of(number)
        print(write_cell(results, _cell(trained, data_set, found, row, seed, seconds, device_words(place))))


@dataclass
class _Kept:
    """The value of each image, NaN where there is none yet, in a file of the run folder."""

    path: Path
    identity: str
    values: Tensor
    seconds: float = 0.0
    """Time that they took [s]."""

    @classmethod
    def open(
        cls, trained: TrainedModel, data: DataSet, split: Split, estimator: str, binarisation: Binarisation,
        seed: int, size: int, n: int, spread: bool, again: bool,
    ) -> _Kept:  # fmt: skip
        """Reads what was computed of this very figure, if anything."""
        weights = hashlib.sha256(trained.run.model.read_bytes()).hexdigest()
        images = hashlib.sha256(getattr(data, f"{split}_x").numpy())
        images.update(f"{data.levels} levels".encode() + getattr(data, f"{split}_y").numpy().tobytes())
        place = next(trained.model.parameters()).device.type  # another kind of device draws other noise
        told: list[Any] = [PROTOCOL, weights, images.hexdigest(), split, estimator, binarisation, seed, size, place]
        if spread and estimator != "exact":  # of levels as they were, once
            told.append("dequantised")
        identity = json.dumps(told)
        name = re.sub(r"[^A-Za-z0-9.]+", "-", Path(data.name).name)
        path = trained.run.path / "evaluations" / f"{name}_{split}_{estimator}_{binarisation}_{seed}.safetensors"
        values, seconds = torch.full((n,), torch.nan, dtype=torch.float64), 0.0
        if path.exists() and not again:
            try:
                with safe_open(path, "pt") as file:
                    kept = file.metadata() or {}
                    if kept.get("identity") == identity:
                        values, seconds = file.get_tensor("values"), float(kept["seconds"])
            except (SafetensorError, OSError, KeyError, ValueError):
                pass  # a file of no use: computed again and written over
        return cls(path, identity, values, seconds)

    def seconds_of(self, number: int) -> float:
        """Returns the time that the first so many values took [s]: their share, as every image takes the same."""
        return self.seconds * number / max(number, int((~self.values.isnan()).sum()))

    def save(self) -> None:
        """Writes the values, whole or not at all."""
        told = {"identity": self.identity, "seconds": str(self.seconds)}
        write_atomic(self.path, to_bytes({"values": self.values}, metadata=told))


def _fill(
    kept: _Kept, model: GenerativeModel, pixels: Pixels, estimator: str, seed: int, size: int, number: int
) -> None:
    """Computes what is missing of the first images, in whole batches, saving on the way."""
    at_least(1, batch_size=size)
    place = next(model.parameters())
    starts = [s for s in range(0, number, size) if bool(kept.values[s : s + size].isnan().any())]
    if not starts:
        return
    events = pixels.events(seed_of(seed, "binarisation"))
    saved = counted = time.monotonic()
    done = starts[0]
    try:
        with Progress(f"evaluating {estimator}", number, done, unit="image") as shown:
            for start in starts:
                part = slice(start, min(start + size, len(pixels)))
                kept.values[part] = per_event(
                    model,
                    events[part].to(place),
                    None if pixels.y is None else pixels.y[part].to(place.device),
                    estimator=estimator,
                    generator=Generator(place.device).manual_seed(seed_of(seed, "evaluation", start)),
                    batch_size=size,
                )
                kept.seconds, counted = kept.seconds + time.monotonic() - counted, time.monotonic()
                done = min(part.stop, number)
                shown.update(done, f"{float(kept.values[:done].nanmean()):.2f} nats", last=done == number)
                if time.monotonic() - saved > SAVE_SECONDS:
                    kept.save()
                    saved = time.monotonic()
    except KeyboardInterrupt:
        kept.save()
        raise KeyboardInterrupt(f"interrupted at image {done:,} of {number:,}: the same command goes on") from None
    kept.save()


def _cell(
    trained: TrainedModel, data: DataSet, found: dict[str, Any], row: str | None, seed: int, seconds: float, device: str
) -> Cell:
    """Makes the result cell of a figure; training seeds are its draws."""
    settings = json.loads(json.dumps(trained.settings))
    training = settings.get("training") or {}
    draw = int(training.pop("seed", 0))
    for name in FREE_ON_RESUME:
        training.pop(name, None)
    extra = {key: found[key] for key in ("standard_error", "n", "estimator", "binarisation")}
    extra["interval"] = around(found["nats"], Z * found["standard_error"])
    extra["trained_by"] = trained.summary.get("command", "")
    extra["evaluation_seed"] = seed
    extra |= {key: found[key] for key in ("bits_per_dim", "dequantisation") if key in found}
    about = {"settings": settings, "n": found["n"]}
    if "dequantisation" in found and found["estimator"] != "exact":  # bounds of before are of levels as they were
        about["dequantisation"] = found["dequantisation"]
    return Cell(
        app="models",
        table="density",
        row=row or {"vae": "VAE", "conditional-vae": "conditional VAE"}.get(trained.name, trained.name),
        column=f"{data.name} {found['estimator']} {found['binarisation']}",
        value=found["nats"],
        unit="nats",
        better="lower",
        draw=draw,
        seed=draw,
        config_hash=hash_of(about),
        protocol=PROTOCOL,
        device=device,
        seconds=seconds,
        extra=extra,
    )
