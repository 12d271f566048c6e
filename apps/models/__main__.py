"""`genapps model`: list, train, evaluate and sample the models of core_models, on any data set.

python -m apps model train --config core_models/vae_digits --out runs/vae_digits
python -m apps model evaluate --run runs/vae_digits --estimator iwae-5000
python -m apps model sample --run runs/vae_digits --out samples.png
"""

from __future__ import annotations

import sys

from apps.common.cli import Verb, run_cli

VERBS = {
    "list": Verb("apps.models.listing:list_models", "names the models that can be trained, and the presets for them"),
    "train": Verb("apps.models.train:train", "trains a model on a data set into a run folder"),
    "evaluate": Verb("apps.models.evaluate:evaluate", "measures a trained model's likelihood, estimator named"),
    "sample": Verb("apps.models.sample:sample", "draws from a trained model into a picture or an .npz"),
}


def main(argv: list[str] | None = None) -> int:
    """Runs `genapps model ...` and returns the exit status."""
    description = "Trains, evaluates and samples generative models."
    return run_cli(VERBS, prog="genapps model", description=description, argv=argv)


if __name__ == "__main__":
    sys.exit(main())
