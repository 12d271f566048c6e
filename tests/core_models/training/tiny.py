"""A run of seconds with everything in it that a checkpoint must hold; as a script, it is killed and goes on."""

import json
import os
import random
import signal
import sys
import threading
from importlib import import_module
from pathlib import Path

import torch
from torch import nn

from core_models.base import Objective
from core_models.training import EarlyStop, Interrupted, RunFolder, TensorBatches, TrainingConfig, fit

CONFIG = {
    "epochs": 10,
    "learning_rate": 0.01,
    "schedule": "cosine",
    "warmup_steps": 20,
    "clip_norm": 0.5,
    "ema": 0.95,
    "early_stop": EarlyStop("valid_mse", patience=100),
    "threads": 1,
    "device": "cpu",
}


class Tiny(Objective):
    """Regression with noise from the generator, dropout from the global one, and buffers that change."""

    def __init__(self, seed: int = 0, width: int = 8) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = nn.Sequential(
                nn.Linear(4, width), nn.BatchNorm1d(width), nn.Tanh(), nn.Dropout(0.1), nn.Linear(width, 1)
            )

    def forward(self, batch, generator=None):
        x = batch["x"] + 0.1 * torch.randn(batch["x"].shape, generator=generator)
        loss = (self.net(x).squeeze(1) - batch["y"]).square().mean()
        return loss, {"rmse": loss.detach().sqrt()}


def data(n: int = 250) -> dict[str, torch.Tensor]:
    """Returns a linear function of four inputs."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, 4, generator=generator)
    return {"x": x, "y": x @ torch.tensor([1.0, -1.0, 0.5, 0.0])}


def batches() -> TensorBatches:
    """Returns 31 batches an epoch, so that epochs end inside and outside of checkpoints."""
    return TensorBatches(data(), 8, seed=3)


def validate(objective) -> dict[str, float]:
    """Returns the error on fresh data; it draws from the global generator, which must not move the training."""
    x = torch.randn(64, 4)
    y = x @ torch.tensor([1.0, -1.0, 0.5, 0.0])
    return {"valid_mse": (objective.net(x).squeeze(1) - y).square().mean().item()}


def train(folder: Path | str, resume: bool = False, source: TensorBatches | None = None, **changes):
    """Trains the whole of it; returns the history and the objective."""
    source = source or batches()
    objective = Tiny()
    config = TrainingConfig(**{**CONFIG, "checkpoint_every_seconds": 0.02, **changes})
    history = fit(objective, source, config, run=RunFolder(folder), resume=resume, validate=validate, progress=False)
    return history, objective


class Doomed(TensorBatches):
    """From a batch on, the process has a random few milliseconds to live (or to be interrupted)."""

    def __init__(self, epoch: int, step: int, signum: int) -> None:
        super().__init__(data(), 8, seed=3)
        self.end = (epoch, step)
        self.signum = signum

    def batch(self, epoch, step):
        if (epoch, step) == self.end:
            threading.Timer(0.01 * random.random(), os.kill, (os.getpid(), self.signum)).start()
        return super().batch(epoch, step)


def stopped_child(folder: Path, resume: bool, source: TensorBatches, every: float) -> int:
    """Trains in a process of its own until it is stopped; returns how it ended."""
    child = os.fork()
    if child == 0:
        try:
            train(folder, resume, source, checkpoint_every_seconds=every)
        except Interrupted as stop:
            (folder / "interrupted.txt").write_text(str(stop))
            os._exit(130)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    torch.set_num_threads(1)
    for module in ("lightning_fabric", "torch.utils.tensorboard"):
        import_module(module)  # before the forks, to pay for it once
    folder = Path(sys.argv[1])
    codes = [
        stopped_child(folder, False, Doomed(0, 20, signal.SIGKILL), every=0.02),
        stopped_child(folder, True, Doomed(2, 5, signal.SIGKILL), every=0.02),
        stopped_child(folder, True, Doomed(4, 25, signal.SIGINT), every=0.02),
        stopped_child(folder, True, Doomed(7, 10, signal.SIGKILL), every=1000.0),  # two epochs are trained again
    ]
    print(json.dumps(codes))
