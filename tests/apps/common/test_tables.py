import csv
import io
import json
import math
from dataclasses import replace

import pytest

from apps.common.cells import Cell
from apps.common.published import Published, published
from apps.common.table_details import draws_markdown, measures_markdown
from apps.common.tables import (
    KEYS,
    ours,
    records,
    tables,
    to_csv,
    to_json,
    to_markdown,
)
from core_models.errors import UserError


def fact(row, column, value, ours="run", error=None):
    return Published("app", "t", row, column, value, error, "%", "lower", ours, "Somebody 2014, table 1")


FACTS = [fact("A", "600", 5.0), fact("A", "100", 10.0, error=0.5), fact("Q", "100", 7.0, "quoted")]


def cell(row, column, value, draw=0, **more):
    values = {
        "unit": "%",
        "better": "lower",
        "seed": 0,
        "config_hash": "0123456789ab",
        "protocol": "1",
        "device": "a CPU",
        "seconds": 60.0,
        "commit": "unknown",
        "command": "genapps",
        "written": "2026-01-01T00:00:00+00:00",
    }
    return Cell(app="app", table="t", row=row, column=column, value=value, draw=draw, **values | more)


def by_entry(found):
    return {(r["row"], r["column"]): r for r in found}


def test_means_and_standard_errors_by_hand():
    found = by_entry(records([cell("A", "100", v, d) for d, v in enumerate([9.0, 10.0, 14.0])], FACTS))
    entry = found["A", "100"]
    assert tuple(entry) == KEYS
    assert entry["value"] == pytest.approx(11.0)
    # deviations -2, -1, 3: variance 14 / 2, over 3 draws
    assert entry["standard_error"] == pytest.approx(math.sqrt(7 / 3))
    assert (entry["n"], entry["published"], entry["unit"], entry["better"]) == (3, 10.0, "%", "lower")


def test_a_single_draw_has_no_standard_error_and_what_was_not_run_no_value():
    found = by_entry(records([cell("A", "100", 9.0)], FACTS))
    assert (found["A", "100"]["value"], found["A", "100"]["standard_error"], found["A", "100"]["n"]) == (9.0, None, 1)
    missing = found["A", "600"]
    assert (missing["value"], missing["n"], missing["published"], missing["device"]) == (None, 0, 5.0, None)


def test_published_rows_come_first_then_ours_and_numbers_ascend():
    found = records([cell("Z", "100", 1.0), cell("A", "1000", 1.0), cell("B", "100", 1.0)], FACTS)
    assert list(dict.fromkeys(r["row"] for r in found)) == ["A", "Q", "B", "Z"]
    assert [r["column"] for r in found if r["row"] == "A"] == ["100", "600", "1000"]
    assert [r["column"] for r in found if r["row"] == "Q"] == ["100"]  # a quoted row has only what was published


def test_numbers_come_before_columns_with_words():
    found = records([cell("Z", column, 1.0) for column in ("other 25", "other 100", "50", "1000")], [])
    assert [r["column"] for r in found] == ["50", "1000", "other 25", "other 100"]


def test_stale_draws_are_listed_and_not_averaged():
    old = cell("A", "100", 99.0, 1, config_hash="old")
    new = cell("A", "100", 9.0, 0, config_hash="new", written="2026-02-01T00:00:00+00:00")
    found = records([old, new], FACTS)
    assert by_entry(found)["A", "100"]["value"] == 9.0
    text = to_markdown(found, FACTS, stale=[old])
    assert "Stale, left out: 1 draw of an older configuration or protocol: A at 100 (protocol 1, old)" in text


def test_draws_in_different_units_are_refused():
    with pytest.raises(UserError, match=r"app / t / A / 100: expected one unit .* got % .* and nats"):
        records([cell("A", "100", 1.0), cell("A", "100", 1.0, 1, unit="nats")], FACTS)


def test_machines_and_the_commands_of_all_draws_are_told():
    draws = [
        cell("A", "100", 1.0, 0, device="X", command="genapps a --seeds '[0]'"),
        cell("A", "100", 1.0, 1, device="Y", command="genapps a --seeds '[1]'"),
        cell("A", "100", 1.0, 2, device="Y", command="genapps b"),
    ]
    entry = by_entry(records(draws, FACTS))["A", "100"]
    assert (entry["device"], entry["command"]) == ("X; Y", "genapps a --seeds '[0, 1]'\ngenapps b")


