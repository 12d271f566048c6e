"""The ways a run ends before its time: a loss that is no number, and Ctrl-C."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from ..errors import UserError


class NonFiniteLoss(UserError):
    """The loss, its gradient, the weights, a buffer or the optimiser's moments became NaN or infinite.

    Attributes:
        step: the first bad step, counted from 1.
        checkpoint: the file that holds the last good state, where there is one.
    """

    def __init__(
        self, what: str, value: float, step: int, epoch: int, saved_step: int | None, checkpoint: Path | None
    ) -> None:
        words = {"loss": f"the loss is {value}", "gradient_norm": f"the norm of the gradient is {value}"}
        said = words.get(what, f"{what} is NaN or infinite")
        kept = "no state is kept, since there is no run folder"
        if checkpoint is not None:
            kept = f"the last good state, of step {saved_step}, is kept in {checkpoint}"
        if saved_step is None and checkpoint is not None:
            kept, checkpoint = "no state was saved before", None
        super().__init__(
            f"{said} at step {step} (epoch {epoch}); {kept}: begin again with a lower learning_rate, or with clip_norm"
        )
        self.step = step
        self.checkpoint = checkpoint


class Interrupted(KeyboardInterrupt):
    """Ctrl-C came during training; the message says what was saved and how to go on.

    It is a KeyboardInterrupt and no UserError: what goes through many runs and skips those that fail must stop here.

    Attributes:
        step: steps done.
        checkpoint: the file that holds the state, where a run folder was given.
    """

    def __init__(self, step: int, total: int, checkpoint: Path | None) -> None:
        kept = "nothing is saved, since there is no run folder"
        if checkpoint is not None:
            kept = f"the state is saved in {checkpoint}: the same command with --resume goes on (Python: resume=True)"
        super().__init__(f"interrupted at step {step} of {total}; {kept}")
        self.step = step
        self.checkpoint = checkpoint


class InterruptRequest:
    """Whether Ctrl-C was pressed since the run began."""

    def __init__(self) -> None:
        self.came = False

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        """Notes the first Ctrl-C; the second one stops at once, with nothing saved since the last checkpoint."""
        if self.came:
            raise KeyboardInterrupt
        self.came = True


@contextmanager
def caught_interrupts() -> Iterator[InterruptRequest]:
    """Turns Ctrl-C into a request for the length of a block; outside of the main thread it does nothing."""
    request = InterruptRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    previous = signal.signal(signal.SIGINT, request)
    try:
        yield request
    finally:
        signal.signal(signal.SIGINT, previous)
