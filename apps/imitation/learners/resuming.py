"""The complete state of an on-policy learner between two iterations, in one safetensors file, and back.

The environments' own states are not in it, and of most environments can't be had. A learner whose `reseed_every` is set
resets them, stopped or not, at points that depend on the steps alone; a state taken there needs none.
"""

from __future__ import annotations

import hashlib
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import torch

from core_models.errors import UserError
from core_models.training.checkpoint import (
    Checkpoint,
    TrainingState,
    check_same,
    load_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
)

from ..demonstrations import Demonstrations
from .on_policy.learner import OnPolicyLearner
from .over_sb3 import constructor_settings
from .spaces import describe_env

MONITORED = ("r", "l", "t")
"""What SB3's Monitor tells of an episode: return, length, time."""
UPDATES = "algorithm/updates"
"""Name of the tensor of how many updates SB3's algorithm has done."""


def identity(learner: OnPolicyLearner) -> dict[str, Any]:
    """Returns what a run must have in common with the one that wrote a state."""
    demonstrations = learner.demonstrations
    assert demonstrations is not None
    return {
        "objective": {"class": type(learner).__qualname__},
        "config": {name: str(value) for name, value in constructor_settings(learner).items()},
        "batches": {
            "demonstrations": _digest(demonstrations),
            **{name: str(value) for name, value in describe_env(learner.generator.env).items()},
        },
    }


def _digest(demonstrations: Demonstrations) -> str:
    """Returns what tells rows of demonstrations from others."""
    seen = demonstrations.observations
    parts = seen if isinstance(seen, dict) else {"": seen}
    arrays = {**parts, "actions of all": demonstrations.actions, "lengths of all": demonstrations.lengths}
    found = hashlib.sha256()
    for name, values in sorted(arrays.items()):
        found.update(f"{name} {values.dtype} {values.shape}".encode())
        found.update(np.ascontiguousarray(values).tobytes())
    return found.hexdigest()[:12]


def save_state(learner: OnPolicyLearner, path: Path) -> None:
    """Writes a learner's state, whole or not at all."""
    algorithm = learner.generator
    tensors = learner._weights()
    for name, optimizer, parameters in _optimizers(learner):
        tensors |= {f"{name}/{key}": value for key, value in optimizer_tensors(optimizer, parameters).items()}
    tensors["random/torch"] = torch.get_rng_state()
    if algorithm.device.type == "cuda":  # actions and minibatches are drawn there
        tensors["random/cuda"] = torch.cuda.get_rng_state(algorithm.device)
    kind, keys, place, has_gauss, gauss = np.random.get_state()  # SB3 shuffles with numpy's global generator
    assert kind == "MT19937"
    tensors["random/numpy"] = torch.from_numpy(np.asarray(keys).astype(np.int64))
    tensors["random/numpy place"] = torch.tensor([place, has_gauss, gauss], dtype=torch.float64)
    episodes = [[float(episode[key]) for key in MONITORED] for episode in algorithm.ep_info_buffer or ()]
    tensors["episodes/monitored"] = torch.tensor(episodes, dtype=torch.float64).reshape(-1, len(MONITORED))
    tensors[UPDATES] = torch.tensor(algorithm._n_updates)
    tensors |= learner._more_state()
    state = TrainingState(step=learner.num_timesteps, metrics=learner.history)
    save_checkpoint(path, Checkpoint(identity(learner), state, tensors))


def restore_state(learner: OnPolicyLearner, path: Path) -> None:
    """Makes a learner what it was, and begins new episodes as it did then.

    Raises:
        UserError: when the state is of another run, or damaged, or the learner has no `reseed_every`; the learner is
            then what it was.
    """
    found = load_checkpoint(path)
    check_same(path, found.identity, identity(learner))
    if not learner.reseed_every:
        raise UserError("expected reseed_every to be set: the environments' states are in no file")
    algorithm = learner.generator
    learner._set_weights({name: t for name, t in found.tensors.items() if name.split("/")[0] in ("policy", "reward")})
    learner._good = learner._weights()
    for name, optimizer, parameters in _optimizers(learner):
        restore_optimizer(optimizer, parameters, found.group(name))
    learner.history = [dict(record) for record in found.state.metrics]
    algorithm.num_timesteps = found.state.step
    updates = found.tensors.get(UPDATES)
    algorithm._n_updates = found.state.ema_updates if updates is None else int(updates)  # older files have it there
    told = found.tensors["episodes/monitored"].tolist()
    algorithm.ep_info_buffer = deque(
        [dict(zip(MONITORED, episode, strict=True)) for episode in told], maxlen=algorithm._stats_window_size
    )
    algorithm.ep_success_buffer = deque(maxlen=algorithm._stats_window_size)
    learner._restore_more(found.tensors)
    learner._begin_anew()
    place, has_gauss, gauss = found.tensors["random/numpy place"].tolist()
    keys = found.tensors["random/numpy"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", keys, int(place), int(has_gauss), gauss))
    torch.set_rng_state(found.tensors["random/torch"])
    if algorithm.device.type == "cuda" and "random/cuda" in found.tensors:  # not where "auto" was a CPU before
        torch.cuda.set_rng_state(found.tensors["random/cuda"], algorithm.device)


def _optimizers(learner: OnPolicyLearner) -> list[tuple[str, torch.optim.Optimizer, list[str]]]:
    """Returns the optimisers with the names of their parameters."""
    names = {id(parameter): name for name, parameter in learner.policy.named_parameters()}
    names |= {id(parameter): name for name, parameter in learner.reward_network.named_parameters()}
    every = {"policy optimizer": learner.policy.optimizer}
    every |= {f"{name} optimizer": optimizer for name, optimizer in learner._optimizers().items()}
    return [
        (name, optimizer, [names[id(p)] for group in optimizer.param_groups for p in group["params"]])
        for name, optimizer in every.items()
    ]
