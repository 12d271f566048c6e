"""A run that was stopped, however, and resumed has the numbers of one that never was."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from core_models.errors import UserError
from core_models.training import Interrupted, RunFolder, TensorBatches, TrainingConfig, fit
from core_models.training.batches import fingerprints_like
from core_models.training.checkpoint import load_checkpoint


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    """A run that never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    history, objective = tiny.train(folder, checkpoint_every_seconds=1000.0)
    return folder, history, objective.state_dict()


def assert_same_run(tiny, folder, history, objective, whole):
    whole_folder, whole_history, weights = whole
    assert (folder / "metrics.jsonl").read_bytes() == (whole_folder / "metrics.jsonl").read_bytes()
    assert history.metrics == whole_history.metrics
    for name, tensor in objective.state_dict().items():
        assert torch.equal(tensor, weights[name]), name
    here, there = (load_checkpoint(RunFolder(path).checkpoint()) for path in (folder, whole_folder))
    assert here.tensors.keys() == there.tensors.keys()
    for name, tensor in here.tensors.items():
        assert torch.equal(tensor, there.tensors[name]), name


def test_killed_at_random_moments(tiny, whole, tmp_path):
    root = Path(__file__).parents[3]
    command = [sys.executable, tiny.__file__, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(root)})
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [-signal.SIGKILL, -signal.SIGKILL, 130, -signal.SIGKILL]
    assert "--resume" in (tmp_path / "interrupted.txt").read_text()
    history, objective = tiny.train(tmp_path, resume=True)
    assert_same_run(tiny, tmp_path, history, objective, whole)


@pytest.mark.parametrize("step", [1, 31, 32, 100])
def test_interrupted_at_a_step(tiny, whole, tmp_path, step, monkeypatch):
    """Step 31 is the last of the first epoch."""
    forward = tiny.Tiny.forward

    def forward_with_interrupt(self, batch, generator=None):
        if self.training:
            self.calls = getattr(self, "calls", 0) + 1
            if self.calls == step:
                signal.raise_signal(signal.SIGINT)
        return forward(self, batch, generator)

    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patched:
        patched.setattr(tiny.Tiny, "forward", forward_with_interrupt)
        with pytest.raises(Interrupted, match=rf"at step {step} of 310; .* --resume") as stop:
            tiny.train(tmp_path, checkpoint_every_seconds=1000.0)
    assert stop.value.checkpoint == RunFolder(tmp_path).checkpoint()
    assert load_checkpoint(stop.value.checkpoint).state.step == step
    assert signal.getsignal(signal.SIGINT) is before
    history, objective = tiny.train(tmp_path, resume=True, checkpoint_every_seconds=1000.0)
    assert_same_run(tiny, tmp_path, history, objective, whole)


def test_interrupted_without_a_folder_saves_nothing(tiny):
    class Interrupting(TensorBatches):
        def batch(self, epoch, step):
            if (epoch, step) == (0, 4):
                signal.raise_signal(signal.SIGINT)
            return super().batch(epoch, step)

    config = TrainingConfig(**tiny.CONFIG)
    with pytest.raises(Interrupted, match="at step 5 of 310; nothing is saved") as stop:
        fit(tiny.Tiny(), Interrupting(tiny.data(), 8), config, validate=tiny.validate, progress=False)
    assert isinstance(stop.value, KeyboardInterrupt) and stop.value.step == 5


def test_time_limit_stops_with_a_checkpoint(tiny, whole, tmp_path):
    history, objective = tiny.train(tmp_path, time_limit=1e-9, checkpoint_every_seconds=1000.0)
    assert (history.stopped, history.steps) == ("time limit", 1)
    while history.stopped == "time limit":
        history, objective = tiny.train(tmp_path, resume=True, time_limit=0.5, checkpoint_every_seconds=1000.0)
    assert history.stopped == "finished"
    assert_same_run(tiny, tmp_path, history, objective, whole)


def test_a_finished_stage_returns_at_once(tiny, whole, monkeypatch):
    folder, history, weights = whole
    before = (folder / "metrics.jsonl").stat().st_mtime_ns
    monkeypatch.setattr(tiny.Tiny, "forward", None)
    again, objective = tiny.train(folder, resume=True)
    assert (again.metrics, again.stopped, again.steps) == (history.metrics, "finished", history.steps)
    assert (folder / "metrics.jsonl").stat().st_mtime_ns == before
    for name, tensor in objective.state_dict().items():
        assert torch.equal(tensor, weights[name]), name


