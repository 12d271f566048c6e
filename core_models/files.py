"""Files and folders written whole or not at all, and the hashes that identify what was written."""

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from .errors import UserError


@contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """Yields a temporary path beside `path`; it takes the name `path` only when the block ends well.

    Raises:
        UserError: when the disk is full or the folder can't be written to; nothing half-written remains.
    """
    path = Path(path)
    temporary = _beside(path)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())  # mkstemp makes files that only their owner can read
        temporary.replace(path)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yields a temporary folder beside `path`; it takes the name `path` only when the block ends well.

    Raises:
        UserError: when the disk is full or the folder can't be written to; nothing half-written remains.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    except OSError as error:
        raise _cannot_write(path, error) from error
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())  # mkdtemp makes folders that only their owner can enter
        temporary.replace(path)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def require_writable(path: Path | str) -> None:
    """Makes sure, before the work begins, that a file can be written; makes its folder.

    Raises:
        UserError: when it can't be.
    """
    _beside(Path(path)).unlink()


def require_new(path: Path | str) -> None:
    """Makes sure, before the work begins, that a file can be written and that none stands there; makes its folder.

    Raises:
        UserError: when there is one, or it can't be.
    """
    if Path(path).exists():
        raise UserError(f"{path} is there already: choose another name, or remove it")
    require_writable(path)


def write_atomic(path: Path | str, data: bytes | str) -> None:
    """Writes a whole file, or leaves what was there."""
    with atomic(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def write_json(path: Path | str, value: Any) -> None:
    """Writes a value as indented JSON, whole or not at all; numpy's numbers and arrays as Python's own."""
    write_atomic(path, json.dumps(value, indent=2, sort_keys=False, default=_plain) + "\n")


def as_plain(value: Any) -> Any:
    """Returns a value as `read_json` finds it where `write_json` wrote it.

    Example:
        >>> as_plain({"latent": np.int64(2), "hidden": (3, 4)})
        {'latent': 2, 'hidden': [3, 4]}
    """
    return json.loads(json.dumps(value, default=_plain))


def read_json(path: Path | str) -> Any:
    """Reads a JSON file.

    Raises:
        UserError: when the file is missing or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text())
    except FileNotFoundError as error:
        raise UserError(f"expected a file {path}, found none") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid JSON ({error}): the file was altered or cut short") from error


def hash_of(value: Any) -> str:
    """Returns 12 hexadecimal digits that identify a JSON-like value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:12]


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"expected numbers, text, lists and dicts, got {type(value).__name__}")


def _beside(path: Path) -> Path:
    if path.exists() and not path.is_file():  # a rename would put a file in the place of a device or a pipe
        raise UserError(f"expected a file to write, {path} is something else: give another path")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    except OSError as error:
        raise _cannot_write(path, error) from error
    os.close(handle)
    return Path(name)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _cannot_write(path: Path, error: OSError) -> UserError:
    what = "the disk is full: free some space" if error.errno == errno.ENOSPC else f"{error.strerror or error}"
    return UserError(f"could not write {path}: {what}; what was there before is unchanged")
