"""The parser behind `cli.py`: the signature of one function as options, on jsonargparse."""

from __future__ import annotations

import argparse
import importlib
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import yaml
from jsonargparse import ActionConfigFile, ArgumentParser, Namespace, set_parsing_settings

from core_models.errors import UserError

from .cli_errors import one_line
from .importing import working_folder_importable
from .presets import find_config

set_parsing_settings(
    docstring_parse_attribute_docstrings=True,
    # a value typed Any stays what it is: no class is built from a configuration where none is asked for
    instantiate_subclass_spec_in_any=False,
    # any list, even one that adds nothing, makes jsonargparse refuse the dangerous paths it knows: os, pickle, ...
    import_path_denylist=[],
)


class Parser:
    """Reads the arguments of one function."""

    def __init__(self, function: Callable[..., Any], *, prog: str, description: str) -> None:
        """Makes the options of a function's parameters."""
        self._function = function
        self._parser = ArgumentParser(prog=prog, description=description, exit_on_error=False, allow_abbrev=False)
        self._parser.add_argument(
            "--config", action=_Preset, help="A YAML file, or the name of a preset, with values for the options below."
        )
        self._parser.add_function_arguments(
            function, as_group=False, as_positional=False, fail_untyped=True, sub_configs=False
        )

    def read(self, arguments: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns the values to call the function with, and the same as plain values to keep in a file.

        Raises:
            UserError: on one line, when the arguments don't fit.
        """
        working_folder_importable()  # a class may be the user's own
        try:
            parsed = self._parser.parse_args(self._normalise(arguments))
            self._refuse_leftovers(parsed)
            self._refuse_dropped(parsed)
            parsed.pop("config", None)
            resolved = yaml.safe_load(self._parser.dump(parsed, skip_unset=False)) or {}
            return dict(vars(self._parser.instantiate(parsed))), resolved
        except UserError:
            raise
        except argparse.ArgumentError as error:
            raise self._explained(error, arguments) from error

    def _explained(self, error: argparse.ArgumentError, arguments: Sequence[str]) -> UserError:
        cause: BaseException | None = error
        while cause is not None:  # a class that refused its settings, or a preset that isn't there, said it better
            if isinstance(cause, UserError):
                return cause
            cause = cause.__cause__ or cause.__context__
        text = one_line(str(error), self._options(), settings_of, self._classes)
        # what comes from a file is checked together with the rest, when its name is forgotten
        unknown, configs = re.match(r"unknown key '([^']*)'", text), getattr(self._parser, "configs", [])
        if unknown and configs and not any(unknown[1] in argument for argument in arguments):
            text = f"in --config {' or '.join(configs)}: {text}"
        return UserError(text)

    def _options(self) -> list[str]:
        return [option for action in self._parser._actions for option in action.option_strings if option[:2] == "--"]

    def _normalise(self, arguments: Sequence[str]) -> list[str]:
        """Lets options be written with hyphens, and options that are true or false without a value."""
        actions = {option: action for action in self._parser._actions for option in action.option_strings}
        normal = []
        for argument, following in zip(arguments, [*arguments, "--"][1:], strict=True):
            option, equals, value = argument.partition("=")
            if option.startswith("--") and len(option) > 2:
                option = "--" + option[2:].replace("-", "_")
                if not equals and following.startswith("--"):
                    nested = option not in actions and option.split(".")[0] in actions and "." in option
                    if nested or getattr(actions.get(option), "_typehint", None) is bool:
                        equals, value = "=", "true"
                argument = option + equals + value
            normal.append(argument)
        return normal

    def _refuse_leftovers(self, parsed: Namespace) -> None:
        """Refuses a class chosen over that of a configuration: settings of the first would linger in the second."""
        for key, (first, source) in getattr(self._parser, "chosen", {}).items():
            now = _classes_in(parsed).get(key)
            if now is not None and now != first:
                raise _two_classes(key, first, f"--config {source}", now)

    def _refuse_dropped(self, parsed: Namespace) -> None:
        for config in getattr(self._parser, "configs", []):
            given = yaml.safe_load(find_config(config).read_text(encoding="utf-8"))
            for key in _dropped(given, parsed):
                raise argparse.ArgumentError(None, f"in --config {config}: Option '{key}' is not accepted")

    def _classes(self, key: str) -> list[str]:
        """Returns the names of the classes that an option takes; none when it takes no class."""
        hint = get_type_hints(self._function).get(key)
        kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        if get_origin(hint) is Callable:  # what a class makes when the rest of its arguments is given later
            kinds = get_args(hint)[-1:]
        return sorted({c.__name__ for kind in kinds if inspect.isclass(kind) for c in _concrete(kind)} - {"NoneType"})


class _Preset(ActionConfigFile):
    """`--config`: a file or the name of a preset."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        """Merges the file's values into those read so far."""
        path = find_config(str(values))
        before = _classes_in(cfg)
        try:
            super().__call__(parser, cfg, str(path), option_string)
        except (TypeError, KeyError, ValueError, argparse.ArgumentError) as error:
            text = re.sub(r'^Parser key "config":\s*', "", str(error.args[-1]) if error.args else str(error))
            raise argparse.ArgumentError(None, f"in --config {values}: {text}") from error
        parser.configs = [*getattr(parser, "configs", []), str(values)]
        parser.chosen = {key: (name, str(values)) for key, name in _classes_in(cfg).items()}
        defaults = _classes_in(parser.get_defaults(skip_validation=True))
        for key, name in before.items():
            if parser.chosen[key][0] != name != defaults.get(key):
                raise _two_classes(key, name, "the command line", parser.chosen[key][0])


def _dropped(given: Mapping[Any, Any], read: Any) -> Iterator[str]:
    """Yields the keys of a file that reading it left out: jsonargparse drops an unknown one that holds no value."""
    settings = read.get("init_args") or {}  # of a class; its name may stand beside them
    for key, value in given.items():
        if key == "init_args" and "class_path" in read:
            found = settings
        elif key in read or key in settings:
            found = read[key] if key in read else settings[key]
        else:
            yield str(key)
            continue
        if isinstance(value, Mapping) and isinstance(found, Namespace):
            yield from (f"{key}.{inner}" for inner in _dropped(value, found))


def _two_classes(key: str, first: str, source: str, second: str) -> UserError:
    return UserError(
        f"--{key}: expected {_last(first)}, which {source} chose, got {_last(second)}: settings of one class don't"
        " carry over to another; choose the class once"
    )


def _classes_in(namespace: Namespace) -> dict[str, str]:
    """Returns the import path of the class chosen for each option that has one."""
    found = {}
    for key, value in vars(namespace).items():
        if isinstance(value, Namespace) and isinstance(value.get("class_path"), str):
            found[key] = _home(value["class_path"])
    return found


def _home(path: str) -> str:
    """Returns the import path of a class by the module that defines it; packages export some by shorter ones."""
    module, _, name = path.rpartition(".")
    try:
        kind = getattr(importlib.import_module(module), name)
        return f"{kind.__module__}.{kind.__qualname__}"
    except (ImportError, AttributeError, ValueError):
        return path


def settings_of(path: str) -> list[str]:
    """Returns the settings that a class, named by its import path, takes; none where it can't be found.

    Those that it hands on to its bases are among them. Where a class has settings by name alone, what it takes by
    position besides comes from the application, and is none.
    """
    module, _, name = path.rpartition(".")
    try:
        kind = getattr(importlib.import_module(module), name)
        makers = [vars(base)["__init__"] for base in kind.__mro__ if "__init__" in vars(base)]
        taken = [list(inspect.signature(maker).parameters.values()) for maker in makers]
    except (ImportError, AttributeError, ValueError, TypeError):
        return []
    found: dict[str, None] = {}
    for parameters in taken:
        alone = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
        either = [p.name for p in parameters[1:] if p.kind is p.POSITIONAL_OR_KEYWORD]
        found |= dict.fromkeys(name for name in alone or either if name[0] != "_")
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return list(found)


def _concrete(kind: type) -> list[type]:
    found = [] if inspect.isabstract(kind) or kind.__name__.startswith("_") else [kind]
    below: list[type] = kind.__subclasses__()
    for sub in below:
        found += _concrete(sub)
    return found


def _last(path: str) -> str:
    return path.rsplit(".", 1)[-1]