def test_stages_share_a_folder(tiny, tmp_path):
    run = RunFolder(tmp_path)
    config = TrainingConfig(epochs=2, threads=1, device="cpu")
    for stage in ("m1", "m2"):
        fit(tiny.Tiny(), tiny.batches(), config, run=run, stage=stage, progress=False)
    assert run.stages() == ["m1", "m2"]
    assert [(line["stage"], line["epoch"]) for line in run.read_metrics()] == [
        ("m1", 1),
        ("m1", 2),
        ("m2", 1),
        ("m2", 2),
    ]
    # other noise in each
    assert run.read_metrics("m1")[0]["loss"] != run.read_metrics("m2")[0]["loss"]


def test_more_epochs_at_a_constant_rate(tiny, tmp_path):
    run = RunFolder(tmp_path)

    def train(epochs, **extra):
        objective = tiny.Tiny()
        config = TrainingConfig(epochs=epochs, ema=0.9, threads=1, device="cpu")
        return fit(objective, tiny.batches(), config, progress=False, **extra), objective

    train(2, run=run)
    extended, objective = train(3, run=run, resume=True)
    straight, expected = train(3)
    assert extended.metrics == straight.metrics
    assert torch.equal(objective.net[0].weight, expected.net[0].weight)
    with pytest.raises(UserError, match=r"already has 3 epochs, got epochs=1"):
        train(1, run=run, resume=True)


def test_a_folder_in_use_is_left_alone(tiny, whole):
    folder = whole[0]
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=r"already holds a run: add --resume to go on, or choose another folder"):
        tiny.train(folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"learning_rate": 0.02}, r"learning_rate \(0.01 there, 0.02 here\)"),
        ({"epochs": 11}, r"epochs \(10 there, 11 here\)"),
        ({"ema": None, "clip_norm": 1.0}, r"clip_norm \(0.5 there, 1.0 here\), ema \(0.95 there, None here\)"),
    ],
)
def test_other_settings_are_refused(tiny, whole, changes, named):
    with pytest.raises(UserError, match=rf"other settings: {named}; resume with the same"):
        tiny.train(whole[0], resume=True, **changes)


def test_another_model_is_refused(tiny, whole):
    config = TrainingConfig(**tiny.CONFIG)
    run = RunFolder(whole[0])
    objective = tiny.Tiny(width=9)
    with pytest.raises(UserError, match=r"another model: weights net\.0\.weight \(\[8, 4\] there, \[9, 4\] here\)"):
        fit(objective, tiny.batches(), config, run=run, resume=True, validate=tiny.validate, progress=False)


def test_other_data_is_refused(tiny, whole):
    other = tiny.data()
    other["y"] = other["y"].flip(0)
    batches = TensorBatches(other, 8, seed=3)
    config = TrainingConfig(**tiny.CONFIG)
    with pytest.raises(UserError, match="other data: fingerprint"):
        fit(tiny.Tiny(), batches, config, run=RunFolder(whole[0]), resume=True, validate=tiny.validate, progress=False)


def test_a_checkpoint_that_tells_a_sample_of_the_data_is_resumed_and_tells_all_of_it_after(tiny, tmp_path):
    def train(epochs, batches, **extra):
        config = TrainingConfig(epochs=epochs, threads=1, device="cpu")
        fit(tiny.Tiny(), batches, config, run=RunFolder(tmp_path), progress=False, **extra)
        return load_checkpoint(RunFolder(tmp_path).checkpoint()).identity["batches"]["fingerprint"]

    with fingerprints_like(""):
        assert "crc32=" not in train(1, tiny.batches())
    other = tiny.data()
    other["y"] = other["y"].flip(0)
    with pytest.raises(UserError, match="other data: fingerprint"):
        train(2, TensorBatches(other, 8, seed=3), resume=True)
    assert "crc32=" in train(2, tiny.batches(), resume=True)
    train(3, tiny.batches(), resume=True)
