"""Why entries of a table are not run: reasons that lie beside the cells, and that tables print.

`<folder>/<app>/not_run.csv` has the columns table, row, column and reason; row and column may be patterns (`DAC*`,
`*`), and the first line that fits an entry tells. An entry that no line fits is still to be run.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from core_models.errors import UserError

FILE = "not_run.csv"
COLUMNS = ("table", "row", "column", "reason")


@dataclass(frozen=True)
class NotRun:
    """One reason, and the entries that it is of."""

    table: str
    row: str
    """A name or a pattern, as `column`."""
    column: str
    reason: str

    def fits(self, table: str, row: str, column: str) -> bool:
        """Returns whether this is the reason of an entry."""
        return self.table == table and fnmatchcase(row, self.row) and fnmatchcase(column, self.column)


def read_not_run(folder: Path, app: str) -> list[NotRun]:
    """Returns the reasons of an app in their file's order; none where there is no such file.

    Raises:
        UserError: when the file's columns aren't those of `COLUMNS`, or a line lacks one.
    """
    path = folder / app / FILE
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise UserError(f"{path}: expected the columns {', '.join(COLUMNS)}, got {reader.fieldnames}")
        found = []
        for line in reader:
            if None in line or not all(line.values()):
                raise UserError(f"{path}, line {reader.line_num}: expected one value in each of {', '.join(COLUMNS)}")
            found.append(NotRun(**line))
    return found


def why_not(reasons: Sequence[NotRun], table: str, row: str, column: str) -> str | None:
    """Returns why an entry isn't run, None where nothing tells."""
    return next((one.reason for one in reasons if one.fits(table, row, column)), None)
