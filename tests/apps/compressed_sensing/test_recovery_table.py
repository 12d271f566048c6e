"""The table of recovery and its choice of settings, tiny, on the digits that scikit-learn carries."""

import json

import pytest
import torch

import core_models
from apps.common.cells import read_cells
from apps.compressed_sensing import splits
from apps.compressed_sensing.gaussian import Wiener
from apps.compressed_sensing.generative.csgm import CSGM
from apps.compressed_sensing.lasso import LASSO
from apps.compressed_sensing.recovery import Recovered
from apps.compressed_sensing.tables import benchmark as table
from apps.compressed_sensing.tables import rows
from core_models.data import load
from core_models.errors import UserError
from core_models.latent import VAE, VAEConfig


class Fitted(CSGM):
    """A method that is fitted to training signals, and keeps them."""

    seen = None

    def __init__(self, operator=None, prior=None, *, noise=0.0, penalty=0.2, steps=9, restarts=2, random_state=0):
        super().__init__(
            operator, prior, noise=noise, penalty=penalty, steps=steps, restarts=restarts, random_state=random_state
        )

    def fit(self, X=None, y=None):
        Fitted.seen = X
        return self


@pytest.fixture(autouse=True)
def small_table(tmp_path, monkeypatch):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        core_models.save(VAE(VAEConfig(event_shape=(1, 8, 8), latent=2, hidden=(8,))), tmp_path / "prior")
    monkeypatch.setitem(rows.PRIORS, rows.PAPER, {"digits": str(tmp_path / "prior")})
    small = {
        "LASSO": rows.Row(LASSO, {"box": True}, {"alpha": [10.0, 0.01]}),
        "CSGM": rows.Row(CSGM, {"steps": 5, "restarts": 2}, prior=rows.PAPER),
        "Wiener": rows.Row(Wiener, fits=True),
    }
    monkeypatch.setattr(rows, "ROWS", small)
    monkeypatch.setattr(table, "ROWS", small)
    monkeypatch.setattr(table, "errors", lambda a, b: {"mse": (a - b).double().square().flatten(1).mean(1)})
    table._prior.cache_clear()


def fill(tmp_path, **options):
    settings = {"data": "digits", "m": [20], "images": 6, "group": 3, "results": tmp_path / "results", **options}
    table.benchmark(**settings)
    cells = {cell.row: cell for cell in read_cells(tmp_path / "results", app="compressed_sensing")}
    assert all(cell.interval[0] < cell.value < cell.interval[1] for cell in cells.values())
    return cells


def test_cells_hold_the_error_of_the_first_test_images_and_stand(tmp_path, capsys):
    cells = fill(tmp_path)
    assert set(cells) == {"LASSO", "CSGM", "Wiener"}
    x = load("digits").images("test")[:6]
    operators = [table.gaussian((1, 8, 8), 20, seed=seed) for seed in (0, 1)]
    own = []
    train, held = table._training("digits")
    kept = torch.ones(len(train), dtype=torch.bool)
    kept[held] = False
    for seed, operator in enumerate(operators):
        y = table.measure(operator, x[3 * seed : 3 * seed + 3], 0.1, torch.Generator().manual_seed(seed))
        own.append(Wiener(operator).fit(train[kept]).reconstruct(y))
    assert cells["Wiener"].value == pytest.approx(float((torch.cat(own) - x).square().mean()), rel=1e-5)
    assert set(cells["Wiener"].extra["coverage"]) == {"0.5", "0.9", "0.95"}
    capsys.readouterr()
    fill(tmp_path)
    assert capsys.readouterr().out.count("stands") == 3


def test_images_that_lie_sorted_are_drawn_from_all_of_them(tmp_path, monkeypatch):
    before = fill(tmp_path / "sorted", methods=["Wiener"])["Wiener"]
    monkeypatch.setattr(table, "SORTED", ("digits",))
    monkeypatch.setattr(splits, "SORTED", ("digits",))
    after = fill(tmp_path / "drawn", methods=["Wiener"])["Wiener"]
    assert (before.protocol, after.protocol) == ("1", "2") and before.value != after.value
    x = load("digits").images("test")
    order = splits.places("digits", len(x))
    assert order.sort().values.tolist() == [*range(len(x))] and order[:6].tolist() != [*range(6)]
    assert torch.equal(table._test_images("digits", 6), x[order[:6]])
    train, held = splits.training("digits")
    seen = []
    monkeypatch.setattr(table, "_recovered", lambda *given: seen.append(given[3]) or Recovered(given[3]))
    table.tune(data="digits", methods=["LASSO"], m=[20], images=5, out=tmp_path / "chosen.json")
    assert torch.equal(seen[0], train[held[splits.places("digits", len(held))[:5]]])
    assert not torch.equal(seen[0], train[held[:5]])


def test_a_thousand_of_omniglot_are_of_every_alphabet():
    """In order they would be of seven of the fifty."""
    characters = splits.places("omniglot", 8115)[:1000] // 5  # five drawings of each lie together
    assert len(characters.unique()) > 700 and splits.places("mnist", 10_000).tolist() == [*range(10_000)]


def test_settings_are_chosen_on_validation_and_used(tmp_path, monkeypatch):
    out = tmp_path / "chosen.json"
    monkeypatch.setattr(table, "_test_images", lambda *_: pytest.fail("test images were looked at"))
    table.tune(data="digits", m=[20], images=5, out=out)
    told = json.loads(out.read_text())["digits"]
    assert set(told) == {"LASSO"}  # the others have nothing to choose
    assert told["LASSO"]["20"]["settings"] == {"alpha": 0.01}  # a penalty of 10 leaves nothing of any image
    assert rows.chosen("digits", "LASSO", 25, out) == {"alpha": 0.01}
    assert rows.chosen("other", "LASSO", 25, out) == {"alpha": 10.0}


