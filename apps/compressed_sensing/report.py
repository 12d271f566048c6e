"""`genapps compressed-sensing report`: the figures and the page of a run of `recover`, or the curves of a table."""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from apps.common.options import at_least
from apps.common.report import Headline, Picture, Table, write_report
from apps.common.streaming.npz import NpyMember
from core_models.errors import UserError
from core_models.files import read_json
from core_models.training import RunFolder

from .account import PARTS
from .diagnosis import LEVELS
from .figures import error_parts, measurement_errors, recovery_grid
from .signals import open_signals
from .tables.curves import draw_table

CHUNK = 100
"""Signals read at a time."""
COLUMNS = {
    "mse": "mean squared error of a value", "rmse": "root mean squared error of a value",
    "l2": "l2 norm of a signal's error", "l1": "mean absolute error of a value",
    "linf": "largest error of a value", "psnr": "PSNR [dB]", "ssim": "SSIM",
    "measurement_error": "measurement error ||A x - y||",
    **{f"inside_{round(100 * level)}": f"share of values inside {100 * level:g} % intervals" for level in LEVELS},
}  # fmt: skip
"""What the columns of recovered.csv are called on the page."""
NORMS = {
    "error": "error ||x^ - x||",
    "representation_error": "representation error min ||G(z) - x||",
    "complete_error": "error of complete measurements without noise",
    "bound": "bound of Bora et al. 2017, theorem 1.1, for Gaussian A",
    "measurement_error": "measurement error ||A x^ - y||",
    "noise_norm": "noise ||A x - y||",
    "optimisation_gap": "optimisation gap: loss found, less that at the latent nearest to x",
    "loss_at_nearest": "loss at the latent nearest to x",
}  # fmt: skip
"""What the figures of a diagnosis are called on the page, in their order."""


def report(
    run: Path | None = None,
    table: str | None = None,
    figures: Path | None = None,
    methods: list[str] | None = None,
    results: Path = Path("docs/results"),
    truth: str | None = None,
    images: int = 10,
) -> None:
    """Draws the figures and the page of a run of `recover`, or errors against measurements of a table of cells.

    Args:
        run: A folder that `recover` wrote and finished: it gets figures/ and report.html.
        table: mnist, omniglot or another table of the benchmark, drawn from its cells.
        figures: The folder for the curves of a table.
        methods: Rows of the table, in the order of the legend; all when left out.
        results: Where cells are filed.
        truth: The signals that were measured, where a run doesn't say where they are: a data set by name, a folder or a
            .npz with an array x, in the order of the measurements.
        images: How many recovered images of a run are shown, the first ones.
    """
    if (run is None) == (table is None):
        raise UserError("expected a run or a table, got " + ("neither" if run is None else "both")
                        + ": give --run FOLDER, or --table NAME --figures FOLDER")  # fmt: skip
    if run is not None:
        at_least(1, images=images)
        print(write_run_report(run, truth, images))
        return
    if figures is None:
        raise UserError("expected a folder for the curves of a table, got none: give --figures FOLDER")
    for path in draw_table(str(table), figures, results, methods):
        print(path)


@dataclass(frozen=True, eq=False)
class _Run:
    """What a folder of `recover` holds."""

    folder: RunFolder
    summary: dict[str, Any]
    settings: dict[str, Any]
    rows: list[dict[str, str]]

    @property
    def recovered(self) -> Path:
        """The signals, a .npz."""
        return self.folder.path / "recovered.npz"

    def column(self, name: str) -> np.ndarray:
        """Returns a column of recovered.csv, NaN where a signal could not be read."""
        return np.array([float(row.get(name) or "nan") for row in self.rows])

    def first(self, array: str, places: Sequence[int]) -> np.ndarray | None:
        """Returns signals of recovered.npz, or None where it has no such array."""
        if array not in NpyMember(self.recovered, "x").members:
            return None
        return next(NpyMember(self.recovered, array).chunks(max(places) + 1))[list(places)]


def write_run_report(path: Path, truth: str | None = None, images: int = 10) -> Path:
    """Draws the figures of a run of `recover` and writes its page; returns the page's path.

    Args:
        path: the run's folder.
        truth: the signals that were measured, where the run doesn't say where they are.
        images: shown of them.

    Raises:
        UserError: when the folder holds no finished run, or the truth is not that of its signals.
    """
    run = _open(path)
    for old in run.folder.figures.glob("*.png"):
        old.unlink()
    pictures = [*_draw_images(run, truth, images), *_draw_measurement_errors(run), *_draw_diagnosis(run)]
    return write_report(run.folder.report, **_page(run, pictures))


