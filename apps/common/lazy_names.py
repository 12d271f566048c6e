"""Names that a package exports and imports only when they are asked for.

PyTorch, scikit-learn and gymnasium take seconds to import: `--help` answers at once where nothing of theirs is wanted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(package: str, home: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Returns a package's `__getattr__` and `__dir__`.

    Args:
        package: its `__name__`.
        home: the module of each name, from the package.

    Raises:
        AttributeError: from `__getattr__`, when a name is none of these.

    Example:
        >>> get, names = lazy_names("apps.common", {"Cell": "cells"})
        >>> get("Cell").__module__, "Cell" in names()
        ('apps.common.cells', True)
    """

    def get(name: str) -> Any:
        if name in home:
            return getattr(import_module(f".{home[name]}", package), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *home})

    return get, names
