"""The tables of recovery: methods x numbers of measurements, one result cell each, and what is chosen for them.

Protocol 1: the first test images of a data set, in groups of 100 that each have a Gaussian matrix of their own (entries
of variance 1, seeded by draw and group), noise of standard deviation 0.1 in each measurement; the value is the mean
squared error of a pixel. Settings come from `tune`: the first validation images, training images that the papers'
priors never saw, with matrices of other seeds. The protocol of Bora et al. (300 images, a matrix per 50) is
`--images 300 --group 50`, a table of its own, `mnist_300_by_50`. Protocol 2, of data sets whose images lie sorted: the
order in which test and validation images are taken is drawn once (`splits.py`), for the first are of a few classes.

Source of the protocol: Bora, Jalal, Price and Dimakis 2017, section 6.1; the noise is theirs too.
"""

from __future__ import annotations

import json
import shlex
import time
from functools import cache
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

import core_models
from apps.common.cells import Cell, told_to_stand, write_cell
from apps.common.intervals import around
from apps.common.machine import set_threads
from apps.common.options import at_least, known_names
from apps.common.provenance import command_line, device_words
from core_models.data import load as load_data
from core_models.errors import UserError
from core_models.files import hash_of, read_json, write_json
from core_models.training.progress import Progress

from ..convergence import Unsolved, gathered
from ..diagnosis import UNCERTAIN, coverage
from ..fitting import fitted_values
from ..metrics import errors, summary
from ..operators import gaussian, measure
from ..recovery import Recovered, Recovery
from ..splits import SORTED, kept_images, places
from ..splits import training as _training
from .rows import CHOSEN, MEASUREMENTS, ROWS, chosen, known_by, prior_for, rows_for

APP = "compressed_sensing"
NOISE = 0.1
VALIDATION_SEED = 1_000_000
"""The seed of validation's matrices, noise and starts."""
_OTHERS = {"operator", "prior", "noise", "batch", "random_state"}
"""Arguments of methods that aren't settings of a row: what the table gives them, and how many signals go at once."""


def benchmark(
    data: str = "mnist",
    methods: list[str] | None = None,
    m: list[int] = [25, 50, 100, 200, 400],  # noqa: B006
    images: int = 1000,
    group: int = 100,
    seeds: list[int] = [0],  # noqa: B006
    prior: str | None = None,
    prior_of: str | None = None,
    results: Path = Path("docs/results"),
    threads: int | None = 1,
    again: bool = False,
) -> None:
    """Fills the cells of a table of recovery that don't stand yet.

    Args:
        data: mnist or omniglot: the table.
        methods: Rows, by name; when left out all whose prior is there, and of transfer all that have one.
        m: Numbers of measurements.
        images: Test images, the first ones; of Omniglot, whose first are of a few alphabets, always the same draw.
        group: Images that share a matrix.
        seeds: One cell each: of matrices, noise and starts.
        prior: A run folder or zoo:NAME in place of the row's own prior.
        prior_of: The data set that priors know, where it is another than that of the signals: the table of transfer.
        results: Where cells are filed.
        threads: CPU threads.
        again: Measure again what stands.
    """
    set_threads(threads)
    at_least(1, m=min(m, default=0), seeds=len(seeds), images=images, group=group)
    known = prior_of or data
    for row in _known(methods, data, known):
        for number in m:
            for seed in seeds:
                _cell(data, row, number, images, group, seed, prior, known, results, again)