def _open(path: Path) -> _Run:
    folder = RunFolder(path)
    table, settings = path / "recovered.csv", path / "settings.json"
    if not (folder.summary.is_file() and table.is_file() and settings.is_file()):
        raise UserError(f"expected a finished run of genapps compressed-sensing recover in {path}, found no "
                        "summary.json, recovered.csv and settings.json: finish it with --resume")  # fmt: skip
    with table.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file))
    return _Run(folder, read_json(folder.summary), read_json(settings), rows)


def _draw_images(run: _Run, truth: str | None, images: int) -> list[Picture]:
    """Draws the first signals that could be read, where signals are images."""
    places = [place for place, row in enumerate(run.rows) if row["status"] == "recovered"][:images]
    shape = NpyMember(run.recovered, "x").shape[1:]
    if not places or len(shape) != 3 or shape[0] not in (1, 3):
        print(f"signals of shape {shape} are no images: none are drawn", file=sys.stderr)
        return []
    x, std = run.first("x", places), run.first("std", places)
    assert x is not None
    true = _truth(run, truth, places, x)
    rows = ({} if true is None else {"truth": true}) | {"recovered": x}
    stds = {} if std is None else {"std": std}
    path = recovery_grid(rows, run.folder.figures / "recovered.png", stds=stds)
    words = f"The first {len(places)} signals" + ("" if true is None else ", as they are and") + " as recovered"
    return [Picture(path, words + ("." if std is None else "; below, the standard deviation of every value."))]


def _truth(run: _Run, given: str | None, places: Sequence[int], x: np.ndarray) -> np.ndarray | None:
    """Returns the true signals, checked by the errors that the run noted; None where they are not known.

    Raises:
        UserError: when those that the user gives are others.
    """
    name = given or run.settings.get("data") or run.summary.get("input", {}).get("path")
    if name is None:
        return None
    try:
        source = open_signals(name, run.settings.get("split", "test"), x.shape[1:], outside=None)
        found: dict[int, np.ndarray] = {}
        for batch in source.batches(CHUNK):
            kept = [batch.start + i for i in range(len(batch.names)) if i not in batch.faults]
            found |= {place: own for place, own in zip(kept, batch.x.numpy(), strict=True) if place in places}
            if batch.start + len(batch.names) > max(places):
                break
        missing = [place for place in places if place not in found]
        if missing:
            raise UserError(f"{name}: expected at least {max(places) + 1} signals, signal {missing[0]} is not there")
        true = np.stack([found[place] for place in places])
        if true.shape != x.shape:
            raise UserError(f"{name}: expected signals {x.shape[1:]}, as recovered, got {true.shape[1:]}")
        noted = run.column("mse")[list(places)] if "mse" in run.rows[0] else np.full(len(places), np.nan)
        mse = np.square(true.astype(np.float64) - x).reshape(len(x), -1).mean(1)
        if not np.allclose(np.where(np.isnan(noted), mse, noted), mse, rtol=1e-3, atol=1e-7):
            raise UserError(f"{name}: expected the signals that were measured, got others: their errors are not those "
                            f"in {run.folder.path / 'recovered.csv'}")  # fmt: skip
        if given is None and np.isnan(noted).any():
            return None  # nothing to check a guess by
        return true
    except UserError as error:
        if given is not None:
            raise
        why = str(error).removesuffix(": rename it")
        print(
            f"drawn without the truth: {why}: name it by --truth, or acquire with --keep_signals true", file=sys.stderr
        )
        return None


def _draw_measurement_errors(run: _Run) -> list[Picture]:
    told = run.summary
    path = run.folder.figures / "measurement_error.png"
    noise, m = float(told["noise"]), int(told["operator"]["m"])
    measurement_errors(run.column("measurement_error"), noise, m, path)
    words = "How far the recovered signals are from the measurements"
    beside = (
        f"{words}, beside the noise alone (sigma {noise:g}, {m} measurements). Far above it the search failed, or "
        "the method can't explain y, or clipping to [0, 1] moved the signal; far below it noise was fitted."
    )
    return [Picture(path, beside if noise else f"{words}; the run was told of no noise.")]


def _draw_diagnosis(run: _Run) -> list[Picture]:
    """Draws each signal's error beside what the prior can't make and the bound, where they are known."""
    found = (run.summary.get("diagnosis") or {}).get("per_signal", {})
    if "representation_error" not in found:
        return []
    path = error_parts(found, run.folder.figures / "diagnosis.png")
    if "complete_error" in found:
        words = (
            "The error of each signal. Below lies what the prior can't make, and what the method would still "
            "miss if every value were measured, without noise; what is above is left to the measurements and the "
            "search. Dashed, the theory's bound; for what it needs see the notes."
        )
    else:
        words = (
            f"The error of each signal, beside the least in the range of the prior. {run.summary['method']} recovers "
            "something beside the prior's signal: its error may be below."
        )
    return [Picture(path, words)]


