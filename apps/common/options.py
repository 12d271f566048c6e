"""What runners ask of the options that they are given."""

from __future__ import annotations

from collections.abc import Iterable

from core_models.errors import UserError, suggestion


def at_least(least: int, **options: int | None) -> None:
    """Refuses options that are below the least that makes sense; None, one that was left out, is passed over.

    Raises:
        UserError: naming the option as it is typed; one with a point in it is given as `**{"learner.seed": 0}`.
    """
    for name, value in options.items():
        if value is not None and value < least:
            raise UserError(f"--{name}: expected {least} or more, got {value}")


def known_names(option: str, given: Iterable[str], known: Iterable[str]) -> list[str]:
    """Returns the names that an option was given.

    Args:
        option: as it is typed, without its dashes.
        given: the names.
        known: those that there are.

    Raises:
        UserError: when one isn't known; it lists all that are.

    Example:
        >>> known_names("methods", ["BC"], ["BC", "GAIL"])
        ['BC']
    """
    names, chosen = list(known), list(given)
    for name in chosen:
        if name not in names:
            between = "; " if any("," in one for one in names) else ", "
            listed = "".join(f"{one}{between}" for one in names)
            raise UserError(f"--{option}: expected some of {listed}got {name!r}{suggestion(name, names)}")
    return chosen
