"""What a run folder tells about the model in it."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import core_models
from apps.common.building import working_folder_importable
from core_models import zoo
from core_models.base import GenerativeModel
from core_models.errors import UserError
from core_models.files import read_json
from core_models.training import RunFolder, resolve_device


@dataclass(frozen=True)
class TrainedModel:
    """A model with what is known of its training; both mappings are empty for one saved by `core_models.save` alone."""

    model: GenerativeModel
    run: RunFolder
    settings: dict[str, Any]
    """The run's config.yaml."""
    summary: dict[str, Any]
    """The run's summary.json."""

    @property
    def name(self) -> str:
        """The registered name it was trained by, else its class."""
        return str(self.settings.get("model") or type(self.model).__name__)


def open_run(folder: Path, device: str) -> TrainedModel:
    """Loads a run's model onto a device; a model of the zoo by a copy in `runs/zoo/`, where its evaluations are kept.

    Raises:
        UserError: when the folder holds no model.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise UserError(f"--device: expected auto, cpu, cuda or cuda:N, got {device!r}")
    working_folder_importable()
    if str(folder).startswith(zoo.PREFIX):
        shipped = zoo.folder(str(folder))
        folder = Path("runs", "zoo", shipped.name)
        shutil.copytree(shipped, folder, dirs_exist_ok=True)
    run, where = RunFolder(folder), resolve_device(device)
    if run.checkpoint().exists() and not run.model_config.exists():
        raise UserError(f"expected a trained model in {folder}, its training has not ended: go on with --resume")
    model = core_models.load(folder, GenerativeModel).to(where)
    settings = run.read_config()
    summary = read_json(run.summary) if run.summary.exists() else {}
    if not isinstance(summary, dict):
        raise UserError(f"expected a mapping in {run.summary}, got another value: it was altered")
    return TrainedModel(model, run, settings, summary)


def threads(number: int | None) -> None:
    """Sets the CPU threads of this process.

    Raises:
        UserError: when the number is below 1.
    """
    if number is None:
        return
    if number < 1:
        raise UserError(f"--threads: expected at least 1, got {number}")
    torch.set_num_threads(number)
