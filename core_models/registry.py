"""The models that configurations and the command line can name, and how any other is reached by its class path.

A name or a path is asked for together with what the model must be: a `GenerativeModel`, or a `Classifier`.
"""

from __future__ import annotations

import importlib
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any, TypeVar, overload

from torch import nn

from .base import Classifier, GenerativeModel
from .errors import UserError, suggestion
from .fields import checked


@dataclass(frozen=True)
class Entry:
    """A registered model."""

    name: str
    class_path: str
    summary: str
    capability: type = GenerativeModel
    """What it is: `GenerativeModel` or `Classifier`."""


Model = TypeVar("Model", bound=nn.Module)

_ENTRIES: dict[str, Entry] = {}


def register(name: str, class_path: str, summary: str, capability: type = GenerativeModel) -> None:
    """Makes a model known by a short name; its module is imported only when it is built."""
    _ENTRIES[name] = Entry(name, class_path, summary, capability)


def entries(capability: type = GenerativeModel) -> list[Entry]:
    """Returns the registered models of a capability, by name."""
    return [_ENTRIES[name] for name in sorted(_ENTRIES) if issubclass(_ENTRIES[name].capability, capability)]


@overload
def model_class(name_or_path: str) -> type[GenerativeModel]: ...
@overload
def model_class(name_or_path: str, capability: type[Model]) -> type[Model]: ...


def model_class(name_or_path: str, capability: type[nn.Module] = GenerativeModel) -> type[nn.Module]:
    """Finds a model's class by registered name or by class path 'package.module.Class'.

    Raises:
        UserError: when there is no such name, module or class, or the class has not the capability.
    """
    path, found = _find(name_or_path, entries(capability))
    if not (isinstance(found, type) and issubclass(found, capability)):
        raise UserError(f"expected a subclass of {capability.__module__}.{capability.__name__}, got {path!r}")
    return found


def capability_of(name_or_path: str) -> type[nn.Module]:
    """Returns `Classifier` or `GenerativeModel`, whichever the model of a name or path is.

    Raises:
        UserError: when there is no such name, module or class, or it is neither.
    """
    path, found = _find(name_or_path, entries(nn.Module))
    for capability in (Classifier, GenerativeModel):
        if isinstance(found, type) and issubclass(found, capability):
            return capability
    raise UserError(
        f"expected a subclass of core_models.base.GenerativeModel or core_models.base.Classifier, got {path!r}"
    )


def _find(name_or_path: str, among: list[Entry]) -> tuple[str, Any]:
    """Returns the class path that is meant and what lies there."""
    known = {entry.name: entry for entry in among}
    entry = known.get(name_or_path)
    path = entry.class_path if entry else name_or_path
    module_name, _, class_name = path.rpartition(".")
    if not module_name:
        hint = suggestion(name_or_path, known)
        raise UserError(f"expected a model among {', '.join(known)} or a class path, got {name_or_path!r}{hint}")
    try:
        return path, getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError, TypeError, ValueError) as error:  # the last two: a path that begins with a dot
        raise UserError(f"expected a class path that can be imported, got {path!r} ({error})") from error


def config_class(model: type[nn.Module]) -> type | None:
    """Returns the dataclass that a model's constructor takes as `config`, or None when it takes plain arguments."""
    hints = typing.get_type_hints(model.__init__)
    found = hints.get("config")
    return found if isinstance(found, type) and is_dataclass(found) else None


@overload
def build(name_or_path: str, config: Mapping[str, Any] | None = None) -> GenerativeModel: ...
@overload
def build(name_or_path: str, config: Mapping[str, Any] | None, capability: type[Model]) -> Model: ...


def build(
    name_or_path: str, config: Mapping[str, Any] | None = None, capability: type[nn.Module] = GenerativeModel
) -> nn.Module:
    """Builds a model from its name or class path and the fields of its configuration.

    Args:
        name_or_path: a registered name, or a class path.
        config: the fields of its configuration; defaults where left out.
        capability: what it must be.

    Raises:
        UserError: when a field is unknown, missing or of the wrong type, or the model refuses a value.
    """
    cls = model_class(name_or_path, capability)
    dataclass_type = config_class(cls)
    if dataclass_type is None:
        return cls(**checked(cls, config or {}))
    return cls(dataclass_type(**checked(dataclass_type, config or {})))


def describe(model: nn.Module) -> dict[str, Any]:
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
register("resnet", "core_models.classifiers.ResNet", "pre-activation residual network (He et al. 2016)", Classifier)
register("vgg", "core_models.classifiers.VGG", "VGG-16 with batch norm (Simonyan and Zisserman 2015)", Classifier)
register("wgan-gp", "core_models.adversarial.WGANGP", "Wasserstein GAN with gradient penalty (Gulrajani et al. 2017)")
register("real-nvp", "core_models.flows.RealNVP", "flow of affine couplings (Dinh et al. 2017)")
register(
    "pixel-cnn", "core_models.autoregressive.PixelCNN", "PixelCNN, masked convolutions (van den Oord et al. 2016a)"
)
register(
    "gated-pixel-cnn",
    "core_models.autoregressive.GatedPixelCNN",
    "gated PixelCNN, without a blind spot (van den Oord et al. 2016b)",
)
register(
    "pixel-cnn-pp",
    "core_models.autoregressive.PixelCNNPlusPlus",
    "PixelCNN++, causal at three resolutions (Salimans et al. 2017)",
)
