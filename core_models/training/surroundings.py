"""What a run sets for its own length, and puts back: random numbers, threads, deterministic kernels."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ..errors import UserError
from ..seeding import seeded
from .batches import seed_of
from .config import TrainingConfig


@contextmanager
def surroundings(config: TrainingConfig, device: torch.device, stage: str) -> Iterator[None]:
    """Seeds torch's global generators, for what draws from them (dropout), and gives the caller's back at the end."""
    threads = torch.get_num_threads()
    deterministic, benchmark = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    with seeded(seed_of(config.seed, "global", stage), device):
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = deterministic, benchmark


def make_fabric(config: TrainingConfig, device: torch.device) -> Any:
    """Makes the Fabric of one process on one device, whatever cluster it runs on."""
    # imported here: it takes seconds, and many who import this package only want its classes
    from lightning_fabric import Fabric
    from lightning_fabric.plugins import MixedPrecision
    from lightning_fabric.plugins.environments import LightningEnvironment

    class UncastMixedPrecision(MixedPrecision):
        """Leaves the batch as it is.

        Fabric would round every float of the batch to bfloat16, which has 8 bits: the targets of a likelihood over
        256 levels would be others. Autocast rounds the inputs of matrix products by itself.
        """

        def convert_input(self, data: Any) -> Any:
            return data

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("expected one process, WORLD_SIZE asks for more: start without torchrun, one run per device")
    plugins: list[Any] = [LightningEnvironment()]
    if config.precision == "bf16-mixed":
        plugins.append(UncastMixedPrecision(config.precision, device.type))
    return Fabric(
        accelerator=device.type,
        devices=[device.index] if device.type == "cuda" else 1,
        precision=None if config.precision == "bf16-mixed" else config.precision,
        plugins=plugins,
    )


def require_compiler() -> None:
    """Makes sure that `torch.compile` can work here, which turns what it fuses into C++.

    Raises:
        UserError: when there is no C++ compiler.
    """
    own = os.environ.get("CXX")
    if not any(shutil.which(name) for name in ([own] if own else ["g++", "clang++", "cl"])):
        raise UserError(
            f"compile: expected a C++ compiler ({own or 'g++ or clang++'}), found none: install one, or leave it out"
        )
