"""`genapps compressed-sensing`: recover signals from few measurements, and say how far they are to be trusted."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from apps.common.cli import Verb, Verbs, run_cli

VERBS: dict[str, Verb | Verbs] = {
    "train": Verbs(
        {
            "prior": Verb("apps.compressed_sensing.verbs:train_prior", "train a generative prior, a VAE or your own"),
            "uae": Verb("apps.compressed_sensing.verbs:train_uae", "train an uncertainty autoencoder"),
        },
        "train what recoveries need: prior, uae",
    ),
    "acquire": Verb("apps.compressed_sensing.verbs:acquire", "measure the signals of a data set, folder or .npz"),
    "recover": Verb("apps.compressed_sensing.verbs:recover", "recover signals from measurements, with error bars"),
    "demo": Verb("apps.compressed_sensing.verbs:demo", "digits from an eighth of their measurements, in a minute"),
    "tune": Verb("apps.compressed_sensing.verbs:tune", "choose the settings of the tables on validation images"),
    "benchmark": Verb("apps.compressed_sensing.verbs:benchmark", "fill the cells of a table of recovery"),
    "learned": Verb("apps.compressed_sensing.verbs:learned", "fill the cells of the tables of learnt acquisition"),
    "report": Verb("apps.compressed_sensing.verbs:report", "draw the figures of a run of recover, or of a table"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit status."""
    return run_cli(VERBS, prog="genapps compressed-sensing", description=(__doc__ or "").split(": ", 1)[1], argv=argv)


if __name__ == "__main__":
    sys.exit(main())
