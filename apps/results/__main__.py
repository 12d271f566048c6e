"""`genapps results`: every table, made from the cells in docs/results, beside the published figures.

`genapps results verify` makes cells again.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from apps.common.cells import Cell, read_cells, split_stale
from apps.common.cli import run_cli
from apps.common.not_run import NotRun, read_not_run
from apps.common.pages import fill, new_page
from apps.common.published import TABLES, Published, published
from apps.common.table_details import draws_markdown, measures_markdown
from apps.common.tables import records, tables, to_csv, to_json, to_markdown
from core_models.errors import UserError
from core_models.files import write_atomic

from .verify import verify


def results(
    app: str | None = None,
    table: str | None = None,
    format: Literal["markdown", "csv", "json"] = "markdown",
    json: bool = False,
    folder: Path = Path("docs/results"),
    write: bool = False,
) -> None:
    """Prints every table from its cells: mean, standard error, number of draws, and what was published.

    Of a single draw the 95 % interval over test cases stands in brackets, of a speed the range of its rounds.

    `genapps results verify` makes cells again by the commands that they record, and compares.

    Args:
        app: Only this app's tables, e.g. semi_supervised.
        table: Only this table, e.g. mnist.
        format: How to print them.
        json: The same as --format json, a list of records.
        folder: Where the cells lie: <folder>/<app>/<table>/*.json.
        write: Writes the pages <folder>/<app>.md instead of printing.
    """
    app = app.replace("-", "_") if app else None
    apps = _apps(folder)
    if app is not None and app not in apps:
        raise UserError(f"--app: expected an app with results ({', '.join(apps)}), got {app!r}")
    wanted = [app] if app else apps
    if write:
        if table or json or format != "markdown":
            raise UserError("--write writes whole pages: expected no --table, --format or --json beside it")
        for name in wanted:
            print(_write(name, folder))
        return

    cells = [cell for name in wanted for cell in read_cells(folder, app=name)]
    facts = [fact for name in wanted for fact in published(name)]
    found = records(cells, facts, {name: read_not_run(folder, name) for name in wanted})
    if table is not None:
        known = dict.fromkeys(record["table"] for record in found)
        if table not in known:
            raise UserError(f"--table: expected one of {', '.join(known) or 'no tables yet'}, got {table!r}")
        found = [record for record in found if record["table"] == table]
    if json or format == "json":
        print(to_json(found), end="")
    elif format == "csv":
        print(to_csv(found), end="")
    else:
        for (of_app, of_table), group in tables(found).items():
            _, stale = split_stale(c for c in cells if (c.app, c.table) == (of_app, of_table))
            print(f"## {of_app}: {of_table}\n\n{to_markdown(group, facts, stale)}")


def _apps(folder: Path) -> list[str]:
    """Returns the apps that have published figures or cells of their own."""
    own = sorted({path.parts[-3] for path in folder.glob("*/*/*__*__*.json")})
    return list(dict.fromkeys([*TABLES, *own]))


def _write(app: str, folder: Path) -> Path:
    page = folder / f"{app}.md"
    cells, facts = read_cells(folder, app=app), published(app)
    before = page.read_text(encoding="utf-8") if page.exists() else new_page(app)
    blocks, columns = _blocks(app, cells, facts, read_not_run(folder, app))
    after = fill(before, blocks, columns, name=str(page))
    if not page.exists() or after != before:
        write_atomic(page, after)
    return page


def _blocks(
    app: str, cells: list[Cell], facts: list[Published], reasons: list[NotRun]
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Returns Markdown by marker, and the columns that the marker of a table, or of a part of one, shows."""
    blocks, shows = {}, {}
    for (_, table), group in tables(records(cells, facts, {app: reasons})).items():
        own = [cell for cell in cells if cell.table == table]
        _, stale = split_stale(own)
        blocks[f"table:{table}"] = to_markdown(group, facts, stale, fold=True)
        # a table of many columns may be shown in parts: those that end in one number, the budget of an attack say, or
        # begin with one word, an environment
        shows[f"table:{table}"] = columns = list(dict.fromkeys(record["column"] for record in group))
        for part in sorted({word for column in columns for word in _ends(column)}):
            own_part = [record for record in group if part in _ends(record["column"])]
            told = {record["row"] for record in own_part if (record["value"], record["published"]) != (None, None)}
            own_part = [record for record in own_part if record["row"] in told]
            if own_part:
                shown = [fact for fact in facts if part in _ends(fact.column)]
                old = [cell for cell in stale if part in _ends(cell.column)]
                blocks[f"table:{table}:{part}"] = to_markdown(own_part, shown, old, fold=True)
                shows[f"table:{table}:{part}"] = [record["column"] for record in own_part]
        blocks[f"draws:{table}"] = draws_markdown(own)
        blocks[f"measures:{table}"] = measures_markdown(own)
    return blocks, shows


def _ends(column: str) -> set[str]:
    """Returns the words that a column's part of a table may be named after: its first, and its last if a number."""
    first, last = column.partition(" ")[0], column.rpartition(" ")[2]
    return {first, last} if last.isdecimal() else {first}


def main(argv: list[str] | None = None) -> int:
    """Runs `genapps results ...` and returns the exit status."""
    arguments = sys.argv[1:] if argv is None else argv
    if arguments[:1] == ["verify"]:
        return run_cli(verify, prog="genapps results verify", argv=arguments[1:])
    return run_cli(results, prog="genapps results", argv=arguments)


if __name__ == "__main__":
    sys.exit(main())