def tune(
    data: str = "mnist",
    methods: list[str] | None = None,
    m: list[int] = [25, 50, 100, 200, 400],  # noqa: B006
    images: int = 100,
    prior: str | None = None,
    prior_of: str | None = None,
    out: Path = CHOSEN,
    threads: int | None = 1,
) -> None:
    """Chooses settings on validation images, never on test images, and files them.

    Args:
        data: mnist or omniglot.
        methods: Rows, by name; all that have something to choose when left out.
        m: Numbers of measurements.
        images: Validation images.
        prior: A run folder or zoo:NAME in place of the row's own prior.
        prior_of: The data set that priors know, where it is another than that of the signals: settings of their own.
        out: The file that settings are added to.
        threads: CPU threads.
    """
    set_threads(threads)
    at_least(1, m=min(m, default=0), images=images)
    train, held = _training(data)
    x = train[held[places(data, len(held))[:images]]]
    table: dict[str, Any] = read_json(out) if out.is_file() else {}
    known = prior_of or data
    for row in [name for name in _known(methods, data, known) if ROWS[name].grid]:
        for number in m:
            tried = []
            for settings in ROWS[row].candidates():
                found = _recovered(data, row, settings, x, number, len(x), VALIDATION_SEED, prior, known)
                mse = float(errors(found.x, x)["mse"].mean())
                tried.append((mse, settings))
                print(f"{row}, m = {number}: {settings}: {mse:.3g}", flush=True)
            mse, best = min(tried, key=lambda pair: pair[0])
            for name in ROWS[row].at_edge(best):
                print(f"{row}, m = {number}: {name} = {best[name]} is the last value tried on its side: widen the grid")
            entry = {"settings": best, "validation_mse": mse, "images": len(x), "command": command_line()}
            table.setdefault(known_by(data, known), {}).setdefault(row, {})[str(number)] = entry
            write_json(out, table)


def _cell(
    data: str, row: str, m: int, images: int, group: int, seed: int, prior: str | None, known: str, results: Path,
    again: bool,
) -> None:  # fmt: skip
    given = chosen(known_by(data, known), row, m)
    config, used = _config(data, row, m, images, group, prior, known)
    title = row if known == data else f"{row}, {known} -> {data}"
    own = (images, group) != (1000, 100)
    table = (data if known == data else "transfer") + (f"_{images}_by_{group}" if own else "")
    column = str(m)
    place: dict[str, Any] = {
        "app": APP,
        "table": table,
        "row": title,
        "column": column,
        "draw": seed,
    }
    protocol = _protocol(data)
    known_as, words = hash_of(config), f"{title}, m = {column}, seed {seed}"
    if not again and told_to_stand(results, words, **place, config_hash=known_as, protocol=protocol):
        return
    x = _test_images(data, images)
    start = time.monotonic()
    found = _recovered(data, row, given, x, m, group, seed, prior, known, words=f"{title}, m = {m}")
    seconds = time.monotonic() - start
    told = {name: summary(values) for name, values in errors(found.x, x).items()}
    extra: dict[str, Any] = {
        "errors": told, "interval": around(told["mse"]["mean"], told["mse"]["half_width"]),
        "settings": config["settings"], "prior": used, "n_test": len(x),
    }  # fmt: skip
    if found.std is not None:
        extra["coverage"] = {str(level): share for level, share in coverage(found, x).items()}
        if float(found.std.max()) >= UNCERTAIN:
            sure = coverage(found, x, least_std=UNCERTAIN)
            extra[f"coverage where std >= {UNCERTAIN:g}"] = {str(level): share for level, share in sure.items()}
    extra |= {name: float(values.double().mean()) for name, values in found.details.items()}
    options = {"data": data, "methods": json.dumps([row]), "m": f"[{m}]", "seeds": f"[{seed}]"}
    options |= {"images": str(images), "group": str(group)} if own else {}
    options |= {"prior": prior} if prior else {}
    options |= {"prior_of": known} if known != data else {}
    command = ["genapps compressed-sensing benchmark", *(f"--{k} {shlex.quote(v)}" for k, v in options.items())]
    write_cell(
        results,
        Cell(
            **place, value=told["mse"]["mean"], unit="mean squared error of a pixel", better="lower", seed=seed,
            config_hash=known_as, protocol=protocol, device=device_words("cpu"), seconds=seconds,
            command=" ".join(command), extra=extra,
        ),
    )  # fmt: skip
    unsolved = Unsolved().add(found.details)
    left = f", {unsolved.left} of {unsolved.total} not solved to the tolerance" if unsolved.left else ""
    print(
        f"{title}, m = {column}, seed {seed}: {told['mse']['mean']:.3g} ± {told['mse']['half_width']:.2g} (95 %), "
        f"{seconds:.0f} s{left}",
        flush=True,
    )


