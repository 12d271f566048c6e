r"""What a learner learnt a reward to be, in the place of an environment's own: to train any algorithm of SB3 on.

.. math:: r(s, a) = -\log(1 - D(s, a)),\quad \log D(s, a),\quad \log D - \log(1 - D)

and what AIRL, FEM, GTAL and InfoGAIL make of it: the numbers that the learner itself is given while it learns, by its
networks as they are now. What differs from its own training: SB3's algorithms hand an environment their actions after
they were clipped to the space, and that is what an on-policy learner judges too where its `clip_actions` is true;
where it is false (demonstrations beyond the bounds, and by default AIRL and InfoGAIL) it learnt from its own actions
before clipping. AIRL's log pi is of the action that is handed over. And DAC's states that absorb (Kostrikov et al.,
ICLR 2019, section 4.2) have no place in an environment, so that what an ended episode is worth comes with its last
step, r(s, a) + gamma / (1 - gamma) r(s_absorbing). The reward of AIRL has -log pi of its own policy in it, at which
it is aimed; what is meant to be taken to other policies is g alone (Fu et al., ICLR 2018, section 6):
`transfer=True`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Bool, Float
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from torch import Tensor

from core_models.errors import UserError

from .codes import as_dict, one_hot, with_code
from .demonstrations import Demonstrations
from .learners import AIRL, DAC, GAIL, InfoGAIL, OnPolicyLearner
from .learners.base import expert_pairs
from .learners.off_policy.absorbing import absorbing_state
from .learners.on_policy.airl import ShapedReward
from .learners.on_policy.apprenticeship import Apprenticeship, LinearReward
from .learners.on_policy.rollouts import evaluate
from .networks import learnt_reward, observations_to_tensor
from .networks.encoder import Observed
from .spaces_as_json import Spaces
from .trained import check_fits, open_learner

TRUE_REWARD = "true_reward"
"""Where info has the environment's own reward."""


