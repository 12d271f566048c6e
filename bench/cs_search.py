"""CSGM as one batch against the reference's way, and time per signal over the size of a batch.

The reference (Bora et al. 2017) runs restarts one after another, 50 images at a time. Here both take the same steps
from the same starts with the same code, so that batching is all that differs, and must end at the same losses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import Any

import torch
from torch import Generator, Tensor

from apps.compressed_sensing.generative.csgm import ANNEALED, CSGM, starts
from apps.compressed_sensing.generative.latent_search import Search, search
from apps.compressed_sensing.operators import gaussian, measure
from apps.compressed_sensing.solvers.lasso import solve_lasso
from core_models.modes import steady

from .cs_lasso import lasso_problem
from .ratios import Measure, Stopwatch, interleaved, quotients

REFERENCE_BATCH = 50
"""Images that the reference's code searches at once."""
PENALTY, NOISE, M = 0.1, 0.1, 100
EQUAL = 1e-3
"""How far the mean of the final losses may be apart, as a share."""
EQUAL_ERROR = 1.02


class Task:
    """Images measured by a Gaussian matrix, and a prior."""

    def __init__(self, x: Tensor, prior: Any, steps: int, restarts: int, stopwatch: Stopwatch) -> None:
        self.x, self.prior, self.steps, self.restarts = x, prior, steps, restarts
        self.stopwatch = stopwatch
        self.operator = gaussian(tuple(x.shape[1:]), M, seed=M)
        self.y = measure(self.operator, x, NOISE, Generator().manual_seed(0))
        self.settings = {"images": len(x), "m": M, "steps": steps, "restarts": restarts, "penalty": PENALTY}

    def method(self, **more: Any) -> CSGM:
        """Returns CSGM on all images at once."""
        known = {"penalty": PENALTY, "steps": self.steps, "restarts": self.restarts, "batch": len(self.x)}
        return CSGM(self.operator, self.prior, **(known | more))

    def as_reference(self) -> Tensor:
        """Returns the least losses (images,) of restarts one after another, 50 images at a time."""
        own = starts(self.prior, len(self.y), self.restarts, 0)
        parts = []
        with steady(self.prior):
            for first in range(0, len(self.y), REFERENCE_BATCH):
                y = self.y[first : first + REFERENCE_BATCH]

                def loss(variables: Sequence[Tensor], signals: Tensor, y: Tensor = y) -> Tensor:
                    (z,) = variables
                    fit = (y[signals] - self.operator(self.prior.decode(z))).square().mean(1)
                    return fit + PENALTY * z.square().flatten(1).sum(1)

                runs = [
                    search(loss, [own[first : first + REFERENCE_BATCH, r : r + 1]], Search(self.steps, 1)).loss
                    for r in range(self.restarts)
                ]
                parts.append(torch.stack(runs, 1).amin(1))
        return torch.cat(parts)

    def timed(self, work: Callable[[], Any], found: list[Any]) -> Callable[[], float]:
        """Returns a turn that does a piece of work, keeps what it found last and returns its time [s]."""

        def go() -> float:
            self.stopwatch.start()
            got = work()
            took = self.stopwatch.stop()
            found[:] = [got]
            return took

        return go


def one_batch(task: Task, repeats: int) -> Iterator[Measure]:
    """Yields how much faster one batch is than the reference's way, in the same steps and annealed, and its error.

    Annealed: a learning rate that falls, fewer steps, restarts dropped early (`ANNEALED`).

    Raises:
        RuntimeError: when the batch ends at other losses.
    """
    reference: list[Tensor] = []
    whole: list[Any] = []
    fewer: list[Any] = []
    plain, annealed = task.method(), task.method(**_annealed(task.steps))
    times = interleaved(
        {
            "reference": task.timed(task.as_reference, reference),
            "batch": task.timed(lambda: plain.recover(task.y), whole),
            "annealed": task.timed(lambda: annealed.recover(task.y), fewer),
        },
        repeats,
    )
    apart = float(whole[0].details["loss"].mean() / reference[0].mean() - 1)
    if not abs(apart) <= EQUAL:
        raise RuntimeError(f"expected the losses of the reference's way, the batch's are {apart:.1e} apart")
    mse = [float((found.x - task.x).square().mean()) for (found,) in (whole, fewer)]
    told = {name: 1000 * median(taken) / len(task.x) for name, taken in times.items()}
    words = f"CSGM, m = {M}, {len(task.x)} images x {task.restarts} restarts x {task.steps} steps"
    ms = ", ".join(f"{name} {value:.0f}" for name, value in told.items())
    extra = {"settings": task.settings, "ms an image": told, "mse": dict(zip(("batch", "annealed"), mse, strict=True))}
    yield Measure(
        f"{words}: one batch against restarts one after another, {REFERENCE_BATCH} images at a time",
        quotients(times, "reference", "batch"), "higher", 1.6,
        note=f"ms an image: {ms}; final losses {apart:+.0e} apart", extra=extra,
    )  # fmt: skip
    error = f"mse {mse[1]:.5f} against {mse[0]:.5f}"
    extra["annealed"] = _annealed(task.steps)
    yield Measure(
        f"{words}: one batch, annealed, {annealed.steps} steps, with early dropping against the same",
        quotients(times, "reference", "annealed"), "higher", 4.0, note=error, extra=extra,
    )  # fmt: skip
    yield Measure(
        f"{words}: error, annealed with early dropping, over that of all steps", [mse[1] / mse[0]], "lower",
        EQUAL_ERROR, note=error, extra=extra,
    )  # fmt: skip


def _annealed(steps: int) -> dict[str, Any]:
    """Returns `ANNEALED`, its steps in proportion to a thousand."""
    return {**ANNEALED, "steps": max(1, round(ANNEALED["steps"] * steps / 1000))}


def batch_sizes(task: Task, sizes: tuple[int, ...], repeats: int) -> Iterator[Measure]:
    """Yields time per signal at the smallest batch over that at each larger one, for CSGM and the LASSO."""
    problem = lasso_problem(task.x, M, box=False)

    def latent(size: int) -> Callable[[], Any]:
        method = task.method(batch=size)
        return lambda: method.recover(task.y[:size])

    def sparse(size: int) -> Callable[[], Any]:
        own = type(problem)(problem.A, problem.y[:size], None, problem.box, alpha=problem.alpha)
        return lambda: solve_lasso(own)

    ways = {f"CSGM, {task.restarts} restarts x {task.steps} steps": latent, "LASSO in pixels": sparse}
    for words, way in ways.items():
        times = interleaved({str(size): task.timed(way(size), []) for size in sizes}, repeats)
        each = {size: [taken / size for taken in times[str(size)]] for size in sizes}
        told = {str(size): 1000 * median(taken) for size, taken in each.items()}
        for size in sizes[1:]:
            yield Measure(
                f"{words}, m = {M}: time per signal in a batch of {sizes[0]} over that in a batch of {size}",
                quotients({"a": each[sizes[0]], "b": each[size]}, "a", "b"), "higher", 1.0,
                note=f"{told[str(sizes[0])]:.1f} and {told[str(size)]:.1f} ms",
                extra={"settings": {**task.settings, "images": size}, "ms a signal": told},
            )  # fmt: skip
