"""A checkpoint is read back to the bit, or not at all."""

import errno
import os

import pytest
import torch
from safetensors.torch import save_file

from core_models.errors import UserError
from core_models.training.checkpoint import Checkpoint, TrainingState, load_checkpoint, save_checkpoint


@pytest.fixture
def saved(tmp_path):
    tied = torch.arange(4.0)
    tensors = {
        "objective/a": tied,
        "objective/b": tied,
        "objective/half": torch.ones(3, dtype=torch.bfloat16),
        "objective/none": torch.zeros(0, 2),
        "optimizer/a/step": torch.tensor(3.0),
        "random/cpu": torch.get_rng_state(),
        "best/slice": torch.arange(6.0).view(2, 3)[:, 1],
    }
    state = TrainingState(step=3, sums={"loss": (0.1 + 0.2, 3)}, metrics=[{"loss": 1 / 3}], best=None, waited=2)
    path = tmp_path / "checkpoint" / "state.safetensors"
    checkpoint = Checkpoint({"objective": {"class": "Tiny"}}, state, tensors)
    save_checkpoint(path, checkpoint)
    return path, checkpoint


def test_round_trip(saved):
    path, checkpoint = saved
    again = load_checkpoint(path)
    assert (again.identity, again.state) == (checkpoint.identity, checkpoint.state)
    assert again.tensors.keys() == checkpoint.tensors.keys()
    for name, tensor in checkpoint.tensors.items():
        assert torch.equal(again.tensors[name], tensor) and again.tensors[name].dtype == tensor.dtype
    assert again.group("optimizer").keys() == {"a/step"}


def test_cut_short(saved):
    path, _ = saved
    data = path.read_bytes()
    for length in (0, 7, 100, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(UserError, match="cut short or altered"):
            load_checkpoint(path)


def test_an_altered_byte_is_found_wherever_it_is(saved):
    path, _ = saved
    data = path.read_bytes()
    for position in range(8, len(data), 97):
        altered = bytearray(data)
        altered[position] ^= 1
        path.write_bytes(altered)
        with pytest.raises(UserError) as error:
            load_checkpoint(path)
        assert "\n" not in str(error.value)


def test_another_file_is_named(tmp_path):
    save_file({"w": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="is another safetensors file"):
        load_checkpoint(tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="found none"):
        load_checkpoint(tmp_path / "missing.safetensors")


def test_full_disk_keeps_the_checkpoint_before(saved, monkeypatch):
    path, checkpoint = saved
    before = path.read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="the disk is full"):
        save_checkpoint(path, Checkpoint(checkpoint.identity, TrainingState(step=4), checkpoint.tensors))
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]
