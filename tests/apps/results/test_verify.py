"""`genapps results verify`: planted cells, and one that a real command makes."""

import json
import sys
from dataclasses import replace

import pytest

from apps.common.cells import Cell, write_cell
from apps.results import verify as module
from apps.results.__main__ import main
from apps.results.verify import _link, make_again, standard_error


def cell(row="A", column="1", value=0.5, draw=0, **more):
    settings = {
        "app": "imitation", "table": "t", "unit": "of 1", "better": "higher", "seed": 0, "config_hash": "a",
        "protocol": "1", "device": "a CPU, 1 thread", "seconds": 1.0, "commit": "unknown", "command": "genapps made",
    }  # fmt: skip
    return Cell(row=row, column=column, value=value, draw=draw, **(settings | more))


@pytest.fixture
def app(tmp_path, monkeypatch):
    """A program in the place of `python -m apps`: `made --value V --fail STATUS --results FOLDER`."""
    script = tmp_path / "program" / "apps" / "__main__.py"
    script.parent.mkdir(parents=True)
    script.write_text(
        "import json, pathlib, sys\n"
        "given = dict(zip(sys.argv[2::2], sys.argv[3::2]))\n"
        "assert not list(pathlib.Path('.').rglob('*.json'))  # an empty folder\n"
        "assert not list(pathlib.Path('.').glob('runs/*/evaluations'))\n"
        "[(path / 'evaluations').mkdir() for path in pathlib.Path('.').glob('runs/*')]\n"
        "if '--fail' in given:\n"
        "    print('genapps: error: no such run', file=sys.stderr)\n"
        "    sys.exit(int(given['--fail']))\n"
        "own = json.loads(given['--cell'])\n"
        "own['value'] = float(given['--value'])\n"
        "path = pathlib.Path(given['--results']) / 'imitation' / 't' / f\"{own['row']}__1__0.json\"\n"
        "path.parent.mkdir(parents=True)\n"
        "path.write_text(json.dumps(own))\n"
    )
    (script.parent / "__init__.py").touch()
    monkeypatch.setattr(module, "ROOT", tmp_path / "program")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def planted(again, row="A", **more):
    """A cell of 0.5 whose command makes one of another value."""
    plain = json.dumps(
        {**vars(cell(row, **more)), "written": "2026-01-01T00:00:00+00:00", "commit": "c", "command": "genapps made"}
    )
    return cell(row, command=f"genapps made --value {again} --cell '{plain}'", **more)


def test_a_value_is_equal_or_within_its_interval_or_differs(app):
    known = {"extra": {"interval": [0.304, 0.696]}}  # a standard error of 0.1
    assert make_again(planted(0.5)).verdict == "equal"
    near, far = make_again(planted(0.92, **known)), make_again(planted(0.93, **known))
    assert (near.verdict, far.verdict) == ("within", "differs")
    assert near.away == pytest.approx(0.42 / (2**0.5 * 0.1)) and near.source == "its interval"
    assert "not equal on the same kind of machine" in far.note
    assert make_again(planted(0.51)).verdict == "no interval"


def test_a_run_is_there_without_the_figures_that_it_keeps_and_is_left_alone(app):
    for name in ("model.safetensors", "checkpoint/state.safetensors", "evaluations/digits_test.safetensors"):
        (app / "runs" / "x" / name).parent.mkdir(parents=True, exist_ok=True)
        (app / "runs" / "x" / name).write_text(name)
    made = planted(0.5)
    found = make_again(replace(made, command=f"{made.command} --run runs/x"))
    assert (found.verdict, found.note) == ("equal", "")
    assert [path.name for path in (app / "runs" / "x" / "evaluations").iterdir()] == ["digits_test.safetensors"]
    _link(app / "runs" / "x", app / "there")
    assert {path.name for path in (app / "there").iterdir()} == {"model.safetensors", "checkpoint"}
    assert (app / "there" / "checkpoint" / "state.safetensors").read_text() == "checkpoint/state.safetensors"
    _link(app / "runs" / "x" / "model.safetensors", app / "file")
    assert (app / "file").read_text() == "model.safetensors"


