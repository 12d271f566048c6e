"""Trained policies as they lie on a disk: run folders, zips of our learners, zips of plain stable-baselines3.

A zip of ours is opened by its own members, safetensors and JSON, and runs nothing. One that stable-baselines3 alone
wrote holds pickled parts, which run code when they are read: open only your own, or those of somebody you trust.
"""

from __future__ import annotations

import importlib
import json
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from core_models.errors import UserError
from core_models.files import read_json

from .codes import coded_space
from .demonstrations import Policy
from .demonstrations.saved_policy import PLAIN, UNUSED, check_policy
from .learners import AIRL, BC, DAC, FEM, GAIL, GTAL, SAC, InfoGAIL
from .learners.archive import SETTINGS
from .spaces_as_json import Spaces

POLICY, SUMMARY = "policy.zip", "summary.json"
"""The policy in a run folder, and what it is worth."""
LEARNERS: dict[str, Any] = {
    **{kind.name: kind for kind in (AIRL, BC, FEM, GAIL, GTAL, InfoGAIL)},
    **{kind.NAME: kind for kind in (DAC, SAC)},
}
"""Classes by what their archives call them."""


class WithCode:
    """A policy of InfoGAIL that acts by one code: anything that takes a policy takes it, without wrappers.

    Args:
        learner: whose policy.
        code: the one to act by.
    """

    def __init__(self, learner: InfoGAIL, code: int) -> None:
        self.learner, self.code = learner, code

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, Any]:
        """Returns the actions for observations without a code."""
        return self.learner.predict(observation, state, episode_start, deterministic, code=self.code)


@dataclass(frozen=True)
class Trained:
    """A policy that was opened."""

    path: Path
    """The zip."""
    learner: str
    """The class that learnt it, e.g. GAIL, or PPO of plain SB3."""
    policy: Any
    """Has SB3's `predict`."""
    observation_space: spaces.Space
    """Of the policy, with its code where it has one."""
    action_space: spaces.Space
    codes: int | None = None
    """How many values the code of a policy of InfoGAIL takes; None for all others."""
    summary: dict[str, Any] = field(default_factory=dict)
    """Of its run; empty where the zip lies in no run folder."""

    def by_code(self) -> list[Policy]:
        """Returns the policy by each of its codes; itself alone where it has none."""
        if self.codes is None:
            return [self.policy]
        return [WithCode(self.policy, code) for code in range(self.codes)]

    def check(self, env: gymnasium.Env, env_id: str) -> None:
        """Makes sure that the policy fits an environment.

        Raises:
            UserError: when their spaces differ; it names both.
        """
        check_fits(
            str(self.path), Spaces(self.observation_space, self.action_space), self.codes,
            Spaces(env.observation_space, env.action_space), env_id,
        )  # fmt: skip


def check_fits(who: str, own: Spaces, codes: int | None, there: Spaces, env_id: str) -> None:
    """Makes sure that what was learnt in some spaces fits those of an environment.

    Args:
        who: names what was learnt, in the error.
        own: its spaces, with the code where it has one.
        codes: how many values that has.
        there: the environment's, without a code.
        env_id: names it.

    Raises:
        UserError: when they differ; it names both.
    """
    seen = there.observation_space if codes is None else coded_space(there.observation_space, codes)
    policy: Any = own  # the two spaces are all that is looked at
    env: Any = there._replace(observation_space=seen)
    try:
        check_policy(policy, env, env_id)
    except UserError as error:
        raise UserError(f"{who}: {error}") from error