def test_other_settings_are_another_configuration(tmp_path, monkeypatch):
    before = fill(tmp_path, methods=["LASSO"])["LASSO"]
    monkeypatch.setattr(table, "chosen", lambda *_: {"alpha": 0.01})
    assert fill(tmp_path, methods=["LASSO"])["LASSO"] == before  # a cell of other settings isn't replaced
    after = fill(tmp_path, methods=["LASSO"], again=True)["LASSO"]
    assert before.config_hash != after.config_hash and after.value < before.value


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"methods": ["LASO"]}, "did you mean LASSO"),
        ({"images": 0}, "--images: expected 1 or more"),
        ({"images": 100_000}, "test images of digits"),
        ({"methods": ["CSGM"], "prior_of": "omniglod"}, "CSGM: expected data among .*digits.*, got omniglod"),
        ({"methods": ["Wiener"], "prior_of": "mnist"}, "Wiener has no prior, which --prior_of could exchange"),
    ],
)
def test_mistakes_are_named(tmp_path, options, words):
    with pytest.raises(UserError, match=words):
        fill(tmp_path, **options)


def test_a_prior_of_another_data_set_fills_the_table_of_transfer(tmp_path, monkeypatch):
    rows.PRIORS[rows.PAPER]["others"] = rows.PRIORS[rows.PAPER]["digits"]
    monkeypatch.setitem(rows.ROWS, "fitted", rows.Row(Fitted, {"steps": 5}, prior=rows.PAPER, fits=True))
    table.benchmark(data="digits", m=[20], images=6, group=3, prior_of="others", results=tmp_path / "results")
    cell, other = read_cells(tmp_path / "results", app="compressed_sensing")
    assert (cell.table, cell.row) == ("transfer_6_by_3", "CSGM, others -> digits")
    assert "--prior_of others" in cell.command
    assert other.row == "fitted, others -> digits"  # and none of the rows without a prior
    assert len(Fitted.seen) == len(table._training("digits")[0]) - len(table._training("digits")[1])
    out = tmp_path / "chosen.json"
    monkeypatch.setitem(rows.ROWS, "CSGM", rows.Row(CSGM, {"steps": 5}, {"restarts": [2]}, prior=rows.PAPER))
    table.tune(data="digits", methods=["CSGM"], m=[20], images=4, prior_of="others", out=out)
    assert {*json.loads(out.read_text())["others -> digits"]} == {"CSGM"}
    rows.PRIORS[rows.PAPER].pop("others")


def test_rows_whose_prior_lacks_the_data_set_are_passed_over_where_all_are_asked_for(monkeypatch):
    assert "LASSO" in rows.rows_for("others") and "CSGM" not in rows.rows_for("others")
    assert {"LASSO", "CSGM"} <= {*rows.rows_for("digits")}
    monkeypatch.setitem(rows.PRIORS[rows.PAPER], "digits", "runs/of/nobody")
    assert "CSGM" not in rows.rows_for("digits")  # until it is trained


def test_a_choice_at_the_edge_of_its_grid_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(rows.ROWS, "LASSO", rows.Row(LASSO, {"box": True}, {"alpha": [10.0, 1.0, 0.01]}))
    table.tune(data="digits", methods=["LASSO"], m=[20], images=5, out=tmp_path / "chosen.json")
    assert "alpha = 0.01 is the last value tried on its side" in capsys.readouterr().out
    assert rows.ROWS["LASSO"].at_edge({"alpha": 1.0}) == []
    penalties = rows.Row(Fitted, {}, {"penalty": [0.1, 0.01, 0.0]})
    assert penalties.at_edge({"penalty": 0.1}) == ["penalty"] and penalties.at_edge({"penalty": 0.0}) == []


def test_another_default_of_the_method_is_another_configuration(tmp_path, monkeypatch):
    before = fill(tmp_path, methods=["CSGM"])["CSGM"].config_hash
    monkeypatch.setitem(rows.ROWS, "CSGM", rows.Row(Fitted, {"steps": 5, "restarts": 2}, prior=rows.PAPER))
    Fitted.__name__ = "CSGM"  # a class made anew would be an option of --method in later tests
    try:
        # its penalty's default is another
        assert fill(tmp_path, methods=["CSGM"], again=True)["CSGM"].config_hash != before
    finally:
        Fitted.__name__ = "Fitted"


def test_seeds_reach_the_starts_of_searches(monkeypatch):
    states = []
    monkeypatch.setattr(CSGM, "_recover", lambda self, y, first: states.append(self.random_state) or Recovered(y))
    x = load("digits").images("test")[:2]
    for seed in (0, 3):
        table._recovered("digits", "CSGM", {}, x, 64, 2, seed, None, "digits")
    assert states == [0, 3]


def test_settings_are_chosen_under_matrices_that_the_table_never_uses(tmp_path, monkeypatch):
    seeds, made = [], table.gaussian
    monkeypatch.setattr(table, "gaussian", lambda *shape, seed: seeds.append(seed) or made(*shape, seed=seed))
    fill(tmp_path, methods=["LASSO"], seeds=[0, 7])
    used = {*seeds}
    seeds.clear()
    table.tune(data="digits", methods=["LASSO"], m=[20], images=4, out=tmp_path / "chosen.json")
    assert len(used) == 4 and seeds and not used & {*seeds}
