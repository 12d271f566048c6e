"""What a semi-supervised run is fed with: every row takes its turn, and the steps are counted through."""

import pytest
import torch

from apps.semi_supervised.batches import SemiSupervisedBatches


@pytest.mark.parametrize("labels", [3, 20, 21, 30, 39, 40, 100])
def test_every_labelled_row_takes_its_turn(labels):
    # 21 to 39: more than one batch of 20, and less than two
    x = torch.arange(160.0)[:, None]
    y = torch.full((160,), -1)
    y[:labels] = torch.arange(labels) % 3
    batches = SemiSupervisedBatches(x, y, batch_size=10, labelled_batch_size=20, seed=0)
    seen: set[float] = set()
    for epoch in range(60):
        for step in range(batches.steps_per_epoch):
            batch = batches.batch(epoch, step)
            rows = batch["labelled"][:, 0]
            assert (y[rows.long()] == batch["y"]).all() and (y[batch["unlabelled"][:, 0].long()] == -1).all()
            seen.update(rows.tolist())
    assert seen == set(range(labels))


def test_step_counts_the_batches_before():
    y = torch.tensor([0, 1, *[-1] * 9])
    batches = SemiSupervisedBatches(torch.zeros(11, 2), y, batch_size=3, labelled_batch_size=2, seed=0)
    assert batches.steps_per_epoch == 3
    found = {(epoch, step): batches.batch(epoch, step)["step"].item() for epoch in (0, 1, 5) for step in (0, 2)}
    assert found == {(0, 0): 0, (0, 2): 2, (1, 0): 3, (1, 2): 5, (5, 0): 15, (5, 2): 17}
