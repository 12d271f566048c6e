"""What GAIL, AIRL, apprenticeship learning and InfoGAIL share: rollouts, a reward that is learnt, a policy step.

Each iteration collects steps with the policy, lets the reward learn from them and the demonstrations, and improves the
policy on the new reward by TRPO (Schulman et al., "Trust region policy optimization", ICML 2015) or PPO. A subclass is
what it makes a reward of.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from sb3_contrib import TRPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.common.utils import safe_mean
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor, nn

from core_models.errors import UserError, require_numbers
from core_models.training.batches import seed_of

from ...demonstrations import Demonstrations
from ...networks import Normaliser
from ...networks.encoder import Observed
from ...policies import (
    Algorithm,
    algorithm_class,
    normaliser_of,
    policy_name,
    policy_settings,
    warn_of_flattened,
    without_environment,
)
from ...spaces_as_json import Spaces
from ..base import expert_pairs
from ..over_sb3 import OverSB3
from ..spaces import refusals, require_env, require_same
from .ppo import FastPPO
from .rollouts import LearntRewards, Rollout
from .trpo import FastTRPO

AfterIteration = Callable[["OnPolicyLearner"], None]


ADAM = {"eps": 1e-5, "fused": True}
"""SB3's Adam of policy and values, as one operation for all weights."""


class _Iterating(LearntRewards):
    """Tells the learner when an iteration is over."""

    learner: OnPolicyLearner

    def train(self) -> None:
        """Takes a policy step."""
        super().train()
        self.learner._after_iteration()

    def _excluded_save_params(self) -> list[str]:
        """Leaves out, of what a callback saves, the learner and its demonstrations."""
        return [*super()._excluded_save_params(), "learner", "judge"]


class LearntTRPO(_Iterating, FastTRPO):
    """TRPO on a learnt reward."""


class LearntPPO(_Iterating, FastPPO):
    """PPO on a learnt reward."""


