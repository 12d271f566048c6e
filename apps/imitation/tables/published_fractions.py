"""The figures of Ho and Ermon, "Generative adversarial imitation learning", NIPS 2016, on the scale of our table.

Published are returns in the environments of 2016 (imitation_gail_returns.csv, read from the result files of the public
code: mean and std over 50 deterministic evaluation episodes; classic control and Reacher pool 7 training runs, the
others are one run each). The table shows (mean - random) / (expert - random), with their expert and with the random
policy measured in today's environment. Their CartPole ends after 200 steps, where the expert's 200 is the most that
there is; random actions never come that far, so that the same random return serves for it.

`python -m apps.imitation.tables.published_fractions` writes apps/common/published/imitation_gail.csv again.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from apps.common.cli import run_cli
from core_models.files import write_atomic

from ..evaluation import fraction_of_expert
from .random_returns import shipped

RETURNS = "imitation_gail_returns.csv"
SOURCE = (
    "Ho and Ermon 2016, Generative adversarial imitation learning, NIPS, result files of the public code; scaled with "
    "the published expert and with random actions measured in today's environment"
)
UNIT = "fraction of expert"
"""(return - random) / (expert - random): 0 is a random policy, 1 the expert."""
NAMES = {"Walker": "Walker2d"}
"""Environments that their files call otherwise."""
ROWS = dict.fromkeys(("BC", "FEM", "GTAL", "GAIL"), "beside") | {"GAIL (causal entropy 1e-3)": "quoted"}
"""The methods, in the table's order, and whether we run them: in other versions of the environments, with the authors'
experts rolled out anew, so that ours stand beside theirs and are not held against them."""
COLUMNS = ("table", "row", "column", "value", "standard_error", "unit", "better", "ours", "source")


def fractions() -> list[dict[str, str]]:
    """Returns the lines of the table's file."""
    text = (files("apps.common.published") / RETURNS).read_text(encoding="utf-8")
    figures = [{**line, "environment": NAMES.get(line["environment"], line["environment"])} for line in
               csv.DictReader(io.StringIO(text))]  # fmt: skip
    experts = {line["environment"]: float(line["mean"]) for line in figures if line["method"] == "expert"}
    lines = []
    for method, ours in ROWS.items():
        for own in shipped():
            for line in figures:
                if (line["environment"], line["method"]) != (own.name, method):
                    continue
                value = fraction_of_expert(float(line["mean"]), own.mean, experts[own.name])
                # no standard error: what is published is the spread of episodes
                values = ("gail", method, f"{own.name} {line['trajectories']}", f"{value:.4f}", "", UNIT, "higher")
                lines.append(dict(zip(COLUMNS, (*values, ours, SOURCE), strict=True)))
    return lines


def published_fractions(out: Path = Path("apps/common/published/imitation_gail.csv")) -> None:
    """Writes the published figures of the table.

    Args:
        out: The file.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(fractions())
    write_atomic(out, text.getvalue())


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit status."""
    return run_cli(published_fractions, prog="python -m apps.imitation.tables.published_fractions", argv=argv)


if __name__ == "__main__":
    sys.exit(main())
