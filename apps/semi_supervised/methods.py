"""The methods of the app: the row that each has in the published table, its class and its presets."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import yaml

from apps.common.presets import find_config, preset_names
from core_models.errors import UserError

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
    """Returns a method by the name that it has in the tables.

    Raises:
        UserError: when there is none of that name.
    """
    if row not in METHODS:
        near = get_close_matches(row, METHODS, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"expected a method among {', '.join(METHODS)}, got {row!r}{hint}")
    return METHODS[row]


def specification(method: Method, labels: int, data: str, *, preset: str | None = None) -> dict[str, Any]:
    """Reads the preset of a method for a data set and a number of labels.

    The first that exists of `<preset>_<data>_<labels>`, `<preset>_<data>`, `<preset>_<labels>` and `<preset>`; with
    `preset`, that one takes the place of the method's own.

    Returns:
        `class_path` and `init_args`.
    """
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
            near = get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UserError(f"{name} has no argument {key!r}{hint}")
    return cls(**{key: tuple(v) if isinstance(v, list) else v for key, v in arguments.items()})
