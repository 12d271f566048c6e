"""The models that configurations and the command line can name, and how any other is reached by its class path."""

from __future__ import annotations

import difflib
import importlib
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any

from .base import GenerativeModel
from .errors import UserError
from .fields import checked


@dataclass(frozen=True)
class Entry:
    """A registered model."""

    name: str
    class_path: str
    summary: str


_ENTRIES: dict[str, Entry] = {}


def register(name: str, class_path: str, summary: str) -> None:
    """Makes a model known by a short name; its module is imported only when it is built."""
    _ENTRIES[name] = Entry(name, class_path, summary)


def entries() -> list[Entry]:
    """Returns the registered models, by name."""
    return [_ENTRIES[name] for name in sorted(_ENTRIES)]


def model_class(name_or_path: str) -> type[GenerativeModel]:
    """Finds a model's class by registered name or by class path 'package.module.Class'.

    Raises:
        UserError: when there is no such name, module or class, or the class is no GenerativeModel.
    """
    entry = _ENTRIES.get(name_or_path)
    path = entry.class_path if entry else name_or_path
    module_name, _, class_name = path.rpartition(".")
    if not module_name:
        near = difflib.get_close_matches(name_or_path, _ENTRIES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        known = ", ".join(sorted(_ENTRIES))
        raise UserError(f"expected a model among {known} or a class path, got {name_or_path!r}{hint}")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"expected a class path that can be imported, got {path!r} ({error})") from error
    if not (isinstance(found, type) and issubclass(found, GenerativeModel)):
        raise UserError(f"expected a subclass of core_models.base.GenerativeModel, got {path!r}")
    return found


def config_class(model: type[GenerativeModel]) -> type | None:
    """Returns the dataclass that a model's constructor takes as `config`, or None when it takes plain arguments."""
    hints = typing.get_type_hints(model.__init__)
    found = hints.get("config")
    return found if isinstance(found, type) and is_dataclass(found) else None


def build(name_or_path: str, config: Mapping[str, Any] | None = None) -> GenerativeModel:
    """Builds a model from its name or class path and the fields of its configuration.

    Raises:
        UserError: when a field is unknown, missing or of the wrong type, or the model refuses a value.
    """
    cls = model_class(name_or_path)
    dataclass_type = config_class(cls)
    if dataclass_type is None:
        return cls(**checked(cls, config or {}))
    return cls(dataclass_type(**checked(dataclass_type, config or {})))


def describe(model: GenerativeModel) -> dict[str, Any]:
    """Returns what `build` needs to make a model of the same shape: its class path and configuration."""
    cls = type(model)
    config = getattr(model, "config", None)
    if is_dataclass(config) and not isinstance(config, type):
        fields = asdict(config)
    elif isinstance(config, Mapping):
        fields = dict(config)
    else:
        raise UserError(
            f"{cls.__name__} can't be saved: it needs an attribute `config`, a dataclass or a mapping of the arguments "
            "of its constructor"
        )
    return {"class_path": f"{cls.__module__}.{cls.__qualname__}", "config": fields}


register("vae", "core_models.latent.VAE", "variational auto-encoder; MLP or convolutional (Kingma and Welling 2014)")
register(
    "conditional-vae",
    "core_models.latent.ConditionalVAE",
    "class-conditional variational auto-encoder, the model behind M2 (Kingma et al. 2014)",
)
