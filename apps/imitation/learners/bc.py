r"""Behavioural cloning: the policy that makes the expert's actions likely.

.. math:: \max_\pi E_{(s,a) \sim \pi_E}[\log \pi(a | s)]

Where actions are continuous, the means are fitted by least squares, and the deviation after each epoch is what makes
the epoch's actions likeliest, the root of the mean squared residual. Descended to from one, as by SB3, it takes
thousands of steps to come down, and until then it alone makes each epoch better than the one before: nothing tells
overfitting.

The rows are split 70 to 30, and the weights are those that did best on the smaller part, as in the authors' code of Ho
and Ermon, "Generative adversarial imitation learning", NIPS 2016, section 6 (Adam at 1e-3, batches of 128). With whole
trajectories and weight decay it comes close to the expert; with few rows of each it drifts where no expert ever was
(Ross and Bagnell, "Efficient reductions for imitation learning", AISTATS 2010).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import log, pi
from typing import Any, Self

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from sb3_contrib import TRPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv
from torch import Generator, Tensor

from core_models.errors import UserError, require_numbers

from ..demonstrations import Demonstrations
from ..networks.encoder import Observed, rows
from ..policies import (
    normaliser_of,
    policy_name,
    policy_settings,
    sees_images,
    warn_of_flattened,
    without_environment,
)
from ..spaces_as_json import Spaces, space_to_json
from .base import expert_pairs
from .on_policy.rollouts import AT_A_TIME
from .over_sb3 import OverSB3
from .spaces import refusals, refuse_normalised

LEAST_DEVIATION = 1e-3
"""Of an action [as the environment's]: where the expert never varies one, it would be none."""
MOST_EPOCHS, MOST_STEPS = 1000, 100_000


class BC(OverSB3):
    """Behavioural cloning.

    Args:
        env: an environment, a vector of them or `Spaces`: only its spaces are used, no step is taken.
        demonstrations: of the expert; None for a learner that only predicts.
        hidden: Sizes of the policy's layers.
        learning_rate: Adam's; where left out 1e-3, as published, and 3e-4 where images are seen: at 1e-3 the first
            epoch drives a convolutional policy's layers so far that it answers the same to everything, for good.
        weight_decay: Adam's, decoupled (AdamW); 0 as published.
        batch_size: Rows in a step.
        validation: Share of the rows that choose the weights; 0 keeps the last ones.
        patience: Epochs without a better validation after which it ends; 0 never ends early.
        normalise: The vector observations, by the demonstrations.
        policy_kwargs: Other arguments of SB3's policy, which win: a features_extractor_class of your own, say.
        seed: Of weights, split and batches.
        device: As SB3's.

    Raises:
        UserError: when the demonstrations don't fit the spaces, or a setting is out of its range.
    """

    name = "bc"

    def __init__(
        self,
        env: gymnasium.Env | VecEnv | Spaces,
        demonstrations: Demonstrations | None,
        *,
        hidden: Sequence[int] = (100, 100),
        learning_rate: float | None = None,
        weight_decay: float = 0.0,
        batch_size: int = 128,
        validation: float = 0.3,
        patience: int = 0,
        normalise: bool = True,
        policy_kwargs: dict[str, Any] | None = None,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        self.hidden, self.weight_decay = list(hidden), weight_decay
        self.batch_size, self.validation, self.patience = batch_size, validation, patience
        self.normalise, self.seed, self.device = normalise, seed, device
        self.history: list[dict[str, float]] = []
        """A record of each epoch."""
        if not 0 <= validation < 1:
            raise UserError(f"validation: expected a share from 0 to less than 1, got {validation}")
        require_numbers(
            above_0={"hidden": self.hidden, "learning_rate": 1.0 if learning_rate is None else learning_rate,
                     "batch_size": batch_size},
            from_0={"weight_decay": weight_decay, "patience": patience},
        )  # fmt: skip
        own = env if isinstance(env, Spaces) else Spaces(*_spaces_of(env))
        self.learning_rate = learning_rate or (3e-4 if sees_images(own.observation_space) else 1e-3)
        if policy_kwargs:  # saved only where it is given: what cells were hashed by knows no such setting
            self.policy_kwargs = dict(policy_kwargs)
        if own is not env and "features_extractor_class" not in (policy_kwargs or {}):
            warn_of_flattened(own.observation_space)
        with refusals("BC"):
            settings = policy_settings(own.observation_space, self.hidden, normalise=normalise, **policy_kwargs or {})
            self.generator = without_environment(
                TRPO, policy_name(own.observation_space), *own, policy_kwargs=settings, seed=seed, device=device
            )
        for space in own:  # what can't be written can't be saved when training is over
            space_to_json(space)
        self.demonstrations = demonstrations
        if demonstrations is not None:
            self.observations, self.actions = expert_pairs(demonstrations, *own, self.generator.device)
            normaliser = normaliser_of(self.policy)
            if normaliser is not None:
                assert isinstance(self.observations, Tensor)
                normaliser.update(self.observations.flatten(1))

    @property
    def most_epochs(self) -> int:
        """1,000, or as many as 100,000 steps of Adam take where the rows are many."""
        steps = -(-(len(self.actions) - int(self.validation * len(self.actions))) // self.batch_size)
        return max(1, min(MOST_EPOCHS, MOST_STEPS // steps))

    def learn(
        self,
        total_timesteps: int = 0,
        callback: Callable[[BC], None] | None = None,
        *,
        epochs: int | None = None,
    ) -> Self:
        """Learns from the demonstrations; returns itself.

        Args:
            total_timesteps: steps in the environment, of which none is taken: for the signature alone.
            callback: is given this learner after each epoch.
            epochs: passes over the rows, at most; `most_epochs` when left out.

        Raises:
            UserError: when there are no demonstrations.
        """
        if self.demonstrations is None:
            raise UserError("expected demonstrations to learn from: load(path, env, demonstrations)")
        generator = Generator().manual_seed(self.seed)
        n = len(self.actions)
        order = torch.randperm(n, generator=generator)
        held, used = order[: int(self.validation * n)], order[int(self.validation * n) :]
        deviation = getattr(self.policy, "log_std", None)
        trained = [weight for weight in self.policy.parameters() if weight is not deviation]
        optimizer = torch.optim.AdamW(trained, lr=self.learning_rate, weight_decay=self.weight_decay)
        best, waited = (np.inf, self._weights()), 0
        for epoch in range(self.most_epochs if epochs is None else epochs):
            self.policy.set_training_mode(True)
            total, squares = 0.0, torch.zeros(self.actions.shape[1:], device=self.actions.device)
            for batch in used[torch.randperm(len(used), generator=generator)].split(self.batch_size):
                if deviation is None:
                    loss = -self._log_probs(batch).mean()
                    total += float(loss.detach()) * len(batch) / len(used)
                else:
                    residual = self.actions[batch] - self._distribution(batch).mean
                    loss = residual.square().sum(1).mean()
                    squares += residual.detach().square().sum(0) / len(used)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            if deviation is not None:
                fitted = squares.sqrt().clamp(min=LEAST_DEVIATION)
                deviation.data = fitted.log()
                total = float((fitted.log() + 0.5 * (squares / fitted.square() + log(2 * pi))).sum())
            record = {"epoch": epoch, "loss": total}
            if len(held):
                with torch.no_grad():
                    self.policy.set_training_mode(False)
                    found = -torch.cat([self._log_probs(part) for part in held.split(AT_A_TIME)]).mean()
                record["validation_loss"] = float(found)
                waited += 1
                if float(found) < best[0]:
                    best, waited = (float(found), self._weights()), 0
            self.history.append(record)
            if not np.isfinite(record["loss"]):
                self._set_weights(best[1])
                raise UserError(
                    f"bc diverged in epoch {epoch}: the policy is that of the best epoch before; try a smaller "
                    "learning_rate"
                )
            if callback is not None:
                callback(self)
            if self.patience and waited >= self.patience:
                break
        if len(held):
            self._set_weights(best[1])
        self.policy.set_training_mode(False)
        return self

    def _distribution(self, index: Tensor) -> torch.distributions.Distribution:
        observations: Observed = rows(self.observations, index)
        return self.policy.get_distribution(observations).distribution

    def _log_probs(self, index: Tensor) -> Tensor:
        distribution = self._distribution(index)
        actions = self.actions[index]
        if isinstance(self.action_space, spaces.Discrete):
            return distribution.log_prob(actions.long().flatten())
        return distribution.log_prob(actions).sum(1)

    def _weights(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self.policy.state_dict().items()}

    def _set_weights(self, tensors: dict[str, Tensor]) -> None:
        self.policy.load_state_dict(tensors)


def _spaces_of(env: gymnasium.Env | VecEnv) -> tuple[spaces.Space, spaces.Space]:
    """Returns the spaces of a policy in an environment: with channels first."""
    refuse_normalised(env)
    wrapped = BaseAlgorithm._wrap_env(env, verbose=0)
    return wrapped.observation_space, wrapped.action_space
