"""Known digests: md5 (32 hexadecimal digits) or sha256 (64), told apart by length."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from ..errors import UserError


def kind_of(digest: str) -> str:
    """Returns the name of the hash function that made a digest."""
    return "md5" if len(digest) == 32 else "sha256"


def hasher(digest: str) -> Any:
    """Returns a fresh hash object of the kind that made a digest."""
    return hashlib.new(kind_of(digest), usedforsecurity=False)


def matches(content: bytes, expected: str) -> bool:
    """Tells whether some bytes have a digest."""
    found = hasher(expected)
    found.update(content)
    return bool(found.hexdigest() == expected)


def check(where: Path | str, content: bytes, expected: str) -> None:
    """Compares the digest of a file's content to the known one.

    Raises:
        UserError: when they differ.
    """
    found = hasher(expected)
    found.update(content)
    if found.hexdigest() != expected:
        raise UserError(
            f"{where}: expected {kind_of(expected)} {expected}, found {found.hexdigest()}: "
            "the file was cut short or altered; replace or remove it"
        )
