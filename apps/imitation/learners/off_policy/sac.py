"""Soft actor-critic on the environment's own reward, written for one CPU thread.

    maximise  E sum_t gamma^t (r_t + alpha H(pi(.|s_t)))

Source: Haarnoja et al., "Soft actor-critic algorithms and applications", 2018; defaults as in stable-baselines3.
`sac_update.py` holds the update itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Self

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from core_models.errors import UserError, require_numbers
from core_models.training import seed_of
from core_models.training.checkpoint import optimizer_tensors, restore_optimizer

from ...spaces_as_json import space_from_json, space_to_json
from ..archive import read_archive, write_archive
from ..spaces import check_spaces
from .learner import OffPolicyLearner
from .plain_sac import plain_sac
from .policy import Normaliser, SquashedPolicy
from .replay import Replay
from .sac_update import SACUpdate


class SACLearner(OffPolicyLearner):
    """What SAC and DAC share beside the loop: the networks, how they are saved and loaded."""

    def _build(
        self,
        seen: spaces.Box,
        done: spaces.Box,
        normaliser: Normaliser | None,
        *,
        absorbing: bool,
        hidden: tuple[int, ...],
        learning_rate: float,
        gamma: float,
        tau: float,
        batch_size: int,
        buffer_size: int,
    ) -> None:
        if gamma > 1:
            raise UserError(f"gamma: expected a number from 0 to 1, got {gamma}")
        require_numbers(
            above_0={"learning_rate": learning_rate, "gamma": gamma, "tau": tau, "batch_size": batch_size,
                     "buffer_size": buffer_size, "hidden": hidden, "checkpoint_every": self.checkpoint_every}
        )  # fmt: skip
        values, actions = seen.shape[0] + absorbing, done.shape[0]
        generator = torch.Generator().manual_seed(seed_of(self.seed, self.NAME, "initial weights"))
        self.batch_size, self.buffer_size = batch_size, buffer_size
        self.update_networks = SACUpdate(
            values, actions, hidden=tuple(hidden), learning_rate=learning_rate, gamma=gamma, tau=tau,
            absorbing=absorbing, generator=generator,
        )  # fmt: skip
        normaliser = normaliser or Normaliser.none(seen.shape[0])
        self.policy = SquashedPolicy(self.update_networks.actor, normaliser, seen, done, indicator=absorbing)
        self.replay = Replay(buffer_size, values, actions)

    def _noise(self) -> Tensor:
        return torch.randn(2, self.batch_size, self.policy.actions, generator=self.generator)

    def _tensors(self) -> dict[str, Tensor]:
        nets = self.update_networks
        found = {
            "actor": nets.actor.flat, "critics": nets.critics.flat, "targets": nets.targets.flat,
            "log_alpha": nets.log_alpha,
        }  # fmt: skip
        for name, optimizer, parameters in self._optimizers():
            moments = optimizer_tensors(optimizer, parameters)
            found |= {f"{name}/{key}": tensor for key, tensor in moments.items()}
        return found

    def _optimizers(self) -> list[tuple[str, torch.optim.Optimizer, tuple[str, ...]]]:
        nets = self.update_networks
        return [
            ("actor_optimizer", nets.actor_optimizer, ("actor", "log_alpha")),
            ("critic_optimizer", nets.critic_optimizer, ("critics",)),
        ]

    @torch.no_grad()
    def _take(self, tensors: dict[str, Tensor]) -> None:
        for name, tensor in self._tensors().items():
            if "/" not in name:
                tensor.copy_(tensors[name])
        for name, optimizer, parameters in self._optimizers():
            inside = f"{name}/"
            moments = {key.removeprefix(inside): t.clone() for key, t in tensors.items() if key.startswith(inside)}
            restore_optimizer(optimizer, parameters, moments)

    def save(self, path: Path | str) -> None:
        """Writes a zip that `stable_baselines3.SAC.load` opens too; replay and environment are not in it."""
        policy = self.policy
        settings = {
            "learner": self.NAME, "steps": self.num_timesteps, "seed": self.seed, "settings": self.settings,
            "observation_space": space_to_json(policy.observation_space),
            "action_space": space_to_json(policy.action_space),
        }  # fmt: skip
        normaliser = policy.normaliser
        tensors = self._tensors()
        tensors |= {"mean": torch.as_tensor(normaliser.mean), "scale": torch.as_tensor(normaliser.scale)}
        write_archive(path, plain_sac(policy, self.update_networks, self.num_timesteps), settings, tensors)

    @classmethod
    def _read(cls, path: Path | str) -> tuple[dict[str, Any], dict[str, Tensor], tuple[spaces.Space, spaces.Space]]:
        """Returns settings, tensors and spaces of a saved learner."""
        settings, tensors = read_archive(path, cls.NAME)
        seen, done = (space_from_json(settings[name]) for name in ("observation_space", "action_space"))
        return settings, tensors, (seen, done)


class SAC(SACLearner):
    """Soft actor-critic.

    Args:
        env: environments with vectors of observations and bounded vectors of actions; None for one that only predicts.
        seed: of weights, actions, batches and environments.
        learning_rate: of policy, critics and temperature.
        buffer_size: transitions kept.
        learning_starts: steps of random actions, before which nothing is learnt.
        batch_size: transitions an update.
        tau: share of the critics that goes into their targets at each update.
        gamma: discount.
        hidden: units of each hidden layer.
        checkpoint_every: steps after which the environments start anew, and a checkpoint is written where asked for.
        verbose: 1 prints the log.
        tensorboard_log: folder.

    Raises:
        UserError: when the spaces are others, or a setting is out of range.
    """

    NAME: ClassVar[str] = "SAC"
    METRICS: ClassVar[tuple[str, ...]] = ("train/critic_loss", "train/actor_loss", "train/ent_coef")

    def __init__(
        self,
        env: gym.Env | VecEnv | None,
        *,
        seed: int = 0,
        learning_rate: float = 3e-4,
        buffer_size: int = 1_000_000,
        learning_starts: int = 100,
        batch_size: int = 256,
        tau: float = 0.005,
        gamma: float = 0.99,
        hidden: tuple[int, ...] = (256, 256),
        checkpoint_every: int = 25_000,
        verbose: int = 0,
        tensorboard_log: str | Path | None = None,
        _spaces: tuple[spaces.Space, spaces.Space] | None = None,
    ) -> None:
        given: dict[str, Any] = {
            "learning_rate": learning_rate, "buffer_size": buffer_size, "batch_size": batch_size, "tau": tau,
            "gamma": gamma, "hidden": list(hidden),
        }  # fmt: skip
        super().__init__(
            env, given, seed=seed, learning_starts=learning_starts, checkpoint_every=checkpoint_every, verbose=verbose,
            tensorboard_log=tensorboard_log,
        )  # fmt: skip
        self._build(*check_spaces(*self._spaces_of(_spaces), self.NAME), None, absorbing=False, **given)

    @classmethod
    def load(cls, path: Path | str, env: gym.Env | VecEnv | None = None) -> Self:
        """Reads what `save` wrote; with an environment it can go on learning, from an empty replay.

        Raises:
            UserError: when the file is missing or another's, or the environment's spaces are others.
        """
        settings, tensors, own = cls._read(path)
        learner = cls(env, seed=settings["seed"], **settings["settings"], _spaces=own)
        learner.num_timesteps = settings["steps"]
        learner._take(tensors)
        return learner

    def _store(
        self, seen: np.ndarray, done: np.ndarray, after: np.ndarray, rewards: np.ndarray, ended: np.ndarray
    ) -> None:
        self.replay.add(seen, done, after, rewards, 1 - ended)

    def _update(self) -> Tensor:
        batch = self.replay.sample(self.batch_size, self.generator)
        return torch.stack(self.update_networks(batch, batch.rewards, self._noise()))
