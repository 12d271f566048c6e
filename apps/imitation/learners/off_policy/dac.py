"""DAC, discriminator-actor-critic: adversarial imitation off-policy, about ten times fewer environment steps than GAIL.

    discriminator:  minimise  E_expert softplus(-f) + E_replay softplus(f) + 10 E (|grad f| - 1)^2
    policy:         soft actor-critic on r(s, a) = f(s, a) = log D - log(1 - D), from the same replay

Source: Kostrikov, Agrawal, Dwibedi, Levine and Tompson, "Discriminator-actor-critic: addressing sample inefficiency and
reward bias in adversarial imitation learning", ICLR 2019. The generator there is TD3; here it is SAC, with absorbing
states (`absorbing.py`). Only the expert's pairs (s, a) are looked at, so thinned demonstrations do. Observations are
normalised by the expert's mean and deviation.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, ClassVar, Self, get_args

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Float
from stable_baselines3.common.vec_env import VecEnv
from torch import Generator, Tensor

from core_models.errors import UserError, require_numbers
from core_models.training import seed_of

from ...demonstrations import Demonstrations
from ...networks import RewardForm, learnt_reward
from ..base import Learner
from ..spaces import check_spaces, to_unit
from .absorbing import absorbing_state, absorbing_transitions, with_indicator
from .dac_discriminator import DACDiscriminator
from .policy import Normaliser
from .sac import SACLearner
from .stacked_mlp import Activation


class ExpertPairs:
    """The expert's pairs (s, a), one of the absorbing state for each trajectory that the environment ended.

    Where every k-th row of a trajectory was kept, its one absorbing pair stands beside k times too few others: it is
    drawn with 1/k of their probability.
    """

    def __init__(
        self, demonstrations: Demonstrations, normaliser: Normaliser, action_space: spaces.Box, distance: float = 1.0
    ) -> None:
        assert isinstance(demonstrations.observations, np.ndarray)
        real = np.concatenate(
            (
                with_indicator(normaliser(demonstrations.observations)),
                to_unit(demonstrations.actions, action_space),
            ),
            1,
        )
        wants = "the reward of the absorbing state is learnt from; BC and GAIL do without"
        ended = int(demonstrations.needed("terminated", wants).sum())
        actions = demonstrations.actions.shape[1]
        absorbing = np.concatenate((absorbing_state(real.shape[1] - actions, distance), np.zeros(actions, np.float32)))
        self.pairs = torch.as_tensor(np.concatenate((real, np.tile(absorbing, (ended, 1)))), dtype=torch.float32)
        weights = torch.ones(len(self.pairs), dtype=torch.float64)
        weights[len(real) :] = 1 / demonstrations.subsample
        self.weights = weights / weights.sum()
        self._cumulated = self.weights.cumsum(0).float()

    def sample(self, n: int, generator: Generator) -> Float[Tensor, "rows values"]:
        """Draws n pairs by their weights."""
        places = torch.searchsorted(self._cumulated, torch.rand(n, generator=generator), right=True)
        return self.pairs.index_select(0, places.clamp_(max=len(self.pairs) - 1))


def check_demonstrations(demonstrations: Demonstrations, observation: spaces.Box, action: spaces.Box) -> None:
    """Makes sure that demonstrations have the shapes of an environment's spaces.

    Raises:
        UserError: when they don't; names what differs.
    """
    for what, rows, space in (
        ("observations", demonstrations.observations, observation),
        ("actions", demonstrations.actions, action),
    ):
        there = "a dict" if isinstance(rows, dict) else rows.shape[1:]
        if there != space.shape:
            raise UserError(
                f"the environment has {what} of shape {space.shape}, the demonstrations of "
                f"{demonstrations.environment} have {there}: give demonstrations of this environment"
            )


class DAC(SACLearner, Learner):
    """Discriminator-actor-critic.

    Args:
        env: environments with vectors of observations and bounded vectors of actions; None for one that only predicts.
        demonstrations: the expert's; None for one that only predicts.
        seed: of weights, actions, batches and environments.
        reward: what the policy collects: `logit`, log D - log(1 - D); `positive`, -log(1 - D); `negative`, log D. The
            absorbing state's reward is learnt, so none of them has a bias towards surviving or ending.
        learning_rate: of policy, critics and temperature.
        halving: steps after which the learning rate of policy and temperature is halved, again and again, which keeps a
            long run from falling back (100,000 as published, there from 1e-3); 0 leaves it as it is.
        absorbing_distance: how far the absorbing state lies from the mean of the expert's states, whose deviation is 1
            (`absorbing.py`): 1, published with raw states; more where the policy learns to end its episodes early
            though the expert never does.
        discriminator_learning_rate: of the discriminator.
        discriminator_hidden: units of each of its hidden layers.
        discriminator_activation: tanh or relu.
        gradient_penalty: how much its gradient is held to length 1 between expert and policy.
        buffer_size: transitions kept.
        learning_starts: steps of random actions, before which nothing is learnt.
        batch_size: transitions an update, and as many of the expert's pairs.
        tau: share of the critics that goes into their targets at each update.
        gamma: discount.
        hidden: units of each hidden layer of policy and critics.
        checkpoint_every: steps after which the environments start anew, and a checkpoint is written where asked for.
        verbose: 1 prints the log.
        tensorboard_log: folder.

    Raises:
        UserError: when the spaces are others, the demonstrations don't fit them, or a setting is out of range.
    """

    name = "dac"
    NAME: ClassVar[str] = "DAC"
    METRICS: ClassVar[tuple[str, ...]] = (
        "train/critic_loss",
        "train/actor_loss",
        "train/ent_coef",
        "imitation/learnt_reward",
        "imitation/discriminator_loss",
        "imitation/gradient_norm",
        "imitation/accuracy_expert",
        "imitation/accuracy_learner",
    )

    def __init__(
        self,
        env: gym.Env | VecEnv | None,
        demonstrations: Demonstrations | None,
        *,
        seed: int = 0,
        reward: RewardForm = "logit",
        learning_rate: float = 3e-4,
        halving: int = 0,
        absorbing_distance: float = 1.0,
        discriminator_learning_rate: float = 3e-4,
        discriminator_hidden: tuple[int, ...] = (100, 100),
        discriminator_activation: Activation = "tanh",
        gradient_penalty: float = 10.0,
        buffer_size: int = 1_000_000,
        learning_starts: int = 1000,
        batch_size: int = 256,
        tau: float = 0.005,
        gamma: float = 0.99,
        hidden: tuple[int, ...] = (256, 256),
        checkpoint_every: int = 25_000,
        verbose: int = 0,
        tensorboard_log: str | Path | None = None,
        _spaces: tuple[spaces.Space, spaces.Space] | None = None,
        _normaliser: Normaliser | None = None,
    ) -> None:
        if reward not in get_args(RewardForm):
            raise UserError(f"expected a reward among logit, positive, negative, got {reward!r}")
        sac: dict[str, Any] = {
            "learning_rate": learning_rate, "buffer_size": buffer_size, "batch_size": batch_size, "tau": tau,
            "gamma": gamma, "hidden": list(hidden),
        }  # fmt: skip
        discriminator: dict[str, Any] = {
            "discriminator_learning_rate": discriminator_learning_rate,
            "discriminator_hidden": list(discriminator_hidden), "discriminator_activation": discriminator_activation,
            "gradient_penalty": gradient_penalty, "reward": reward,
        }  # fmt: skip
        if halving < 0:
            raise UserError(f"expected a number of steps for halving, 0 for none, got {halving}")
        require_numbers(
            above_0={"discriminator_learning_rate": discriminator_learning_rate,
                     "discriminator_hidden": discriminator_hidden, "absorbing_distance": absorbing_distance},
            from_0={"gradient_penalty": gradient_penalty},
        )  # fmt: skip
        discriminator |= {"halving": halving} if halving else {}
        discriminator |= {"absorbing_distance": absorbing_distance} if absorbing_distance != 1 else {}
        loop: dict[str, Any] = {"learning_starts": learning_starts, "checkpoint_every": checkpoint_every}
        loop |= {"verbose": verbose, "tensorboard_log": tensorboard_log}
        super().__init__(env, {**sac, **discriminator}, seed=seed, **loop)
        seen, done = check_spaces(*self._spaces_of(_spaces), self.NAME)
        self.demonstrations, self.reward = demonstrations, reward
        self.learning_rate, self.halving, self.absorbing_distance = learning_rate, halving, absorbing_distance
        if demonstrations is not None:
            check_demonstrations(demonstrations, seen, done)
            _normaliser = _normaliser or Normaliser.of(demonstrations.observations)  # type: ignore[arg-type]
        self._build(seen, done, _normaliser, absorbing=True, **sac)
        self.expert = None
        if demonstrations is not None:
            self.expert = ExpertPairs(
                demonstrations, self.policy.normaliser, self.policy.action_space, absorbing_distance
            )
        self.discriminator = DACDiscriminator(
            seen.shape[0] + 1 + done.shape[0],
            hidden=tuple(discriminator_hidden), activation=discriminator_activation,
            learning_rate=discriminator_learning_rate, penalty=gradient_penalty,
            generator=torch.Generator().manual_seed(seed_of(seed, self.NAME, "discriminator")),
        )  # fmt: skip

    @classmethod
    def load(
        cls, path: Path | str, env: gym.Env | VecEnv | None = None, demonstrations: Demonstrations | None = None
    ) -> Self:
        """Reads what `save` wrote; with environment and demonstrations it can go on learning, from an empty replay.

        Raises:
            UserError: when the file is missing or another's, or the environment's spaces are others.
        """
        settings, tensors, own = cls._read(path)
        normaliser = Normaliser(tensors["mean"].numpy(), tensors["scale"].numpy())
        learner = cls(
            env, demonstrations, seed=settings["seed"], **settings["settings"], _spaces=own,
            _normaliser=normaliser,
        )  # fmt: skip
        learner.num_timesteps = settings["steps"]
        learner._take(tensors)
        return learner

    def learned_reward(self, observations: np.ndarray, actions: np.ndarray) -> Float[np.ndarray, " rows"]:
        """Returns the discriminator's reward of pairs of real states and actions (rows, ...)."""
        inside = (
            with_indicator(self.policy.normaliser(observations)),
            to_unit(actions, self.policy.action_space),
        )
        with torch.no_grad():
            logits = self.discriminator.logits(torch.as_tensor(np.concatenate(inside, 1)))
        return learnt_reward(logits, self.reward).numpy()

    def _store(
        self, seen: np.ndarray, done: np.ndarray, after: np.ndarray, rewards: np.ndarray, ended: np.ndarray
    ) -> None:
        normalise = self.policy.normaliser
        rows = absorbing_transitions(normalise(seen), done, rewards, normalise(after), ended, self.absorbing_distance)
        self.replay.add(rows.observations, rows.actions, rows.next_observations, rows.rewards, 1.0)

    def _update(self) -> Tensor:
        assert self.expert is not None
        n, generator = self.batch_size, self.generator
        batch = self.replay.sample(n, generator)
        mix = torch.rand(n, 1, generator=generator)
        judged = self.discriminator(self.expert.sample(n, generator), batch.pairs, mix)
        rewards = learnt_reward(judged.policy_logits, self.reward)
        if self.halving:  # by the steps alone, so that a resumed run goes on with the same
            rate = self.learning_rate * 0.5 ** (self.num_timesteps // self.halving)
            self.update_networks.actor_optimizer.param_groups[0]["lr"] = rate
        losses = self.update_networks(batch, rewards, self._noise())
        told = (judged.loss, judged.gradient_norm, judged.expert_accuracy, judged.policy_accuracy)
        return torch.stack((*losses, rewards.mean(), *told))

    def _data(self) -> dict[str, Any]:
        assert self.expert is not None
        content = self.expert.pairs.numpy().tobytes() + self.expert.weights.numpy().tobytes()
        return {"pairs": len(self.expert.pairs), "sum of their bytes": hashlib.sha256(content).hexdigest()[:12]}

    def _require_all(self) -> None:
        super()._require_all()
        if self.expert is None:
            raise UserError("expected demonstrations to learn from: DAC.load(path, env=..., demonstrations=...)")

    def _tensors(self) -> dict[str, Tensor]:
        return super()._tensors() | {"discriminator": self.discriminator.network.flat}

    def _optimizers(self) -> list[tuple[str, torch.optim.Optimizer, tuple[str, ...]]]:
        return [
            *super()._optimizers(),
            ("discriminator_optimizer", self.discriminator.optimizer, ("discriminator",)),
        ]
