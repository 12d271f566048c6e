"""The one exception that means: the user can mend this."""

from collections.abc import Mapping, Sequence
from typing import Any


class UserError(ValueError):
    """A mistake in what the user gave.

    The message is one line and says what was expected, what came and what to do. The command line prints it and
    exits with status 2; from Python it is an ordinary ValueError.
    """


def require_numbers(*, above_0: Mapping[str, Any] | None = None, from_0: Mapping[str, Any] | None = None) -> None:
    """Refuses settings that are, or hold, numbers out of their range.

    Args:
        above_0: numbers, or sequences of them, that are to be larger than 0, by name.
        from_0: that are to be 0 or more.

    Raises:
        UserError: naming the first that isn't.
    """
    for words, least, settings in (("above 0", False, above_0), ("of 0 or more", True, from_0)):
        for name, value in (settings or {}).items():
            numbers = value if isinstance(value, Sequence) else [value]
            if not all(number > 0 or (least and number == 0) for number in numbers):
                raise UserError(
                    f"{name}: expected {'numbers' if numbers is value else 'a number'} {words}, got {value}"
                )


def at_least(least: int, **options: int) -> None:
    """Refuses options of the command line that are below the least that makes sense.

    Raises:
        UserError: naming the option as it is typed; one with a point in it is given as `**{"learner.seed": 0}`.
    """
    for name, value in options.items():
        if value < least:
            raise UserError(f"--{name}: expected {least} or more, got {value}")
