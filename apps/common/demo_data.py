"""The data of demonstrations: MNIST, or what every installation has."""

from __future__ import annotations

import sys

from core_models.data import DataSet, NoSourceError, load
from core_models.errors import UserError


def mnist_or_digits(name: str) -> DataSet:
    """Loads the digits of a demonstration.

    Args:
        name: mnist, digits, or auto: MNIST where its files are found or can be fetched, else the 8 x 8 digits that
            come with scikit-learn, which a line on stderr says.

    Raises:
        UserError: when other data are asked for, or files are damaged.
    """
    if name not in ("auto", "mnist", "digits"):
        raise UserError(f"--data: expected auto, mnist or digits, got {name!r}")
    if name != "auto":
        return load(name)
    try:
        return load("mnist")
    except NoSourceError as error:
        reason = " ".join(str(error).split())
        print(f"MNIST is out of reach ({reason}); using the 8 x 8 digits instead", file=sys.stderr)
        return load("digits")
