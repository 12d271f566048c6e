"""Batches follow from (seed, epoch, step) alone."""

import pytest
import torch

from core_models.errors import UserError
from core_models.training import Batches, TensorBatches
from core_models.training.batches import fingerprints_like


def epoch_of(batches, epoch):
    return torch.cat([batches.batch(epoch, step)["i"] for step in range(batches.steps_per_epoch)])


def make(**changes):
    return TensorBatches({"i": torch.arange(10), "x": torch.arange(10.0)}, **{"batch_size": 3, "seed": 0, **changes})


def test_an_epoch_is_a_permutation():
    batches = make(drop_last=False)
    assert isinstance(batches, Batches) and batches.steps_per_epoch == 4
    assert epoch_of(batches, 0).sort().values.tolist() == list(range(10))
    batch = batches.batch(0, 1)
    assert torch.equal(batch["i"].float(), batch["x"])  # the tensors stay in step


def test_the_last_batch_is_dropped_or_not():
    assert make().steps_per_epoch == 3 and len(epoch_of(make(), 0)) == 9
    assert len(make(drop_last=False).batch(0, 3)["i"]) == 1


def test_order_depends_on_seed_and_epoch_only():
    batches = make()
    later = epoch_of(batches, 1)
    assert torch.equal(epoch_of(make(), 1), later)
    batches.batch(0, 0)  # going back changes nothing
    assert torch.equal(epoch_of(batches, 1), later)
    assert not torch.equal(epoch_of(batches, 0), later)
    assert not torch.equal(epoch_of(make(seed=1), 0), later)  # epoch 0 of seed 1 is not epoch 1 of seed 0


def test_without_shuffling_the_order_is_that_of_the_tensors():
    assert epoch_of(make(shuffle=False), 5).tolist() == list(range(9))


def test_fingerprint_tells_data_and_drawing_apart():
    changed = torch.arange(10)
    changed[7] = 0
    prints = {make().fingerprint, make(seed=1).fingerprint, make(batch_size=2).fingerprint}
    prints.add(TensorBatches({"i": changed, "x": torch.arange(10.0)}, 3).fingerprint)
    assert len(prints) == 4 and make().fingerprint in prints


def test_moving_to_a_device():
    batches = make()
    assert batches.to("cpu") is batches
    moved = batches.to("meta")
    assert moved.device.type == "meta" and moved.steps_per_epoch == 3 and moved.seed == batches.seed


@pytest.mark.parametrize("size", [0, 11])
def test_wrong_batch_size(size):
    with pytest.raises(UserError, match=f"batch size from 1 to the number of examples, got {size} for 10 examples"):
        make(batch_size=size)


def test_wrong_tensors():
    with pytest.raises(UserError, match=r"one number of examples, got \{'a': 2, 'b': 3\}"):
        TensorBatches({"a": torch.zeros(2), "b": torch.zeros(3)}, 1)
    with pytest.raises(IndexError, match="step from 0 to 2, got 3"):
        make().batch(0, 3)


def test_every_byte_counts_also_where_images_are_a_power_of_two():
    x = torch.zeros(65_536, 28, 1, dtype=torch.uint8)
    before, sampled = TensorBatches({"x": x}, 10).fingerprint, []
    other = x.clone()
    other[:, 1:] = 7  # all but the first column
    for images in (x, other):
        with fingerprints_like("x=[65536, 28, 1]:torch.uint8:00000000"):
            sampled.append(TensorBatches({"x": images}, 10).fingerprint)
    assert sampled[0] == sampled[1] != before  # as checkpoints of before have it
    assert TensorBatches({"x": other}, 10).fingerprint != before
    with fingerprints_like(before):
        assert TensorBatches({"x": x}, 10).fingerprint == before
