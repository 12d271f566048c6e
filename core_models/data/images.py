"""A folder's image files as one array: all of one size, grey or colour, 8 bits per channel."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import suppress
from math import prod
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from ..errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
GREY = ("1", "L", "LA")


def image_files(folder: Path, *, recursive: bool = False) -> list[Path]:
    """Returns the PNG, JPEG and WebP files of a folder in the order of their names; hidden ones are left out."""
    found = folder.rglob("*") if recursive else folder.iterdir()
    own = (path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))
    return sorted(path for path in own if path.suffix.lower() in SUFFIXES and path.is_file())


def read_images(
    paths: Sequence[Path], image_size: int | tuple[int, int] | None = None, channels: int | None = None
) -> UInt8[Tensor, "n c h w"]:
    """Reads image files into one tensor.

    Photographs are turned the way up that their camera noted; transparency is laid over white.

    Args:
        paths: the files.
        image_size: height and width [pixels] (one number: both) that every image is cut to the shape of, around its
            middle, and resized to; by default all must be of one size.
        channels: 1 (grey) or 3 (colour); by default 1 when all are grey.

    Raises:
        UserError: when a file is no whole image, has 16 bits per channel, the sizes differ, or memory is too small.
    """
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    if size is not None and min(size) < 1:
        raise UserError(f"expected an image size of at least 1 pixel, got {size[0]} x {size[1]}")
    if channels not in (None, 1, 3):
        raise UserError(f"expected images of 1 channel (grey) or 3 (colour), got {channels}: use another model")
    if not paths:
        raise UserError("expected files of images, got none: name some")
    if size is None:
        _require_one_size(paths[:2])  # before there is room made for them all
    found = np.empty((0, 0, 0, 0), np.uint8)  # all of them, made once: a list of arrays would be a second copy
    for i, path in enumerate(paths):
        image = _read(path)
        if size is not None:
            image = ImageOps.fit(image, (size[1], size[0]), Image.Resampling.LANCZOS)
        own = np.asarray(image.convert("RGB") if channels == 3 else image.convert("L") if channels == 1 else image)
        if i == 0:
            found = _room((len(paths), 1 if own.ndim == 2 else 3, *own.shape[:2]))
        if own.shape[:2] != found.shape[2:]:
            raise _sizes_differ(paths[0], found.shape[2:], path, own.shape[:2])
        if own.ndim == 3 and found.shape[1] == 1:  # the first in colour: grey ones have the same value in each channel
            grey, found = found, _room((len(paths), 3, *own.shape[:2]))
            found[:i] = grey[:i]
            del grey
        found[i] = own if own.ndim == 2 else own.transpose(2, 0, 1)
    return torch.from_numpy(found)


def _room(shape: tuple[int, ...]) -> np.ndarray:
    try:
        return np.empty(shape, np.uint8)
    except MemoryError as error:
        raise UserError(
            f"expected images that fit into memory, got {shape[0]} of {shape[2]} x {shape[3]} pixels, "
            f"{prod(shape) / 1e9:.1f} GB: give a smaller image_size, which verbs that train take, or fewer images"
        ) from error


def _require_one_size(paths: Sequence[Path]) -> None:
    """Compares upright sizes by what the files' heads say; what can't be read is left to be refused when read whole."""
    sizes: list[tuple[int, int]] = []
    with suppress(OSError, SyntaxError, ValueError, Image.DecompressionBombError), warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        for path in paths:
            with Image.open(path) as opened:
                turned = opened.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
                sizes.append(opened.size if turned else opened.size[::-1])
    if len(set(sizes)) > 1:
        raise _sizes_differ(paths[0], sizes[0], paths[1], sizes[1])


def _sizes_differ(first: Path, size: Sequence[int], second: Path, other: Sequence[int]) -> UserError:
    """Says that two images are of different heights or widths [pixels]."""
    return UserError(
        f"expected images of one size, got {size[0]} x {size[1]} ({first.name}) and {other[0]} x {other[1]} "
        f"({second.name}): resize them, or give image_size (for instance {min(*size, *other)}), which verbs that "
        "train take"
    )


def require_8_bits(path: Path, mode: str, kind: str | None) -> None:
    """Refuses images of more than 8 bits per channel.

    Args:
        path: the file.
        mode: Pillow's, once opened.
        kind: Pillow's format.

    Raises:
        UserError: when it has more.
    """
    with path.open("rb") as file:
        depth = file.read(25)[-1] if kind == "PNG" else 8  # Pillow drops the lower 8 of 16 bits of colour silently
    if depth > 8 or mode.startswith(("I", "F")):
        raise UserError(f"{path}: expected 8 bits per channel, got more (mode {mode}): convert it to 8 bits")


def _read(path: Path) -> Image.Image:
    """Returns a whole, upright image in mode L or RGB."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as opened:
                opened.load()  # a truncated file fails here and not later
                image = ImageOps.exif_transpose(opened)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(f"{path}: expected a whole PNG, JPEG or WebP image ({error}): replace or remove it") from error
    require_8_bits(path, image.mode, opened.format)
    grey = image.mode in GREY
    if image.has_transparency_data:
        over = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over)
    return image.convert("L" if grey else "RGB")