class OnPolicyLearner(OverSB3):
    """The loop of an iteration, over SB3's TRPO or PPO.

    Args:
        env: an environment, a vector of them, or `Spaces` for a learner that only predicts.
        demonstrations: of the expert, in the same spaces; None for a learner that only predicts.
        algorithm: trpo, as published, or ppo.
        steps: Steps of an iteration, all environments together [env steps].
        hidden: Sizes of the layers of policy and value.
        gamma: Discount of the learnt rewards.
        gae_lambda: Of generalised advantage estimation.
        normalise: The vector observations, by the demonstrations and what is seen after.
        clip_actions: Whether what judges the steps sees actions clipped to the bounds of the space, as the environment
            executes them; the policy's densities and its update keep those that it drew. Left out: it does, unless an
            action of the demonstrations lies beyond the bounds. Then they were recorded before clipping, as the files
            of Ho and Ermon's authors are, and both sides are compared so. Else |a| > 1 alone tells the learner.
        generator_settings: Other arguments of SB3's algorithm; its policy_kwargs are added to those of here, and win: a
            features_extractor_class of your own, say. What judges steps has layers of its own for images. TRPO's
            target_kl, 0.01, is per number of a continuous action, as sb3_contrib takes it: 0.01 / n for the bound of
            the papers on actions of n numbers, and as much of cg_damping, 0.1.
        reseed_every: Environments begin anew, from a seed of their own, at the end of each iteration that passes a
            multiple of this [env steps]: from there a stopped run can go on. 0 for never.
        seed: Of weights, draws and environments.
        device: As SB3's.
        tensorboard_log: A folder for TensorBoard.
        verbose: 1 prints SB3's tables.

    Raises:
        UserError: when the demonstrations don't fit the environment, or a setting is out of its range.
    """

    UNNAMED: ClassVar[dict[str, Any]] = {"clip_actions": False}

    def __init__(
        self,
        env: gymnasium.Env | VecEnv | Spaces,
        demonstrations: Demonstrations | None,
        *,
        algorithm: Algorithm = "trpo",
        steps: int = 5000,
        hidden: Sequence[int] = (100, 100),
        gamma: float = 0.995,
        gae_lambda: float = 0.97,
        normalise: bool = True,
        clip_actions: bool | None = None,
        generator_settings: dict[str, Any] | None = None,
        reseed_every: int = 0,
        seed: int = 0,
        device: str = "cpu",
        tensorboard_log: str | None = None,
        verbose: int = 0,
    ) -> None:
        self.algorithm, self.steps, self.hidden = algorithm, steps, list(hidden)
        self.gamma, self.gae_lambda, self.normalise = gamma, gae_lambda, normalise
        self.generator_settings = dict(generator_settings or {})
        self.reseed_every, self.seed, self.device = reseed_every, seed, device
        self.tensorboard_log, self.verbose = tensorboard_log, verbose
        self.history: list[dict[str, float]] = []
        """A record of each iteration."""
        self._hook: AfterIteration | None = None
        self._told: dict[str, float] = {}
        if steps < 2:
            raise UserError(f"steps: expected 2 env steps an iteration or more, got {steps}")
        require_numbers(above_0={"hidden": self.hidden}, from_0={"reseed_every": reseed_every})
        for setting, value in (("gamma", gamma), ("gae_lambda", gae_lambda)):
            if not 0 <= value <= 1:
                raise UserError(f"{setting}: expected a number from 0 to 1, got {value}")
        self.generator = self._make_generator(env)
        self.normaliser = normaliser_of(self.generator.policy)
        """Of the observations; the policy's own."""
        box = self.action_space if isinstance(self.action_space, spaces.Box) else None
        self.action_normaliser = Normaliser(int(np.prod(box.shape))) if box and normalise else None
        """Of the actions, for what judges them."""
        where = {"dtype": torch.float32, "device": self.generator.device}
        self._bounds = [torch.as_tensor(b, **where).reshape(1, -1) for b in (box.low, box.high)] if box else []
        self.clip_actions: bool | None = clip_actions if box else False
        """Whether what judges the steps sees actions clipped; known once there are demonstrations."""
        self.demonstrations = demonstrations
        if demonstrations is not None:
            self._take(demonstrations)
        self.clip_actions = bool(self.clip_actions)
        # in training only while it learns: spectral norms move with every call of a network in training
        self.reward_network = self._make_reward().to(self.generator.device).eval()
        self._good = self._weights()

    # -- what a subclass is -------------------------------------------------------------------------------------------

    @abstractmethod
    def _make_reward(self) -> nn.Module:
        """Returns what the reward is made of; its optimisers too may be made here."""

    @abstractmethod
    def judge(self, rollout: Rollout) -> Tensor:
        """Learns from a rollout, and returns the rewards (steps,) of its steps."""

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Returns the optimisers of the reward by a name."""
        return {}

    def _more_state(self) -> dict[str, Tensor]:
        """Returns what a checkpoint holds beside weights, optimisers, history and random numbers, each by its name."""
        return {}

    def _restore_more(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes over what `_more_state` returned, from among the tensors of a checkpoint."""

    def _wrapped(self, env: VecEnv) -> VecEnv:
        """Returns what the policy acts in."""
        return env

    def _take(self, demonstrations: Demonstrations) -> None:
        """Makes tensors of the expert's pairs, and lets the normalisation begin with them."""
        self._take_pairs(demonstrations, self.observation_space)
        self._normalise(self.expert_observations, self.expert_judged)

    def _take_pairs(self, demonstrations: Demonstrations, space: spaces.Space) -> None:
        """Makes tensors of the expert's pairs, and finds out whether what judges them sees actions clipped."""
        self.expert_observations, self.expert_actions = expert_pairs(
            demonstrations, space, self.action_space, self.generator.device
        )
        if self.clip_actions is None:
            beyond = (self.expert_actions - self.clipped(self.expert_actions)).abs()
            # scaled to the bounds and back, an action at one of them is a rounding beyond it
            self.clip_actions = not bool((beyond > 1e-5 * self.expert_actions.abs().clamp_min(1)).any())
        self.expert_judged = self.as_judged(self.expert_actions)
        """The expert's actions as what judges the steps sees them; `expert_actions` are the demonstrations' own."""

    def clipped(self, actions: Tensor) -> Tensor:
        """Returns rows of actions clipped to the space, as environments execute them; discrete ones as they are."""
        if not self._bounds:
            return actions
        low, high = self._bounds
        return actions.clamp(low, high)

    def as_judged(self, actions: Tensor) -> Tensor:
        """Returns rows of actions, the expert's or a policy's, as what judges the steps sees them."""
        return self.clipped(actions) if self.clip_actions else actions

    def _normalise(self, observations: Observed, actions: Tensor) -> None:
        """Takes steps into the normalisation."""
        if self.action_normaliser is not None:
            self.action_normaliser.update(actions)
        if self.normaliser is not None:
            assert isinstance(observations, Tensor)
            self.normaliser.update(observations.flatten(1).to(self.generator.device))

    # -- as SB3's algorithms ------------------------------------------------------------------------------------------

    @property
    def logger(self) -> Logger:
        """The logger of stable-baselines3; there is one once it learns, or one was set."""
        return self.generator.logger

    def set_logger(self, logger: Logger) -> None:
        """Uses another logger."""
        self.generator.set_logger(logger)

    def get_env(self) -> VecEnv | None:
        """Returns the environments, with codes where the policy has some; None where there are none."""
        return self.generator.get_env()

    def set_env(self, env: gymnasium.Env | VecEnv, force_reset: bool = True) -> None:
        """Learns in other environments from now on.

        Args:
            env: of the same spaces, and as many; without codes, which are added where the policy has some.
            force_reset: begins new episodes.

        Raises:
            UserError: when their spaces or their number are others, or there was no environment before.
        """
        require_env(env)
        before = self.get_env()
        if before is None:
            raise UserError(f"set_env: expected a {self.name} that has an environment: load(path, env, demonstrations)")
        wrapped = self._wrapped(BaseAlgorithm._wrap_env(env, verbose=0))
        require_same(Spaces(before.observation_space, before.action_space), wrapped, self.name)
        if wrapped.num_envs != before.num_envs:
            raise UserError(f"set_env: expected {before.num_envs} environments, as before, got {wrapped.num_envs}")
        self.generator.set_env(wrapped, force_reset)

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str = "",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
        after_iteration: AfterIteration | None = None,
    ) -> Self:
        """Learns for so many steps, rounded up to whole iterations; returns itself.

        Args:
            total_timesteps: [env steps].
            callback: SB3 callbacks; their model is the SB3 algorithm.
            log_interval: iterations between SB3's tables.
            tb_log_name: name of the run in TensorBoard.
            reset_num_timesteps: counts from 0.
            progress_bar: SB3's.
            after_iteration: is given this learner after each iteration.

        Raises:
            UserError: when there is no environment or no demonstrations, or training diverged: the policy is then that
                of the last good iteration.
        """
        if self.demonstrations is None or self.generator.env is None:
            raise UserError("expected an environment and demonstrations to learn from: load(path, env, demonstrations)")
        self._hook = after_iteration
        if reset_num_timesteps:
            self.history = []
        self.generator.learn(
            total_timesteps, callback, log_interval, tb_log_name or self.name, reset_num_timesteps, progress_bar
        )
        return self

    # -- inside -------------------------------------------------------------------------------------------------------

    def _make_generator(self, env: gymnasium.Env | VecEnv | Spaces) -> Any:
        more: dict[str, Any] = {
            "gamma": self.gamma, "gae_lambda": self.gae_lambda, "seed": self.seed, "device": self.device,
            "tensorboard_log": self.tensorboard_log, "verbose": self.verbose,
        }  # fmt: skip
        if algorithm_class(self.algorithm) is TRPO:
            # KL .01 and damping .1 are Ho and Ermon's numbers, but sb3_contrib takes the mean of the divergence over
            # rows and numbers of the action, and they its sum over these: for a Box of n numbers the bound here is
            # n times theirs, and so is the damping. The values are fitted by SB3's Adam.
            more |= {"target_kl": 0.01, "cg_damping": 0.1, "cg_max_steps": 10, "n_critic_updates": 5}
        if self.generator_settings.get("use_sde"):
            raise UserError("generator_settings: use_sde is not supported: rollouts here draw noise at every step")
        given = dict(self.generator_settings)
        own = dict(given.pop("policy_kwargs", None) or {})
        if "optimizer_class" not in own:  # another optimiser has settings of its own
            own = {"optimizer_kwargs": ADAM, **own}
        more |= given
        kind: Any = LearntTRPO if algorithm_class(self.algorithm) is TRPO else LearntPPO
        if isinstance(env, Spaces):
            space = env.observation_space
            with refusals(self.algorithm):
                settings = policy_settings(space, self.hidden, normalise=self.normalise, **own)
                made = without_environment(kind, policy_name(space), *env, policy_kwargs=settings, **more)
        else:
            require_env(env)
            wrapped = self._wrapped(BaseAlgorithm._wrap_env(env, verbose=0))
            space = wrapped.observation_space
            if self.steps % wrapped.num_envs:
                raise UserError(f"steps: expected a multiple of the {wrapped.num_envs} environments, got {self.steps}")
            warn_of_flattened(space, " by what judges steps" if "features_extractor_class" in own else "")
            more["n_steps"] = self.steps // wrapped.num_envs
            # SB3 warns of a batch cut short
            more.setdefault("batch_size", max(size for size in range(1, 257) if self.steps % size == 0))
            with refusals(self.algorithm):
                settings = policy_settings(space, self.hidden, normalise=self.normalise, **own)
                made = kind(policy_name(space), wrapped, policy_kwargs=settings, **more)
        made.judge, made.learner = self._judged, self
        return made

    def _judged(self, rollout: Rollout) -> Tensor:
        self._told = {}
        # the densities are there already, of the actions as they were drawn
        rollout = replace(rollout, actions=self.as_judged(rollout.actions))
        rewards = self.judge(rollout)
        self.tell("learnt_reward", float(rewards.mean()))
        self._rollout = rollout
        return rewards

    def tell(self, name: str, value: float) -> None:
        """Notes a figure of the iteration under way, for the log and the history."""
        self._told[name] = value
        self.generator.logger.record(f"imitation/{name}", value)

    def _after_iteration(self) -> None:
        weights = self._weights()
        broken = [name for name, tensor in weights.items() if not torch.isfinite(tensor).all()]
        if broken:
            self._set_weights(self._good)
            raise UserError(
                f"{self.name} diverged at {self.num_timesteps:,} steps ({broken[0]} is not finite): the policy is that "
                "of the last good iteration; try a smaller learning rate, or a penalty on the gradient"
            )
        self._good = weights
        # after the policy step: its densities were those of the old scale
        self._normalise(self._rollout.observations, self._rollout.actions)
        episodes = self.generator.ep_info_buffer or ()
        record: dict[str, float] = {"step": self.num_timesteps, **self._told}
        if episodes:
            record["true_return"] = float(safe_mean([episode["r"] for episode in episodes]))
            record["episode_length"] = float(safe_mean([episode["l"] for episode in episodes]))
        self.history.append(record)
        before = self.num_timesteps - self.steps
        if self.reseed_every and self.num_timesteps // self.reseed_every > before // self.reseed_every:
            self._begin_anew()
        if self._hook is not None:
            self._hook(self)

    def _begin_anew(self) -> None:
        """Resets the environments from a seed that depends on the run's seed and the steps alone."""
        env = self.generator.env
        env.seed(seed_of(self.seed, "environments", str(self.num_timesteps)) % 2**31)
        self.generator._last_obs = env.reset()
        self.generator._last_episode_starts = np.ones(env.num_envs, dtype=bool)

    def _weights(self) -> dict[str, Tensor]:
        policy = {f"policy/{name}": value.clone() for name, value in self.policy.state_dict().items()}
        return policy | {f"reward/{name}": value.clone() for name, value in self.reward_network.state_dict().items()}

    def _set_weights(self, tensors: dict[str, Tensor]) -> None:
        for kind, module in (("policy", self.policy), ("reward", self.reward_network)):
            own = {name.split("/", 1)[1]: t for name, t in tensors.items() if name.startswith(f"{kind}/")}
            module.load_state_dict(own)
        self.reward_network.eval()