class RewardOf:
    """The learnt reward as a function of steps.

    Args:
        learner: GAIL, AIRL, FEM, GTAL, InfoGAIL or DAC, or the file or run folder of a saved one.
        transfer: of AIRL, g alone: without shaping, and without the log-density of its own policy.
        demonstrations: of an InfoGAIL with a Wasserstein critic, whose zero is what it says of these on average; what
            it said of those that it learnt from when left out.

    Raises:
        UserError: when the learner has no learnt reward, `transfer` is asked of another than AIRL, or demonstrations
            are needed.
    """

    def __init__(self, learner: Any, *, transfer: bool = False, demonstrations: Demonstrations | None = None) -> None:
        own = open_learner(learner) if isinstance(learner, str | Path) else learner
        if not isinstance(own, GAIL | AIRL | Apprenticeship | InfoGAIL | DAC):
            raise UserError(
                f"expected a learner with a learnt reward (GAIL, AIRL, FEM, GTAL, InfoGAIL, DAC), got "
                f"{type(own).__name__}"
            )
        if transfer and not isinstance(own, AIRL):
            raise UserError(f"transfer: expected an AIRL, whose reward has a part that is meant for it, got {own.name}")
        self.learner, self.transfer = own, transfer
        where: Any = own.policy if isinstance(own, DAC) else own
        self.observation_space: spaces.Space = where.observation_space
        """Of the learner's policy: with the code where it is InfoGAIL's."""
        self.action_space: spaces.Space = where.action_space
        self.codes: int | None = own.codes if isinstance(own, InfoGAIL) else None
        self._zero = _zero_of(own, demonstrations) if isinstance(own, InfoGAIL) else 0.0

    def check(self, env: gymnasium.Env | VecEnv, code: int | None) -> None:
        """Makes sure that steps of an environment can be judged, for a code where the learner has codes.

        Raises:
            UserError: when its spaces are others, or there is no such code.
        """
        kind = type(self.learner).__name__
        spec = env.spec if isinstance(env, gymnasium.Env) else None
        name = "the environment" if spec is None else spec.id
        own, there = (Spaces(place.observation_space, place.action_space) for place in (self, env))
        check_fits(f"a reward of {kind}", own, self.codes, there, name)
        if self.codes is None and code is not None:
            raise UserError(f"code: expected none, {kind} has no codes, got {code}")
        if self.codes is not None and (code is None or not 0 <= code < self.codes):
            raise UserError(f"code: expected that which is to be rewarded, 0 to {self.codes - 1}, got {code}")

    @torch.no_grad()
    def __call__(
        self,
        observations: Any,
        actions: np.ndarray,
        following: Any,
        terminated: Bool[np.ndarray, " n"],
        true_rewards: Float[np.ndarray, " n"],
    ) -> Float[np.ndarray, " n"]:
        """Returns the rewards of steps [nats].

        Args:
            observations: rows (n, ...) as the environment gives them, with codes for InfoGAIL.
            actions: (n, ...).
            following: observations after the steps.
            terminated: True where the environment, and not a time limit, ended the episode.
            true_rewards: of the environment, for the part of them that InfoGAIL's `augmentation` asks for.
        """
        learner = self.learner
        if isinstance(learner, DAC):
            return self._of_dac(learner, observations, actions, terminated)
        assert isinstance(learner, OnPolicyLearner)
        device = learner.generator.device
        seen = observations_to_tensor(observations, self.observation_space, device)
        taken = torch.as_tensor(np.asarray(actions), device=device).reshape(len(actions), -1).float()
        if isinstance(learner, GAIL):
            found = learnt_reward(learner.discriminator(seen, learner.as_judged(taken)), learner.reward)
        elif isinstance(learner, Apprenticeship):
            found = self._of_apprenticeship(learner, seen, taken)
        elif isinstance(learner, AIRL):
            after = observations_to_tensor(following, self.observation_space, device)
            found = self._of_airl(learner, seen, taken, after, torch.as_tensor(terminated, device=device))
        else:
            found = self._of_info_gail(learner, seen, taken, torch.as_tensor(true_rewards, device=device))
        return found.cpu().numpy()

    def _log_probs(self, seen: Observed, taken: Tensor) -> Tensor:
        discrete = isinstance(self.action_space, spaces.Discrete)
        policy: Any = self.learner.policy
        return evaluate(policy, seen, taken.long().flatten() if discrete else taken)[1]

    def _of_apprenticeship(self, learner: Apprenticeship, seen: Observed, taken: Tensor) -> Tensor:
        network = learner.reward_network
        assert isinstance(network, LinearReward)
        zero = {"positive": network.least, "negative": network.most}.get(learner.reward)
        worth: Tensor = network(seen, learner.as_judged(taken))
        return worth if zero is None else worth - zero

    def _of_airl(self, learner: AIRL, seen: Observed, taken: Tensor, after: Observed, ended: Tensor) -> Tensor:
        network = learner.reward_network
        assert isinstance(network, ShapedReward)
        judged = learner.as_judged(taken)
        if self.transfer:
            return network.g(network.encoder(seen, judged)).squeeze(1)
        return learnt_reward(network(seen, judged, after, ended) - self._log_probs(seen, taken), learner.reward)

    def _of_info_gail(self, learner: InfoGAIL, seen: Observed, taken: Tensor, true_rewards: Tensor) -> Tensor:
        bare, codes = learner._bare(seen)
        shown = learner.as_judged(taken)
        critic = learner.judges.discriminator(bare, shown)
        judged = learnt_reward(critic, "positive") if learner.critic == "gan" else critic - self._zero
        told = learner.judges.posterior.log_prob(bare, shown, codes)
        found = learner.survival + learner.critic_weight * judged + learner.information * told
        if learner.augmentation:
            found = found + learner.augmentation * true_rewards
        return found - learner.entropy * self._log_probs(seen, taken) if learner.entropy else found

    def _of_dac(self, learner: DAC, observations: Any, actions: np.ndarray, terminated: np.ndarray) -> np.ndarray:
        found = learner.learned_reward(np.asarray(observations), np.asarray(actions))
        if terminated.any():
            values = learner.policy.observation_space.shape[0] + 1
            state = np.concatenate(
                (absorbing_state(values, learner.absorbing_distance), np.zeros(learner.policy.actions, np.float32))
            )
            logit = learner.discriminator.logits(torch.as_tensor(state[None]))
            gamma = learner.update_networks.gamma
            found = found + terminated * gamma / (1 - gamma) * learnt_reward(logit, learner.reward).numpy()
        return found.astype(np.float32)


