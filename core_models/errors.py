"""The one exception that means: the user can mend this."""


class UserError(ValueError):
    """A mistake in what the user gave.

    The message is one line and says what was expected, what came and what to do. The command line prints it and
    exits with status 2; from Python it is an ordinary ValueError.
    """
