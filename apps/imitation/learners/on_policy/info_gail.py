r"""InfoGAIL: a policy with a code, which comes to stand for the kinds of behaviour among unlabelled demonstrations.

.. math:: \max_{\pi, Q}\; E_\pi[D(s,a)] + \lambda_0\, \eta(\pi) + \lambda_1 L_I(\pi, Q) + \lambda_2 H(\pi), \quad
    \max_D\; E_{\pi_E}[D(s,a)] - E_\pi[D(s,a)]

with L_I = E[log Q(c | s, a)] + H(c), a bound on the information between code and trajectory, and eta the reward of the
environment, or the user's, for what the demonstrations needn't teach. The code is uniform and fixed over a trajectory.
D is a Wasserstein critic, high on the expert; or, by a switch, the discriminator of GAIL. Policy and D start from
behavioural cloning with random codes, and D and Q learn from the last trajectories, not from the newest alone.

Source: Li, Song and Ermon, "InfoGAIL: interpretable imitation learning from visual demonstrations", NIPS 2017,
equations 1 to 4 and algorithm 2 (the paper writes D with the opposite sign). Policy steps by TRPO at KL 0.01 (the mean
over the numbers of a continuous action, and theirs is its sum: `gail.py`), gamma 0.95, lambda 0.97, with advantages
scaled and not centred, as in the authors' code.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from math import log
from typing import Any, Literal

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv
from torch import Generator, Tensor, nn

from core_models.errors import UserError, require_numbers

from ...codes import CodedVecEnv, as_dict, one_hot, with_code
from ...demonstrations import Demonstrations
from ...networks import Discriminator, Normaliser, Posterior, learnt_reward
from ...networks.discriminator import logistic_loss, penalty_between
from ...networks.encoder import Observed, rows
from ...policies import takes_vectors
from .learner import OnPolicyLearner
from .past import Trajectory, from_tensors, joined, to_tensors
from .rollouts import AT_A_TIME, Rollout

ZERO = "critic_of_expert"
"""Name of the zero of a Wasserstein critic in an archive."""
Critic = Literal["wasserstein", "wasserstein-clip", "gan"]
"""wasserstein: with a penalty on the gradient (Gulrajani et al. 2017). wasserstein-clip: with its weights clipped, as
published (Arjovsky et al. 2017). gan: the discriminator of GAIL, rewarded by -log(1 - D)."""

Augmentation = Callable[[Observed, Tensor], Tensor]
"""Takes observations, without the code, and actions; returns rewards (n,)."""


class Judges(nn.Module):
    """D and Q, and the normalisation that they share.

    Args:
        observation_space: of the environment, without the code.
        action_space: of the environment.
        codes: how many values the code takes.
        hidden: sizes of their layers.
        posterior_actions: whether Q looks at the action too.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        codes: int,
        hidden: Sequence[int],
        *,
        posterior_actions: bool = True,
    ) -> None:
        super().__init__()
        size = int(np.prod(observation_space.shape or (0,))) if takes_vectors(observation_space) else 0
        self.normaliser = Normaliser(size) if size else None
        self.discriminator = Discriminator(observation_space, action_space, hidden, normaliser=self.normaliser)
        told = action_space if posterior_actions else None
        self.posterior = Posterior(observation_space, told, codes, hidden, normaliser=self.normaliser)


