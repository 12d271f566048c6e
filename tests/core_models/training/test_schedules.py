"""Schedules against their closed forms."""

import pytest

from core_models.training.schedules import factor


def course(schedule, total=9, **more):
    return [factor(schedule, step, total, **more) for step in range(total)]


def test_constant_after_warm_up():
    assert course("constant", total=5, warmup=4, floor=0.5) == [0.25, 0.5, 0.75, 1, 1]


def test_linear():
    assert course("linear", total=5) == [1, 0.75, 0.5, 0.25, 0]
    assert course("linear", total=6, warmup=1, floor=0.2) == pytest.approx([1, 1, 0.8, 0.6, 0.4, 0.2])


def test_cosine():
    root = 2**-0.5  # cos(pi / 4)
    assert course("cosine", total=5) == pytest.approx([1, (1 + root) / 2, 0.5, (1 - root) / 2, 0], abs=1e-15)
    assert course("cosine", total=7, warmup=2, floor=0.5) == pytest.approx(
        [0.5, 1, 1, 0.5 + (1 + root) / 4, 0.75, 0.5 + (1 - root) / 4, 0.5]
    )


def test_steps():
    assert course("steps", total=8) == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01])
    own = {"step_at": (0.3,), "step_factor": 0.5}
    assert course("steps", total=5, warmup=1, **own) == [1, 1, 0.5, 0.5, 0.5]
    assert course("steps", total=8, floor=0.05) == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.05, 0.05])


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "steps"])
def test_warm_up_longer_than_the_run(schedule):
    assert course(schedule, total=2, warmup=4) == [0.25, 0.5]
    assert factor(schedule, 0, 1) == 1


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_hold_keeps_the_full_rate_then_falls_as_without(schedule):
    held = course(schedule, total=13, hold=1 / 3)
    assert held[:5] == [1.0] * 5
    assert held[4:] == pytest.approx(course(schedule, total=9))
    assert course(schedule, hold=1.0) == [1.0] * 9
