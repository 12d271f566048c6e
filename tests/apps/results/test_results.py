"""`genapps results` through its real command line."""

import csv
import io
import json

import pytest

from apps.common.cells import Cell, write_cell
from apps.common.tables import KEYS
from apps.results.__main__ import main


def cell(row, column, value, draw=0, app="semi_supervised"):
    return Cell(
        app=app,
        table="mnist",
        row=row,
        column=column,
        value=value,
        unit="%",
        better="lower",
        draw=draw,
        seed=0,
        config_hash="0123456789ab",
        protocol="1",
        device="a CPU, 2 threads",
        seconds=1.0,
        commit="unknown",
        command="genapps semi-supervised benchmark",
    )


@pytest.fixture
def folder(tmp_path):
    for draw, value in enumerate([3.0, 4.0]):
        write_cell(tmp_path, cell("M1+M2", "100", value, draw))
    write_cell(tmp_path, cell("M1+SVM", "100", 19.0))
    (tmp_path / "semi_supervised" / "not_run.csv").write_text("table,row,column,reason\nmnist,M*,100,later\n")
    return tmp_path


@pytest.fixture
def run(folder, capsys):
    def call(*argv):
        status = main([*argv, "--folder", str(folder)])
        out, error = capsys.readouterr()
        return status, out, error

    return call


def test_json_is_a_list_of_records(run):
    status, out, _ = run("--json", "--table", "mnist")
    found = json.loads(out)
    assert status == 0
    assert all(tuple(record) == KEYS for record in found)
    entries = {(r["row"], r["column"]): r for r in found}
    assert entries["M1+M2", "100"] == {
        "app": "semi_supervised",
        "table": "mnist",
        "row": "M1+M2",
        "column": "100",
        "value": 3.5,
        "unit": "%",
        "standard_error": pytest.approx(0.5),
        "n": 2,
        "low": None,
        "high": None,
        "published": 3.33,
        "better": "lower",
        "counts": True,
        "device": "a CPU, 2 threads",
        "command": "genapps semi-supervised benchmark",
        "reason": None,
    }
    assert (entries["M2", "100"]["value"], entries["M2", "100"]["n"]) == (None, 0)
    assert entries["M2", "100"]["reason"] == "later" and entries["MTC", "100"]["reason"] is None  # the latter is quoted
    assert [r["row"] for r in found][-1] == "M1+SVM"  # ours follow the published rows


def test_csv_and_markdown(run):
    lines = list(csv.DictReader(io.StringIO(run("--format", "csv")[1])))
    assert {line["table"] for line in lines} == {
        "mnist", "later", "density", "gail", "torcs", "library", "fashion_mnist", "cifar10",
        "mnist_300_by_50", "learned_acquisition",
    }  # fmt: skip
    _, out, _ = run("--app", "semi-supervised")
    assert out.startswith("## semi_supervised: mnist\n\n| method ")
    assert "3.50 ± 0.50 (n=2)" in out
    assert "## semi_supervised: later" in out


def test_pages_are_written_once_and_keep_their_prose(run, folder):
    page = folder / "semi_supervised.md"
    pages = [
        folder / f"{app}.md" for app in ("semi_supervised", "models", "imitation", "pixeldefend", "compressed_sensing")
    ]
    assert run("--write")[:2] == (0, "".join(f"{page}\n" for page in pages))
    first = page.read_text()
    assert "3.50 ± 0.50 (n=2)" in first
    page.write_text(first.replace("# Results", "# Our results") + "\n## Spread\n\n<!-- draws:mnist -->\n<!-- end -->\n")
    run("--write")
    second = page.read_text()
    assert second.startswith("# Our results")
    assert "| 3.00 | 4.00 |" in " ".join(second.split())
    stamp = page.stat().st_mtime_ns
    run("--write")
    assert (page.read_text(), page.stat().st_mtime_ns) == (second, stamp)


def test_an_app_of_ones_own_needs_no_published_figures(run, folder):
    write_cell(folder, cell("mine", "1", 1.0, app="other"))
    assert "**" not in run("--app", "other")[1].splitlines()[4]
    assert json.loads(run("--app", "other", "--json")[1])[0]["published"] is None


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (
            ["--app", "chess"],
            "--app: expected an app with results (semi_supervised, models, imitation, pixeldefend, "
            "compressed_sensing), got 'chess'",
        ),
        (
            ["--table", "minst"],
            "--table: expected one of mnist, later, density, gail, torcs, library, fashion_mnist, cifar10, "
            "mnist_300_by_50, learned_acquisition, got 'minst'",
        ),
        (["--format", "xml"], "--format: expected one of markdown, csv, json, got 'xml'"),
        (["--write", "--json"], "--write writes whole pages: expected no --table, --format or --json beside it"),
    ],
)
def test_mistakes_are_one_line(run, argv, why):
    assert run(*argv) == (2, "", f"genapps: error: {why}\n")


def test_a_broken_cell_is_named(run, folder):
    path = folder / "semi_supervised" / "mnist" / "M1+M2__100__0.json"
    path.write_text("{")
    status, out, error = run("--write")
    assert (status, out) == (2, "")
    assert str(path) in error
    assert error.count("\n") == 1
    assert not (folder / "semi_supervised.md").exists()


def test_a_wide_table_is_shown_in_parts(run, folder):
    page = folder / "wide.md"
    for column, value in (("FGSM 8", 40.0), ("FGSM 25", 20.0), ("BIM 8", 30.0), ("BIM 25", 10.0)):
        write_cell(folder, cell("plain", column, value, app="wide"))
    page.write_text("# Wide\n\n<!-- table:mnist:8 -->\n<!-- end -->\n\n<!-- table:mnist:25 -->\n<!-- end -->\n")
    assert run("--app", "wide", "--write", "true")[0] == 0
    first, second = page.read_text().split("<!-- table:mnist:25 -->")
    assert "40.00" in first and "30.00" in first and "20.00" not in first
    assert "20.00" in second and "10.00" in second and "40.00" not in second
    assert page.read_text().count("<!-- table:") == 2, "the whole table isn't added where its parts are"
