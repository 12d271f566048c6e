"""What is shown of a run: lines when not on a terminal, a bar on one, nothing when not wanted."""

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from core_models.training import RunFolder, TrainingConfig, fit
from core_models.training.progress import Progress


def test_lines_every_tenth(capsys):
    with Progress("m1", total=1000) as shown:
        for step in range(1, 1001):
            shown.update(step, "loss 1.5", last=step == 1000)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10
    assert lines[0].startswith("m1: step 100 of 1000 (10 %), ") and " steps/s, " in lines[0] and " left, " in lines[0]
    assert lines[-1].startswith("m1: step 1000 of 1000 (100 %)") and lines[-1].endswith("steps/s, loss 1.5")


def test_lines_every_ten_seconds(capsys, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("core_models.training.progress.time.monotonic", lambda: clock[0])
    shown = Progress("slow", total=1000)
    for step in range(1, 5):
        clock[0] += 6.0
        assert shown.due(clock[0])
        shown.update(step)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" of ")[0] for line in lines] == ["slow: step 2", "slow: step 4"]
    assert "0.17 steps/s, 1:39:48 left" in lines[0]


def test_a_bar_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with Progress("m1", total=10, done=4) as shown:
        shown.update(5, "loss 1.5")
    text = capsys.readouterr().err
    assert "m1" in text and "5/10" in text and "loss 1.5" in text


def test_silence(capsys, tiny):
    with Progress("m1", total=10, enabled=False) as shown:
        assert not shown.due(1e9)
        shown.update(10, last=True)
    fit(tiny.Tiny(), tiny.batches(), TrainingConfig(epochs=1, device="cpu"), progress=False)
    captured = capsys.readouterr()
    assert captured.err == captured.out == ""


def made_earlier(folder):
    """Dates event files back ten seconds: TensorBoard orders them by the second in their names."""
    for file in folder.glob("events.out.tfevents.*"):
        parts = file.name.split(".")
        parts[3] = str(int(parts[3]) - 10)
        file.rename(folder / ".".join(parts))


def test_tensorboard_has_every_epoch_once(tmp_path, tiny):
    tiny.train(tmp_path, epochs=3, schedule="constant")
    run = RunFolder(tmp_path)
    made_earlier(run.tensorboard())
    stale = SummaryWriter(str(run.tensorboard()))  # what a kill leaves: an epoch after the checkpoint
    stale.add_scalar("loss", 99.0, 4 * tiny.batches().steps_per_epoch)
    stale.close()
    made_earlier(run.tensorboard())
    history, _ = tiny.train(tmp_path, epochs=5, schedule="constant", resume=True)
    events = EventAccumulator(str(run.tensorboard()))
    events.Reload()
    losses = events.Scalars("loss")
    assert [event.step for event in losses] == [line["step"] for line in history.metrics]
    expected = torch.tensor([line["loss"] for line in history.metrics])
    torch.testing.assert_close(torch.tensor([event.value for event in losses]), expected)