class LearntReward(gymnasium.Wrapper):
    """An environment whose reward is a learnt one; its own stays in `info["true_reward"]`.

    Put it right around the environment, and a Monitor around it if it is the learnt return that should be counted.

    Args:
        env: an environment of the spaces that the learner was trained in.
        learner: GAIL, AIRL, FEM, GTAL, InfoGAIL or DAC, or the file or run folder of a saved one.
        code: of InfoGAIL, whose reward depends on it: the code whose behaviour is rewarded.
        **options: as `RewardOf`'s.

    Raises:
        UserError: when the learner has no learnt reward, its spaces are others, or there is no such code.

    Example:
        >>> env = LearntReward(gymnasium.make("CartPole-v1"), "runs/gail")  # doctest: +SKIP
        >>> PPO("MlpPolicy", env).learn(10_000)  # doctest: +SKIP
    """

    def __init__(self, env: gymnasium.Env, learner: Any, *, code: int | None = None, **options: Any) -> None:
        super().__init__(env)
        self.rewards = RewardOf(learner, **options)
        self.rewards.check(env, code)
        self.code = code
        self._seen: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins an episode."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._seen = _copied(observation)
        return observation, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Takes a step; the reward is the learnt one."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        after = _copied(observation)
        (learnt,) = self.rewards(
            _shown(_batch(self._seen), self.code, self.rewards), np.asarray(action)[None],
            _shown(_batch(after), self.code, self.rewards), np.array([terminated]), np.array([reward], np.float32),
        )  # fmt: skip
        self._seen = after
        return observation, float(learnt), terminated, truncated, {**info, TRUE_REWARD: float(reward)}


class LearntRewardVecEnv(VecEnvWrapper):
    """The same for environments side by side, which are judged in one pass of the networks.

    Args:
        venv: environments of the spaces that the learner was trained in.
        learner: as in `LearntReward`.
        code: likewise.
        **options: likewise.

    Raises:
        UserError: likewise.
    """

    def __init__(self, venv: VecEnv, learner: Any, *, code: int | None = None, **options: Any) -> None:
        super().__init__(venv)
        self.rewards = RewardOf(learner, **options)
        self.rewards.check(venv, code)
        self.code = code
        self._seen: Any = None
        self._actions: np.ndarray = np.zeros(0)

    def reset(self) -> Any:
        """Begins new episodes."""
        observations = self.venv.reset()
        self._seen = _copied(observations)
        return observations

    def step_async(self, actions: np.ndarray) -> None:
        """Begins a step."""
        self._actions = np.array(actions)
        self.venv.step_async(actions)

    def step_wait(self) -> Any:
        """Ends a step; the rewards are the learnt ones."""
        observations, rewards, dones, infos = self.venv.step_wait()
        after = _copied(observations)
        following = _copied(observations)
        terminated = dones.copy()
        for i in map(int, np.flatnonzero(dones)):
            terminated[i] = not infos[i].get("TimeLimit.truncated", False)
            _put(following, i, infos[i]["terminal_observation"])
        learnt = self.rewards(
            _shown(self._seen, self.code, self.rewards), self._actions,
            _shown(following, self.code, self.rewards), terminated, rewards,
        )  # fmt: skip
        self._seen = after
        told = [{**info, TRUE_REWARD: float(reward)} for info, reward in zip(infos, rewards, strict=True)]
        return observations, learnt, dones, told


@torch.no_grad()
def _zero_of(learner: InfoGAIL, demonstrations: Demonstrations | None) -> float:
    """Returns what a Wasserstein critic says of the expert on average: its loss leaves the zero open."""
    if learner.critic == "gan":
        return 0.0
    if demonstrations is not None:
        space = learner.bare_space
        if isinstance(space, spaces.Dict):
            demonstrations = demonstrations.seen_as(as_dict)
        return float(
            learner.critic_of_expert(
                *expert_pairs(demonstrations, space, learner.action_space, learner.generator.device)
            )
        )
    if learner.demonstrations is not None:
        return float(learner.critic_of_expert(learner.expert_observations, learner.expert_actions))
    if learner.saved_zero is None:
        raise UserError(
            "demonstrations: expected those that the InfoGAIL learnt from, since the zero of its Wasserstein critic is "
            "what it says of them, which this old archive doesn't hold, got none"
        )
    return learner.saved_zero


def _shown(observations: Any, code: int | None, rewards: RewardOf) -> Any:
    """Returns rows of observations, with the code where the learner has one."""
    if code is None or rewards.codes is None:
        return observations
    n = len(next(iter(observations.values())) if isinstance(observations, dict) else observations)
    return with_code(observations, np.repeat(one_hot(code, rewards.codes)[None], n, 0))


def _copied(observation: Any) -> Any:
    """Environments may write into what they returned."""
    if isinstance(observation, dict):
        return {key: np.array(part) for key, part in observation.items()}
    return np.array(observation)


def _batch(observation: Any) -> Any:
    return {k: v[None] for k, v in observation.items()} if isinstance(observation, dict) else observation[None]


def _put(observations: Any, i: int, one: Any) -> None:
    if isinstance(observations, dict):
        for key, part in observations.items():
            part[i] = one[key]
    else:
        observations[i] = one
