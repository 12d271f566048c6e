"""What a runner asks of the machine: a device, and CPU threads."""

from __future__ import annotations

import re

import torch

from core_models.errors import UserError
from core_models.training import resolve_device

from .options import at_least


def set_threads(number: int | None) -> None:
    """Sets the CPU threads of this process; None leaves them.

    Raises:
        UserError: when the number is below 1.
    """
    if number is None:
        return
    at_least(1, threads=number)
    torch.set_num_threads(number)


def find_device(name: str, option: str = "--device") -> torch.device:
    """Returns the device that a command line names.

    Args:
        name: of the device.
        option: what messages call it.

    Raises:
        UserError: when it is not auto, cpu, cuda or cuda:N, or there is no such GPU.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise UserError(f"{option}: expected auto, cpu, cuda or cuda:N, got {name!r}")
    return resolve_device(name)
