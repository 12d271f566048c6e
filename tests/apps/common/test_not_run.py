"""Reasons why entries of a table are not run."""

from pathlib import Path

import pytest

from apps.common.cells import Cell, read_cells
from apps.common.not_run import NotRun, read_not_run, why_not
from apps.common.published import published
from apps.common.tables import records, to_markdown
from core_models.errors import UserError

RESULTS = Path(__file__).parents[3] / "docs" / "results"


def write(folder, text):
    (folder / "app").mkdir()
    (folder / "app" / "not_run.csv").write_text(text, encoding="utf-8")


def cell(row, column):
    return Cell(
        app="app", table="t", row=row, column=column, value=1.0, draw=0, unit="%", better="lower", seed=0,
        config_hash="0123456789ab", protocol="1", device="a CPU", seconds=1.0, commit="unknown", command="genapps",
        written="2026-01-01T00:00:00+00:00",
    )  # fmt: skip


def test_the_first_line_that_fits_tells(tmp_path):
    write(tmp_path, 'table,row,column,reason\nt,A*,10,"slow, an hour"\nt,*,*,later\nu,*,*,other\n')
    reasons = read_not_run(tmp_path, "app")
    assert why_not(reasons, "t", "A, far", "10") == "slow, an hour"
    assert why_not(reasons, "t", "a", "10") == "later"  # case counts
    assert why_not(reasons, "v", "A", "10") is None
    assert read_not_run(tmp_path, "another app") == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("table,row,reason\n", r"not_run\.csv: expected the columns table, row, column, reason"),
        ("table,row,column,reason\nt,A,10,\n", r"not_run\.csv, line 2: expected one value in each"),
        ("table,row,column,reason\nt,A,10\n", r"not_run\.csv, line 2: expected one value in each"),
        ("table,row,column,reason\nt,A,10,why,more\n", r"not_run\.csv, line 2: expected one value in each"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_clear_line(tmp_path, text, says):
    write(tmp_path, text)
    with pytest.raises(UserError, match=says):
        read_not_run(tmp_path, "app")


def test_a_table_letters_its_reasons_and_counts_what_has_none():
    reasons = [NotRun("t", "A", "*", "an hour each"), NotRun("t", "*", "1", "makes no sense")]
    found = records([cell("A", "1"), cell("B", "2"), cell("C", "3")], reasons={"app": reasons, "other": []})
    assert [r["reason"] for r in found[:4]] == [None, "an hour each", "an hour each", "makes no sense"]
    text = to_markdown(found)
    rows = [[part.strip() for part in line.split("|")[1:-1]] for line in text.splitlines()[2:5]]
    assert rows[0] == ["A", "1.00 (n=1)", "— (a)", "— (a)"]
    assert rows[1] == ["B", "— (b)", "1.00 (n=1)", "— not run"]
    assert rows[2] == ["C", "— (b)", "— not run", "1.00 (n=1)"]
    assert "Not run yet: 2 of 9 entries." in text
    assert "Not run: 4 of 9 entries: (a) an hour each; (b) makes no sense." in text


@pytest.mark.parametrize("app", [path.parent.name for path in sorted(RESULTS.glob("*/not_run.csv"))])
def test_each_entry_that_is_not_run_has_a_reason_and_each_reason_an_entry(app):
    reasons, facts = read_not_run(RESULTS, app), published(app)
    quoted = {(fact.table, fact.row) for fact in facts if fact.ours == "quoted"}
    empty = [
        (r["table"], r["row"], r["column"])
        for r in records(read_cells(RESULTS, app=app), facts)
        if r["value"] is None and (r["table"], r["row"]) not in quoted
    ]
    assert not [entry for entry in empty if why_not(reasons, *entry) is None]
    for place, reason in enumerate(reasons):
        own = [entry for entry in empty if reason.fits(*entry)]
        earlier = [entry for entry in own if why_not(reasons[:place], *entry)]
        assert len(own) > len(earlier), reason
