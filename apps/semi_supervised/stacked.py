"""Several draws of one method fitted as one stack, which a GPU does in little more time than a single one.

The same method on the same rows with other labels and other seeds: parameters, batches and noise lie along a leading
dimension, and one stream of kernels trains them all. Each member sees the batches that it would see alone; the noise
comes from one generator, so the numbers are of the same law as those of separate fits, and not the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from core_models.errors import UserError
from core_models.training import RunFolder, Stacked, StackedBatches, fit, resolve_device

from .generative import GenerativeClassifier


def fit_stacked(
    estimators: Sequence[GenerativeClassifier],
    X: Any,
    ys: Sequence[Any],
    *,
    run: RunFolder | None = None,
    resume: bool = False,
) -> None:
    """Fits one estimator to each of several label vectors, together.

    Args:
        estimators: of one class, with the same arguments but for `random_state`; the time limit is the first one's.
        X: rows, as in `fit`.
        ys: label vectors (n,), one for each estimator, with as many labels.
        run: folder that receives metrics and checkpoints of the stack.
        resume: go on from the run's checkpoint.

    Raises:
        UserError: when the estimators differ, or there are not as many label vectors.
        OutOfTime: when a time limit stopped a training that keeps its state.
    """
    if not estimators or len(estimators) != len(ys):
        raise UserError(f"expected one label vector for each estimator, got {len(ys)} for {len(estimators)}")
    first = estimators[0]
    own = ("random_state", "time_limit")  # of what is left of the time, a little less for each
    settings = [(type(e), {k: v for k, v in e.get_params().items() if k not in own}) for e in estimators]
    if any(other != settings[0] for other in settings):
        raise UserError("expected estimators that differ in random_state alone to stack, got others")
    begun = [estimator._begin(X, y) for estimator, y in zip(estimators, ys, strict=True)]
    problems = [
        estimator._prepare(x, torch.from_numpy(codes.copy()), run=None, resume=False)
        for estimator, (x, codes) in zip(estimators, begun, strict=True)
    ]
    device = resolve_device(first.device)
    stack = Stacked([problem.objective for problem in problems])
    batches = StackedBatches([problem.batches.to(device) for problem in problems])
    config = first._training_config(len(problems[0].rows))
    history = fit(stack, batches, config, run=run, resume=resume, stage="m2", progress=first.verbose)
    stack.unstack()
    for estimator, problem, (x, codes) in zip(estimators, problems, begun, strict=True):
        estimator._finish(problem, history, run)
        estimator._end(x, codes)
