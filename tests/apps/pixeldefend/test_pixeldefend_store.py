from types import SimpleNamespace

import torch

from apps.pixeldefend import experiment
from apps.pixeldefend.experiment import Store
from apps.pixeldefend.measuring import Grid


def test_a_cell_tells_what_it_was_spared(tmp_path, monkeypatch):
    clock = iter([100.0, 107.0])
    monkeypatch.setattr(experiment, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    store = Store(tmp_path / "store")
    store.get("attacked", {"attack": "slow"}, lambda: torch.ones(2))

    def measure():
        store.get("attacked", {"attack": "slow"}, lambda: torch.ones(2))
        return float(store.get("attacked", {"attack": "slow"}, lambda: torch.ones(2)).sum()), {}

    grid = Grid(SimpleNamespace(store=store, digest=None, seed=0), "t", tmp_path / "cells", "a CPU", "genapps", False)
    cells = [grid.cell("row", column, {"column": column}, measure) for column in "ab"]
    for cell in cells:
        assert cell.value == 2
        assert cell.extra["seconds spared by what was kept"] == 7  # found twice, counted once; and once a cell
        assert cell.seconds < 5


def test_what_a_cell_computes_itself_is_counted_once(tmp_path, monkeypatch):
    clock = iter([100.0, 107.0])
    monkeypatch.setattr(experiment, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    store = Store(tmp_path / "store")
    for _ in range(2):
        store.get("scored", {}, lambda: torch.ones(2))
    assert sum(store.spared.values()) == 0
