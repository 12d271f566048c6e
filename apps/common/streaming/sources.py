"""Images read a batch at a time from a folder or from a .npz, of which no more is held than the names and one batch.

A folder's images are looked at, header by header, before the first is processed, so that a folder of images that don't
fit the model is refused before hours of work and not after. A few that don't fit, or can't be read, are no reason to
refuse the others: they are passed over.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from core_models.data.images import GREY, SUFFIXES, image_files, read_images, require_8_bits
from core_models.errors import UserError

from .npz import NpyMember, layout_of, levels_of

Levels = UInt8[Tensor, "n c h w"]
ORIENTATION = 0x0112
"""The EXIF tag by which a camera says that it was held upright."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Consecutive images of a source."""

    start: int
    """The place of the first in the source."""
    names: tuple[str, ...]
    x: Levels
    """The images that could be read and fit the model."""
    faults: dict[int, str] = field(default_factory=dict)
    """What is wrong with the others, by their place in the batch."""


class ImageSource(ABC):
    """Images in a fixed order; those passed on are of one shape."""

    path: Path
    event_shape: tuple[int, int, int]

    @abstractmethod
    def __len__(self) -> int:
        """The number of images, those that are passed over among them."""

    @abstractmethod
    def names(self, start: int, stop: int) -> tuple[str, ...]:
        """Returns the names of images: paths inside the folder, or rows of the array."""

    @abstractmethod
    def batches(self, size: int, start: int = 0) -> Iterator[Batch]:
        """Reads the images from `start` on, `size` at a time."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Returns plain values that change when the images do."""


class FolderSource(ImageSource):
    """The PNG, JPEG and WebP files of a folder and its sub-folders, in the order of their paths.

    Args:
        path: the folder.
        event_shape: channels, height and width [pixels] that the images must have; grey images serve for 3 channels.
        resize: whether images of other sizes are cut, around their middle, and resized, as `read_images` does it; None
            where that isn't offered.

    Raises:
        UserError: when there is no image, or of those that can be read at least half are of another shape or have 16
            bits per channel.
    """

    def __init__(self, path: Path | str, event_shape: Sequence[int], resize: bool | None = None) -> None:
        self.path, self.event_shape, self.resize = Path(path), _image_shape(event_shape), resize
        found = image_files(self.path, recursive=True)
        if not found:
            raise UserError(f"{path}: expected PNG, JPEG or WebP images, found none: put the images there")
        self._names = [file.relative_to(self.path).as_posix() for file in found]
        self._check()

    def __len__(self) -> int:
        """The number of files."""
        return len(self._names)

    def names(self, start: int, stop: int) -> tuple[str, ...]:
        """Returns paths inside the folder."""
        return tuple(self._names[start:stop])

    def batches(self, size: int, start: int = 0) -> Iterator[Batch]:
        """Reads the files from `start` on, `size` at a time."""
        for begin in range(start, len(self), size):
            names = self.names(begin, begin + size)
            images, faults = [], {}
            for place, name in enumerate(names):
                try:
                    self._fits(name)
                    wanted = self.event_shape[1:] if self.resize else None
                    image = read_images([self.path / name], wanted, channels=self.event_shape[0])
                    self._check_size(name, (image.shape[2], image.shape[3]))
                    images.append(image)
                except UserError as error:
                    faults[place] = str(error)
            empty = torch.empty(0, *self.event_shape, dtype=torch.uint8)
            yield Batch(begin, names, torch.cat([empty, *images]), faults)

    def identity(self) -> dict[str, Any]:
        """Returns the number of files and a hash of their names and sizes."""
        digest = hashlib.sha256()
        for name in self._names:
            digest.update(f"{name}\0{(self.path / name).stat().st_size}\0".encode(errors="surrogateescape"))
        told = {"images": len(self), "files": digest.hexdigest()[:16]}
        return {**told, "resize": True} if self.resize else told

    def _check(self) -> None:
        fitting, odd = 0, 0
        first: UserError | None = None
        for name in self._names:
            try:
                fitting += self._fits(name)
            except UserError as error:
                odd, first = odd + 1, first or error
        if first is not None and odd >= fitting:  # else the odd ones are named when their turn comes
            of = f"{odd:,} of the {odd + fitting:,} images in {self.path} don't fit the model, the first is "
            raise UserError(f"{of if odd + fitting > 1 else ''}{first}")

    def _fits(self, name: str) -> bool:
        """Tells by its header that an image fits the model; nothing can be told where that can't be read.

        Raises:
            UserError: when it doesn't fit.
        """
        found = _header(self.path / name)
        if found is None:
            return False
        size, colour = found
        if colour and self.event_shape[0] == 1:
            raise UserError(
                f"{self.path / name}: expected a grey image, as the model was trained on, got one in colour: "
                "convert it to grey"
            )
        if not self.resize:
            self._check_size(name, size)
        return True

    def _check_size(self, name: str, size: tuple[int, int]) -> None:
        height, width = self.event_shape[1:]
        if size != (height, width):
            how = "resize it" if self.resize is None else "add --resize true"
            raise UserError(
                f"{self.path / name}: expected an image of {height} x {width} pixels, as the model was trained on, "
                f"got {size[0]} x {size[1]}: {how} or take it out"
            )


