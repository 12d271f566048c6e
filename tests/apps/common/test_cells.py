from dataclasses import replace
from itertools import combinations

import pytest

from apps.common.cells import Cell, cell_path, read_cell, read_cells, split_stale, told_to_stand, write_cell
from core_models.errors import UserError


def make(**changes):
    values = {
        "app": "semi_supervised",
        "table": "mnist",
        "row": "M1+M2",
        "column": "100",
        "value": 3.25,
        "unit": "%",
        "better": "lower",
        "draw": 0,
        "seed": 7,
        "config_hash": "0123456789ab",
        "protocol": "1",
        "device": "a CPU, 2 threads",
        "seconds": 60.0,
        "commit": "unknown",
        "command": "genapps semi-supervised benchmark",
        "written": "2026-01-01T00:00:00+00:00",
        "extra": {"error_count": 325, "n_test": 10000, "transductive": False},
    }
    return Cell(**values | changes)


def test_a_written_cell_reads_back_equal(tmp_path):
    cell = make(value=1 / 3)
    path = write_cell(tmp_path, cell)
    assert path == tmp_path / "semi_supervised" / "mnist" / "M1+M2__100__0.json"
    assert read_cell(path) == cell
    assert read_cells(tmp_path) == [cell]
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # no temporary file stays


def test_names_that_files_cannot_hold_stay_apart(tmp_path):
    """Separators, path separators and points in a name neither collide nor leave the folder."""
    names = ["a__b", "a", "b", "a_", "_b", "../a", "a/b", "a b", "é", "M2 (conv; 32x32)", "%5F", ".hidden", ""]
    cells = [make(row=r, column=c) for r in names if r for c in names if c]
    paths = [cell_path(tmp_path, cell) for cell in cells]
    assert all(one != other for one, other in combinations(paths, 2))
    assert {path.parent for path in paths} == {tmp_path / "semi_supervised" / "mnist"}
    for cell in cells:
        write_cell(tmp_path, cell)
    assert {cell.key for cell in read_cells(tmp_path)} == {cell.key for cell in cells}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ('{"app": "semi', "not valid JSON"),
        ("[]", "expected a JSON object, got list"),
        ("{}", "missing field"),
    ],
)
def test_a_broken_cell_is_named(tmp_path, content, why):
    path = write_cell(tmp_path, make())
    path.write_text(content)
    with pytest.raises(UserError, match=why) as caught:
        read_cells(tmp_path)
    assert str(path) in str(caught.value)


def test_an_altered_field_is_refused_by_name(tmp_path):
    path = write_cell(tmp_path, make())
    text = path.read_text()
    for altered, why in [
        (text.replace("3.25", "NaN"), "value must be a finite number, got nan"),
        (text.replace('"draw": 0', '"draw": "0"'), "draw must be an integer, got '0'"),
        (text.replace('"lower"', '"smaller"'), "better must be 'lower' or 'higher', got 'smaller'"),
        (text.replace('"seed"', '"sed"'), "unknown field 'sed'"),
    ]:
        assert altered != text
        path.write_text(altered)
        with pytest.raises(UserError, match=why):
            read_cells(tmp_path)


def test_a_cell_in_another_cells_place_is_refused(tmp_path):
    path = write_cell(tmp_path, make())
    path.rename(path.with_name("M2__100__0.json"))
    with pytest.raises(UserError, match=r"M2__100__0\.json holds the cell that belongs at .*M1\+M2__100__0\.json"):
        read_cells(tmp_path)


def test_what_stands_in_a_cells_place_is_told(tmp_path, capsys):
    cell = make(command="genapps made-it")
    write_cell(tmp_path, cell)
    which = {"app": cell.app, "table": cell.table, "row": cell.row, "column": cell.column}
    same = {"draw": 0, "config_hash": cell.config_hash, "protocol": "1"}
    assert told_to_stand(tmp_path, "here", **which, **same) == cell
    assert capsys.readouterr().out.startswith("here: stands, ")
    for other in ({"config_hash": "ffffffffffff"}, {"protocol": "2"}):
        assert told_to_stand(tmp_path, "here", **which, **same | other) == cell
        told = capsys.readouterr().out
        assert told.startswith("here: one of other settings stands, ") and "by genapps made-it: replace it by" in told
    assert told_to_stand(tmp_path, "here", **which, **same | {"draw": 1}) is None and not capsys.readouterr().out


def test_draws_of_an_older_configuration_are_stale():
    old = [make(draw=d, config_hash="old", written=f"2026-01-0{d + 1}T00:00:00+00:00") for d in range(3)]
    new = make(draw=0, config_hash="new", written="2026-02-01T00:00:00+00:00")
    other = make(draw=0, row="M2", config_hash="old")
    current, stale = split_stale([*old[1:], new, other])
    assert (current, stale) == ([new, other], old[1:])


def test_a_higher_protocol_wins_over_a_later_clock():
    nine = make(draw=0, protocol="1.9", written="2027-01-01T00:00:00+00:00")
    ten = make(draw=1, protocol="1.10")
    assert split_stale([nine, ten]) == ([ten], [nine])


def test_filters_by_app_and_table(tmp_path):
    cells = [make(), make(table="svhn"), make(app="imitation")]
    for cell in cells:
        write_cell(tmp_path, cell)
    assert read_cells(tmp_path, app="semi_supervised", table="svhn") == [cells[1]]
    assert len(read_cells(tmp_path, app="semi_supervised")) == 2
    assert read_cells(tmp_path / "nowhere") == []


def test_writing_again_replaces_the_draw(tmp_path):
    write_cell(tmp_path, make())
    newer = replace(make(), value=3.0)
    write_cell(tmp_path, newer)
    assert read_cells(tmp_path) == [newer]
