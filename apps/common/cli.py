"""The command line of every runner: functions are verbs, their signatures the options.

A runner maps verbs to functions; parameters with types and docstrings become options, dataclass parameters become
groups of options (`--training.epochs`), and a parameter typed by a base class takes the name of a subclass and its
settings (`--method M2 --method.epochs 3`). Every verb has `--config FILE_OR_PRESET`, under what is given beside it,
and `--print_config`. Option names may be written with hyphens; a bool option needs no value (`--resume`).

Example:
    >>> def train(labels: int = 100) -> None:
    ...     '''Trains a method.'''
    ...     print(labels)
    >>> run_cli({"train": train}, prog="genapps demo", argv=["train", "--labels", "5"])
    5
    0
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from core_models.errors import UserError, suggestion

from .provenance import command_line, configuration, invocation

__all__ = ["Verb", "Verbs", "command_line", "configuration", "run_cli"]


@dataclass(frozen=True)
class Verb:
    """A verb whose module is imported only when it is called, so that help comes at once."""

    target: str
    """"package.module:function"."""
    summary: str
    """What it does, in one line."""

    def load(self) -> Callable[..., int | None]:
        """Imports the module and returns the function."""
        module, _, name = self.target.partition(":")
        function: Callable[..., int | None] = getattr(importlib.import_module(module), name)
        return function


Runnable = Callable[..., int | None] | Verb


@dataclass(frozen=True)
class Verbs:
    """Verbs under a word of their own: `genapps imitation demos record`."""

    verbs: Mapping[str, Runnable | Verbs]
    summary: str
    """What they are about, in one line."""


def run_cli(
    verbs: Mapping[str, Runnable | Verbs] | Runnable,
    *,
    prog: str,
    description: str = "",
    argv: Sequence[str] | None = None,
) -> int:
    """Parses the arguments, runs the verb and returns the exit status.

    A user's mistake (`UserError`, or arguments that don't fit) is one line on stderr and status 2; an interruption is
    a line and status 130; a reader that closed the pipe is no error. Any other exception passes: it is a bug.

    Args:
        verbs: functions, or further verbs, by the verb that calls them, or one function that needs no verb. What a
            function returns is the exit status, None being 0. None of them has a parameter called `config`.
        prog: the words before the verb: "genapps semi-supervised".
        description: what the runner does, shown above its verbs.
        argv: the arguments; those of this process where None.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        status = _run(verbs, prog, description, arguments)
        sys.stdout.flush()
        return status
    except UserError as error:
        return fail(str(error))
    except KeyboardInterrupt as interrupt:
        return fail(str(interrupt) or "interrupted", status=130)
    except BrokenPipeError:
        # what Python would still flush at exit goes nowhere instead of into the closed pipe
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def fail(message: str, *, status: int = 2) -> int:
    """Prints one line on stderr and returns the exit status."""
    print("genapps: error: " + re.sub(r"\s*\n\s*", " ", message.strip()), file=sys.stderr)
    return status


def _run(verbs: Mapping[str, Runnable | Verbs] | Runnable, prog: str, description: str, arguments: list[str]) -> int:
    if not isinstance(verbs, Mapping):
        return _call(verbs, prog, description, arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview(verbs, prog, description))
        return 0
    name, *rest = arguments
    if name not in verbs:
        raise UserError(f"expected a verb of {prog} ({', '.join(verbs)}), got {name!r}{suggestion(name, verbs)}")
    verb = verbs[name]
    if isinstance(verb, Verbs):
        return _run(verb.verbs, f"{prog} {name}", verb.summary, rest)
    return _call(verb, f"{prog} {name}", "", rest)


def _overview(verbs: Mapping[str, Runnable | Verbs], prog: str, description: str) -> str:
    lines = [f"usage: {prog} VERB [options]", ""]
    if description:
        lines += [description, ""]
    width = max(map(len, verbs))
    lines += [f"  {name:<{width}}  {_summary(verb)}" for name, verb in verbs.items()]
    return "\n".join([*lines, "", f"{prog} VERB --help lists a verb's options."])


def _summary(verb: Runnable | Verbs) -> str:
    return verb.summary if isinstance(verb, Verb | Verbs) else (inspect.getdoc(verb) or "").partition("\n")[0]


def _call(verb: Runnable, prog: str, description: str, arguments: list[str]) -> int:
    from .cli_parser import Parser  # jsonargparse is slow to import, and not needed to list the verbs

    function = verb.load() if isinstance(verb, Verb) else verb
    summary = (inspect.getdoc(function) or "").partition("\n\n")[0]
    parser = Parser(function, prog=prog, description=description or summary)
    try:
        values, resolved = parser.read(arguments)
    except SystemExit as done:  # --help and --print_config print and leave
        return int(done.code or 0)
    with invocation(prog, arguments, resolved):
        return int(function(**values) or 0)
