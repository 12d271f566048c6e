"""Whether the cells of semi-supervised learning that stand are of what the command would measure today."""

import json
import shlex
from math import inf
from pathlib import Path

import pytest

from apps.common.cells import read_cells
from apps.semi_supervised.benchmark import APP, PROTOCOL, Entry, Grid
from apps.semi_supervised.methods import METHODS, build, specification
from core_models.files import hash_of

RESULTS = Path(__file__).parents[3] / "docs" / "results"
CELLS = [cell for cell in read_cells(RESULTS, app=APP) if cell.table in ("mnist", "cifar10")]


@pytest.mark.parametrize("cell", CELLS, ids=[f"{cell.table}-{cell.row}-{cell.column}-{cell.draw}" for cell in CELLS])
def test_a_cell_is_of_its_command_and_of_the_settings_of_its_preset_today(cell):
    words = shlex.split(cell.command)
    options = dict(zip(words[3::2], words[4::2], strict=True))
    assert words[:3] == ["genapps", "semi-supervised", "benchmark"]
    asked = {
        "--methods": f"[{cell.row}]",
        "--labels": f"[{cell.column}]",
        "--draws": "1",
        "--first_draw": str(cell.draw),
    }
    assert asked.items() <= options.items()
    settings = json.loads(options.get("--settings", "{}"))
    grid = Grid(
        data=options.get("--data", "mnist"),
        results=RESULTS,
        work=Path(),
        settings=settings,
        device="cpu",
        compile=False,
        threads=None,
        deadline=inf,
        again=False,
    )
    config = grid.config(Entry(METHODS[cell.row], int(cell.column), cell.draw))
    assert cell.config_hash == hash_of(config) == hash_of(cell.extra["config"])
    assert cell.protocol == PROTOCOL


def test_a_method_is_the_same_by_default_as_in_its_preset():
    """Where a setting is known to be better, a user gets it without a preset too."""
    for row, names in (("CAE", ["penalty"]), ("VAT", ["hold", "eps", "noise", "hidden"])):
        preset = build(specification(METHODS[row], 100, "mnist"))
        plain = type(preset)()
        assert [getattr(plain, name) for name in names] == [getattr(preset, name) for name in names]


def test_there_are_cells():
    assert {cell.table for cell in CELLS} == {"mnist", "cifar10"}
