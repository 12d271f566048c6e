"""Checks the fields of a configuration that came as plain values, from YAML, JSON or the command line."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import is_dataclass
from typing import Any, Literal, Union, get_args, get_origin

from .errors import UserError, suggestion

WORDS = {types.NoneType: "null", int: "a whole number", float: "a number", str: "a string", bool: "true or false"}


def checked(owner: Callable[..., Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments for a dataclass, or any class or function: lists as tuples, whole numbers as floats.

    Args:
        owner: what will be called with them.
        values: the arguments by name, as YAML or JSON has them.

    Raises:
        UserError: when one is unknown, missing or of another type than its annotation.

    Example:
        >>> def model(hidden: tuple[int, ...], scale: float = 1.0) -> None: ...
        >>> checked(model, {"hidden": [3, 4], "scale": 2})
        {'hidden': (3, 4), 'scale': 2.0}
    """
    name = owner.__name__
    signature = inspect.signature(owner).parameters
    fields = {key: p for key, p in signature.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    unknown = sorted(set(values) - set(fields))
    if unknown and not any(p.kind == p.VAR_KEYWORD for p in signature.values()):
        hint = suggestion(unknown[0], fields) or f"; it has {', '.join(fields) or 'none'}"
        raise UserError(f"{name} has no field {unknown[0]!r}{hint}")
    missing = [key for key, p in fields.items() if p.default is p.empty and key not in values]
    if missing:
        raise UserError(f"{name} needs a value for {missing[0]!r}, got none: give it")
    # a dataclass's own hints: each is read in the module of the class that declares it
    hints = typing.get_type_hints(owner.__init__ if inspect.isclass(owner) and not is_dataclass(owner) else owner)
    return {key: _fitted(hints.get(key, Any), value, f"{name}.{key}") for key, value in values.items()}


def _fitted(hint: Any, value: Any, where: str) -> Any:
    """Returns a value as its annotation has it; annotations other than the plain ones are not checked."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        for part in parts:
            with suppress(UserError):
                return _fitted(part, value, where)
        raise _wrong(hint, value, where)
    if origin is Literal:
        if value in parts:
            return value
        raise _wrong(hint, value, where)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise _wrong(hint, value, where)
        if len(parts) == 2 and parts[1] is Ellipsis:
            return tuple(_fitted(parts[0], item, where) for item in value)
        if len(value) != len(parts):
            raise _wrong(hint, value, where)
        return tuple(_fitted(part, item, where) for part, item in zip(parts, value, strict=True))
    if is_dataclass(hint) and isinstance(value, Mapping):
        assert inspect.isclass(hint)
        return hint(**checked(hint, value))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    # a bool is an int to Python, and never what is meant
    simple = hint in (int, float, str, bool, types.NoneType)
    if simple and (not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool)):
        raise _wrong(hint, value, where)
    # JSON and YAML know lists only; the configurations are hashable
    return tuple(value) if isinstance(value, list) and not simple and origin is not list and hint is not list else value


def _wrong(hint: Any, value: Any, where: str) -> UserError:
    if get_origin(hint) is Literal:
        words = "one of " + ", ".join(map(str, get_args(hint)))
    elif inspect.isclass(hint) and get_origin(hint) is None:
        words = WORDS.get(hint, hint.__name__)
    else:
        words = str(hint).replace("typing.", "")
    return UserError(f"{where}: expected {words}, got {value!r}")