def _config(
    data: str, row: str, m: int, images: int, group: int, prior: str | None, known: str
) -> tuple[dict[str, Any], str | None]:
    """Returns all that decides the value of a cell but its seed, and the name of its prior."""
    used = prior or prior_for(row, known) if ROWS[row].prior else None
    settings = _settings(row, chosen(known_by(data, known), row, m))
    return {
        "data": data, "row": row, "kind": ROWS[row].kind.__name__, "m": m, "images": images, "group": group,
        "noise": NOISE, "settings": {name: repr(value) for name, value in settings.items()},
        "prior": _hash_of_prior(used) if used else None, "known": known,
    }, used  # fmt: skip


def _protocol(data: str) -> str:
    return "2" if data in SORTED else "1"


def _recovered(
    data: str, row: str, settings: dict[str, Any], x: Tensor, m: int, group: int, seed: int, prior: str | None,
    known: str, words: str | None = None,
) -> Recovered:  # fmt: skip
    """Measures and recovers images, group by group, each with a matrix of its own."""
    own = ROWS[row]
    options: dict[str, Any] = {**own.settings, **settings}
    if own.prior:
        options["prior"] = _prior(prior or str(prior_for(row, known)))
    if "random_state" in signature(own.kind).parameters:
        options["random_state"] = seed
    parts: list[Recovered] = []
    fitted: Recovery | None = None
    with Progress(words or row, len(x)) as bar:
        for first in range(0, len(x), group):
            number = seed * 10_000 + first // group
            operator = gaussian(tuple(x.shape[1:]), m, seed=number)
            method = own.kind(operator, noise=NOISE, **options)
            if own.fits:
                fitted = fitted or method.fit(kept_images(data))
                for name, value in fitted_values(fitted).items():
                    setattr(method, name, value)
            batch = x[first : first + group]
            y = measure(operator, batch, NOISE, Generator().manual_seed(number))
            with gathered():
                parts.append(method.recover(y, first))
            bar.update(first + len(batch), last=first + len(batch) == len(x))
    std = None if parts[0].std is None else torch.cat([part.std for part in parts if part.std is not None])
    details = {name: torch.cat([part.details[name] for part in parts]) for name in parts[0].details}
    return Recovered(torch.cat([part.x for part in parts]), std, details)


def _settings(row: str, given: dict[str, Any]) -> dict[str, Any]:
    """Returns all that decides what a row recovers: its settings over its method's defaults."""
    defaults = {name: own.default for name, own in signature(ROWS[row].kind).parameters.items() if name not in _OTHERS}
    return {**defaults, **ROWS[row].settings, **given}


def _test_images(data: str, images: int) -> Tensor:
    x = load_data(data).images("test")
    if images > len(x):
        raise UserError(f"--images: expected at most the {len(x):,} test images of {data}, got {images}")
    return x[places(data, len(x))[:images]]


@cache
def _prior(name: str) -> Any:
    return core_models.load(name).eval()


def _hash_of_prior(name: str) -> str:
    model = _prior(name)
    return hash_of({key: float(value.double().sum()) for key, value in model.state_dict().items()})


def _known(methods: list[str] | None, data: str, known: str) -> list[str]:
    for row in known_names("methods", methods or [], ROWS):
        if known != data and ROWS[row].prior is None:
            raise UserError(f"--methods: {row} has no prior, which --prior_of could exchange: leave that out")
    return methods or [row for row in rows_for(known) if known == data or ROWS[row].prior]


__all__ = ["MEASUREMENTS", "benchmark", "tune"]
