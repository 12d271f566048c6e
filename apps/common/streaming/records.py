"""A CSV of one row per image, appended to as the images are done, and taken up again after a kill."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from core_models.errors import UserError
from core_models.training.run_folder import cannot_write


class Records:
    """The rows of a CSV file; the first column names the image.

    Args:
        path: the file; it is made when the first row is written.
        columns: the names of the columns.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path, self.columns = path, tuple(columns)

    def append(self, rows: Iterable[Sequence[object]]) -> None:
        """Appends rows, on the disk when the call returns.

        Raises:
            UserError: when the disk is full or the file can't be written to.
        """
        try:
            with self.path.open("ab") as file:
                text = "" if file.tell() else _line(self.columns)
                # file names need not be UTF-8
                file.write((text + "".join(map(_line, rows))).encode("utf-8", "surrogateescape"))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def __iter__(self) -> Iterator[dict[str, str]]:
        """Reads the whole rows one by one; a last line cut short by a kill is left out."""
        for _, row in self._rows():
            yield row

    def rewind(self, batch: int, total: int) -> int:
        """Cuts off a torn last line and the rows of a batch that was not ended; returns how many rows are left.

        A batch is computed whole or not at all: another number of images at once can round differently.

        Args:
            batch: rows of a batch.
            total: rows in all, where the last batch may be shorter.

        Raises:
            UserError: when the file has other columns or more rows.
        """
        if not self.path.exists():
            return 0
        rows = whole = kept = 0
        for ends, _ in self._rows():
            rows += 1
            if rows % batch == 0 or rows == total:
                kept, whole = ends, rows
        if rows > total:
            raise UserError(f"{self.path}: expected at most {total} rows, got {rows}: it is of another job")
        try:
            if self.path.stat().st_size > kept:
                os.truncate(self.path, kept)
        except OSError as error:
            raise cannot_write(self.path, error) from error
        return whole

    def _rows(self) -> Iterator[tuple[int, dict[str, str]]]:
        """Yields rows and the byte at which each ends."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            header = file.readline()
            if not header.endswith(b"\n"):
                return
            if header.decode("utf-8", "replace") != _line(self.columns):
                raise UserError(f"{self.path}: expected the columns {', '.join(self.columns)}: it is of another job")
            ends = len(header)
            for line in file:
                ends += len(line)
                fields = next(csv.reader([line.decode("utf-8", "surrogateescape")]), [])
                if not line.endswith(b"\n") or len(fields) != len(self.columns):
                    return
                yield ends, dict(zip(self.columns, fields, strict=True))


def one_line(text: str) -> str:
    """Returns a text without line breaks, so that a row is a line and a torn row can be told."""
    return text.replace("\r", "\\r").replace("\n", "\\n")


def _line(fields: Iterable[object]) -> str:
    with io.StringIO() as text:
        csv.writer(text, lineterminator="\n").writerow([one_line(str(value)) for value in fields])
        return text.getvalue()