def test_commands_are_quoted_for_any_shell():
    """zsh takes a lone [NN] for a pattern of file names, and stops where none fits."""
    (entry,) = records([cell("A", "100", 1.0, command="genapps make --rows [M1+M2] --settings '{\"a\": 1}' --draws 1")])
    assert entry["command"] == "genapps make --rows '[\"M1+M2\"]' --settings '{\"a\": 1}' --draws 1"


def test_markdown_marks_what_was_run_what_was_not_and_what_is_quoted():
    found = records([cell("A", "100", 9.0), cell("A", "100", 10.0, 1)], FACTS)
    lines = [[part.strip() for part in line.split("|")[1:-1]] for line in to_markdown(found, FACTS).splitlines()]
    assert lines[0] == ["method", "100", "published", "600", "published"]
    assert lines[2] == ["A", "**9.50 ± 0.50** (n=2)", "10.00 ± 0.50", "— not run", "5.00"]
    assert lines[3] == ["Q", "as published", "7.00", "", ""]
    assert "Not run yet: 1 of 2 entries" in to_markdown(found, FACTS)


def test_bold_follows_which_way_is_better():
    (entry,) = records([cell("A", "100", 9.0)], [fact("A", "100", 10.0)])
    assert ours(entry, FACTS[1]).startswith("**")
    assert not ours(entry | {"better": "higher"}, FACTS[1]).startswith("**")


def test_what_was_published_of_something_else_stands_beside_and_is_never_held_against():
    facts = [fact("A", "100", 10.0, "beside")]
    (entry,) = found = records([cell("A", "100", 9.0)], facts)
    assert ours(entry, facts[0]) == "9.00 (n=1)"
    text = to_markdown(found, facts)
    assert "| 9.00 (n=1) | 10.00" in text and "bold" not in text and "published figures were measured otherwise" in text
    (missing,) = records([], facts)  # a row of ours that is still to be run, not one that is only quoted
    assert ours(missing, facts[0]) == "— not run"


def test_a_pipe_in_a_name_does_not_break_the_table():
    found = records([cell("a|b", "100", 1.0)])
    assert to_markdown(found).splitlines()[2].startswith(r"| a\|b ")


def test_csv_and_json_hold_the_same_records():
    found = records([cell("A", "100", 1 / 3)], FACTS)
    assert json.loads(to_json(found)) == found
    lines = list(csv.DictReader(io.StringIO(to_csv(found))))
    assert tuple(lines[0]) == KEYS
    assert float(lines[0]["value"]) == 1 / 3
    assert lines[1]["value"] == ""


@pytest.mark.parametrize(
    ("extra", "told"),
    [
        ({"interval": [8.5, 9.5]}, "9.00 [± 0.50]"),
        ({"interval": [8.5, 9.7]}, "9.00 [8.50, 9.70]"),
        ({"interval": [8.54, 11.02]}, "9.00 [8.5, 11.0]"),
        ({"interval": [8.5, float("nan")]}, "9.00 (n=1)"),
        ({"rounds": [8.0, 9.0, 9.75]}, "9.00 (n=1)"),
    ],
)
def test_a_single_draw_shows_its_interval(extra, told):
    (entry,) = found = records([cell("A", "100", 9.0, extra=extra)])
    assert ours(entry) == told
    assert ("95 % interval over test cases" in to_markdown(found)) == ("(n=1)" not in told)
    beside = records([cell("A", "100", 9.0, extra=extra)], FACTS)
    assert ("95 % interval over test cases" in to_markdown(beside, FACTS)) == ("(n=1)" not in told)


def test_a_speed_shows_how_far_its_rounds_lie_apart():
    draws = [cell(row, "CPU", 9.0, extra={"rounds": rounds}) for row, rounds in (("A", [8.0, 9.0, 9.75]), ("B", [9.0]))]
    found = records([replace(draw, table="speed") for draw in draws])
    assert [ours(entry) for entry in found] == ["9.00 [8.00, 9.75]", "9.00 (n=1)"]
    text = to_markdown(found)
    assert "median of rounds, in brackets the least and the most; n=1: one measurement." in text
    assert "95 %" not in text and "standard error" not in text