def test_the_standard_error_is_found_where_a_cell_has_it():
    assert standard_error(cell(extra={"interval": [72.3, 77.7]}))[0] == pytest.approx(5.4 / 3.92)
    draws = [cell(value=value, draw=draw) for draw, value in enumerate([1.0, 2.0, 3.0])]
    assert standard_error(draws[0], draws) == (1.0, "3 draws")
    assert standard_error(draws[0], draws[:2]) == (None, "")


def test_the_verb_reports_and_fails_where_a_cell_does(app, capsys):
    write_cell("cells", planted(0.5))
    write_cell("cells", planted(0.7, row="B", extra={"interval": [0.65, 0.75]}))
    write_cell("cells", cell("C", command="genapps made --fail 2"))
    write_cell("cells", cell("D", command="python -m bench.imitation"))
    write_cell("cells", cell("E", seconds=7200.0))
    write_cell("cells", cell("F", command="genapps made --run runs/gone"))
    assert main(["verify", "--folder", "cells", "--out", "told.json"]) == 1
    told = capsys.readouterr().out
    assert "6 cells, 3 of them can be made again in 20 minutes each" in told
    assert "1 of speed" in told and "1 take longer" in told and "1 need a run that isn't here" in told
    assert "can't be made here: genapps: error: no such run" in told
    assert told.splitlines()[-1] == "1 equal, 1 differs; 1 could not be made here"
    verdicts = {own["row"]: own for own in json.loads((app / "told.json").read_text())["verdicts"]}
    assert {row: own["verdict"] for row, own in verdicts.items()} == {"A": "equal", "B": "differs"}
    assert (verdicts["B"]["recorded"], verdicts["B"]["again"]) == (0.5, 0.7)
    assert main(["verify", "--folder", "cells", "--row", "A"]) == 0
    write_cell("cells", cell("G", command="genapps made --fail 3"))
    assert main(["verify", "--folder", "cells", "--row", "G"]) == 1
    assert "failed: exit status 3" in capsys.readouterr().out


def test_a_command_takes_as_long_as_all_cells_that_it_makes(app, capsys):
    for row, seconds in (("A", 700.0), ("B", 700.5)):
        write_cell("cells", cell(row, seconds=seconds, command="genapps made --both"))
    assert main(["verify", "--folder", "cells", "--row", "A"]) == 0
    assert "1 cells, 0 of them can be made again in 20 minutes each; 1 take longer" in capsys.readouterr().out
    for row in ("C", "D", "E"):  # three figures of one measurement
        write_cell("measured", cell(row, seconds=700.0, command="genapps made --fail 2"))
    assert main(["verify", "--folder", "measured"]) == 0
    assert "3 cells, 3 of them can be made again in 20 minutes each" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--sample", "0"], "--sample: expected 1 or more, got 0"),
        (["--folder", "nowhere"], "found none"),
        (
            ["--row", "Z", "--app", "imitation"],
            "expected cells of --app imitation, --row Z in docs/results, found none",
        ),
        (["--max_minutes", "-1"], "--max_minutes: expected more than 0, got -1"),
    ],
)
def test_mistakes_are_named(app, capsys, options, words):
    write_cell("docs/results", planted(0.5))
    assert main(["verify", *options]) == 2
    assert words in capsys.readouterr().err


def test_a_cell_of_a_real_command_is_made_again_to_the_last_digit(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["genapps"])
    from apps.compressed_sensing.tables.benchmark import benchmark

    benchmark("digits", ["Wiener"], [20], images=30, group=10, results=tmp_path / "results")
    from apps.common.cells import read_cells

    (made,) = read_cells(tmp_path / "results")
    found = make_again(made)
    assert found is not None and (found.verdict, found.value) == ("equal", made.value)
