"""The parts of the benchmark that decide what its figures mean; no test looks at a clock."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from apps.common.cells import read_cells
from apps.compressed_sensing.generative.csgm import CSGM
from bench import compressed_sensing, cs_deepinv, cs_lasso, cs_search
from bench.ratios import Stopwatch
from core_models.base import Decodable
from core_models.errors import UserError

CPU = Stopwatch(torch.device("cpu"), "cpu")


class Prior(nn.Module, Decodable):
    """G(z) = sigmoid(W z)."""

    def __init__(self):
        super().__init__()
        self.event_shape, self.latent_shape = torch.Size((1, 4, 4)), torch.Size((3,))
        self.weight = nn.Parameter(torch.randn(16, 3, generator=torch.Generator().manual_seed(0)))

    def prior(self, y=None):
        raise NotImplementedError

    def decode(self, z, y=None):
        return torch.sigmoid(z @ self.weight.T).unflatten(1, self.event_shape)


def images(n):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(n, 1, 4, 4, generator=generator) * (torch.rand(n, 1, 4, 4, generator=generator) < 0.3)


def task(n=4, steps=8):
    return cs_search.Task(images(n), Prior(), steps, 3, CPU)


@pytest.mark.parametrize("box", [False, True])
def test_every_solver_that_counts_reaches_the_engines_objective(box):
    measures = list(
        cs_lasso.against_cvxpy(images(4), 8, box=box, solvers=("CLARABEL", "SCS"), repeats=2, stopwatch=CPU)
    )
    assert [m.target for m in measures] == [None, None, 30.0]
    assert "against CLARABEL" in measures[0].what and "against the fastest" in measures[2].what
    each = measures[2].extra["ms an image"]
    assert set(each) == {"engine", "CLARABEL", "SCS"} and measures[2].extra["not counted"] == {}
    fastest = min(("CLARABEL", "SCS"), key=each.get)
    assert measures[2].values == measures[("CLARABEL", "SCS").index(fastest)].values


def test_a_solver_that_stays_above_the_objective_is_said_so_and_does_not_count(monkeypatch):
    loose = {**cs_lasso.LADDERS, "SCS": [{"eps_abs": 0.1, "eps_rel": 0.1, "max_iters": 1}]}
    monkeypatch.setattr(cs_lasso, "LADDERS", loose)
    measures = list(
        cs_lasso.against_cvxpy(images(3), 8, box=False, solvers=("CLARABEL", "SCS"), repeats=1, stopwatch=CPU)
    )
    assert len(measures) == 2 and not any("against SCS" in m.what for m in measures)
    assert "SCS stays" in measures[1].note and not measures[1].extra["not counted"]["SCS"] <= 1e-6


def test_the_ladder_is_climbed_until_every_timed_image_is_near_enough(monkeypatch):
    tight = cs_lasso.TIGHT["SCS"]
    monkeypatch.setitem(cs_lasso.LADDERS, "SCS", [{"eps_abs": 0.1, "eps_rel": 0.1, "max_iters": 1}, tight])
    (one, _) = cs_lasso.against_cvxpy(images(3), 8, box=False, solvers=("SCS",), repeats=1, stopwatch=CPU)
    assert one.extra["settings"].items() >= tight.items()


def test_an_objective_above_the_least_by_more_than_a_millionth_shows():
    problem = cs_lasso.lasso_problem(images(2), 8, box=True)
    best = cs_lasso.solve_lasso(problem, tolerance=1e-10)
    assert cs_lasso.excess(problem, best.w, [0, 1], best.objective) == pytest.approx(0, abs=1e-9)
    assert cs_lasso.excess(problem, best.w * 1.01, [0, 1], best.objective) > 1e-6
    # a coefficient outside the box gains nothing: it is clipped before it is judged
    assert cs_lasso.excess(problem, best.w - (best.w == 0).double(), [0, 1], best.objective) == pytest.approx(
        0, abs=1e-9
    )


def test_the_batch_takes_the_references_steps_from_its_starts(monkeypatch):
    monkeypatch.setattr(cs_search, "REFERENCE_BATCH", 3)  # 4 images: a batch of 3 and one of 1
    own = task()
    torch.testing.assert_close(own.as_reference(), own.method().recover(own.y).details["loss"], rtol=1e-5, atol=0)
    batch, annealed, error = cs_search.one_batch(own, repeats=1)
    assert (batch.target, annealed.target, error.target) == (1.6, 4.0, 1.02)
    assert error.value == pytest.approx(batch.extra["mse"]["annealed"] / batch.extra["mse"]["batch"])


def test_a_batch_that_ends_at_other_losses_is_an_error(monkeypatch):
    monkeypatch.setattr(cs_search, "PENALTY", 0.1)
    own = task()
    monkeypatch.setattr(own, "method", lambda **more: CSGM(own.operator, own.prior, steps=2, restarts=3, penalty=0.1))
    with pytest.raises(RuntimeError, match="expected the losses of the reference's way"):
        list(cs_search.one_batch(own, repeats=1))


def test_times_of_batches_are_per_signal():
    measures = list(cs_search.batch_sizes(task(4, 2), (1, 4), repeats=1))
    assert [m.what.split(",")[0].split(":")[0] for m in measures] == ["CSGM", "LASSO in pixels"]
    each = measures[0].extra["ms a signal"]
    assert measures[0].value == pytest.approx(each["1"] / each["4"])


def test_deepinvs_environment_has_the_torchvision_of_its_torch():
    assert "torchvision==0.21.*" in cs_deepinv.requirements("2.6.0")
    assert "torchvision==0.28.*" in cs_deepinv.requirements("2.13.0+cpu")


def test_deepinv_is_asked_for_the_same_steps_and_the_answer_is_per_signal(monkeypatch):
    asked = []

    def ask(python, settings):
        asked.append(settings)
        return {"seconds": 6.0, "loss": 0.5, "deepinv": "0.5.0"}

    monkeypatch.setattr(cs_deepinv, "ask", ask)
    (one,) = cs_deepinv.against_deepinv(task(steps=5), "zoo:x", None, signals=2, repeats=1, threads=1, clock="cpu")
    assert asked[0]["steps"] == 5 and one.target == 5.0 and one.extra["ms a signal"]["deepinv"] == 3000


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(compressed_sensing.core_models, "load", lambda name: Prior())
    monkeypatch.setattr(compressed_sensing, "load_data", lambda name: SimpleNamespace(images=lambda split: images(4)))


def test_where_deepinv_cannot_be_had_the_part_says_so(tiny, monkeypatch, capsys):
    def refuse(folder):
        raise UserError("could not make x")

    monkeypatch.setattr(compressed_sensing, "peer_python", refuse)
    compressed_sensing.bench(parts=("deepinv",), csgm_images=2, steps=1)
    assert "deepinv: not measured: could not make x" in capsys.readouterr().out


def test_measures_become_cells_of_the_table_of_speed(tiny, tmp_path):
    options = {"parts": ("batch",), "sizes": (2, 1), "batch_steps": 1, "restarts": 2, "repeats": 3, "out": tmp_path}
    compressed_sensing.bench(**options)
    assert not list(tmp_path.iterdir())
    compressed_sensing.bench(**options, write=True)
    cells = read_cells(tmp_path)
    assert {(cell.app, cell.table, cell.column) for cell in cells} == {("compressed_sensing", "speed", "CPU")}
    assert sorted(cell.row.split(",")[0] for cell in cells) == ["CSGM", "LASSO in pixels"]
    assert all(len(cell.extra["rounds"]) == 3 and "batch of 1 over that in a batch of 2" in cell.row for cell in cells)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"steps": 0}, "--steps: expected 1 or more, got 0"),
        ({"solvers": ("OSPQ",)}, "expected some of CLARABEL, OSQP, SCS, got 'OSPQ'; did you mean OSQP"),
        ({"clock": "cpu", "threads": 2}, "expected wall unless one CPU thread"),
        ({"write": True, "repeats": 2}, "at least 3 for cells to be written, got 2"),
    ],
)
def test_mistakes_are_one_line(given, words):
    with pytest.raises(UserError, match=words):
        compressed_sensing.bench(**given)
