"""`genapps`, the switchboard: names the apps and imports one only when it is called."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

from core_models.errors import suggestion

APPS = {
    "model": ("apps.models", "trains, evaluates and samples the generative models themselves"),
    "semi-supervised": (
        "apps.semi_supervised",
        "classifies from a few labels and many unlabelled examples: M1, M2, M1+M2",
    ),
    "imitation": (
        "apps.imitation",
        "learns policies from a few demonstrations: behavioural cloning, GAIL, InfoGAIL",
    ),
    "pixeldefend": (
        "apps.pixeldefend",
        "detects and purifies adversarial images, and measures what that defence is worth",
    ),
    "compressed-sensing": (
        "apps.compressed_sensing",
        "recovers signals from few measurements: LASSO, CSGM, Sparse-Gen, uncertainty autoencoders",
    ),
    "results": ("apps.results", "prints every table of measured results beside the published figures"),
}
"""Package and one-line description of each app, by the name it is called with."""


def main(argv: list[str] | None = None) -> int:
    """Runs `genapps <app> ...` and returns the exit status.

    Args:
        argv: the arguments; those of this process where None.
    """
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        return 0
    if arguments[0] == "--version":
        print(f"genapps {_version()}")
        return 0
    name, *rest = arguments
    if name not in APPS:
        # a package's name is a likely slip: semi_supervised, models
        hint = suggestion(name.replace("_", "-"), APPS)
        print(f"genapps: error: expected an app ({', '.join(APPS)}), got {name!r}{hint}", file=sys.stderr)
        return 2
    try:
        app = import_module(f"{APPS[name][0]}.__main__")
    except KeyboardInterrupt:  # torch takes a while to import
        print("genapps: error: interrupted", file=sys.stderr)
        return 130
    return int(app.main(rest))


def _overview() -> str:
    width = max(map(len, APPS))
    lines = ["usage: genapps APP [VERB] [options]", "", "Applications of deep generative models.", ""]
    lines += [f"  {name:<{width}}  {description}" for name, (_, description) in APPS.items()]
    return "\n".join([*lines, "", "genapps APP --help says more about an app; genapps --version prints the version."])


def _version() -> str:
    try:
        return version("genapps")
    except PackageNotFoundError:
        return "(not installed)"


if __name__ == "__main__":
    sys.exit(main())
