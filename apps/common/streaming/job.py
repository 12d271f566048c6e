"""A pass over all images of a source: settings, rows and images in one folder; stopped anywhere, gone on with exactly.

The folder holds `settings.json`, what the pass was asked for; a CSV with a row per image; the images that came of it,
if any; and, once all is done, `summary.json`. Whatever a kill leaves, the rows of whole batches stand and nothing else
counts: the batch that was begun is done again, from its first image on, so that its arithmetic is the same. So is a
batch of which an image has gone since, or was damaged.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core_models.errors import UserError
from core_models.files import read_json, write_json
from core_models.training.progress import Progress

from ..options import at_least
from .images_out import ImagesOut
from .records import Records, one_line
from .sources import Batch, ImageSource, Levels

SETTINGS = "settings.json"
UNREADABLE = "unreadable"
"""The status of an image that can't be read, or not as the model needs it."""

Worker = Callable[[Levels], tuple[Sequence[Mapping[str, object]], Levels | None]]
"""What is done to a batch: from its images, a row for each, with `status` among the fields, and the images that came of
them, if any."""


@dataclass(frozen=True)
class Done:
    """A pass that reached its end."""

    images: int
    """All of them."""
    unreadable: int
    processed: int
    """Those of this part of the pass, after the last stop."""
    seconds: float
    """What this part took."""
    already: bool
    """Whether the pass had ended before."""

    @property
    def status(self) -> int:
        """The exit status: 1 where an image was passed over."""
        return int(self.unreadable > 0)


