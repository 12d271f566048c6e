"""`genapps semi-supervised`: learn a classifier from a handful of labels and many images without one."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from apps.common.cli import Verb, run_cli

VERBS = {
    "train": Verb("apps.semi_supervised.verbs:train", "fit one method to a data set with few labels"),
    "benchmark": Verb("apps.semi_supervised.verbs:benchmark", "fill the cells of the table of the paper"),
    "predict": Verb("apps.semi_supervised.verbs:predict", "label images with a trained run"),
    "report": Verb("apps.semi_supervised.verbs:report", "draw a run's figures and page again"),
    "demo": Verb("apps.semi_supervised.verbs:demo", "M1+M2 beside its supervised baseline, in minutes"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit status."""
    return run_cli(VERBS, prog="genapps semi-supervised", description=(__doc__ or "").split(": ", 1)[1], argv=argv)


if __name__ == "__main__":
    sys.exit(main())
