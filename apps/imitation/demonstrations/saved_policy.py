"""Policies as stable-baselines3 saved them.

Its zip files hold settings in a form (cloudpickle, inside the member `data`) that runs code when it is read: that is
stable-baselines3's format, not ours, and nobody can open such a file safely. Only zips of one's own, or of somebody
trusted, should be opened.
"""

from __future__ import annotations

import importlib
import json
import zipfile
from pathlib import Path
from typing import Any, Literal

import gymnasium
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm

from core_models.errors import UserError

Algorithm = Literal["trpo", "ppo", "sac", "td3", "dqn", "a2c"]
PLAIN: dict[Algorithm, tuple[str, str, str]] = {
    "trpo": ("sb3_contrib", "TRPO", "cg_max_steps"),
    "ppo": ("stable_baselines3", "PPO", "clip_range"),
    "sac": ("stable_baselines3", "SAC", "target_entropy"),
    "td3": ("stable_baselines3", "TD3", "policy_delay"),
    "dqn": ("stable_baselines3", "DQN", "exploration_rate"),
    "a2c": ("stable_baselines3", "A2C", "gae_lambda"),
}
"""Algorithms of plain SB3: the package, the class, and a setting that those before it in this list don't have."""
# what only training needs, and what a newer Python can't always read back
UNUSED = {"learning_rate": 0.0, "lr_schedule": lambda _: 0.0, "clip_range": lambda _: 0.0}


def load_policy(path: Path | str, algorithm: Algorithm, *, device: str = "cpu") -> BaseAlgorithm:
    """Loads a policy that stable-baselines3 saved, to act and not to train on. This runs code that the file holds.

    Raises:
        UserError: when there is no such file, or it is none that the algorithm saved.
    """
    path = Path(path)
    if not path.is_file() or not zipfile.is_zipfile(path):
        found = "something else" if path.exists() else "nothing"
        raise UserError(f"expected a policy saved by stable-baselines3 (a .zip), found {found} at {path}")
    module, name, _ = PLAIN[algorithm]
    kind: type[BaseAlgorithm] = getattr(importlib.import_module(module), name)
    try:
        return kind.load(path, device=device, custom_objects=UNUSED)
    except Exception as error:  # whatever the file's own code raises
        raise UserError(
            f"{path}: expected a policy saved by {name}, got one that it doesn't load "
            f"({type(error).__name__}: {error}): name its algorithm, {', '.join(PLAIN)}"
        ) from error


def algorithm_of(path: Path | str) -> Algorithm | None:
    """Returns which of the known algorithms saved a policy, by its settings, without running code of the file's.

    None where that can't be told: `load_policy` says what is wrong.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            settings = json.loads(archive.read("data"))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        return None
    return next((algorithm for algorithm, (_, _, mark) in PLAIN.items() if mark in settings), None)


def check_policy(policy: BaseAlgorithm, env: gymnasium.Env[Any, Any], environment: str) -> None:
    """Checks that a policy was trained in spaces like an environment's; images may have their channels first.

    Raises:
        UserError: naming both.
    """
    for name, own, wanted in (
        ("observations", policy.observation_space, env.observation_space),
        ("actions", policy.action_space, env.action_space),
    ):
        if not _alike(own, wanted):
            raise UserError(f"expected a policy for the {name} of {environment}, {wanted}, got one for {own}")


def _alike(own: Any, wanted: Any) -> bool:
    if type(own) is not type(wanted):
        return False
    if isinstance(own, spaces.Dict):
        return set(own) == set(wanted) and all(_alike(own[key], wanted[key]) for key in own)
    if isinstance(own, spaces.Box):
        shape = tuple(wanted.shape)
        return tuple(own.shape) in (shape, (*shape[2:], *shape[:2])) if len(shape) == 3 else tuple(own.shape) == shape
    return bool(own == wanted)
