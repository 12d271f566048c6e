"""jsonargparse's messages, several lines each, turned into one line that names the option, the rule and the value."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from core_models.errors import suggestion

Lookup = Callable[[str], list[str]]


def one_line(
    message: str,
    options: Iterable[str] = (),
    settings: Lookup = lambda _: [],
    classes: Lookup = lambda _: [],
) -> str:
    """Returns a parser's message as one line.

    Args:
        message: as jsonargparse wrote it.
        options: every option of the parser ("--labels"), from which a close one is suggested.
        settings: gives the settings that a class, named by its import path, takes.
        classes: gives the names of the classes that an option takes.
    """
    keys, rest = [], message.strip()
    owner = source = ""
    if found := re.match(r"in --config \S+: ", rest):
        source, rest = found[0], rest[found.end() :]
    while True:  # unwrap the nested "Parser key", outermost first
        if found := re.match(r'Parser key "([^"]*)":\s*', rest):
            keys.append(found[1])
        elif found := re.match(r"Problem with given class_path '([^']*)':\s*", rest):
            owner = found[1]
        elif found := re.match(r"Type \S*Callable\[.*\] expects a function or a callable class:\s*", rest):
            # a class that is called with more arguments later
            given = re.search(r"class_path='([^']*)'", rest)
            owner = given[1] if given else owner
        elif found := re.match(r"Does not validate.*?Errors:\s*- (?=Problem with given class_path)", rest, re.DOTALL):
            # of "a class or null" only the first can have been meant; the other errors follow as a list
            rest = re.split(r"\n\s*- ", rest[found.end() :])[0]
            continue
        else:
            break
        rest = rest[found.end() :]
    where = "--" + ".".join(keys) if keys else ""
    text = _reason(rest, where, owner, options, settings, classes)
    return re.sub(r"\s+", " ", source + text).strip()


def _reason(rest: str, where: str, owner: str, options: Iterable[str], settings: Lookup, classes: Lookup) -> str:
    name = owner.rsplit(".", 1)[-1]
    of = f" of {name}" if name else ""
    if found := re.match(r"Option '([^']*)' is not accepted", rest):
        if not where:
            return _unknown_key(found[1], options)
        known = settings(owner)
        hint = suggestion(found[1], known) or (f"; it takes {', '.join(known)}" if known else "")
        return f"{where}: {name or 'it'} has no setting {found[1]!r}{hint}"
    if found := re.match(r"unrecognized arguments: (.*)", rest, re.DOTALL):
        words = found[1].split()
        if words[0].startswith("-"):
            option = words[0].split("=")[0]
            return f"unknown option {option}{suggestion(option, options)}"
        return f"expected options that begin with --, got {words[0]!r}"
    if found := re.match(r"Group '([^']*)' does not accept option '([^']*)'", rest):
        return _unknown_key(f"{found[1]}.{found[2]}", options)
    if found := re.match(r"argument (\S+): expected (?:one|at least one) argument", rest):
        return f"{found[1].split('/')[0]}: expected a value, got none"
    if found := re.match(r"Importing '([^']*)' is not allowed", rest):
        return f"{where}: importing {found[1]!r} from a configuration is not allowed"
    if found := re.match(r"the following arguments are required: (.*)", rest, re.DOTALL):
        return "missing " + ", ".join(f"--{key.strip()}" for key in found[1].split(","))
    if found := re.search(
        r"Expected an instantiatable class, but (\S+) is abstract|Expected a dot import path string: (\S+)"
        r"|Import path (\S+) does not correspond to a subclass|Expected a path but (\S+) either not",
        rest,
    ):
        given = next(group for group in found.groups() if group)
        known = classes(where.removeprefix("--"))
        kinds = f"one of {', '.join(known)}, or the import path of a class" if known else "the import path of a class"
        return f"{where}: expected {kinds} of that kind, got {given!r}{suggestion(given, known)}"
    if found := re.match(r"Does not validate against any.*?Subtypes: [\[(](.*?)[\])]\n", rest, re.DOTALL):
        value = re.search(r"Given value: (.*)", rest, re.DOTALL)
        kinds = " or ".join(_kind(kind) for kind in _split(found[1]))
        return f"{where}{of}: expected {kinds}, got {_given(value[1])!r}" if value else f"{where}{of}: expected {kinds}"
    if found := re.match(r"Expected an? (.*?)\. Got value: (.*)", rest, re.DOTALL):
        kind, given = _kind(found[1]), _given(found[2])
        return f"{where}{of}: expected {kind}, got {given!r}{_in_levels(where, kind, given)}"
    if found := re.match(r"Problems parsing config: (.*)", rest, re.DOTALL):
        where = re.sub(r'\s*in "<unicode string>", line', ", line", found[1])
        return f"the configuration is not valid YAML: {where}"
    if found := re.match(r"Unexpected config:\s*(.*)", rest, re.DOTALL):
        return f"a configuration must be a mapping of settings to values, got {found[1].strip()!r}"
    return f"{where}{of}: {rest}" if where else rest


def _given(text: str) -> str:
    """Returns a value that was given; of a setting of a class, the whole class follows it."""
    return text.split(". Got value: Namespace(")[0].strip()


def _in_levels(where: str, kind: str, value: str) -> str:
    """Returns what a budget of whole levels is in, where a share of the range came, as other tools take it."""
    share = re.fullmatch(r"(\d+)\s*/\s*255|(0?\.\d+)", value)
    if share is None or not re.match(r"--(.*\.)?eps", where):
        return ""
    levels = share[1] or str(max(1, round(255 * float(share[2]))))
    return f": budgets are in 8-bit levels, write {f'[{levels}]' if kind == 'list' else levels}"


def _unknown_key(key: str, options: Iterable[str]) -> str:
    return f"unknown key {key!r}{suggestion(key, [option.removeprefix('--') for option in options])}"


def _split(kinds: str) -> list[str]:
    """Splits at the commas outside brackets."""
    return [kind.strip() for kind in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", kinds)]


def _kind(text: str) -> str:
    """Returns a type in words: "<class 'int'>" is "int", NoneType is "null", a Literal its choices."""
    text = re.sub(r"<class '([^']*)'>", r"\1", text.strip())
    if found := re.fullmatch(r"(?:typing\.)?Literal\[(.*)\]", text):
        return "one of " + found[1].replace("'", "")
    text = re.sub(r"(?:typing\.|collections\.abc\.)?Sequence\b", "list", text)
    return "null" if text == "NoneType" else re.sub(r"\b(?:typing|collections\.abc|pathlib)\.", "", text)