def _page(run: _Run, pictures: Sequence[Picture]) -> dict[str, Any]:
    """Returns the arguments of `report_page`."""
    told, means = run.summary, run.summary["means"]
    operator, noise = told["operator"], float(told["noise"])
    headlines = []
    if "mse" in means:
        headlines.append(Headline("mean squared error", f"{means['mse']['mean']:.3g}", _interval(means["mse"])))
    beside = f"the noise: {noise * int(operator['m']) ** 0.5:.3g}" if noise else ""
    headlines.append(Headline("measurement error", f"{means['measurement_error']['mean']:.3g}", beside))
    if told["coverage"]:
        level, share = max(told["coverage"].items(), key=lambda pair: float(pair[0]))
        inside = f"of values inside {100 * float(level):g} % intervals"
        headlines.append(Headline("coverage", f"{100 * share:.1f} %", inside))
    if told["signals_per_second"]:
        headlines.append(Headline("speed", f"{told['signals_per_second']:.3g} signals/s", told["device"]))
    rows = [
        [COLUMNS.get(name, name.replace("_", " ")), f"{own['mean']:.5g}", _interval(own), f"{own['n']:,}"]
        for name, own in means.items()
        if name != "noise_norm"  # the same for all
    ]
    rank = "" if operator.get("rank") is None else f", rank {operator['rank']}"
    unreadable = [f"{told['unreadable']:,} signals could not be read."] if told["unreadable"] else []
    counted = f"{told['signals']:,} signals of {operator['n']:,} values"
    return {
        "title": f"{told['method']}: {counted} from {operator['m']:,} measurements",
        "summary": f"Noise {noise:g} in each measurement{rank}."
        + (f" Prior: {told['prior']}." if told["prior"] else ""),
        "headlines": headlines,
        "tables": [Table("Means over signals", ("", "mean", "95 %", "signals"), rows), *_diagnosis(told)],
        "figures": pictures,
        "notes": [*_said(told), *unreadable, *_input(told), f"Measured on {told['device']}, {told['seconds']:g} s."],
        "configuration": run.settings,
        "command": told["command"],
    }


def _diagnosis(told: Mapping[str, Any]) -> list[Table]:
    """Returns the tables of where the error comes from; none of a run that wasn't asked."""
    found = told.get("diagnosis")
    if not found:
        return []
    means = found["means"]
    rows = [[words, f"{means[name]['mean']:.4g}", _interval(means[name])]
            for name, words in NORMS.items() if name in means]  # fmt: skip
    if found["s_rec"]:
        least, percentile = found["s_rec"]["least"], found["s_rec"]["percentile_1"]
        rows.append([f"S-REC: least ||A d|| / ||d|| over {found['s_rec']['pairs']:,} pairs of samples of the prior, "
                     "A scaled to keep norms", f"{least:.4g}", f"1st percentile {percentile:.4g}"])  # fmt: skip
    title, verdict = f"Where the error comes from: the first {found['signals']} signals", found["words"]["verdict"]
    tables = [Table(title, ("", "mean", "95 %"), rows, f"{verdict[0].upper()}{verdict[1:]}.")]
    if found["parts"]:
        shares = [[name, PARTS[name], f"{100 * share:.1f} %"] for name, share in found["parts"].items()]
        tables.append(Table("Parts of the squared error", ("", "", "share"), shares))
    return tables


def _said(told: Mapping[str, Any]) -> list[str]:
    """Returns what a diagnosis says in words and no table does."""
    words = (told.get("diagnosis") or {}).get("words", {})
    return [f"{name[0].upper()}{name[1:]}: {own}." for name, own in words.items()
            if name not in ("verdict", "squared error", "error")]  # fmt: skip


def _input(told: Mapping[str, Any]) -> list[str]:
    """Says what the signals were recovered from, and what identifies it."""
    own = dict(told.get("input", {}))
    if not own:
        return []
    name = own.pop("path")
    own.pop("data", None)  # the same
    return [f"Input: {name}; " + ", ".join(f"{key} {value}" for key, value in own.items() if value is not None) + "."]


def _interval(own: Mapping[str, Any]) -> str:
    return "" if own["half_width"] is None else f"± {own['half_width']:.2g}"
