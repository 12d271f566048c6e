"""Saved learners: a zip that plain `stable_baselines3.SAC.load` opens, with our own state in further members of it.

The normalisation of observations goes into the weights of each first layer, and an absorbing state's indicator, 0 in
every real state, out of them:

    ((s - mean) / scale) W + b  =  s (W / scale) + (b - (mean / scale) W)

stable-baselines3 pickles parts of its own objects; none of ours are among them, and we read none of it back.
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import torch
from gymnasium import spaces
from safetensors import SafetensorError
from safetensors.torch import load as from_bytes
from safetensors.torch import save as to_bytes
from stable_baselines3 import SAC as PlainSAC
from torch import Tensor, nn

from core_models.errors import UserError
from core_models.files import write_atomic

from .policy import SquashedPolicy
from .sac_update import SACUpdate
from .stacked_mlp import StackedMLP

FORMAT = 1
SETTINGS, TENSORS = "genapps/learner.json", "genapps/learner.safetensors"


def save_zip(
    path: Path | str,
    policy: SquashedPolicy,
    networks: SACUpdate,
    *,
    steps: int,
    settings: dict[str, Any],
    tensors: dict[str, Tensor],
) -> Path:
    """Writes the zip, whole or not at all; returns its path, which ends in .zip where it had no ending.

    Args:
        path: the file.
        policy: the actor and its normalisation.
        networks: the critics and the temperature.
        steps: environment steps so far.
        settings: JSON-like; what makes the learner again.
        tensors: the learner's state.
    """
    path = Path(path)
    path = path if path.suffix else path.with_name(f"{path.name}.zip")
    file = io.BytesIO()
    plain_sac(policy, networks, steps).save(file)
    bounds = {
        "space/observation_low": policy.observation_space.low,
        "space/observation_high": policy.observation_space.high,
        "space/action_low": policy.action_space.low,
        "space/action_high": policy.action_space.high,
    }
    own = {name: torch.as_tensor(bound) for name, bound in bounds.items()}
    own |= {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(SETTINGS, json.dumps({"format": FORMAT, "steps": steps, **settings}, indent=2))
        archive.writestr(TENSORS, to_bytes(own))
    write_atomic(path, file.getvalue())
    return path


def load_zip(path: Path | str, learner: str) -> tuple[dict[str, Any], dict[str, Tensor], spaces.Box, spaces.Box]:
    """Reads our own members of a zip, and nothing that is pickled.

    Returns:
        settings, tensors, observation space and action space.

    Raises:
        UserError: when there is no such file, or it is no zip of this learner.
    """
    path = Path(path)
    if not path.exists() and not path.suffix:
        path = path.with_name(f"{path.name}.zip")
    try:
        with zipfile.ZipFile(path) as archive:
            settings = json.loads(archive.read(SETTINGS))
            tensors = from_bytes(archive.read(TENSORS))
    except FileNotFoundError as error:
        raise UserError(f"expected a saved {learner} {path}, found none") from error
    except KeyError as error:
        raise UserError(
            f"{path} was saved by stable-baselines3 alone: open it with stable_baselines3.SAC.load"
        ) from error
    except (zipfile.BadZipFile, SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} is no saved {learner}, or is cut short: {error}") from error
    if settings.pop("format") != FORMAT:
        raise UserError(f"{path} is of a newer version: use the version that wrote it")
    if settings["learner"] != learner:
        raise UserError(f"{path} holds a {settings['learner']}, expected a {learner}")
    boxes = [
        spaces.Box(tensors.pop(f"space/{name}_low").numpy(), tensors.pop(f"space/{name}_high").numpy(), dtype=dtype)
        for name, dtype in (
            ("observation", _dtype(tensors["space/observation_low"])),
            ("action", _dtype(tensors["space/action_low"])),
        )
    ]
    return settings, tensors, boxes[0], boxes[1]


def plain_sac(policy: SquashedPolicy, networks: SACUpdate, steps: int = 0) -> PlainSAC:
    """Returns stable-baselines3's SAC with these weights, without an environment."""
    hidden = list(networks.actor.sizes[1:-1])
    model = PlainSAC(
        "MlpPolicy",
        None,  # type: ignore[arg-type]
        buffer_size=1,
        target_entropy=networks.target_entropy,
        gamma=networks.gamma,
        tau=networks.tau,
        learning_rate=networks.actor_optimizer.param_groups[0]["lr"],
        policy_kwargs={"net_arch": hidden},
        device="cpu",
        _init_setup_model=False,
    )
    model.observation_space, model.action_space, model.n_envs = policy.observation_space, policy.action_space, 1
    with torch.random.fork_rng(devices=[]):
        model._setup_model()
    model.buffer_size, model.replay_buffer, model.num_timesteps = 1_000_000, None, steps
    with torch.no_grad():
        model.log_ent_coef.copy_(networks.log_alpha)  # type: ignore[union-attr]
        actor = model.actor
        weights, biases = folded(policy.network, 0, policy)
        for layer, w, b in zip(_linears(actor.latent_pi), weights, biases, strict=False):
            _put(layer, w, b)
        for half, head in enumerate((actor.mu, actor.log_std)):
            assert isinstance(head, nn.Linear)
            _put(head, weights[-1].chunk(2, 1)[half], biases[-1].chunk(2)[half])
        for critics, mlp in ((model.critic, networks.critics), (model.critic_target, networks.targets)):
            for number, critic in enumerate(critics.q_networks):
                for layer, w, b in zip(_linears(critic), *folded(mlp, number, policy), strict=True):
                    _put(layer, w, b)
    return model


def folded(mlp: StackedMLP, copy: int, policy: SquashedPolicy) -> tuple[list[Tensor], list[Tensor]]:
    """Returns weights and biases that take observations as they come (a critic's actions behind them)."""
    weights, biases = [w[copy] for w in mlp.weights], [b[copy, 0] for b in mlp.biases]
    values = policy.observation_space.shape[0]
    mean, scale = (torch.as_tensor(x, dtype=torch.float64) for x in (policy.normaliser.mean, policy.normaliser.scale))
    first = weights[0].double()
    real = first[:values] / scale[:, None]
    actions = first[values + policy.indicator :]
    weights[0] = torch.cat((real, actions)).float()
    biases[0] = (biases[0].double() - mean @ real).float()
    return weights, biases


def _linears(module: nn.Module) -> list[nn.Linear]:
    return [layer for layer in module.modules() if isinstance(layer, nn.Linear)]


def _put(layer: nn.Linear, weight: Tensor, bias: Tensor) -> None:
    layer.weight.copy_(weight.T)
    layer.bias.copy_(bias)


def _dtype(tensor: Tensor) -> Any:
    return tensor.numpy().dtype
