"""Settings outside their range are refused by name, with the value."""

import math

import pytest
import torch

from core_models.errors import UserError
from core_models.training import EarlyStop, TrainingConfig, resolve_device
from core_models.training.config import multiplies_in_bfloat16


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("learning_rate", 0.0),
        ("learning_rate", math.inf),
        ("betas", (0.9, 1.0)),
        ("weight_decay", -1.0),
        ("optimizer", "lion"),
        ("schedule", "step"),
        ("step_at", (0.5, 1.0)),
        ("step_at", (0.75, 0.5)),
        ("step_factor", 0.0),
        ("warmup_steps", -1),
        ("schedule_floor", 1.5),
        ("schedule_hold", -0.1),
        ("epsilon", 0.0),
        ("clip_norm", 0.0),
        ("ema", 1.0),
        ("validate_every", 0),
        ("checkpoint_every_seconds", -1.0),
        ("device", "gpu"),
        ("precision", "16-mixed"),
        ("threads", 0),
        ("time_limit", 0.0),
    ],
)
def test_out_of_range(name, value):
    config = TrainingConfig(epochs=1)
    object.__setattr__(config, name, value)  # past the type checks of the tests, which users don't have
    with pytest.raises(UserError) as error:
        config.__post_init__()
    assert str(error.value).startswith(f"{name}: expected ") and str(value) in str(error.value)


@pytest.mark.parametrize("wrong", [{"mode": "low"}, {"patience": 0}, {"min_delta": -1.0}])
def test_early_stop_out_of_range(wrong):
    rule = EarlyStop("v")
    ((name, value),) = wrong.items()
    object.__setattr__(rule, name, value)
    with pytest.raises(UserError, match=rf"early_stop\.{name}: expected"):
        rule.__post_init__()


def test_improvement():
    lower, higher = EarlyStop("v", min_delta=0.5), EarlyStop("v", "max", min_delta=0.5)
    assert lower.improves(1.0, None) and not lower.improves(math.nan, None)
    assert lower.improves(0.4, 1.0) and not lower.improves(0.5, 1.0) and not lower.improves(2.0, 1.0)
    assert higher.improves(1.6, 1.0) and not higher.improves(1.5, 1.0) and not higher.improves(math.nan, 1.0)


def test_what_the_numbers_depend_on():
    free = {"time_limit": 5.0, "threads": 1, "device": "cpu", "compile": True, "checkpoint_every_seconds": 1.0}
    assert TrainingConfig(epochs=1).numbers() == TrainingConfig(epochs=2, **free).numbers()
    cosine = TrainingConfig(epochs=1, schedule="cosine")
    assert cosine.numbers() != TrainingConfig(epochs=2, schedule="cosine").numbers()
    assert TrainingConfig(epochs=1).numbers() != TrainingConfig(epochs=1, seed=1).numbers()


def test_steps_are_part_of_a_run_only_where_they_are_taken():
    """A checkpoint of another schedule knows nothing of them, and goes on as before."""
    assert TrainingConfig(epochs=1).numbers() == TrainingConfig(epochs=1, step_at=(0.1,), step_factor=0.2).numbers()
    cosine = TrainingConfig(epochs=1, schedule="cosine").numbers()
    assert not {"step_at", "step_factor", "schedule_hold", "epsilon"} & cosine.keys()
    assert "epsilon" in TrainingConfig(epochs=1, epsilon=1e-4).numbers()
    assert "schedule_hold" in TrainingConfig(epochs=1, schedule="cosine", schedule_hold=0.5).numbers()
    steps = TrainingConfig(epochs=2, schedule="steps")
    for change in ({"step_at": (0.1,)}, {"step_factor": 0.2}, {"epochs": 3}):
        assert steps.numbers() != TrainingConfig(**{"epochs": 2, "schedule": "steps", **change}).numbers()


def test_devices():
    assert resolve_device("cpu").type == "cpu"
    with pytest.raises(UserError, match="expected device cuda:99, found"):
        resolve_device("cuda:99")


@pytest.mark.parametrize(("avx", "amx", "expected"), [(True, False, True), (False, True, True), (False, False, False)])
def test_processors_with_products_in_bfloat16(avx, amx, expected, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    assert multiplies_in_bfloat16(torch.device("cpu")) == expected
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported")
    assert multiplies_in_bfloat16(torch.device("cpu"))
