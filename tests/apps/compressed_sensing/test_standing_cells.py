"""Whether the cells of recovery that stand are of what the command would measure today."""

import re
from pathlib import Path

import pytest

from apps.common.cells import read_cells
from apps.compressed_sensing.tables import benchmark as table
from apps.compressed_sensing.tables.rows import ROWS, prior_for
from core_models.files import hash_of

RESULTS = Path(__file__).parents[3] / "docs" / "results"
TABLE = re.compile(r"(mnist|omniglot|transfer)(?:_(\d+)_by_(\d+))?")


def standing():
    for cell in read_cells(RESULTS, app=table.APP):
        found, row = TABLE.fullmatch(cell.table), cell.row
        if not found or row.startswith("UAE"):
            continue
        data = known = found[1]
        if data == "transfer":
            row, way = row.rsplit(", ", 1)
            known, data = way.split(" -> ")
        images, group = (int(found[2]), int(found[3])) if found[2] else (1000, 100)
        # a prior that doesn't ship can't be looked at here
        if ROWS[row].prior is None or str(prior_for(row, known)).startswith("zoo:"):
            yield pytest.param(data, row, images, group, known, cell, id=f"{cell.table}-{cell.row}-{cell.column}")


@pytest.mark.parametrize(("data", "row", "images", "group", "known", "cell"), list(standing()))
def test_a_cell_is_of_the_settings_that_are_chosen_today(data, row, images, group, known, cell):
    config, _ = table._config(data, row, int(cell.column), images, group, None, known)
    assert (cell.config_hash, cell.protocol) == (hash_of(config), table._protocol(data))