class InfoGAIL(OnPolicyLearner):
    """InfoGAIL, with TRPO or PPO.

    Args:
        env: as `OnPolicyLearner`'s, like all arguments that are not named here; without the code, which is added.
        demonstrations: of the expert; their labels, if they have any, are not looked at.
        codes: Values of the code: 2 or more.
        critic: wasserstein (with a penalty on the gradient), wasserstein-clip (as published) or gan.
        critic_weight: Of D in the reward.
        information: Weight of log Q(c|s,a): lambda 1.
        augmentation: Weight of the environment's reward: lambda 0; 0 for none.
        entropy: Weight of -log pi: lambda 2.
        survival: Reward of every step, as in the authors' code, where an episode can end early: to go on must be worth
            more than to end, and a Wasserstein critic is 0 on the expert's mean and below that on what it finds worse.
        judge_hidden: Sizes of the layers of D and Q.
        critic_learning_rate: RMSprop's for wasserstein-clip, Adam's else.
        posterior_learning_rate: Adam's.
        critic_steps: Steps on D an iteration.
        posterior_steps: Steps on Q an iteration.
        posterior_actions: Whether Q looks at the action too, as published; if not, a policy can't tell its code by how
            it moves its hand, only by where that leads.
        judge_batch: Steps of expert and learner each in a step on D or Q.
        penalty: Weight of the penalty on D's gradient.
        clip: Bound of D's weights for wasserstein-clip.
        target: Q is taught this much of the code, and the rest is spread over all values: 1 for the code alone.
        replay: Trajectories, the last ones, that D and Q learn from; 0 for those of the iteration alone.
        cloning_epochs: Epochs of behavioural cloning with random codes before the first iteration; 0 for none.
        clip_actions: As `OnPolicyLearner`'s, but false when left out, as in the authors' code.
        spread: Least standard deviation of actions after cloning: where experts hardly differ, a policy that does as
            they do tries nothing new, and moves little within the bound on its KL divergence; 0 leaves it.
    """

    name = "info-gail"

    def __init__(
        self,
        env: Any,
        demonstrations: Any,
        *,
        codes: int = 2,
        critic: Critic = "wasserstein",
        critic_weight: float = 1.0,
        information: float = 0.5,
        augmentation: float = 0.0,
        entropy: float = 0.0,
        survival: float = 0.0,
        judge_hidden: Sequence[int] = (128, 128),
        critic_learning_rate: float = 1e-3,
        posterior_learning_rate: float = 1e-3,
        critic_steps: int = 20,
        posterior_steps: int = 20,
        posterior_actions: bool = True,
        judge_batch: int = 500,
        penalty: float = 10.0,
        clip: float = 0.01,
        target: float = 1.0,
        replay: int = 75,
        cloning_epochs: int = 50,
        spread: float = 0.0,
        gamma: float = 0.95,
        gae_lambda: float = 0.97,
        clip_actions: bool | None = False,
        **common: Any,
    ) -> None:
        if critic not in ("wasserstein", "wasserstein-clip", "gan"):
            raise UserError(f"critic: expected wasserstein, wasserstein-clip or gan, got {critic!r}")
        if not isinstance(codes, int) or codes < 2:
            raise UserError(f"codes: expected a discrete code of 2 values or more, got {codes!r}")
        self.codes, self.critic, self.critic_weight = codes, critic, critic_weight
        self.information, self.augmentation, self.entropy = information, augmentation, entropy
        self.survival = survival
        self.judge_hidden, self.critic_learning_rate = list(judge_hidden), critic_learning_rate
        self.posterior_learning_rate = posterior_learning_rate
        self.critic_steps, self.posterior_steps, self.judge_batch = critic_steps, posterior_steps, judge_batch
        self.posterior_actions = posterior_actions
        self.penalty, self.clip, self.target = penalty, clip, target
        self.replay, self.cloning_epochs, self.spread = replay, cloning_epochs, spread
        require_numbers(
            above_0={"judge_hidden": self.judge_hidden, "critic_learning_rate": critic_learning_rate,
                     "posterior_learning_rate": posterior_learning_rate, "judge_batch": judge_batch, "clip": clip},
            from_0={"critic_steps": critic_steps, "posterior_steps": posterior_steps, "penalty": penalty,
                    "replay": replay, "cloning_epochs": cloning_epochs, "spread": spread, "target": target},
        )  # fmt: skip
        if target > 1:
            raise UserError(f"target: expected a number from 0 to 1, got {target}")
        self.past: deque[Trajectory] = deque(maxlen=replay or None)
        """What D and Q learn from."""
        common["generator_settings"] = {"normalize_advantage": False, **(common.get("generator_settings") or {})}
        super().__init__(env, demonstrations, gamma=gamma, gae_lambda=gae_lambda, clip_actions=clip_actions, **common)
        if demonstrations is not None and cloning_epochs:
            self._clone()
            self._good = self._weights()

    @property
    def judges(self) -> Judges:
        """D and Q."""
        assert isinstance(self.reward_network, Judges)
        return self.reward_network

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
        code: int | None = None,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """Returns the actions for observations, as SB3's `predict`.

        Args:
            observation: with the code, as `codes.Coded` gives it; without it where `code` is given.
            state: none.
            episode_start: none.
            deterministic: the mean of the actions, or the likeliest.
            code: the one to act by.

        Raises:
            UserError: when there is no code, neither in the observation nor given, or it has no such value.
        """
        if code is None and self._is_bare(observation):
            raise UserError(
                f"expected observations with one of {self.codes} codes, got none: give code=, or wrap the environment "
                "(Coded, CodedVecEnv)"
            )
        if code is not None and not (isinstance(code, int | np.integer) and 0 <= code < self.codes):
            raise UserError(f"code: expected 0 to {self.codes - 1}, got {code}")
        if code is not None:
            vector = isinstance(self.observation_space, spaces.Box)
            name, shape = ("", (0,)) if vector else self._bare_part()
            first = np.asarray(observation if vector else as_dict(observation)[name])
            batch = first.ndim > len(shape)
            shown = one_hot(code, self.codes)
            code_rows = np.repeat(shown[None], len(first), 0) if batch else shown
            return self.generator.predict(with_code(observation, code_rows), state, episode_start, deterministic)
        return self.generator.predict(observation, state, episode_start, deterministic)

    def _is_bare(self, observation: Any) -> bool:
        """Says whether an observation, or several, is one of the environment alone."""
        if isinstance(self.observation_space, spaces.Dict):
            return not (isinstance(observation, Mapping) and "code" in observation)
        return np.shape(observation)[-1:] == (self.observation_space.shape[0] - self.codes,)  # type: ignore[index]

    def _bare_part(self) -> tuple[str, tuple[int, ...]]:
        """Returns the name and the shape of a part of the observations that is not the code."""
        assert isinstance(self.observation_space, spaces.Dict)
        key = next(key for key in self.observation_space.spaces if key != "code")
        return key, self.observation_space[key].shape or ()

    def _wrapped(self, env: VecEnv) -> VecEnv:
        return CodedVecEnv(env, self.codes)

    @property
    def bare_space(self) -> spaces.Space:
        """What D and Q see: observations without the code; of an image, a Dict with the part `image` alone."""
        space = self.observation_space
        if isinstance(space, spaces.Dict):
            bare = {key: part for key, part in space.spaces.items() if key != "code"}
            return spaces.Dict(bare)
        assert isinstance(space, spaces.Box)
        n = space.shape[0] - self.codes
        return spaces.Box(space.low[:n], space.high[:n], dtype=np.float32)

    def _make_reward(self) -> nn.Module:
        judges = Judges(
            self.bare_space, self.action_space, self.codes, self.judge_hidden, posterior_actions=self.posterior_actions
        )
        if judges.normaliser is not None and self.demonstrations is not None:
            assert isinstance(self.expert_observations, Tensor)
            judges.normaliser.update(self.expert_observations.flatten(1))
        kind = torch.optim.RMSprop if self.critic == "wasserstein-clip" else torch.optim.Adam
        self._critic_optimizer = kind(judges.discriminator.parameters(), lr=self.critic_learning_rate)
        self._posterior_optimizer = torch.optim.Adam(judges.posterior.parameters(), lr=self.posterior_learning_rate)
        return judges

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"critic": self._critic_optimizer, "posterior": self._posterior_optimizer}

    def _take(self, demonstrations: Demonstrations) -> None:
        space = self.bare_space
        if isinstance(space, spaces.Dict):
            demonstrations = demonstrations.seen_as(as_dict)
        self._take_pairs(demonstrations, space)
        self._trajectory_of_row = torch.as_tensor(demonstrations.trajectory_of_rows())
        # with codes that go round: the policy's normalisation covers them too
        codes = self._trajectory_of_row % self.codes
        self._normalise(self._coded(self.expert_observations, codes), self.expert_judged)

    def _coded(self, observations: Observed, codes: Tensor) -> Observed:
        """Returns the policy's observations, from those without a code and codes (n,)."""
        shown = nn.functional.one_hot(codes, self.codes).float().to(self.generator.device)
        if isinstance(observations, dict):
            return {**observations, "code": shown}
        return torch.cat([observations.float(), shown], 1)

    def _bare(self, observations: Observed) -> tuple[Observed, Tensor]:
        """Returns observations without their codes, and the codes (n,)."""
        if isinstance(observations, dict):
            found: Observed = {key: part for key, part in observations.items() if key != "code"}
            return found, observations["code"].argmax(1)
        return observations[:, : -self.codes], observations[:, -self.codes :].argmax(1)

    def judge(self, rollout: Rollout) -> Tensor:
        """Lets D and Q learn from the last trajectories, and returns what the steps of a rollout are worth."""
        observations, codes = self._bare(rollout.observations)
        self._remember(rollout, observations, codes)
        seen, actions, meant = joined(self.past)
        self._teach_critic(seen, actions)
        self._teach_posterior(seen, actions, meant)
        judges = self.judges
        with torch.no_grad():
            parts = torch.arange(len(codes), device=codes.device).split(AT_A_TIME)
            some = [(rows(observations, part), rollout.actions[part], codes[part]) for part in parts]
            critic = torch.cat([judges.discriminator(o, a) for o, a, _ in some])
            told = torch.cat([judges.posterior.log_prob(o, a, c) for o, a, c in some])
        expert = self.critic_of_expert(self.expert_observations, self.expert_actions)
        self.tell("critic_gap", float(expert - critic.mean()))
        self.tell("information", float(told.mean()) + log(self.codes))
        self.tell("posterior_accuracy", 100 * float((told.exp() > 0.5).float().mean()))
        # the loss leaves the zero of a Wasserstein critic open, and it decides whether it's good to be done
        judged = learnt_reward(critic, "positive") if self.critic == "gan" else critic - expert
        rewards = self.survival + self.critic_weight * judged + self.information * told
        if self.augmentation:
            rewards = rewards + self.augmentation * rollout.true_rewards
        return rewards - self.entropy * rollout.log_probs if self.entropy else rewards

    saved_zero: float | None = None
    """What D said on average of the expert when the learner was saved; of one that was reopened."""

    @torch.no_grad()
    def critic_of_expert(self, observations: Observed, actions: Tensor) -> Tensor:
        """Returns what D says on average of the expert's pairs, a scalar: the zero of a Wasserstein critic."""
        parts, actions = torch.arange(len(actions), device=actions.device).split(AT_A_TIME), self.as_judged(actions)
        told = [self.judges.discriminator(rows(observations, part), actions[part]) for part in parts]
        return torch.cat(told).mean()

    def _saved(self) -> dict[str, Tensor]:
        told = super()._saved()
        if self.critic != "gan" and self.demonstrations is not None:
            told[ZERO] = self.critic_of_expert(self.expert_observations, self.expert_actions)
        return told

    def _set_weights(self, tensors: dict[str, Tensor]) -> None:
        super()._set_weights(tensors)
        self.saved_zero = float(tensors[ZERO]) if ZERO in tensors else None

    def _remember(self, rollout: Rollout, observations: Observed, codes: Tensor) -> None:
        """Keeps the trajectories of a rollout."""
        if not self.replay:
            self.past.clear()
        begins = rollout.starts.clone()
        begins[:: len(rollout) // rollout.environments] = True
        edges = [*begins.nonzero().flatten().tolist(), len(rollout)]
        for start, end in pairwise(edges):
            part = torch.arange(start, end, device=codes.device)
            self.past.append(Trajectory(rows(observations, part), rollout.actions[part], int(codes[start])))

    def _more_state(self) -> dict[str, Tensor]:
        return to_tensors(self.past)

    def _restore_more(self, tensors: Mapping[str, Tensor]) -> None:
        self.past.clear()
        self.past.extend(from_tensors(tensors, self.generator.device))

    def _teach_critic(self, observations: Observed, actions: Tensor) -> None:
        network = self.judges.discriminator
        n, m = len(self.expert_actions), len(actions)
        for _ in range(self.critic_steps):
            i, j = (torch.randint(k, (self.judge_batch,), device=actions.device) for k in (n, m))
            expert = rows(self.expert_observations, i), self.expert_judged[i]
            learner = rows(observations, j), actions[j]
            of_learner, of_expert = network(*learner), network(*expert)  # in this order, as gradients are summed by it
            gan = self.critic == "gan"
            loss = logistic_loss(of_expert, of_learner, 1e-3) if gan else of_learner.mean() - of_expert.mean()
            if self.critic == "wasserstein":
                loss = loss + self.penalty * penalty_between(network, expert, learner)
            self._critic_optimizer.zero_grad()
            loss.backward()
            self._critic_optimizer.step()
            if self.critic == "wasserstein-clip":
                with torch.no_grad():
                    for weight in network.parameters():
                        weight.clamp_(-self.clip, self.clip)
        self.tell("critic_loss", float(loss.detach()) if self.critic_steps else 0.0)

    def _teach_posterior(self, observations: Observed, actions: Tensor, codes: Tensor) -> None:
        network = self.judges.posterior
        for _ in range(self.posterior_steps):
            i = torch.randint(len(actions), (self.judge_batch,), device=actions.device)
            logits = network(rows(observations, i), actions[i])
            loss = nn.functional.cross_entropy(logits, codes[i], label_smoothing=1 - self.target)
            self._posterior_optimizer.zero_grad()
            loss.backward()
            self._posterior_optimizer.step()

    def _clone(self) -> None:
        """Behavioural cloning, each trajectory with a code drawn anew in each epoch: no code is tied to a mode yet."""
        generator = Generator().manual_seed(self.seed)
        optimizer = torch.optim.Adam(self.policy.parameters(), lr=1e-3)
        trajectories = int(self._trajectory_of_row.max()) + 1
        discrete = isinstance(self.action_space, spaces.Discrete)
        self.policy.set_training_mode(True)
        for _ in range(self.cloning_epochs):
            drawn = torch.randint(self.codes, (trajectories,), generator=generator)[self._trajectory_of_row]
            for i in torch.randperm(len(drawn), generator=generator).split(128):
                observations = self._coded(rows(self.expert_observations, i), drawn[i])
                actions = self.expert_actions[i]
                told = self.policy.get_distribution(observations)
                loss = -told.log_prob(actions.long().flatten() if discrete else actions).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        self.policy.set_training_mode(False)
        if self.spread and not discrete:
            with torch.no_grad():
                self.policy.log_std.clamp_(min=log(self.spread))