def test_several_draws_show_their_own_spread_and_no_interval():
    draws = [cell("A", "100", v, d, extra={"interval": [0.0, 20.0]}) for d, v in enumerate([9.0, 10.0])]
    (entry,) = found = records(draws)
    assert (entry["low"], ours(entry)) == (None, "9.50 ± 0.50 (n=2)")
    assert "in brackets" not in to_markdown(found)


def test_draws_table_tells_spread_errors_and_flags():
    extra = {"error_count": 12, "pool": "60k", "transductive": False, "augmentation": True}
    text = draws_markdown([cell("A", "100", v, d, extra=extra) for d, v in enumerate([9.0, 11.0])])
    assert [part.strip() for part in text.splitlines()[2].split("|")[1:-1]] == [
        *("A", "100", "0 1", "9.00", "11.00", "12 12", "60", "1", "0123456789ab", "unknown"),
        "pool 60k, augmentation",
    ]


def test_what_else_was_measured_has_its_interval():
    errors = {"mse": {"mean": 0.01234, "half_width": 0.00056}, "psnr": {"mean": 20.125, "half_width": 0.5}}
    text = measures_markdown([cell("A", "100", 1.0, 0, extra={"errors": errors}), cell("B", "100", 2.0)])
    assert "All measures of 1 cell;" in text
    (line,) = [line for line in text.splitlines() if line.startswith("| A ")]
    assert [part.strip() for part in line.split("|")[1:-1]] == [
        *("A", "100", "0", "0.0123 ± 0.00056", "20.12 ± 0.50", "60"),
    ]
    assert measures_markdown([cell("B", "100", 2.0)]) == ""


def test_the_returns_behind_a_fraction_are_told():
    returns = {
        "mean": 3000.0, "interval": [2900.0, 3100.0], "interquartile_mean": 3050.0,
        "interquartile_mean_interval": None,
    }  # fmt: skip
    text = measures_markdown([cell("A", "Hopper 4", 1.0, 0, extra={"return": returns, "expert": 3e3, "steps": 5000})])
    (line,) = [line for line in text.splitlines() if line.startswith("| A ")]
    assert [part.strip() for part in line.split("|")[1:-1]] == [
        *("A", "Hopper 4", "0", "3,000.0 (2,900.0 to 3,100.0)", "3,050.0", "3,000.0", "5,000", "60"),
    ]


def test_the_published_figures_of_the_papers():
    facts = {(f.table, f.row, f.column): f for f in published("semi_supervised")}
    assert facts["mnist", "M1+M2", "100"].value == 3.33
    assert facts["mnist", "M1+M2", "100"].standard_error == 0.14
    assert facts["mnist", "NN", "3000"].standard_error is None
    assert ("mnist", "AtlasRBF", "600") not in facts
    assert {row for (table, row, _), f in facts.items() if table == "mnist" and f.ours == "quoted"} == {
        "MTC",
        "AtlasRBF",
    }
    assert facts["later", "Improved GAN (Salimans et al. 2016)", "SVHN 1000"].value == 8.11
    rows = list(dict.fromkeys(row for table, row, _ in facts if table == "mnist"))
    assert rows[:9] == ["NN", "CNN", "TSVM", "CAE", "MTC", "AtlasRBF", "M1+TSVM", "M2", "M1+M2"]
    assert rows[9:] == ["VAT", "Ladder", "Improved GAN"]
    assert all(f.source for f in facts.values())
    assert published("nothing") == []


def test_tables_are_grouped_in_order():
    assert list(tables(records([], published("semi_supervised")))) == [
        ("semi_supervised", "mnist"),
        ("semi_supervised", "later"),
    ]


def test_a_page_folds_a_long_list_of_commands_away():
    found = records([cell("A", str(i), 1.0, command=f"genapps {i}") for i in range(9)])
    folded = to_markdown(found, fold=True)
    assert "<summary>9 commands</summary>" in folded
    assert "genapps 8\n```\n\n</details>" in folded
    assert "<details>" not in to_markdown(found)
    assert "<details>" not in to_markdown(found[:6], fold=True)


def test_what_does_not_count_is_never_bold():
    found = records(
        [cell("A", "100", 9.0, extra={"counts": False}), cell("A", "600", 4.0, extra={"counts": True})], FACTS
    )
    text = to_markdown(found, FACTS)
    assert "9.00† (n=1)" in text and "**9.00" not in text and "**4.00** (n=1)" in text
    assert "no claim" in text and "no claim" not in to_markdown([r for r in found if r["counts"]], FACTS)
