"""Models to and from a folder: `model.safetensors` beside `model.json`, no pickle."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, overload

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from . import zoo
from .base import Classifier, GenerativeModel
from .errors import UserError
from .files import as_plain, atomic, hash_of, read_json, write_json
from .registry import build, capability_of, describe

Model = TypeVar("Model", bound=nn.Module)

WEIGHTS, DESCRIPTION, CARD = "model.safetensors", "model.json", "card.md"
DESCRIBED = "description"
"""Where the weights' file says with which description it was saved."""


def save_tensors(tensors: dict[str, Tensor], path: Path | str, metadata: dict[str, str] | None = None) -> None:
    """Writes tensors as one safetensors file, whole or not at all; what shares memory is written twice."""
    plain, seen = dict[str, Tensor](), set[int]()
    for name, tensor in tensors.items():
        own = tensor.detach().cpu().contiguous()
        place = own.untyped_storage().data_ptr()
        plain[name] = own.clone() if place in seen else own
        seen.add(place)
    with atomic(path) as temporary:
        try:
            save_file(plain, temporary, metadata)
        except SafetensorError as error:  # it wraps the operating system's errors, a full disk among them
            raise OSError(str(error)) from error


def load_tensors(path: Path | str) -> dict[str, Tensor]:
    """Reads a safetensors file.

    Raises:
        UserError: when the file is missing, cut short or altered.
    """
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise UserError(f"expected weights at {path}, found none") from error
    except SafetensorError as error:
        raise UserError(f"{path} is no whole safetensors file ({error}): it was cut short or altered") from error


def floating_dtype(tensors: Mapping[str, Tensor]) -> torch.dtype:
    """Returns the dtype of the first floating-point tensor, torch's default where there is none.

    Saved tensors come in any order, and a batch normalisation counts its steps among them in whole numbers.
    """
    return next((t.dtype for t in tensors.values() if t.is_floating_point()), torch.get_default_dtype())


def save(model: nn.Module, folder: Path | str) -> None:
    """Saves the weights and configuration of a `GenerativeModel` or a `Classifier` into a folder.

    Raises:
        UserError: when `load` would not take it: it is neither kind of model, or nothing says how to build it again.
    """
    folder = Path(folder)
    if not isinstance(model, GenerativeModel | Classifier):
        raise UserError(
            f"{type(model).__name__} can't be saved: expected a subclass of core_models.base.GenerativeModel or "
            "core_models.base.Classifier: make it one"
        )
    description = describe(model)
    # a kill between the two files must not leave these weights to what the folder held before
    save_tensors(model.state_dict(), folder / WEIGHTS, {DESCRIBED: _described(as_plain(description))})
    write_json(folder / DESCRIPTION, description)


@overload
def load(folder: Path | str, *, keep_double: bool = False) -> Any: ...
@overload
def load(folder: Path | str, capability: type[Model], *, keep_double: bool = False) -> Model: ...


def load(folder: Path | str, capability: type[nn.Module] | None = None, *, keep_double: bool = False) -> Any:
    """Loads a model saved by `save` or trained into a run folder, or one of the zoo, in evaluation mode on the CPU.

    Args:
        folder: the folder, or `zoo:NAME`.
        capability: what it must be, `GenerativeModel` or `Classifier`; either when left out.
        keep_double: whether weights that were saved in float64 stay so; all others are float32.

    The class is found by the class path in `model.json`, which must name such a model: load folders of others as you
    would import their code.

    Raises:
        UserError: when the folder holds no model or one of another kind, or weights that don't fit the configuration,
            or that were saved with another description, or that are not those of which the card beside them speaks.
    """
    folder = zoo.located(folder)
    if not (folder / DESCRIPTION).is_file():
        raise UserError(f"expected a model in {folder} ({DESCRIPTION} and {WEIGHTS}), found none: give a run folder")
    description = read_json(folder / DESCRIPTION)
    if not isinstance(description, dict) or not isinstance(description.get("class_path"), str):
        raise UserError(f"{folder / DESCRIPTION} names no class_path: it is not a model's description")
    config = description.get("config")
    if not isinstance(config, dict):
        raise UserError(f"{folder / DESCRIPTION}: expected a mapping of settings as config, got {config!r}")
    path = description["class_path"]
    model = build(path, config, capability_of(path) if capability is None else capability)
    state = load_tensors(folder / WEIGHTS)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if expected != found:
        differing = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        raise UserError(
            f"the weights in {folder / WEIGHTS} are of another model than {description['class_path']}: "
            f"{differing[0]} was expected with shape {expected.get(differing[0])}, got {found.get(differing[0])}"
        )
    _check_described(folder, description)
    _check_card(folder)
    if keep_double and floating_dtype(state) == torch.float64:
        model.double()
    model.load_state_dict(state)
    return model.eval()


def fingerprint(model: nn.Module, begin: str = "") -> str:
    """Returns the SHA-256 of a model's weights: names, types, shapes and bytes, on whatever device they lie.

    Args:
        model: the model.
        begin: what is hashed before them, such as the name of the model's class.
    """
    digest = hashlib.sha256(begin.encode())
    for name, tensor in sorted(model.state_dict().items()):
        plain = tensor.detach().cpu().contiguous()
        digest.update(json.dumps([name, str(plain.dtype), list(plain.shape)]).encode())
        digest.update(plain.flatten().view(torch.uint8).numpy().tobytes() if plain.numel() else b"")
    return digest.hexdigest()


def _check_described(folder: Path, description: dict[str, Any]) -> None:
    """Refuses weights that were saved with another description, where they say with which."""
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        told = (file.metadata() or {}).get(DESCRIBED)
    if told not in (None, _described(description)):
        raise UserError(
            f"expected weights and {DESCRIPTION} of one model in {folder}, got weights that were saved with another "
            f"{DESCRIPTION}: its config was altered, or saving was cut short: save the model again"
        )


def _described(description: dict[str, Any]) -> str:
    """Returns the hash of a description's config: its class may come to stand in another module."""
    return hash_of(description["config"])


def _check_card(folder: Path) -> None:
    """Refuses weights that a card beside them does not speak of: it names their SHA-256."""
    card = folder / CARD
    told = re.search(r"\bsha256 ([0-9a-f]{64})\b", card.read_text(encoding="utf-8")) if card.is_file() else None
    if told is None:
        return
    found = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    if found != told[1]:
        raise UserError(
            f"expected the weights of {card} (sha256 {told[1][:12]}), got others (sha256 {found[:12]}) in "
            f"{folder / WEIGHTS}: they were altered, or the card is of another model"
        )
