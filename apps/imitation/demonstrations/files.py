"""Demonstrations as .npz files: plain arrays, never pickled ones, written whole or not at all.

Arrays: observations, actions, lengths; where there are some, rewards, returns, terminated, final_observations,
episode_lengths and codes. Strings of JSON: environment (id, kwargs, subsample), and where there is one, card. A number:
version. Observations of a Dict space are one array for each key, `observations.<key>`. Files without a version, as
written before there was one, are of version 1.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from core_models.errors import UserError
from core_models.files import atomic

VERSION = 1
REQUIRED = ("observations", "actions", "lengths")
OPTIONAL = ("rewards", "returns", "terminated", "final_observations", "episode_lengths", "codes")
BROKEN = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error, RuntimeError, MemoryError)
"""What a damaged ZIP file may raise."""


def write_npz(path: Path, fields: Mapping[str, Any]) -> None:
    """Writes the fields of demonstrations.

    Raises:
        UserError: when the card or the settings of the environment can't be written as JSON, or the file can't be.
    """
    arrays: dict[str, Any] = {}
    for name in (*REQUIRED, *OPTIONAL):
        value = fields[name]
        if isinstance(value, Mapping):
            arrays |= {f"{name}.{key}": array for key, array in value.items()}
        elif value is not None:
            arrays[name] = value
    environment = {
        "id": fields["environment"],
        "kwargs": fields["environment_kwargs"],
        "subsample": fields["subsample"],
    }
    arrays["environment"] = np.array(_json("environment_kwargs", environment))
    if fields["card"]:
        arrays["card"] = np.array(_json("card", fields["card"]))
    arrays["version"] = np.array(VERSION)
    if path.suffix != ".npz":
        raise UserError(f"expected a file name that ends in .npz, got {path}")
    with atomic(path) as temporary:
        np.savez_compressed(temporary, **arrays)


def read_npz(path: Path) -> dict[str, Any]:
    """Reads the fields of demonstrations, not yet checked against one another.

    Raises:
        UserError: when the file is missing, damaged, of a newer version, lacks an array or holds pickled ones.
    """
    arrays = _arrays(path)
    version = arrays.get("version", np.array(VERSION))
    if version.ndim or version.dtype.kind not in "iu":
        raise UserError(f"{path}: expected one whole number in version, got {version!r}: save it again")
    if version > VERSION:
        raise UserError(f"{path}: expected demonstrations of version {VERSION}, got {version}: update genapps")
    missing = [name for name in (*REQUIRED, "environment") if not _holds(arrays, name)]
    if missing:
        found = ", ".join(sorted(arrays)) or "none"
        raise UserError(f"{path}: expected demonstrations, {', '.join(missing)} missing; found {found}")
    environment = _from_json(path, "environment", arrays["environment"])
    unknown = set(environment) - {"id", "kwargs", "subsample"}
    if "id" not in environment or unknown or not isinstance(environment.get("kwargs", {}), dict):
        raise UserError(f"{path}: expected environment to be JSON with id, kwargs and subsample, got {environment}")
    fields: dict[str, Any] = {
        "environment": environment["id"],
        "environment_kwargs": environment.get("kwargs", {}),
        "subsample": environment.get("subsample", 1),
        "card": _from_json(path, "card", arrays["card"]) if "card" in arrays else {},
    }
    for name in (*REQUIRED, *OPTIONAL):
        if name in arrays:
            fields[name] = arrays[name]
        elif _holds(arrays, name):
            fields[name] = dict(_parts(arrays, name))
    return fields


def _arrays(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise UserError(f"expected a .npz of demonstrations, found no file {path}")
    try:
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):
                raise UserError(
                    f"{path}: expected a whole .npz file of plain arrays, got something else or one cut short: "
                    "pickled files are not opened; save it again with numpy.savez"
                )
            file.seek(0)
            with np.load(file, allow_pickle=False) as loaded:
                return {name: _array(path, loaded, name) for name in loaded.files}
    except UserError:
        raise
    except BROKEN as error:
        raise UserError(f"{path}: expected a whole .npz file, got a damaged one ({error}): fetch it again") from error


def _array(path: Path, loaded: Any, name: str) -> np.ndarray:
    try:
        array = loaded[name]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise UserError(
            f"{path}: expected plain arrays, got Python objects in {name}, which are not unpickled: opening them could "
            "run any code; save numbers"
        ) from error
    if not isinstance(array, np.ndarray):  # a member that is no .npy comes as bytes
        raise UserError(f"{path}: expected plain arrays, got something else in {name}: take it out")
    return array


def _holds(arrays: Mapping[str, np.ndarray], name: str) -> bool:
    return name in arrays or (name.endswith("observations") and any(True for _ in _parts(arrays, name)))


def _parts(arrays: Mapping[str, np.ndarray], name: str) -> Iterator[tuple[str, np.ndarray]]:
    prefix = f"{name}."
    return ((key.removeprefix(prefix), array) for key, array in arrays.items() if key.startswith(prefix))


def _json(name: str, value: Any) -> str:
    try:
        return json.dumps(value)
    except TypeError as error:
        raise UserError(f"expected plain values (numbers, words, lists, dicts) in {name}: {error}") from error


def _from_json(path: Path, name: str, value: np.ndarray) -> dict[str, Any]:
    try:
        found = json.loads(str(value))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: expected JSON in {name}, got {str(value)[:60]!r}: save it again") from error
    if not isinstance(found, dict):
        raise UserError(f"{path}: expected a JSON object in {name}, got {found!r}: save it again")
    return found