def policies_at(path: Path | str) -> list[Path]:
    """Returns the zips that a path means: itself, that of a run folder, or those of the run folders in a folder.

    Raises:
        UserError: when there is no policy to be found.
    """
    path = Path(path)
    if not path.exists() and path.with_name(f"{path.name}.zip").is_file():
        path = path.with_name(f"{path.name}.zip")
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(
            f"expected a run folder of genapps imitation train, or a policy (.zip), found nothing at {path}"
        )
    if (path / POLICY).is_file():
        return [path / POLICY]
    below = sorted(path.glob(f"*/{POLICY}"), key=lambda found: (len(found.parent.name), found.parent.name))
    ended = [found for found in below if found.with_name(SUMMARY).is_file()]
    if below:
        if ended and len(ended) < len(below):
            left = ", ".join(found.parent.name for found in below if found not in ended)
            print(f"left out, since they have not ended: {left}", file=sys.stderr)
        return ended or below
    begun = (path / "config.yaml").is_file()
    hint = "the run has not ended: go on with it by --resume" if begun else "it is no run of genapps imitation train"
    raise UserError(f"expected {POLICY} in {path}, or in folders in it, found none: {hint}")


def open_policy(path: Path | str) -> Trained:
    """Opens the zip of a policy: ours, or plain SB3's, which runs code that it holds.

    Raises:
        UserError: when there is no such file, or it isn't a policy.
    """
    path = Path(path)
    name = _learner_of(path)
    beside = path.with_name(SUMMARY)
    found = read_json(beside) if path.name == POLICY and beside.is_file() else {}
    summary = found if isinstance(found, dict) else {}
    if name is None:
        return _plain(path, summary)
    learner = open_learner(path)
    where = learner.policy if isinstance(learner, DAC | SAC) else learner
    codes = learner.codes if isinstance(learner, InfoGAIL) else None
    return Trained(path, type(learner).__name__, learner, where.observation_space, where.action_space, codes, summary)


def open_learner(path: Path | str) -> Any:
    """Opens a learner that one of ours saved: the policy, and what it learnt a reward by.

    Args:
        path: a zip, or a run folder.

    Raises:
        UserError: when there is none, or plain SB3 saved it.
    """
    path = Path(path)
    path = path / POLICY if path.is_dir() else path
    name = _learner_of(path)
    if name is None:
        raise UserError(
            f"expected a learner of genapps imitation, {path} was saved by stable-baselines3 alone: it holds a policy, "
            "and nothing that was learnt beside it"
        )
    if name not in LEARNERS:
        raise UserError(f"{path} holds a learner {name!r} that isn't known here: use the version that wrote it")
    return LEARNERS[name].load(path)


def _learner_of(path: Path) -> str | None:
    """Returns which of our learners wrote a zip; None for plain SB3."""
    members = _members(path, (SETTINGS, "data"))
    if SETTINGS in members:
        return str(members[SETTINGS].get("learner"))
    if "data" in members:
        return None
    raise UserError(f"expected a policy, saved by a learner of genapps imitation or by stable-baselines3, got {path}")


def _members(path: Path, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Returns those members of a zip that are there, read as JSON."""
    try:
        with zipfile.ZipFile(path) as archive:
            there = set(archive.namelist())
            return {name: dict(json.loads(archive.read(name))) for name in names if name in there}
    except FileNotFoundError as error:
        raise UserError(f"expected a policy (.zip), found nothing at {path}") from error
    except (zipfile.BadZipFile, OSError, ValueError, TypeError) as error:
        raise UserError(f"expected a policy (.zip), {path} is none, or is cut short: {error}") from error


def _plain(path: Path, summary: dict[str, Any]) -> Trained:
    settings = _members(path, ("data",))["data"]
    known = [(module, name) for module, name, mark in PLAIN.values() if mark in settings]
    if not known:
        names = ", ".join(name for _, name, _ in PLAIN.values())
        raise UserError(f"expected a policy that {names} saved, got {path}, which is of another algorithm")
    module, name = known[0]
    kind = getattr(importlib.import_module(module), name)
    try:
        model = kind.load(path, device="cpu", custom_objects=UNUSED)
    except Exception as error:  # whatever the file's own code raises
        raise UserError(f"{path} looks like a policy of {name}, which doesn't load it: {error}") from error
    return Trained(path, name, model, model.observation_space, model.action_space, None, summary)
