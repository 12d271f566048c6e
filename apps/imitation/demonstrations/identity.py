"""What an environment is called and was made with, from gymnasium's own record of it."""

from __future__ import annotations

from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec

from core_models.errors import UserError


def identity_of(spec: EnvSpec) -> tuple[str, dict[str, Any]]:
    """Returns the id and the arguments that make the same environment again by `gymnasium.make`.

    Example:
        >>> identity_of(gymnasium.make("CartPole-v1", max_episode_steps=200).spec)
        ('CartPole-v1', {'max_episode_steps': 200})
    """
    kwargs = {key: value for key, value in spec.kwargs.items() if key != "render_mode"}
    registered = gymnasium.registry.get(spec.id)
    if registered and spec.max_episode_steps != registered.max_episode_steps:
        kwargs["max_episode_steps"] = spec.max_episode_steps
    return spec.id, kwargs


def plain_id(environment: str) -> str:
    """Returns an environment's id without the package that registers it."""
    return environment.rpartition(":")[2]


def imports_nothing(environment: str) -> str:
    """Returns an id that a file names, if making that environment imports no module of the file's choice.

    gymnasium's `module:Id-v0` imports the module first, which runs its code: whoever types it trusts it, and a file
    may come from anybody.

    Raises:
        UserError: when it names a module.
    """
    if ":" in environment:
        raise UserError(
            f"expected an environment's plain id, got {environment}: it names a module to import, which a file doesn't "
            f"choose; give --environment {environment} if you trust it"
        )
    return environment
