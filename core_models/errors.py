"""The one exception that means: the user can mend this; and what its messages share."""

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
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


def suggestion(word: str, known: Iterable[str]) -> str:
    """Returns "; did you mean ...?" for the end of a message when something known is close to a word, else nothing.

    Example:
        >>> suggestion("lasso", ["LASSO", "CSGM"])
        '; did you mean LASSO?'
    """
    names = {name.lower(): name for name in reversed(list(known))}  # the first of those that differ in case alone
    close = get_close_matches(word.lower(), names, n=1)
    return f"; did you mean {names[close[0]]}?" if close else ""
