"""A complete training state in one file: weights, optimiser, averages, random numbers and where the run stands.

The file is safetensors; what is no tensor stands as JSON in its header, with a checksum over everything. It takes its
name only when it is whole, so a run killed while saving has the state before.
"""

import json
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from ..errors import UserError
from ..files import write_atomic

MODEL = "model "
"""How the names of a model's settings begin."""
FORMAT = 1
HEADER = "genapps"


@dataclass
class TrainingState:
    """Where a run stands, apart from its tensors."""

    step: int = 0
    """Optimiser steps done."""
    seconds: float = 0.0
    """Training time [s]."""
    sums: dict[str, tuple[float, int]] = field(default_factory=dict)
    """Sum and count of each metric over the steps of the epoch under way."""
    metrics: list[dict[str, Any]] = field(default_factory=list)
    """One entry per epoch done."""
    best: float | None = None
    """Best value of the metric that early stopping watches."""
    waited: int = 0
    """Validations since then."""
    ema_updates: int = 0
    """Steps taken into the moving average."""
    stopped: Literal["finished", "early"] | None = None
    """How the run ended, if it did."""


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds.

    Attributes:
        identity: what the run must have in common with the one that wrote the file.
        state: where that run stood.
        tensors: its tensors, on the CPU, by a name that begins with the kind: `objective/`, `optimizer/`, ...
    """

    identity: dict[str, Any]
    state: TrainingState
    tensors: dict[str, Tensor]

    def group(self, kind: str) -> dict[str, Tensor]:
        """Returns the tensors of a kind, by the rest of their name."""
        return {name[len(kind) + 1 :]: tensor for name, tensor in self.tensors.items() if name.startswith(f"{kind}/")}


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Writes a checkpoint, whole or not at all.

    Raises:
        UserError: when it can't be written; the file that was there before is unchanged.
    """
    tensors = {}
    seen: set[int] = set()
    for name, tensor in checkpoint.tensors.items():
        own = tensor.detach().cpu().contiguous()
        storage = own.untyped_storage().data_ptr()
        tensors[name] = own.clone() if storage in seen else own  # tied weights: the format has no aliases
        seen.add(storage)
    content = {"format": FORMAT, "identity": checkpoint.identity, "state": asdict(checkpoint.state)}
    text = json.dumps(content)
    header = json.dumps({"checksum": _checksum(text, tensors), "content": text})
    write_atomic(path, to_bytes(tensors, metadata={HEADER: header}))


def load_checkpoint(path: Path) -> Checkpoint:
    """Reads a checkpoint.

    Raises:
        UserError: when the file is missing, cut short, altered or something else.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(HEADER)
            # cloned: what is read lies in a memory map of the file, which the next checkpoint replaces
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise UserError(f"expected a checkpoint {path}, found none") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path) from error
    if header is None:
        raise UserError(f"expected a checkpoint of a training run, {path} is another safetensors file")
    try:
        outer = json.loads(header)
        text = outer["content"]
        if outer["checksum"] != _checksum(text, tensors):
            raise _damaged(path)
        content = json.loads(text)
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise _damaged(path) from error
    if content["format"] != FORMAT:
        raise UserError(f"{path} has format {content['format']}, expected {FORMAT}: use the version that wrote it")
    sums = {name: (total, count) for name, (total, count) in content["state"].pop("sums").items()}
    return Checkpoint(content["identity"], TrainingState(sums=sums, **content["state"]), tensors)


def remove_leftovers(path: Path) -> None:
    """Removes what a run that was killed while saving left beside a checkpoint."""
    for temporary in path.parent.glob(f".{path.name}.*"):
        temporary.unlink(missing_ok=True)


def describe(objective: nn.Module) -> dict[str, str]:
    """Returns what identifies an objective: its class, its settings and its models', the shapes of its weights.

    Those of objectives that it holds but not as parts of itself are in its attribute `held_settings`.
    """
    settings = {
        name: str(value)
        for name, value in vars(objective).items()
        if isinstance(value, bool | int | float | str) and not name.startswith("_") and name != "training"
    }
    shapes = {f"weights {name}": str(list(tensor.shape)) for name, tensor in objective.state_dict().items()}
    models = {
        f"{MODEL}{name}.{one.name}": str(getattr(module.config, one.name))
        for name, module in objective.named_modules()
        if is_dataclass(getattr(module, "config", None))
        for one in fields(module.config)
    }
    held = {f"{MODEL}{name}": value for name, value in getattr(objective, "held_settings", {}).items()}
    return {"class": type(objective).__qualname__, **settings, **models, **held, **shapes}


def check_same(path: Path, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Holds the identity in a file against that of the run which wants to go on from it.

    Raises:
        UserError: when they differ; names the keys, each with both values.
    """
    here = json.loads(json.dumps(here))  # as the file holds it: tuples are lists
    for part, other in (("objective", "another model"), ("config", "other settings"), ("batches", "other data")):
        then, now = there[part], here[part]
        if not any(key.startswith(MODEL) for key in then):  # written when models' settings were not
            now = {key: value for key, value in now.items() if not key.startswith(MODEL)}
        different = [
            f"{key} ({then.get(key, 'nothing')} there, {now.get(key, 'nothing')} here)"
            for key in {**then, **now}
            if then.get(key) != now.get(key) or (key in then) != (key in now)
        ]
        if different:
            more = f" and {len(different) - 3} more" if len(different) > 3 else ""
            keys = ", ".join(different[:3]) + more
            raise UserError(f"{path} is of {other}: {keys}; resume with the same, or choose another folder")


def optimizer_tensors(optimizer: Optimizer, names: Iterable[str]) -> dict[str, Tensor]:
    """Returns the optimiser's moments and step counts, as `<parameter>/<moment>`."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return {
        f"{name}/{key}": value
        for name, parameter in zip(names, parameters, strict=True)
        for key, value in optimizer.state.get(parameter, {}).items()
        if value is not None
    }


def restore_optimizer(optimizer: Optimizer, names: Iterable[str], tensors: Mapping[str, Tensor]) -> None:
    """Takes over saved moments; the settings remain those that the optimiser was built with."""
    index = {name: i for i, name in enumerate(names)}
    state: dict[int, dict[str, Tensor]] = {}
    for full, tensor in tensors.items():
        name, key = full.rsplit("/", 1)
        state.setdefault(index[name], {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def random_tensors(generator: Generator) -> dict[str, Tensor]:
    """Returns the states of the objective's generator and of torch's global ones."""
    states = {"objective": generator.get_state(), "cpu": torch.get_rng_state()}
    if generator.device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(generator.device)
    return states


def restore_random(generator: Generator, tensors: Mapping[str, Tensor]) -> None:
    """Sets the generators to saved states."""
    generator.set_state(tensors["objective"])
    torch.set_rng_state(tensors["cpu"])
    if generator.device.type == "cuda":
        torch.cuda.set_rng_state(tensors["cuda"], generator.device)


def _checksum(text: str, tensors: Mapping[str, Tensor]) -> str:
    value = zlib.crc32(text.encode())
    for name in sorted(tensors):
        flat = tensors[name].reshape(-1)
        value = zlib.crc32(name.encode(), value)
        value = zlib.crc32(flat.view(torch.uint8).numpy().data, value) if flat.numel() else value
    return f"{value:08x}"


def _damaged(path: Path) -> UserError:
    return UserError(f"{path} is cut short or altered: delete it and begin again, or put back a copy")
