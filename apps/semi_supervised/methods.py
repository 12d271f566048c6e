"""The methods of the app: the row that each has in the published table, its class and its presets."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from inspect import isabstract
from typing import Any

import yaml

from apps.common.presets import find_config, preset_names
from core_models.errors import UserError, suggestion

from .estimator import SemiSupervisedClassifier


@dataclass(frozen=True)
class Method:
    """A method that the benchmark runs."""

    row: str
    """Its name in the tables."""
    preset: str
    """Its preset below `semi_supervised/`; `<preset>_<labels>` is preferred where there is one."""
    transductive: bool = False
    """Whether the unlabelled training rows shape its decisions directly; none of them sees a test row."""
    class_path: str | None = None
    """Of a method of the user's own, which has no preset."""


METHODS = {
    method.row: method
    for method in (
        Method("NN", "nn"),
        Method("CNN", "cnn"),
        Method("SVM", "svm"),
        Method("TSVM", "tsvm", transductive=True),
        Method("CAE", "cae"),
        Method("M1+SVM", "m1_svm"),
        Method("M1+TSVM", "m1_tsvm", transductive=True),
        Method("M2", "m2"),
        Method("M1+M2", "m1_m2"),
        Method("VAT", "vat"),
        Method("Ladder", "ladder"),
        Method("Improved GAN", "improved_gan"),
    )
}


def find_method(row: str) -> Method:
    """Returns a method by the name that it has in the tables, or the user's own by its class path.

    Its row is then named after the class.

    Raises:
        UserError: when there is none of that name, or the class is no method or has the name of a row.
    """
    if row not in METHODS and "." in row:
        own = own_class(row)
        name = own.__name__
        if own.__module__.startswith(f"{__package__}."):
            path = f"{own.__module__}.{own.__qualname__}"
            there = [m.row for m in METHODS.values() if specification(m, 0, "")["class_path"] == path]
            raise UserError(f"expected {row} by its row, {' or '.join(there or METHODS)}, got its class path")
        if name in METHODS:
            raise UserError(f"{row}: expected a class of another name, {name} is a row of the table already: rename it")
        return Method(name, name, class_path=row)
    if row not in METHODS:
        known = ", ".join(METHODS)
        raise UserError(f"expected a method among {known}, or a class path, got {row!r}{suggestion(row, METHODS)}")
    return METHODS[row]


def own_class(class_path: str) -> type[SemiSupervisedClassifier]:
    """Imports a method of the user's own, which they name by its class path: "package.module.Class".

    Raises:
        UserError: when there is no such class, or it is no `SemiSupervisedClassifier`.
    """
    if "." not in class_path:
        raise UserError(
            f"expected the class path of a method of your own, such as my_methods.Mine, got {class_path!r}: the "
            "methods that come with genapps need none"
        )
    module, _, name = class_path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, TypeError, ValueError) as error:  # the last two: no module, or a dot before it
        raise UserError(f"expected a class path that can be imported, got {class_path!r} ({error})") from error
    if not (isinstance(found, type) and issubclass(found, SemiSupervisedClassifier)) or isabstract(found):
        raise UserError(f"expected a subclass of SemiSupervisedClassifier with _fit and _log_proba, got {class_path!r}")
    return found


def specification(method: Method, labels: int, data: str, *, preset: str | None = None) -> dict[str, Any]:
    """Reads the preset of a method for a data set and a number of labels; of the user's own, there is none.

    The first that exists of `<preset>_<data>_<labels>`, `<preset>_<data>`, `<preset>_<labels>` and `<preset>`; with
    `preset`, that one takes the place of the method's own.

    Returns:
        `class_path` and `init_args`.
    """
    if method.class_path is not None:
        return {"class_path": method.class_path, "init_args": {}}
    known = set(preset_names())
    base = f"semi_supervised/{preset or method.preset}"
    own = data.replace("-", "_")
    candidates = (f"{base}_{own}_{labels}", f"{base}_{own}", f"{base}_{labels}", base)
    name = next(name for name in candidates if name in known or name == base)
    content = yaml.safe_load(find_config(name).read_text())
    return dict(content["method"])


def build(specification: dict[str, Any], **overrides: Any) -> SemiSupervisedClassifier:
    """Builds an estimator from its class path and arguments.

    Raises:
        UserError: when an override is no argument of the class.
    """
    module, _, name = specification["class_path"].rpartition(".")
    cls = getattr(importlib.import_module(module), name)
    arguments = {**(specification.get("init_args") or {}), **overrides}
    known = cls._get_param_names()
    for key in arguments:
        if key not in known:
            raise UserError(f"{name} has no argument {key!r}{suggestion(key, known)}")
    return cls(**{key: tuple(v) if isinstance(v, list) else v for key, v in arguments.items()})