class Job:
    """A pass over images.

    Args:
        source: the images.
        out: the folder for what comes of it.
        settings: plain values that decide the results.
        columns: of the CSV, after `image` and `status`.
        batch_size: images at a time; part of the settings.
        description: what is being done, for the progress: "purifying".
        file_name: of the CSV.
    """

    def __init__(
        self,
        source: ImageSource,
        out: Path,
        settings: Mapping[str, Any],
        columns: Sequence[str],
        *,
        batch_size: int,
        description: str,
        file_name: str = "images.csv",
    ) -> None:
        at_least(1, batch_size=batch_size)
        if out.resolve().is_relative_to(source.path.resolve()):
            raise UserError(f"expected --out outside of the images in {source.path}, got {out}: choose another folder")
        self.source, self.out = source, out
        self.records = Records(out / file_name, ("image", "status", *columns))
        self.settings = {**settings, "batch_size": batch_size, **source.identity()}
        self._batch_size, self._description = batch_size, description

    unit: str = "image"
    """What is counted, in the progress and at the end."""

    @property
    def settings_file(self) -> Path:
        """What the pass was asked for, JSON."""
        return self.out / SETTINGS

    @property
    def summary_file(self) -> Path:
        """What came of it, JSON; written last."""
        return self.out / "summary.json"

    def run(self, work: Worker, images: ImagesOut | None = None, *, resume: bool = False) -> Done:
        """Goes through the images that are left.

        Args:
            work: what is done to each batch.
            images: where the images that come of it go.
            resume: whether to go on where an earlier run stopped.

        Raises:
            UserError: when the folder holds a pass and `resume` is not set, or one with other settings.
            KeyboardInterrupt: on Ctrl-C, saying where it stopped.
        """
        total = len(self.source)
        began = time.monotonic()
        ended = self._open(resume) and self.summary_file.exists()
        done = first = self.records.rewind(self._batch_size, total)
        self._check_names()
        lost = self._lost(images, done) if images else {}
        if ended and done == total and not lost:
            return Done(total, sum(1 for _ in self._faulty()), 0, 0.0, already=True)
        try:
            if images and lost:
                self._make_again(lost, work, images)
            with Progress(self._description, total, done, unit=self.unit) as shown:
                for batch in self.source.batches(self._batch_size, done):
                    self._do(batch, work, images)
                    done += len(batch.names)
                    shown.update(done, last=done == total)
        except KeyboardInterrupt:
            where = f"at image {done:,} of {total:,}; the rows are in {self.records.path}"
            where = where if done else "in the first batch, of which nothing is kept"
            raise KeyboardInterrupt(f"interrupted {where}: the same command with --resume goes on") from None
        if images:
            images.finish(row["image"] for row in self.records if row["status"] != UNREADABLE)
        processed = total - first + sum(lost.values())
        return Done(total, sum(1 for _ in self._faulty()), processed, time.monotonic() - began, already=False)

    def say_end(self, done: Done) -> None:
        """Says how fast it went, and how many images were passed over."""
        if done.already:
            print(f"{self.out} is finished: there was nothing left to do")
        elif done.processed:
            rate = done.processed / max(done.seconds, 1e-9)
            told = f"{rate:.{0 if rate >= 10 else 2}f} {self.unit}s/s"
            print(f"{done.processed:,} {self.unit}s in {done.seconds:.1f} s, {told}")
        if done.unreadable:
            first = next(row["image"] for row in self._faulty())
            print(
                f"{done.unreadable:,} of {done.images:,} images could not be read or don't fit the model, the first is "
                f"{first}: their status in {self.records.path} is {UNREADABLE}",
                file=sys.stderr,
            )

    def _lost(self, images: ImagesOut, done: int) -> dict[int, int]:
        """Returns the batches done of which an image is no longer there, whole: where each begins, and its length."""
        images.rewind(done - sum(1 for _ in self._faulty()))
        lost: dict[int, int] = {}
        for place, row in enumerate(self.records):
            start, names = place - place % self._batch_size, self.source.names(place, place + 1)
            if start not in lost and row["status"] != UNREADABLE and not images.holds(*names):
                lost[start] = min(self._batch_size, done - start)
        return lost

    def _make_again(self, lost: Mapping[int, int], work: Worker, images: ImagesOut) -> None:
        """Makes the images of some batches again, whose rows stand."""
        print(f"{images.path}: images that were made are missing or damaged, and are made again", file=sys.stderr)
        made, total = 0, sum(lost.values())
        with Progress("making again", total, unit=self.unit) as shown:
            for batch in self.source.batches(self._batch_size, min(lost)):
                if batch.start in lost:
                    self._work(batch, work, images)
                    made += len(batch.names)
                    shown.update(made, last=made == total)
                if made == total:
                    break

    def _do(self, batch: Batch, work: Worker, images: ImagesOut | None) -> None:
        rows: list[list[object]] = []
        remaining = iter(self._work(batch, work, images))
        for place, name in enumerate(batch.names):
            if place in batch.faults:
                _say_unreadable(name, batch.faults[place])
                values: Mapping[str, object] = {"status": UNREADABLE}
            else:
                values = next(remaining)
            rows.append([name, *(values.get(column, "") for column in self.records.columns[1:])])
        self.records.append(rows)  # last: a row says that all else of its image is there

    def _work(self, batch: Batch, work: Worker, images: ImagesOut | None) -> Sequence[Mapping[str, object]]:
        if not len(batch.x):
            return []
        found, pictures = work(batch.x)
        if images and pictures is not None:
            images.write(batch, pictures)
        return found

    def _open(self, resume: bool) -> bool:
        """Says whether there is a pass to go on with; begins one where there is none."""
        check_folder(self.out, resume)
        if not self.settings_file.exists():
            if self.records.path.exists():
                raise UserError(f"{self.out} holds {self.records.path.name} without its settings.json: choose another")
            write_json(self.settings_file, self.settings)
            return False
        found = read_json(self.settings_file)
        if not isinstance(found, dict):
            raise UserError(f"expected a mapping in {self.settings_file}, got another value: it was altered")
        other = _first_difference(found, self.settings)
        if other is not None:
            name, before, now = other
            raise UserError(
                f"{self.out} was begun with {name} {before}, now it is {now}: "
                "give the settings it was begun with, or choose another folder"
            )
        return True

    def _check_names(self) -> None:
        for place, row in enumerate(self.records):
            (name,) = self.source.names(place, place + 1)
            if row["image"] != one_line(name):
                raise UserError(
                    f"{self.records.path}: expected row {place + 1} to be of {name}, got {row['image']}: "
                    "it is of other images, or was altered"
                )

    def _faulty(self) -> Iterator[dict[str, str]]:
        return (row for row in self.records if row["status"] == UNREADABLE)


def _first_difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
    """Returns the first setting that differs, by its dotted name, with both values; None where all are alike."""
    for name in dict.fromkeys([*now, *before]):
        old, new = before.get(name), now.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            deeper = _first_difference(old, new)
            if deeper is not None:
                return f"{name}.{deeper[0]}", *deeper[1:]
        elif old != new:
            return name, old, new
    return None


def check_folder(out: Path, resume: bool) -> None:
    """Refuses a folder that is a file, or that holds a pass which is not to be gone on with.

    Raises:
        UserError: in either case; early, before models are loaded and calibrated.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"expected a folder for --out, {out} is a file: choose another name")
    if not resume and (out / SETTINGS).exists():
        raise UserError(f"{out} already holds a run: add --resume to go on, or choose another folder")


def _say_unreadable(name: str, why: str) -> None:
    print(f"skipped {name!r}: {why}", file=sys.stderr, flush=True)
