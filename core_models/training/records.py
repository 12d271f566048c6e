"""What a run writes down after each epoch: a line of `metrics.jsonl`, and the same figures for TensorBoard."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from .run_folder import RunFolder, cannot_write


class Records:
    """The records of a stage.

    Args:
        run: the run's folder.
        stage: the stage's name.
        lines: what stood there when the checkpoint was written; later lines are removed, so that an epoch that is
            trained again does not stand there twice.
        resumed_at: the step of that checkpoint, if the run is resumed.
    """

    def __init__(self, run: RunFolder, stage: str, lines: list[dict[str, Any]], resumed_at: int | None) -> None:
        self._run = run
        self._stage = stage
        self._resumed_at = resumed_at
        self._writer: Any = None
        run.rewind_metrics(stage, lines)

    def add(self, line: Mapping[str, Any]) -> None:
        """Writes an epoch's metrics."""
        self._run.append_metrics(line)
        folder = self._run.tensorboard(self._stage)
        try:
            if self._writer is None:
                from torch.utils.tensorboard import SummaryWriter  # imported late: it is slow

                # TensorBoard hides what stands in older files from `purge_step` on
                purge = None if self._resumed_at is None else self._resumed_at + 1
                self._writer = SummaryWriter(str(folder), purge_step=purge)
            for name, value in line.items():
                if isinstance(value, float):
                    self._writer.add_scalar(name, value, line["step"])
        except OSError as error:
            raise cannot_write(folder, error) from error

    def close(self) -> None:
        """Flushes what is not yet on the disk."""
        if self._writer is not None:
            with suppress(OSError):  # nothing that resuming needs, and it must not hide why the run ends
                self._writer.close()
