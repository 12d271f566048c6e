"""Commands of single cells told as few commands of grids."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from functools import cache
from typing import Any

import yaml

AXES = ("seeds", "m", "labels", "eps", "trajectories", "methods", "rows", "environments")
"""Options whose lists span a grid: a command with several of them makes a cell for every combination.

Attacks don't: of those that one command names a worst case is made. Nor do budgets of a table beside the main one,
`--tables '[sanity]'`, which takes the first alone.
"""

Words = tuple[str, ...]


def merged(commands: Iterable[str]) -> list[str]:
    """Returns commands that make together the same cells: those that differ in one axis of a grid become one.

    This goes on until no two of them can. Numbers ascend along an axis; names keep their order. Draws that follow one
    another, `--draws 1 --first_draw 3` and 4, become one command, too (a GPU may train them as one stack). Words are
    quoted for any shell; a list that isn't one of numbers and names stays as it is.

    Args:
        commands: each with its lists as a command line takes them, --m '[10, 25]'.
    """
    found = list(dict.fromkeys(tuple(shlex.split(command)) for command in commands))
    while True:
        before = len(found)
        found = _draws(found)
        for axis in AXES:
            found = _along(f"--{axis}", found)
        if len(found) == before:
            return [shlex.join(words) for words in found]


def _along(option: str, commands: list[Words]) -> list[Words]:
    """Merges commands that are alike but for the list that an option takes."""
    lists: dict[Words, list[Any]] = {}
    for words in commands:
        given = _list(words, option)
        if given:
            known = lists.setdefault(_with(words, option, ""), [])
            known += [value for value in given if value not in known]
        else:
            lists[words] = []
    for values in lists.values():
        if all(isinstance(value, (int, float)) for value in values):
            values.sort()
    told = {words: json.dumps(values, ensure_ascii=False) for words, values in lists.items()}
    return [_with(words, option, told[words]) if values else words for words, values in lists.items()]


def _list(words: Words, option: str) -> list[Any] | None:
    given = _value(words, option)
    return None if given is None or (option == "--eps" and "--tables" in words) else _parsed(given)


@cache  # a table asks for the same few lists hundreds of times, and YAML is slow
def _parsed(given: str) -> list[Any] | None:
    try:
        found = yaml.safe_load(given)
    except yaml.YAMLError:
        return None
    plain = isinstance(found, list) and all(type(value) in (int, float, str) for value in found)
    return found if plain else None


def _draws(commands: list[Words]) -> list[Words]:
    """Merges commands that are alike but for their draws, where these follow one another."""
    runs: dict[Words, list[list[int]]] = {}
    for words in commands:
        n, first = _value(words, "--draws"), _value(words, "--first_draw")
        if n is None or first is None:
            runs[words] = []
        else:
            spans = runs.setdefault(_with(_with(words, "--draws", ""), "--first_draw", ""), [])
            spans.append([int(first), int(first) + int(n)])
    found = []
    for words, spans in runs.items():
        joined: list[list[int]] = []
        for start, end in sorted(spans):
            if joined and start <= joined[-1][1]:
                joined[-1][1] = max(joined[-1][1], end)
            else:
                joined.append([start, end])
        for start, end in joined:
            found.append(_with(_with(words, "--draws", str(end - start)), "--first_draw", str(start)))
        found += [] if joined else [words]
    return found


def _value(words: Words, option: str) -> str | None:
    return words[words.index(option) + 1] if option in words[:-1] else None


def _with(words: Words, option: str, value: str) -> Words:
    at = words.index(option) + 1
    return (*words[:at], value, *words[at + 1 :])
