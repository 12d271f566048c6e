"""The tables of learnt acquisition, tiny, on the digits that scikit-learn carries."""

import json

import pytest
import torch
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier

import core_models
from apps.common.cells import read_cells
from apps.compressed_sensing import splits
from apps.compressed_sensing.tables import learned as table
from core_models.data import load
from core_models.errors import UserError
from core_models.training import TrainingConfig

QUICK = TrainingConfig(epochs=30, learning_rate=3e-3, schedule="cosine", threads=1)
ONCE = TrainingConfig(epochs=1, threads=1)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setitem(table.UAES, "UAE", {"hidden": (32,)})
    monkeypatch.setattr(table, "errors", lambda a, b: {"mse": (a - b).double().square().flatten(1).mean(1)})
    monkeypatch.setattr(table, "CLASSIFIERS", {"kNN": KNeighborsClassifier, "naive Bayes": GaussianNB})


def fill(tmp_path, **options):
    settings = {"data": "digits", "methods": ["UAE", "PCA"], "m": [4], "training": QUICK, "work": tmp_path / "work"}
    table.learned(**{**settings, **options}, results=tmp_path / "results")
    cells = {cell.row: cell for cell in read_cells(tmp_path / "results", app="compressed_sensing")}
    assert all(cell.interval[0] < cell.value < cell.interval[1] for cell in cells.values())
    return cells


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


def test_the_seconds_of_a_cell_are_those_of_its_training_too_where_the_autoencoder_stood(tmp_path):
    first = fill(tmp_path, training=ONCE)
    (run,) = (tmp_path / "work").iterdir()
    told = json.loads((run / "summary.json").read_text())
    assert 0 < told["seconds"] <= first["UAE"].seconds
    (run / "summary.json").write_text(json.dumps(told | {"seconds": 1000.0}))
    again = fill(tmp_path, training=ONCE, table="downstream")
    assert 1000 < again["kNN, UAE"].seconds < 1100 and again["kNN, PCA"].seconds < 100
    (run / "summary.json").unlink()  # as runs have none that ended before the time was kept
    assert fill(tmp_path, training=ONCE, again=True)["UAE"].seconds < 100


def test_transfer_counts_the_training_of_both_halves(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "OTHER", {"digits": "digits"})
    run = tmp_path / "work"
    table.learned(data="digits", methods=["UAE"], m=[4], training=ONCE, work=run, results=tmp_path / "results")
    (taught,) = run.iterdir()
    (taught / "summary.json").write_text(json.dumps({"seconds": 1000.0}))
    options = {"data": "digits", "methods": ["UAE, encoder kept"], "table": "transfer", "m": [4], "training": ONCE}
    for _ in range(2):  # trained now, and found standing
        table.learned(**options, work=run, results=tmp_path / "results", again=True)
        (cell,) = (c for c in read_cells(tmp_path / "results") if c.table == "transfer")
        assert 1000 < cell.seconds < 1100


def test_pca_is_the_best_linear_map_of_the_leading_directions():
    encoder, decode = table._pca("digits", 6, 0)
    images, held = splits.training("digits")
    kept = torch.ones(len(images), dtype=torch.bool)
    kept[held] = False
    x = images[kept].flatten(1).double()
    directions = torch.linalg.svd(x - x.mean(0), full_matrices=False)[2][:6]
    overlap = (encoder.double() / 8) @ directions.T  # signs are free
    torch.testing.assert_close(overlap.abs(), torch.eye(6, dtype=torch.float64), rtol=0, atol=1e-3)
    y = table._measured(images[kept], encoder, 0, "PCA")
    away = (decode(y).flatten(1) - images[kept].flatten(1)).double()
    assert float((away.T @ y.double() / len(y)).abs().max()) < 1e-3  # least squares: nothing of y is left in the error


def test_there_are_no_more_principal_directions_than_values():
    assert len(table._pca("digits", 64, 0)[0]) == 64
    with pytest.raises(UserError, match="--m 65: expected at most the 64 principal directions"):
        table._pca("digits", 65, 0)


def test_classifiers_learn_from_measurements(tmp_path):
    cells = fill(tmp_path, table="downstream")
    assert set(cells) == {f"{name}, {row}" for name in ("kNN", "naive Bayes") for row in ("UAE", "PCA")}
    assert all(50 < cell.value <= 100 for cell in cells.values())
    assert cells["kNN, PCA"].extra["n_test"] == len(load("digits").test_x)


@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_in_transfer_one_half_stays_as_the_other_data_set_taught_it(tmp_path, monkeypatch, half):
    whole = load("digits").images("train")
    monkeypatch.setattr(table, "OTHER", {"digits": "upright"})
    kept = splits.kept_images("digits")
    monkeypatch.setattr(table, "kept_images", lambda data: kept if data == "digits" else kept.flip(2))
    row = f"UAE, {half} kept"
    options = {"data": "digits", "m": [4], "training": QUICK, "work": tmp_path / "work"}
    table.learned(methods=[row], table="transfer", results=tmp_path / "results", **options)
    (cell,) = read_cells(tmp_path / "results", app="compressed_sensing")
    assert (cell.table, cell.row, cell.column) == ("transfer", f"{row}, upright -> digits", "4")
    taught, own = (core_models.load(next((tmp_path / "work").glob(name))) for name in ("uae_upright*", "uae_*_kept_*"))
    for (name, first), (_, second) in zip(taught.named_parameters(), own.named_parameters(), strict=True):
        assert torch.equal(first, second) == ((name == "raw") == (half == "encoder")), name
    x = load("digits").images("test")
    assert cell.value < 0.95 * float((x - whole.mean(0)).square().mean())
    table.learned(methods=["UAE"], results=tmp_path / "results", **options)
    own_cell = next(c for c in read_cells(tmp_path / "results") if c.row == "UAE")
    assert own_cell.value < cell.value  # both halves learnt on the digits do better than one


def test_an_unknown_row_is_named(tmp_path):
    with pytest.raises(UserError, match=r"--methods: expected some of UAE.* did you mean"):
        table.learned(methods=["UAEs"], results=tmp_path)
    with pytest.raises(UserError, match="expected mnist or omniglot for the table of transfer, got 'digits'"):
        table.learned(data="digits", table="transfer", results=tmp_path)
