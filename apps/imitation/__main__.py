"""`genapps imitation`: learn policies from a few demonstrations, and compare them with the expert."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from apps.common.cli import Verb, Verbs, run_cli

VERBS: dict[str, Verb | Verbs] = {
    "expert": Verb("apps.imitation.verbs:expert", "train an expert by reinforcement, to have somebody to learn from"),
    "demos": Verbs(
        {
            "list": Verb("apps.imitation.verbs:list_demos", "say which demonstrations ship with the package"),
            "record": Verb("apps.imitation.verbs:record_demos", "record demonstrations of a saved policy"),
            "import": Verb("apps.imitation.verbs:import_demos", "make a .npz of a Minari data set"),
            "export": Verb("apps.imitation.verbs:export_demos", "make a Minari data set or a smaller .npz"),
            "inspect": Verb("apps.imitation.verbs:inspect_demos", "check demonstrations and say what is in them"),
        },
        "demonstrations: list, record, import, export, inspect",
    ),
    "train": Verb("apps.imitation.verbs:train", "learn a policy from demonstrations: BC, GAIL, InfoGAIL, DAC ..."),
    "evaluate": Verb("apps.imitation.verbs:evaluate", "say what saved policies are worth, and film them"),
    "demo": Verb("apps.imitation.verbs:demo", "GAIL on CartPole from one demonstration, in a minute"),
    "benchmark": Verb("apps.imitation.verbs:benchmark", "fill the cells of the table of GAIL"),
    "modes": Verb("apps.imitation.verbs:modes", "fill the cells of the table of InfoGAIL"),
    "report": Verb("apps.imitation.verbs:report", "draw the curves and the page of a run again"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit status."""
    return run_cli(VERBS, prog="genapps imitation", description=(__doc__ or "").split(": ", 1)[1], argv=argv)


if __name__ == "__main__":
    sys.exit(main())
