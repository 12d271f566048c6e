"""How a table is measured: a grid of cells that are made once, and what a row answers.

A cell of an attack counts against the published one where the attack leaves the undefended row no more than published.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from apps.common.cells import Cell, told_to_stand, write_cell
from apps.common.intervals import of_share
from apps.common.published import published
from core_models.files import hash_of

from .detection import fingerprint
from .experiment import Experiment
from .feature_squeezing import FeatureSqueezing
from .loading import predictions
from .table import Row

APP, PROTOCOL = "pixeldefend", "1"


@dataclass
class Grid:
    """Where the cells of a call go, and what they say of how they were made."""

    experiment: Experiment
    table: str
    results: Path
    device: str
    command: str
    again: bool

    def cell(
        self,
        row: str,
        column: str,
        settings: dict[str, Any],
        measure: Callable[[], tuple[float, dict[str, Any]]],
        *,
        unit: str = "%",
        better: Literal["lower", "higher"] = "higher",
        shown: dict[str, Any] | None = None,
    ) -> Cell:
        """Returns a cell, measured and written unless one stands, of these settings or others.

        Args:
            row: its row.
            column: its column.
            settings: what its value depends on.
            measure: returns the value, and what a reader may want beside it.
            unit: the value's unit.
            better: whether higher or lower is better.
            shown: the settings as a reader should see them, where they differ from those that the cell is known by.
        """
        own = {} if self.experiment.digest is None else {"digest": self.experiment.digest}
        settings, told = (
            json.loads(json.dumps({**some, **own, "seed": self.experiment.seed}, default=str))
            for some in (settings, shown or settings)
        )
        place: dict[str, Any] = {
            "app": APP, "table": self.table, "row": row, "column": column, "draw": self.experiment.seed,
            "config_hash": hash_of(settings), "protocol": PROTOCOL,
        }  # fmt: skip
        if not self.again:
            standing = told_to_stand(self.results, f"{row}, {column}", **place)
            if standing is not None:
                return standing
        store, start = self.experiment.store, time.monotonic()
        store.spared.clear()
        value, extra = measure()
        seconds, spared = time.monotonic() - start, sum(store.spared.values())
        if spared:
            extra = {**extra, "seconds spared by what was kept": round(spared, 1)}
        cell = Cell(
            **place, value=value, unit=unit, better=better, seed=self.experiment.seed, device=self.device,
            seconds=seconds, command=self.command, extra={**extra, "settings": told},
        )  # fmt: skip
        write_cell(self.results, cell)
        print(f"{row}, {column}: {value:.2f} {unit}{_interval_words(extra, 1 if unit == '%' else 3)}", flush=True)
        return cell


def _interval_words(extra: dict[str, Any], digits: int) -> str:
    if "interval" not in extra:
        return ""
    low, high = extra["interval"]
    return f" (95 %: {low:.{digits}f} to {high:.{digits}f}, n = {extra['images']})"


def network(experiment: Experiment, row: Row) -> nn.Module:
    """Returns what classifies the images of a row once they are purified."""
    net = experiment.classifier(row)
    bits = 3 if experiment.data.event_shape[0] == 1 else 5
    return FeatureSqueezing(net, bits).eval() if row.squeezed else net


def row_settings(experiment: Experiment, row: Row) -> dict[str, Any]:
    """Returns what a row's answers depend on, under one name: an attack has a budget of its own."""
    defence: dict[str, Any] = {**asdict(row), "classifier": fingerprint(experiment.classifier(row))[:16]}
    if row.squeezed:
        defence["border"] = "repeated"  # of the median; it was reflected once
    if row.purifying != "none":
        defence["density"] = experiment.density_id
    if row.purifying.startswith("adaptive"):
        defence["threshold"] = round(experiment.threshold, 6)
    return {"defence": defence}


def counts(experiment: Experiment, row: Row, title: str, name: str, eps: int) -> dict[str, Any]:
    """Tells whether an attack leaves the undefended row no more than published; nothing where nothing is published."""
    table, bare = experiment.name.replace("-", "_"), row.undefended
    facts = (f for f in published(APP) if (f.table, f.row, f.column) == (table, bare.title, f"{title} {eps}"))
    fact = next(facts, None)
    if fact is None:
        return {}
    x, y = experiment.x, experiment.y
    found, _ = accuracy(right(experiment, bare, experiment.attacked(bare, name, eps, x, y), y))
    return {"undefended": found, "undefended, published": fact.value, "counts": found <= fact.value}


def right(experiment: Experiment, row: Row, x: Tensor, y: Tensor) -> Tensor:
    """Returns which images, given as bytes, the whole row classifies rightly."""
    shown, net = experiment.defended(row, x), network(experiment, row)
    return torch.cat([predictions(net, experiment.pixels(part)) for part in shown.split(500)]) == y


def accuracy(correct: Tensor) -> tuple[float, dict[str, Any]]:
    """Returns the share of True [%], and with it the number of images, of errors, and Wilson's 95 % interval."""
    n, hits = len(correct), int(correct.sum())
    return 100 * hits / n, {"images": n, "error_count": n - hits, "interval": of_share(hits, n)}
