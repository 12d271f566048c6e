"""Published figures that tables print beside ours: facts copied from papers, shipped as CSV files.

One file per table, `<app>_<table>.csv`, with the columns

- `table`, `row`, `column`, `value`, `unit`, `better`: as in a result cell;
- `standard_error`: the figure printed after the ± in the source, empty where there is none;
- `ours`: "run" where the app has this method, "beside" where it has but what was published was measured otherwise, so
  that ours is not held against it, "quoted" where the row stands in the table as published only;
- `source`: authors, year, title and table.

Beside them lie the figures that `imitation_gail.csv` was computed from: returns as published in
`imitation_gail_returns.csv`, and those of random actions, measured here, in `imitation_random_returns.csv`. The modules
that compute both are `published_fractions` and `random_returns` of apps/imitation/tables.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal

__all__ = ["Published", "published"]

TABLES = {
    "semi_supervised": ("mnist", "later"),
    "models": ("density",),
    "imitation": ("gail", "torcs", "library"),
    "pixeldefend": ("fashion_mnist", "cifar10"),
    "compressed_sensing": ("mnist_300_by_50", "learned_acquisition"),
}
"""The tables of each app, in the order in which they are shown."""


Ours = Literal["run", "beside", "quoted"]
OURS: dict[str, Ours] = {"run": "run", "beside": "beside", "quoted": "quoted"}


@dataclass(frozen=True)
class Published:
    """One published figure."""

    app: str
    table: str
    row: str
    column: str
    value: float
    standard_error: float | None
    """The figure after the ±, as printed in the source."""
    unit: str
    better: Literal["lower", "higher"]
    ours: Ours
    """Whether the app runs this method, runs it otherwise than was published, or quotes it only."""
    source: str


def published(app: str) -> list[Published]:
    """Returns the published figures of an app, in the order of its papers' tables; none for an app without any."""
    return [fact for table in TABLES.get(app, ()) for fact in _read(app, table)]


def _read(app: str, table: str) -> list[Published]:
    text = (files(__name__) / f"{app}_{table}.csv").read_text(encoding="utf-8")
    return [
        Published(
            app=app,
            table=line["table"],
            row=line["row"],
            column=line["column"],
            value=float(line["value"]),
            standard_error=float(line["standard_error"]) if line["standard_error"] else None,
            unit=line["unit"],
            better="higher" if line["better"] == "higher" else "lower",
            ours=OURS[line["ours"]],
            source=line["source"],
        )
        for line in csv.DictReader(io.StringIO(text))
    ]
