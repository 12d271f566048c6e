"""What a data set is once read: 8-bit images and integer labels, with their origin in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float32, Int64, UInt8
from torch import Size, Tensor

from ..errors import UserError
from .pixels import to_floats

Split = Literal["train", "valid", "test"]
# a leading _: the splits differ in n, and DataSet itself says in words where their shapes do not fit
ByteImages = UInt8[Tensor, "_n _c _h _w"]
UnitImages = Float32[Tensor, "_n _c _h _w"]
ClassLabels = Int64[Tensor, " _n"]

UNLABELLED = -1


@dataclass(frozen=True, eq=False)
class DataSet:
    """Images and labels of a training and a test split, and sometimes of a validation split.

    Example:
        >>> from core_models.data import load
        >>> digits = load("digits")
        >>> digits.images("train").shape, digits.levels
        (torch.Size([1437, 1, 8, 8]), 17)
    """

    name: str
    train_x: ByteImages
    """Levels from 0 to `levels - 1`."""
    train_y: ClassLabels
    """Classes from 0 to `len(classes) - 1`; -1 where there is no label."""
    test_x: ByteImages
    test_y: ClassLabels
    classes: tuple[str, ...]
    """The name of each class; empty when the set has no labels."""
    source: str
    """Where the bytes came from, in words."""
    levels: int = 256
    """How many values a sub-pixel can take."""
    valid_x: ByteImages | None = None
    valid_y: ClassLabels | None = None
    train_paths: tuple[str, ...] = ()
    """The file of each training image, where the user gave a folder; its row, where they gave a .npz of x alone."""
    test_paths: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuses splits that do not fit one another."""
        for split in ("train", "valid", "test"):
            x, y = getattr(self, f"{split}_x"), getattr(self, f"{split}_y")
            if x is None:
                continue
            if len(x) == 0:
                raise UserError(f"{self.name}: expected images in its {split} split, got none: add some")
            if len(x) != len(y):
                raise UserError(
                    f"{self.name}: expected one label per image, got {len(x)} {split} images, {len(y)} labels"
                )
            if x.shape[1:] != self.train_x.shape[1:]:
                train, own = tuple(self.train_x.shape[1:]), tuple(x.shape[1:])
                raise UserError(f"{self.name}: expected {split} images of shape {train}, as in training, got {own}")
            if y.min() < UNLABELLED or y.max() >= len(self.classes):
                raise UserError(
                    f"{self.name}: expected {split} labels from -1 to {len(self.classes) - 1}, "
                    f"got {int(y.min())} to {int(y.max())}: name every class"
                )

    @property
    def event_shape(self) -> Size:
        """Channels, height and width of an image [pixels]."""
        return self.train_x.shape[1:]

    def images(self, split: Split) -> UnitImages:
        """Returns the images of a split as float32 in [0, 1]: level / (levels - 1)."""
        x = getattr(self, f"{split}_x")
        if x is None:
            raise UserError(f"{self.name} has no {split} split: use train or test")
        return to_floats(x, self.levels)

    def labels(self, split: Split) -> ClassLabels:
        """Returns the labels of a split, -1 where there is none."""
        y = getattr(self, f"{split}_y")
        if y is None:
            raise UserError(f"{self.name} has no {split} split: use train or test")
        return y
