"""The one training loop, on Lightning Fabric: what is asked of it and what it gives back.

The loop calls the objective through its `forward` and nothing else, since mixed precision and `torch.compile` hook
that method only. A run that is killed at any moment and resumed has the numbers of one that never was: batches follow
from (seed, epoch, step), and everything else that training depends on is in the checkpoint.
"""

import sys
from dataclasses import dataclass, field
from typing import Any, Literal

from ..base import Objective
from ..errors import UserError
from .batches import Batches
from .config import TrainingConfig, multiplies_in_bfloat16, resolve_device
from .run_folder import RunFolder
from .stops import caught_interrupts
from .surroundings import surroundings
from .trainer import Trainer, Validate


@dataclass
class History:
    """What a run did."""

    metrics: list[dict[str, Any]] = field(default_factory=list)
    """One entry per epoch, as in `metrics.jsonl`: `stage`, `epoch` and `step` (done so far), `learning_rate` (of the
    last step), the means of `loss` and of the objective's metrics, and what `validate` returned."""
    stopped: Literal["finished", "early", "time limit"] = "finished"
    """Why it ended."""
    seconds: float = 0.0
    """Training time [s], over all resumed parts."""
    steps: int = 0
    """Optimiser steps done, over all resumed parts."""


def fit(
    objective: Objective,
    batches: Batches,
    config: TrainingConfig,
    *,
    run: RunFolder | None = None,
    resume: bool = False,
    stage: str = "",
    validate: Validate | None = None,
    progress: bool = True,
) -> History:
    """Trains an objective; it is left on the device, in the mode it came in, with the weights that count.

    Those are the weights of the best validation where `early_stop` is set, else the moving average where `ema` is set,
    else the last ones. Validation is done on the moving average where there is one, in evaluation mode, without
    gradients and in full precision.

    What the objective draws comes from the generator it is handed, or from torch's global ones (dropout); both are
    seeded from `config.seed` and the stage. The caller's global random state is the same afterwards as before.

    A stage whose checkpoint says that it ended is loaded and not trained again. Lines of `metrics.jsonl` and
    TensorBoard events after the checkpoint are removed on resuming.

    Args:
        objective: what is trained.
        batches: what it is trained on; moved to the device when it has `to`.
        config: how it is trained.
        run: the folder for checkpoints, `metrics.jsonl` and TensorBoard; nothing is written without one.
        resume: whether to go on from the stage's checkpoint, where there is one. The objective, the batches and the
            settings must be those of the checkpoint, except for `config.FREE_ON_RESUME`, and `epochs` at a constant
            learning rate, which may grow.
        stage: name of this part of the run, where a run trains several objectives.
        validate: called with the objective after an epoch; returns metrics by name, for the log and for early stopping.
        progress: whether to show a bar (on a terminal) or a line now and then (elsewhere), on stderr.

    Returns:
        The metrics of every epoch, and why training ended.

    Raises:
        NonFiniteLoss: when the loss is NaN or infinite; names the step, and the last good state stays.
        Interrupted: after Ctrl-C; the step under way is finished and the state is saved first.
        UserError: when the folder already holds this stage and `resume` is not set; when the checkpoint is damaged or
            of another objective, data or settings; when the disk is full.

    Example:
        >>> history = fit(objective, batches, TrainingConfig(epochs=10), run=RunFolder("runs/x"))  # doctest: +SKIP
        >>> history.metrics[-1]["loss"]  # doctest: +SKIP
        97.3
    """
    if resume and run is None:
        raise UserError("expected a run folder to resume from, got none")
    if config.early_stop is not None and validate is None:
        raise UserError(f"early_stop watches {config.early_stop.metric!r}, but there is no validation to compute it")
    device = resolve_device(config.device)
    if progress and config.precision == "bf16-mixed" and not multiplies_in_bfloat16(device):
        print(
            f"{stage or 'training'}: no products in bfloat16 here: precision 32-true is many times faster",
            file=sys.stderr,
        )
    with surroundings(config, device, stage), caught_interrupts() as interrupt:
        trainer = Trainer(objective, batches, config, device, run, stage, validate, interrupt)
        stopped = trainer.go(resume, progress)
        if interrupt.came:
            raise trainer.interrupted()
    state = trainer.state
    return History(state.metrics, stopped, state.seconds, state.step)
