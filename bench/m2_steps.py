"""The pieces of training that are timed: M2's steps, the VAE's, and the matrix products of which the latter is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from apps.semi_supervised.batches import SemiSupervisedBatches
from apps.semi_supervised.m2_objective import M2Network, M2Objective
from core_models.base import Objective
from core_models.latent import VAE, ConditionalVAEConfig, NegativeELBO, VAEConfig
from core_models.training import Batches, TensorBatches, TrainingConfig, fit
from core_models.training.config import Precision

from .ratios import Stopwatch

LABELLED, CLASSES = 100, 10
EPOCH_ROWS = 60_000
"""Rows of MNIST: what an epoch passes through."""
ROWS = 10_000
"""Rows that are really there: time does not depend on what they show."""


def pixels(rows: int, device: torch.device) -> Tensor:
    """Made-up images (rows, 1, 28, 28), about as many pixels lit as in a digit."""
    x = torch.rand(rows, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    return (x * (x > 0.8)).to(device)


class FirstSteps:
    """The first steps of an epoch as an epoch of its own, which tells when it hands out its second batch.

    What comes before, setting up a run and the first moments of Adam, happens once a run and not once an epoch.
    """

    def __init__(self, batches: Batches, steps: int, started: Callable[[], object] = lambda: None) -> None:
        self.batches, self.steps_per_epoch, self.started = batches, steps, started

    def to(self, device: torch.device | str) -> FirstSteps:
        """Returns itself: the batches lie on the device already."""
        return self

    def batch(self, epoch: int, step: int) -> Mapping[str, Tensor]:
        """Returns a batch."""
        if step == 1:
            self.started()
        return self.batches.batch(epoch, step % self.batches.steps_per_epoch)


def m2_objective(*, class_by_class: bool = False) -> M2Objective:
    """M2 of the paper's sizes, on binarised pixels."""
    torch.manual_seed(0)
    network = M2Network(ConditionalVAEConfig(activation="softplus", classes=CLASSES))
    return M2Objective(
        network,
        n_labelled=LABELLED,
        n_unlabelled=EPOCH_ROWS - LABELLED,
        observation="binarised",
        class_by_class=class_by_class,
    )


def m2_batches(batch: int, device: torch.device) -> SemiSupervisedBatches:
    """Batches of unlabelled rows, with all labelled rows in each."""
    return SemiSupervisedBatches(pixels(ROWS, device), _few_labels(device), batch, LABELLED, seed=0)


def m2_objective_on_features() -> M2Objective:
    """The M2 of M1+M2: 25 latents of M1, drawn anew at every step."""
    torch.manual_seed(0)
    config = ConditionalVAEConfig(
        event_shape=(25,), latent=10, hidden=(300,), activation="relu", likelihood="gaussian", classes=CLASSES
    )
    n_unlabelled = EPOCH_ROWS - LABELLED
    return M2Objective(M2Network(config), n_labelled=LABELLED, n_unlabelled=n_unlabelled, observation="posterior")


def m2_batches_on_features(batch: int, device: torch.device) -> SemiSupervisedBatches:
    """Batches of made-up means and standard deviations of M1's posterior."""
    generator = torch.Generator().manual_seed(0)
    x = torch.cat([torch.randn(ROWS, 25, generator=generator), torch.rand(ROWS, 25, generator=generator)], 1)
    return SemiSupervisedBatches(x.to(device), _few_labels(device), batch, LABELLED, seed=0)


def _few_labels(device: torch.device) -> Tensor:
    y = torch.full((ROWS,), -1)
    y[:LABELLED] = torch.arange(LABELLED) % CLASSES
    return y.to(device)


def vae_objective() -> NegativeELBO:
    """The VAE 784-600-600-50, its pixels binarised anew at every step."""
    torch.manual_seed(0)
    return NegativeELBO(VAE(VAEConfig(latent=50, hidden=(600, 600))), binarisation="dynamic")


def vae_batches(batch: int, device: torch.device) -> TensorBatches:
    """Batches of images."""
    return TensorBatches({"x": pixels(max(ROWS, batch), device)}, batch)


def through_fit(
    objective: Objective,
    batches: Batches,
    steps: int,
    stopwatch: Stopwatch,
    precision: Precision = "32-true",
    *,
    compile: bool = False,
) -> Callable[[], float]:
    """Returns a function that takes steps of an epoch through the training loop and returns their time [s]."""
    some = FirstSteps(batches, steps + 1, stopwatch.start)
    config = TrainingConfig(epochs=1, device=str(stopwatch.device), precision=precision, compile=compile)

    def epoch() -> float:
        fit(objective, some, config, progress=False)
        return stopwatch.stop()

    return epoch


def plain_loop(objective: Objective, batches: Batches, steps: int, stopwatch: Stopwatch) -> Callable[[], float]:
    """Returns a function that takes the same steps in a loop of five lines and returns their time [s]."""
    objective.to(stopwatch.device)
    optimizer = torch.optim.Adam(objective.parameters(), fused=True)
    generator = torch.Generator(stopwatch.device).manual_seed(0)
    some = FirstSteps(batches, steps + 1, stopwatch.start)

    def loop() -> float:
        for step in range(steps + 1):
            loss, _ = objective(some.batch(0, step), generator)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        return stopwatch.stop()

    return loop


def check_every_class() -> None:
    """Makes sure that both ways to marginalise over the class give one loss and one gradient, in float64.

    Raises:
        RuntimeError: when they don't; there is nothing to time then.
    """
    batches = m2_batches(20, torch.device("cpu"))
    results: list[Any] = []
    for class_by_class in (False, True):
        objective = m2_objective(class_by_class=class_by_class).double()
        batch = {name: x.double() if x.is_floating_point() else x for name, x in batches.batch(0, 0).items()}
        loss, _ = objective(batch, torch.Generator().manual_seed(0))
        results.append((loss, *torch.autograd.grad(loss, list(objective.parameters()))))
    for ours, plain in zip(*results, strict=True):
        if not torch.allclose(ours, plain, rtol=1e-9, atol=1e-9):
            raise RuntimeError("elbo_every_class and elbo_class_by_class differ: nothing to time before they agree")


def matrix_products(
    model: nn.Module, rows: int, steps: int, stopwatch: Stopwatch, dtype: torch.dtype = torch.float32
) -> Callable[[], float]:
    """Returns a function that takes the matrix products of training steps, and nothing else; it returns their time [s].

    The model is a chain of linear layers. For each the output, the gradient of the weights and, but for the first, the
    gradient of the input.
    Results go into tensors that exist already: no allocation, no bias, no activation.
    """
    layers = [(m.in_features, m.out_features) for m in model.modules() if isinstance(m, nn.Linear)]
    tensors = []
    for i, (inputs, outputs) in enumerate(layers):
        x, weight, out, dx, dw = (
            torch.randn(shape, device=stopwatch.device).to(dtype) * 0.05
            for shape in ((rows, inputs), (outputs, inputs), (rows, outputs), (rows, inputs), (outputs, inputs))
        )
        tensors.append((x, weight, out, dx if i else None, dw, out.clone()))

    def step() -> None:
        for x, weight, out, _, _, _ in tensors:
            torch.mm(x, weight.T, out=out)
        for x, weight, _, dx, dw, dout in reversed(tensors):
            torch.mm(dout.T, x, out=dw)
            if dx is not None:
                torch.mm(dout, weight, out=dx)

    def products() -> float:
        stopwatch.start()
        for _ in range(steps):
            step()
        return stopwatch.stop()

    return products
