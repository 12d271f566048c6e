"""Processed images written as they come: PNG files named as the input, or one .npz put together at the end."""

from __future__ import annotations

import os
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image

from core_models.errors import UserError
from core_models.files import atomic
from core_models.training.run_folder import cannot_write

from .npz import NpyMember, as_stored
from .npz_writing import add_names, add_rows, copy_array
from .sources import Batch, FolderSource, ImageSource, Levels, NpzSource


class ImagesOut(ABC):
    """Where processed images go."""

    path: Path
    """The folder or the file that they are found in at the end."""

    @abstractmethod
    def write(self, batch: Batch, x: Levels) -> None:
        """Writes the images that came of those of a batch, on the disk when the call returns."""

    @abstractmethod
    def rewind(self, images: int) -> None:
        """Forgets all but the first images, after a kill."""

    @abstractmethod
    def holds(self, name: str) -> bool:
        """Tells, after `rewind`, whether the image that came of an input written before is still there, whole."""

    @abstractmethod
    def finish(self, names: Iterable[str]) -> None:
        """Puts together what was written, `names` being the inputs' in order."""


class PngOut(ImagesOut):
    """PNG files with the names and sub-folders of the input; rows of a .npz by their number, `000012.png`.

    Args:
        folder: where to.
        source: where the images come from.

    Raises:
        UserError: when two images would have one name.
    """

    def __init__(self, folder: Path, source: ImageSource) -> None:
        self.path = folder
        self._numbered = not isinstance(source, FolderSource)
        self._digits = max(6, len(str(len(source))))
        taken: dict[str, str] = {}
        for name in () if self._numbered else source.names(0, len(source)):
            other = taken.setdefault(self._file(name), name)
            if other != name:
                raise UserError(
                    f"{source.path}: {other} and {name} would both be written to {self._file(name)}: rename one"
                )

    def write(self, batch: Batch, x: Levels) -> None:
        """Writes one file per image, each whole or not at all."""
        names = (name for place, name in enumerate(batch.names) if place not in batch.faults)
        for name, levels in zip(names, x.numpy(), strict=True):
            picture = Image.fromarray(
                levels[0] if len(levels) == 1 else np.ascontiguousarray(levels.transpose(1, 2, 0))
            )
            with atomic(self.path / self._file(name)) as temporary:
                picture.save(temporary, "PNG")

    def rewind(self, images: int) -> None:
        """Removes what a kill left half-written; whole files are written over by the same bytes."""
        for path in self.path.rglob(".*.png.*.png"):  # the temporary names of `core_models.files.atomic`
            path.unlink()

    def holds(self, name: str) -> bool:
        """Looks at the file and its checksums, and decodes nothing."""
        try:
            with Image.open(self.path / self._file(name)) as image:
                image.verify()
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            return False
        return True

    def finish(self, names: Iterable[str]) -> None:
        """Does nothing: the files are there."""

    def _file(self, name: str) -> str:
        return f"{int(name):0{self._digits}}.png" if self._numbered else str(Path(name).with_suffix(".png"))


class NpzOut(ImagesOut):
    """One .npz: `x` in the layout and type of the input's, beside it its `y`, or the `names` of a folder's files.

    Until the end the rows are kept in a file beside it, to which each batch is appended.

    Args:
        path: the .npz.
        source: where the images come from.
    """

    def __init__(self, path: Path, source: ImageSource) -> None:
        self.path, self._source = path, source
        self._part = path.with_name(f".{path.name}.part")
        blank = self._stored(np.zeros((1, *source.event_shape), np.uint8))
        self._row, self._dtype = blank.shape[1:], blank.dtype
        self._finished = self._holds = False

    def write(self, batch: Batch, x: Levels) -> None:
        """Appends the rows of a batch."""
        try:
            self._part.parent.mkdir(parents=True, exist_ok=True)
            with self._part.open("ab") as file:
                file.write(self._stored(x.numpy()).tobytes())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise cannot_write(self._part, error) from error

    def rewind(self, images: int) -> None:
        """Cuts off what lies after the first images; where they are not all there, everything."""
        self._finished = images > 0 and not self._part.exists() and self._is_whole(images)
        if self._finished:  # the kill came after the end
            self._holds = True
            return
        wanted = images * self._dtype.itemsize * int(np.prod(self._row))
        found = self._part.stat().st_size if self._part.exists() else 0
        self._holds = found >= wanted
        kept = wanted if self._holds else 0  # rows are appended: what is lost can't be put in between
        if found > kept:
            os.truncate(self._part, kept)

    def holds(self, name: str) -> bool:
        """Tells whether the rows of all images are there."""
        return self._holds

    def finish(self, names: Iterable[str]) -> None:
        """Writes the .npz, whole or not at all, holding no more than a piece of it."""
        if self._finished:
            return
        size = self._dtype.itemsize * int(np.prod(self._row))
        count = self._part.stat().st_size // size if self._part.exists() else 0
        with atomic(self.path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            add_rows(archive, "x", self._part, (count, *self._row), self._dtype)
            if isinstance(self._source, NpzSource):
                with zipfile.ZipFile(self._source.path) as given:
                    for name in ("y", "layout"):
                        copy_array(given, name, archive)
            else:
                add_names(archive, list(names))
        self._part.unlink(missing_ok=True)

    def _is_whole(self, images: int) -> bool:
        """Tells whether the .npz can be opened, which one cut short can't, and holds so many images."""
        with suppress(UserError):
            return NpyMember(self.path, "x").shape[0] == images
        return False

    def _stored(self, levels: np.ndarray) -> np.ndarray:
        if isinstance(self._source, NpzSource):
            return as_stored(levels, self._source.layout, self._source.member.dtype)
        return levels


def images_out(form: str, out: Path, name: str, source: ImageSource) -> ImagesOut:
    """Returns where images go: `out/name/` of PNG files, or `out/name.npz`.

    Raises:
        UserError: when the form is neither `png` nor `npz`, or two images would have one name.
    """
    if form not in ("png", "npz"):
        raise UserError(f"expected a format png or npz, got {form!r}")
    return PngOut(out / name, source) if form == "png" else NpzOut(out / f"{name}.npz", source)
