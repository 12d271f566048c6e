"""The parts of the benchmark that decide what its figures mean; no test looks at a clock."""

from types import SimpleNamespace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from apps.common.cells import read_cells
from bench import m2_steps as steps
from bench import ratios, semi_supervised
from bench.peak import peak_bytes
from bench.ratios import Measure, Stopwatch, interleaved, quotients, run_parts, speed_cell, table
from bench.semi_supervised import bench
from core_models.errors import UserError

CPU = torch.device("cpu")


def test_contestants_take_turns_and_the_first_round_does_not_count():
    turns = []

    def contestant(name, times):
        def go():
            turns.append(name)
            return times.pop(0)

        return go

    times = interleaved({"a": contestant("a", [9.0, 1.0, 2.0]), "b": contestant("b", [9.0, 4.0, 4.0])}, repeats=2)
    assert turns == ["a", "b"] * 3
    assert times == {"a": [1.0, 2.0], "b": [4.0, 4.0]}
    assert quotients(times, "b", "a") == [4.0, 2.0]


def test_a_drifting_machine_does_not_move_the_ratio():
    drift = [1.0, 3.0, 10.0, 2.0, 0.5]
    times = {"slow": [2 * d for d in drift], "fast": drift}
    assert Measure("x", quotients(times, "slow", "fast"), "higher", 2.0).value == 2.0


@pytest.mark.parametrize(
    ("better", "target", "met"),
    [("higher", 2.0, True), ("higher", 2.1, False), ("lower", 2.0, True), ("lower", 1.9, False), ("lower", None, None)],
)
def test_a_target_is_a_bound_on_the_right_side(better, target, met):
    measure = Measure("x", [1.0, 2.0, 90.0], better, target)
    assert measure.value == 2.0
    assert measure.met is met
    assert ("NO" in table([measure])) == (met is False)


def test_a_figure_is_filed_before_a_later_one_of_its_part_fails(monkeypatch, tmp_path):
    def classes(self):
        yield Measure("the first", [2.0], "higher", None)
        raise RuntimeError("the next one failed")

    monkeypatch.setattr(semi_supervised.Runs, "classes", classes)
    monkeypatch.setattr(steps, "check_every_class", lambda: None)
    with pytest.raises(RuntimeError, match="the next one failed"):
        bench(parts=("classes",), device="cpu", write=True, out=tmp_path)
    (cell,) = read_cells(tmp_path)
    assert cell.row == "the first" and cell.value == 2


def test_every_figure_is_filed_with_the_time_since_the_one_before(monkeypatch, tmp_path):
    clock = iter([10.0, 13.0, 13.0, 17.0, 17.0])
    monkeypatch.setattr(ratios, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    figures = [Measure(what, [1.0], "higher", None) for what in ("a", "b")]
    run_parts(
        ("all",), {"all": lambda: iter(figures)},
        lambda figure, took: speed_cell(
            "x", figure, CPU, "a machine", config_hash="0" * 12, protocol="1", seconds=took
        ),
        True, tmp_path,
    )  # fmt: skip
    assert {cell.row: cell.seconds for cell in read_cells(tmp_path)} == {"a": 3, "b": 4}


def test_the_matrix_products_are_those_of_the_training_step(monkeypatch):
    monkeypatch.setattr(steps, "ROWS", 8)
    objective, rows = steps.vae_objective(), 8
    with FlopCounterMode(display=False) as training:
        objective(steps.vae_batches(rows, CPU).batch(0, 0), torch.Generator())[0].backward()
    products = steps.matrix_products(objective.model, rows, 3, Stopwatch(CPU))
    with FlopCounterMode(display=False) as alone:
        products()
    assert alone.get_total_flops() == 3 * training.get_total_flops()


def test_the_clock_starts_after_the_first_step():
    class Numbered:
        steps_per_epoch = 2

        def batch(self, epoch, step):
            return {"step": torch.tensor(step)}

    starts = []
    some = steps.FirstSteps(Numbered(), 4, lambda: starts.append(len(seen)))
    seen = []
    for step in range(some.steps_per_epoch):
        seen.append(int(some.batch(0, step)["step"]))
    assert starts == [1]
    assert seen == [0, 1, 0, 1]


def test_both_ways_through_the_classes_are_compared_before_they_are_timed(monkeypatch):
    monkeypatch.setattr(steps, "ROWS", 140)
    steps.check_every_class()
    original = steps.m2_objective

    def wrong(*, class_by_class=False):
        objective = original(class_by_class=class_by_class)
        objective.alpha += 1e-3 * class_by_class
        return objective

    monkeypatch.setattr(steps, "m2_objective", wrong)
    with pytest.raises(RuntimeError, match="differ"):
        steps.check_every_class()


def test_peak_memory_is_in_bytes():
    held = torch.ones(16 * 2**20)  # 64 MiB of float32
    assert held.sum() > 0
    assert 64 * 2**20 < peak_bytes() < 64 * 2**30


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"repeats": 0}, "--repeats: expected 1 or more, got 0"),
        ({"write": True, "repeats": 3}, "at least 5"),
        ({"clock": "cpu", "threads": 2}, "expected wall"),
    ],
)
def test_settings_that_would_mislead_are_refused(arguments, words):
    with pytest.raises(UserError, match=words):
        bench(parts=(), device="cpu", **arguments)


def test_the_stopwatch_uses_the_clock_that_is_asked_for(monkeypatch):
    now = iter([10.0, 12.5])
    monkeypatch.setattr(ratios.time, "process_time", lambda: next(now))
    watch = Stopwatch(CPU, "cpu")
    watch.start()
    assert watch.stop() == 2.5