class NpzSource(ImageSource):
    """The array `x` of a .npz: (n, h, w), (n, h, w, c) or (n, c, h, w), 8-bit integers or floats in [0, 1].

    Args:
        path: the .npz.
        event_shape: channels, height and width [pixels] that the images must have.
        chunk: images checked at a time; about 250,000 values where None.

    Raises:
        UserError: when the file can't be read, or the images are of another shape, outside of their range, NaN, or
            floats that are no multiples of 1/255.
    """

    def __init__(self, path: Path | str, event_shape: Sequence[int], chunk: int | None = None) -> None:
        self.path, self.event_shape = Path(path), _image_shape(event_shape)
        self.member = NpyMember(self.path, "x")
        self.layout = layout_of(self.member, self.event_shape)
        if not self.member.shape[0]:
            raise UserError(f"{path}: expected images in x, got none: add some")
        self.member.check_levels()
        chunk = chunk or max(1, 250_000 // prod(self.event_shape))
        for _ in self.batches(chunk):  # to refuse the last image before the first is processed
            pass

    def __len__(self) -> int:
        """The number of rows."""
        return self.member.shape[0]

    def names(self, start: int, stop: int) -> tuple[str, ...]:
        """Returns the numbers of rows."""
        return tuple(map(str, range(start, min(stop, len(self)))))

    def batches(self, size: int, start: int = 0) -> Iterator[Batch]:
        """Reads the rows from `start` on, `size` at a time."""
        begin = start
        for rows in self.member.chunks(size, start):
            x = levels_of(rows, self.layout, f"{self.path}: x", begin)
            yield Batch(begin, self.names(begin, begin + size), torch.from_numpy(x))
            begin += len(rows)

    def identity(self) -> dict[str, Any]:
        """Returns the shape, type and checksum of the array."""
        return {"images": len(self), "dtype": str(self.member.dtype), "crc": self.member.crc}


def open_source(path: Path | str, event_shape: Sequence[int], resize: bool | None = None) -> ImageSource:
    """Opens a folder of images or a .npz.

    Args:
        path: of either.
        event_shape: channels, height and width [pixels] that the images must have.
        resize: whether a folder's images are resized to that; None where that isn't offered.

    Raises:
        UserError: when it is neither, or its images don't fit the model.
    """
    path = Path(path)
    if path.is_dir():
        return FolderSource(path, event_shape, resize)
    if resize:
        raise UserError(f"--resize: expected a folder of images beside it, got {path}: leave it out")
    if path.is_file() and path.suffix.lower() in SUFFIXES:
        raise UserError(f"expected a folder of images or a .npz, got a single image {path}: give its folder")
    if not path.is_file():
        raise UserError(f"expected a folder of images or a .npz, found nothing at {path}: check --input")
    return NpzSource(path, event_shape)


def _image_shape(event_shape: Sequence[int]) -> tuple[int, int, int]:
    shape = tuple(event_shape)
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise UserError(f"expected a model of images (1 or 3, height, width), got one of events {shape}: use another")
    return shape[0], shape[1], shape[2]


def _header(path: Path) -> tuple[tuple[int, int], bool] | None:
    """Returns height and width and whether there is colour, from the head of a file; None where that can't be read.

    Raises:
        UserError: when the image has 16 bits per channel.
    """
    try:
        with Image.open(path) as image:
            mode, (width, height), kind = image.mode, image.size, image.format
            turned = kind == "JPEG" and image.getexif().get(ORIENTATION, 1) >= 5
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError, IndexError):
        return None
    require_8_bits(path, mode, kind)
    return ((width, height) if turned else (height, width)), mode not in GREY
