"""Trained weights that ship with the package, each in a folder of its own beside its card.

A model of the zoo is named `zoo:NAME` wherever the folder of a trained model is asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import UserError, suggestion

__all__ = ["card", "folder", "load", "located", "names"]

PREFIX = "zoo:"
_HERE = Path(__file__).parent


def names() -> list[str]:
    """Returns the names of the models that ship, in alphabetical order."""
    return sorted(path.parent.name for path in _HERE.glob("*/model.json"))


def folder(name: str) -> Path:
    """Returns the folder of a model, with or without `zoo:` before its name.

    Raises:
        UserError: when none of that name ships.
    """
    name = name.removeprefix(PREFIX)
    if name not in names():
        hint = suggestion(name, names())
        raise UserError(f"expected a model of the zoo among {', '.join(names())}, got {name!r}{hint}")
    return _HERE / name


def located(name: str | Path) -> Path:
    """Returns the folder of a model that is named `zoo:NAME` or by its own path.

    Raises:
        UserError: when none of that name ships.
    """
    return folder(str(name)) if str(name).startswith(PREFIX) else Path(name)


def load(name: str) -> Any:
    """Loads a model that ships, a generative one or a classifier, in evaluation mode on the CPU.

    Raises:
        UserError: when none of that name ships.
    """
    from ..persistence import load as load_folder

    return load_folder(folder(name))


def card(name: str) -> str:
    """Returns what is to be known of a model, as Markdown: what made it, on what, and what it is worth.

    Raises:
        UserError: when none of that name ships.
    """
    return (folder(name) / "card.md").read_text(encoding="utf-8")
