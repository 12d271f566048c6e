"""What a run folder tells about the model in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import core_models
from apps.common.importing import working_folder_importable
from apps.common.machine import find_device
from core_models import zoo
from core_models.base import GenerativeModel
from core_models.errors import UserError
from core_models.files import read_json, write_atomic
from core_models.training import RunFolder


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


def open_run(folder: Path, device: str, *, keeps: bool = False) -> TrainedModel:
    """Loads a run's model onto a device.

    Args:
        folder: the run folder, any folder that core_models.save wrote, or zoo:NAME.
        device: auto, cpu, cuda or cuda:N.
        keeps: whether something will be written into the run: then a model of the zoo is a copy in `runs/zoo/`.

    Raises:
        UserError: when the folder holds no model, or a copy can't be written.
    """
    where = find_device(device)
    working_folder_importable()
    if str(folder).startswith(zoo.PREFIX):
        shipped = zoo.folder(str(folder))
        folder = Path("runs", "zoo", shipped.name) if keeps else shipped
        for file in shipped.iterdir() if keeps else ():
            if file.is_file():
                write_atomic(folder / file.name, file.read_bytes())
    run = RunFolder(folder)
    if run.checkpoint().exists() and not run.model_config.exists():
        raise UserError(f"expected a trained model in {folder}, its training has not ended: go on with --resume")
    model = core_models.load(folder, GenerativeModel).to(where)
    settings = run.read_config()
    summary = read_json(run.summary) if run.summary.exists() else {}
    if not isinstance(summary, dict):
        raise UserError(f"expected a mapping in {run.summary}, got another value: it was altered")
    return TrainedModel(model, run, settings, summary)
