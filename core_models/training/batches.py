"""What a run is fed with: batches that follow from (seed, epoch, step) alone, so a resumed run sees the same ones."""

import hashlib
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ..errors import UserError


@runtime_checkable
class Batches(Protocol):
    """A source of batches.

    Whatever it draws must follow from what it was built with and from (epoch, step): the loop keeps no state of it.

    Two things are optional. `to(device)` returns the same batches on a device, and the loop calls it once, before
    the first step; without it each batch is moved. `fingerprint`, a string, identifies the data and how it is drawn;
    where there is one, a run is resumed only with the same. One made of a `TensorBatches`' own has to be a property,
    made when asked for: a checkpoint of before is compared in the form it was made in (`fingerprints_like`).
    """

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches in an epoch."""

    def batch(self, epoch: int, step: int) -> Mapping[str, Tensor]:
        """Returns a batch; both numbers count from 0, the step within its epoch."""


_SAMPLED: ContextVar[bool] = ContextVar("sampled", default=False)
_WHOLE = "crc32="
_CHUNK = 1 << 24


@contextmanager
def fingerprints_like(told: str) -> Iterator[None]:
    """Has fingerprints in a block made in the form of one that a checkpoint holds.

    Checkpoints of before hold a checksum of a sample of the data's bytes.
    """
    token = _SAMPLED.set(_WHOLE not in told)
    try:
        yield
    finally:
        _SAMPLED.reset(token)


def seed_of(seed: int, *labels: object) -> int:
    """Derives a 63-bit seed from a seed and labels, with no overlap between (seed 0, epoch 1) and (seed 1, epoch 0)."""
    digest = hashlib.sha256("/".join(map(str, (seed, *labels))).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def held_out(n: int, validation: int, seed: int) -> tuple[Tensor, Tensor]:
    """Shares n training examples out, by a seed, into those to train on and those held out.

    Args:
        n: examples in all.
        validation: how many to hold out.
        seed: decides which.

    Returns:
        their places, both ascending: (n - validation,) and (validation,).

    Raises:
        UserError: when there are not more examples than are to be held out.
    """
    if not 0 <= validation < n:
        raise UserError(
            f"expected a validation set smaller than the {n} training images, got {validation}: hold out fewer"
        )
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed_of(seed, "validation")))
    return order[validation:].sort().values, order[:validation].sort().values


class TensorBatches:
    """Batches cut from tensors that lie on the device whole.

    Args:
        tensors: tensors by name, all with the same first dimension (the examples).
        batch_size: examples in a batch.
        seed: seeds the order of the examples; the order is the same on every device.
        shuffle: whether the order changes every epoch; else it is that of the tensors.
        drop_last: whether to leave out the examples that do not fill a last batch (others every epoch, when shuffled).

    Raises:
        UserError: when there is not one full batch, or the tensors differ in their first dimension.

    Example:
        >>> batches = TensorBatches({"x": torch.arange(4.0)}, batch_size=2, seed=0, shuffle=False)
        >>> batches.batch(epoch=0, step=1)["x"]
        tensor([2., 3.])
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = True,
    ) -> None:
        self.tensors = dict(tensors)
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.drop_last = drop_last
        sizes = {name: len(tensor) for name, tensor in self.tensors.items()}
        if len(set(sizes.values())) != 1:
            raise UserError(f"expected tensors with one number of examples, got {sizes or 'no tensors'}")
        self.examples = next(iter(sizes.values()))
        if batch_size < 1 or self.steps_per_epoch < 1:
            raise UserError(
                f"expected a batch size from 1 to the number of examples, got {batch_size} for {self.examples} examples"
            )
        self._order: Tensor | None = None
        self._order_epoch = -1

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches in an epoch."""
        whole, rest = divmod(self.examples, self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    @property
    def device(self) -> torch.device:
        """Where the tensors lie."""
        return next(iter(self.tensors.values())).device

    @property
    def fingerprint(self) -> str:
        """Identifies the tensors (shapes, types and a checksum of all their bytes) and how they are drawn."""
        parts = [f"batch_size={self.batch_size} seed={self.seed} shuffle={self.shuffle} drop_last={self.drop_last}"]
        for name, tensor in self.tensors.items():
            flat = tensor.detach().reshape(-1)
            if _SAMPLED.get():
                # less than 131,072 values; of 28 x 28 images, a power of two of them, those of one column alone
                told = f"{_checksum(flat[:: max(1, flat.numel() // 65_536)]):08x}"
            else:
                told = f"{_WHOLE}{_checksum(flat):08x}"
            parts.append(f"{name}={list(tensor.shape)}:{tensor.dtype}:{told}")
        return " ".join(parts)

    def to(self, device: torch.device | str) -> "TensorBatches":
        """Returns the same batches on a device."""
        if self.device == torch.device(device):
            return self
        moved = {name: tensor.to(device) for name, tensor in self.tensors.items()}
        return TensorBatches(moved, self.batch_size, self.seed, self.shuffle, self.drop_last)

    def batch(self, epoch: int, step: int) -> dict[str, Tensor]:
        """Returns a batch; both numbers count from 0, the step within its epoch."""
        if not 0 <= step < self.steps_per_epoch:
            raise IndexError(f"expected a step from 0 to {self.steps_per_epoch - 1}, got {step}")
        start = step * self.batch_size
        if not self.shuffle:
            return {name: tensor[start : start + self.batch_size] for name, tensor in self.tensors.items()}
        index = self._permutation(epoch)[start : start + self.batch_size]
        return {name: tensor.index_select(0, index) for name, tensor in self.tensors.items()}

    def _permutation(self, epoch: int) -> Tensor:
        if self._order is None or self._order_epoch != epoch:
            generator = torch.Generator().manual_seed(seed_of(self.seed, "epoch", epoch))
            self._order = torch.randperm(self.examples, generator=generator).to(self.device)
            self._order_epoch = epoch
        return self._order


def _checksum(flat: Tensor) -> int:
    """Returns the CRC-32 of a tensor's bytes; from a GPU they come a chunk at a time. MNIST takes 30 ms."""
    value = 0
    for chunk in flat.split(_CHUNK) if flat.numel() else ():
        value = zlib.crc32(chunk.contiguous().cpu().view(torch.uint8).numpy().data, value)
    return value


class PixelBatches:
    """Batches of images "x" as bytes, handed out as floats in [0, 1]: a quarter of the memory for the same numbers."""

    def __init__(self, batches: TensorBatches, levels: int) -> None:
        self.batches, self.levels = batches, levels

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches in an epoch."""
        return self.batches.steps_per_epoch

    @property
    def fingerprint(self) -> str:
        """Identifies the images and how they are drawn."""
        return f"{self.batches.fingerprint} levels={self.levels}"

    def to(self, device: torch.device | str) -> "PixelBatches":
        """Returns the same batches on a device."""
        return PixelBatches(self.batches.to(device), self.levels)

    def batch(self, epoch: int, step: int) -> Mapping[str, Tensor]:
        """Returns a batch; both numbers count from 0, the step within its epoch."""
        batch = self.batches.batch(epoch, step)
        return {**batch, "x": batch["x"].to(torch.float32).div_(self.levels - 1)}
