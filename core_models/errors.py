"""The one exception that means: the user can mend this."""


class UserError(ValueError):
    """A mistake in what the user gave.

    The message is one line and says what was expected, what came and what to do. The command line prints it and
    exits with status 2; from Python it is an ordinary ValueError.
    """


def at_least(least: int, **options: int) -> None:
    """Refuses options of the command line that are below the least that makes sense.

    Raises:
        UserError: naming the option as it is typed; one with a point in it is given as `**{"learner.seed": 0}`.
    """
    for name, value in options.items():
        if value < least:
            raise UserError(f"--{name}: expected {least} or more, got {value}")
