"""Batches of a semi-supervised run: some unlabelled rows, some labelled ones, both drawn anew at every step."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from core_models.training import TensorBatches


class SemiSupervisedBatches:
    """Unlabelled and labelled rows side by side.

    An epoch is one pass through the unlabelled rows. The labelled rows are far fewer: all of them go into every batch
    where they fit into `labelled_batch_size`, else their own passes follow one another. With no unlabelled row an
    epoch is a pass through the labelled ones.

    Args:
        x: all rows (n, ...).
        y: codes (n,), -1 where there is no label.
        batch_size: unlabelled rows in a batch.
        labelled_batch_size: labelled rows in a batch.
        seed: seeds both orders.
    """

    def __init__(self, x: Tensor, y: Tensor, batch_size: int, labelled_batch_size: int, seed: int) -> None:
        known = y >= 0
        self._settings = (batch_size, labelled_batch_size, seed)
        self._x, self._y = x, y
        self.labelled = TensorBatches(
            {"labelled": x[known], "y": y[known]}, min(labelled_batch_size, int(known.sum())), seed
        )
        # every labelled row in every batch: no order to draw
        self.labelled.shuffle = self.labelled.batch_size < self.labelled.examples
        self.unlabelled: TensorBatches | None = None
        if not bool(known.all()):
            hidden = x[~known]
            self.unlabelled = TensorBatches({"unlabelled": hidden}, min(batch_size, len(hidden)), seed + 1)

    @property
    def steps_per_epoch(self) -> int:
        """Batches in a pass through the unlabelled rows."""
        return (self.unlabelled or self.labelled).steps_per_epoch

    @property
    def fingerprint(self) -> str:
        """Identifies the rows and how they are drawn."""
        return f"{self.labelled.fingerprint} {self.unlabelled.fingerprint if self.unlabelled else ''}"

    def to(self, device: torch.device | str) -> Self:
        """Returns the same batches on a device."""
        if self._x.device == torch.device(device):
            return self
        return type(self)(self._x.to(device), self._y.to(device), *self._settings)

    def batch(self, epoch: int, step: int) -> dict[str, Tensor]:
        """Returns "labelled" rows with their codes "y", "unlabelled" rows where there are, and "step", those before."""
        before = epoch * self.steps_per_epoch + step
        passes, position = divmod(before, self.labelled.steps_per_epoch)
        batch = self.labelled.batch(passes, position)
        batch["step"] = torch.full((), float(before), device=self._x.device)
        if self.unlabelled is not None:
            batch |= self.unlabelled.batch(epoch, step)
        return batch
