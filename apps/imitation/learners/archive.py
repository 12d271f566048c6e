"""A saved learner: SB3's own zip, with the learner's state in further members of the same archive.

Plain `TRPO.load`, `PPO.load` or `SAC.load` opens it and does not look at ours, which are safetensors and JSON. SB3
pickles parts of its own objects; none of ours are among them, and nothing of it is read back here.
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as from_bytes
from safetensors.torch import save as to_bytes
from stable_baselines3.common.base_class import BaseAlgorithm
from torch import Tensor

from core_models.errors import UserError
from core_models.files import write_atomic

FORMAT = 1
SETTINGS, TENSORS = "genapps/learner.json", "genapps/learner.safetensors"
"""Names of the members of an archive that are ours."""


def write_archive(
    path: Path | str, algorithm: BaseAlgorithm, settings: dict[str, Any], tensors: dict[str, Tensor]
) -> None:
    """Writes an SB3 algorithm and, beside it, a learner's own state; whole or not at all.

    Args:
        path: the archive; `.zip` is added where it has no suffix.
        algorithm: what plain SB3 will open.
        settings: of the learner, JSON.
        tensors: of the learner.
    """
    path = Path(path)
    path = path if path.suffix else path.with_suffix(".zip")
    buffer = io.BytesIO()
    algorithm.save(buffer)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr(SETTINGS, json.dumps({"format": FORMAT, **settings}, indent=2))
        archive.writestr(
            TENSORS, to_bytes({name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()})
        )
    write_atomic(path, buffer.getvalue())


def read_archive(path: Path | str, name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Returns the settings and tensors that `write_archive` wrote; nothing is unpickled.

    Args:
        path: the archive; `.zip` may be left out.
        name: of the learner that is expected in it.

    Raises:
        UserError: when there is none, or it is another learner's, or plain SB3's.
    """
    path = Path(path)
    path = path if path.exists() else path.with_suffix(".zip")
    try:
        with zipfile.ZipFile(path) as archive:
            settings = json.loads(archive.read(SETTINGS))
            tensors = from_bytes(archive.read(TENSORS))
    except FileNotFoundError as error:
        raise UserError(f"expected a saved {name} {path}, found none") from error
    except KeyError as error:
        raise UserError(
            f"expected a saved {name}, {path} was saved by stable-baselines3 alone: what SB3 saved opens with its own "
            "load"
        ) from error
    except (zipfile.BadZipFile, SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} is no saved {name}, or is cut short: {error}") from error
    if settings.pop("format") != FORMAT:
        raise UserError(f"{path} is of a newer version: use the version that wrote it")
    if settings["learner"] != name:
        raise UserError(f"{path} holds a {settings['learner']}, expected a {name}")
    return settings, tensors
