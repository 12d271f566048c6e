"""`genapps pixeldefend`: detect and purify adversarial images, and measure what the defence is worth."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from apps.common.cli import Verb, run_cli

VERBS = {
    "train-density": Verb("apps.pixeldefend.verbs:train_density", "train a density model and calibrate it"),
    "calibrate": Verb("apps.pixeldefend.verbs:calibrate_density", "score the images held out from a trained density"),
    "train-classifier": Verb(
        "apps.pixeldefend.verbs:train_classifier", "train a network, plainly or with a training defence"
    ),
    "attack": Verb("apps.pixeldefend.verbs:attack_images", "make adversarial images of a folder, .npz or data set"),
    "detect": Verb("apps.pixeldefend.verbs:detect", "say which images of a folder or .npz are suspicious"),
    "purify": Verb("apps.pixeldefend.verbs:purify_images", "purify the images of a folder or .npz"),
    "benchmark": Verb("apps.pixeldefend.verbs:benchmark", "fill the cells of the tables of the paper, and beside them"),
    "report": Verb("apps.pixeldefend.verbs:report", "draw the figures and the page of a demo again"),
    "demo": Verb("apps.pixeldefend.verbs:demo", "attack, detect and purify a handful of images, in a minute"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit status."""
    return run_cli(VERBS, prog="genapps pixeldefend", description=(__doc__ or "").split(": ", 1)[1], argv=argv)


if __name__ == "__main__":
    sys.exit(main())
