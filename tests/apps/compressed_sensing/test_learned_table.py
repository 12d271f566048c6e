"""The tables of learnt acquisition, tiny, on the digits that scikit-learn carries."""

import pytest
import torch
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier

from apps.common.cells import read_cells
from apps.compressed_sensing.tables import learned as table
from core_models.data import load
from core_models.errors import UserError
from core_models.training import TrainingConfig

QUICK = TrainingConfig(epochs=30, learning_rate=3e-3, schedule="cosine", threads=1)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setitem(table.UAES, "UAE", {"hidden": (32,)})
    monkeypatch.setattr(table, "errors", lambda a, b: {"mse": (a - b).double().square().flatten(1).mean(1)})
    monkeypatch.setattr(table, "CLASSIFIERS", {"kNN": KNeighborsClassifier, "naive Bayes": GaussianNB})


def fill(tmp_path, **options):
    settings = {"data": "digits", "methods": ["UAE", "PCA"], "m": [4], "training": QUICK, "work": tmp_path / "work"}
    table.learned(**settings, results=tmp_path / "results", **options)
    return {cell.row: cell for cell in read_cells(tmp_path / "results", app="compressed_sensing")}


def test_an_autoencoder_is_trained_once_and_recovers_better_than_the_mean_image(tmp_path, capsys):
    cells = fill(tmp_path)
    x = load("digits").images("test")
    spread = float((x - load("digits").images("train").mean(0)).square().mean())
    assert cells["UAE"].value < 0.7 * spread
    assert cells["UAE"].extra["encoder_norm"] == pytest.approx((4 * 64) ** 0.5, rel=1e-4)  # norms are matched
    assert cells["PCA"].extra["encoder_norm"] == pytest.approx((4 * 64) ** 0.5, rel=1e-4)
    (run,) = (tmp_path / "work").iterdir()
    before = (run / "model.safetensors").stat().st_mtime_ns
    capsys.readouterr()
    fill(tmp_path, table="downstream")
    assert (run / "model.safetensors").stat().st_mtime_ns == before
    fill(tmp_path)
    assert capsys.readouterr().out.count("stands") == 2


def test_pca_is_the_best_linear_map_of_the_leading_directions():
    encoder, decode = table._pca("digits", 6, 0)
    images, held = table._training("digits")
    kept = torch.ones(len(images), dtype=torch.bool)
    kept[held] = False
    x = images[kept].flatten(1).double()
    directions = torch.linalg.svd(x - x.mean(0), full_matrices=False)[2][:6]
    overlap = (encoder.double() / 8) @ directions.T  # signs are free
    torch.testing.assert_close(overlap.abs(), torch.eye(6, dtype=torch.float64), rtol=0, atol=1e-3)
    y = table._measured(images[kept], encoder, 0, "PCA")
    away = (decode(y).flatten(1) - images[kept].flatten(1)).double()
    assert float((away.T @ y.double() / len(y)).abs().max()) < 1e-3  # least squares: nothing of y is left in the error


def test_classifiers_learn_from_measurements(tmp_path):
    cells = fill(tmp_path, table="downstream")
    assert set(cells) == {f"{name}, {row}" for name in ("kNN", "naive Bayes") for row in ("UAE", "PCA")}
    assert all(50 < cell.value <= 100 for cell in cells.values())
    assert cells["kNN, PCA"].extra["n_test"] == len(load("digits").test_x)


def test_an_unknown_row_is_named(tmp_path):
    with pytest.raises(UserError, match="expected some of UAE"):
        table.learned(methods=["UAEs"], results=tmp_path)
