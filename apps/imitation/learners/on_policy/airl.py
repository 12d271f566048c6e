r"""Adversarial inverse reinforcement learning: a discriminator whose logit is a reward less the policy's log-density.

.. math:: D(s,a,s') = \frac{e^{f(s,a,s')}}{e^{f(s,a,s')} + \pi(a|s)}, \quad f = g(s,a) + \gamma h(s') - h(s)

At the optimum g is the expert's reward and h shapes it, which leaves the best policies what they were. The policy's
reward is log D - log(1 - D) = f - log pi.

Source: Fu, Luo and Levine, "Learning robust rewards with adversarial inverse reinforcement learning", ICLR 2018,
equations 3 and 4. At the end of an episode that was not cut by a time limit h(s') is 0: no state follows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn

from core_models.errors import UserError, require_numbers

from ...networks import Encoder, Normaliser, RewardForm, learnt_reward, observations_to_tensor
from ...networks.discriminator import check_form, logistic_loss, perceptron
from ...networks.encoder import Observed, rows
from .learner import OnPolicyLearner
from .rollouts import Rollout, evaluate


class ShapedReward(nn.Module):
    """f(s, a, s').

    Args:
        observation_space: of the policy.
        action_space: of the policy.
        gamma: discount of the shaping.
        hidden: sizes of the hidden layers of g and h.
        state_only: g sees no action: what transfers to another dynamics (section 5 of the paper).
        shaping: h is there.
        normaliser: of vector observations.
        action_normaliser: of actions that are vectors.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        gamma: float,
        hidden: Sequence[int],
        *,
        state_only: bool,
        shaping: bool,
        normaliser: Normaliser | None,
        action_normaliser: Normaliser | None,
    ) -> None:
        super().__init__()
        self.gamma = gamma
        seen = None if state_only else action_space
        self.encoder = Encoder(observation_space, seen, normaliser, action_normaliser)
        self.g = perceptron(self.encoder.size, hidden, 1)
        self.h: nn.Module | None = None
        if shaping:
            self.states = Encoder(observation_space, None, normaliser)
            self.h = perceptron(self.states.size, hidden, 1)

    def forward(
        self, observations: Observed, actions: Tensor, following: Observed | None, ended: Tensor | None
    ) -> Tensor:
        """Returns f (n,) [nats].

        Args:
            observations: rows.
            actions: rows.
            following: the observations after them; None without shaping.
            ended: (n,) True where no state follows; None without shaping.
        """
        found = self.g(self.encoder(observations, actions)).squeeze(1)
        if self.h is None:
            return found
        assert following is not None and ended is not None
        after = self.h(self.states(following)).squeeze(1)
        return found + self.gamma * torch.where(ended, 0.0, after) - self.h(self.states(observations)).squeeze(1)


class AIRL(OnPolicyLearner):
    """AIRL, with TRPO or PPO.

    Args:
        env: as `OnPolicyLearner`'s, like all arguments that are not named here.
        demonstrations: of the expert: whole trajectories, unless `shaping` is off.
        reward: logit, f - log pi, as published; where episodes can end early, a D that is sure of itself makes every
            step worth less than none, and the policy ends it all. positive and negative are -log(1 - D) and log D.
        reward_hidden: Sizes of the layers of g and h.
        reward_learning_rate: Adam's.
        reward_steps: Steps of Adam an iteration.
        reward_batch: Steps of expert and learner each in a step of Adam; 0 takes all of them.
        state_only: The reward g sees no action.
        shaping: With h, as published; without it subsampled demonstrations will do.
        clip_actions: As `OnPolicyLearner`'s, but false when left out: f and log pi have to be of the same action. Of
            clipped ones f alone would be level beyond the bounds, and -log pi would pay for going ever further.

    Raises:
        UserError: when shaping is asked for and rows were left out of the demonstrations.
    """

    name = "airl"

    def __init__(
        self,
        env: Any,
        demonstrations: Any,
        *,
        reward: RewardForm = "logit",
        reward_hidden: Sequence[int] = (100, 100),
        reward_learning_rate: float = 1e-3,
        reward_steps: int = 10,
        reward_batch: int = 512,
        state_only: bool = False,
        shaping: bool = True,
        clip_actions: bool | None = False,
        **common: Any,
    ) -> None:
        self.reward: RewardForm = check_form(reward)
        self.reward_hidden, self.reward_learning_rate = list(reward_hidden), reward_learning_rate
        self.reward_steps, self.reward_batch = reward_steps, reward_batch
        self.state_only, self.shaping = state_only, shaping
        require_numbers(
            above_0={"reward_hidden": self.reward_hidden, "reward_learning_rate": reward_learning_rate,
                     "reward_steps": reward_steps},
            from_0={"reward_batch": reward_batch},
        )  # fmt: skip
        super().__init__(env, demonstrations, clip_actions=clip_actions, **common)
        self.expert_following: Observed | None = None
        self.expert_ended: Tensor | None = None
        if demonstrations is not None and shaping:
            if demonstrations.subsample > 1:
                raise UserError(
                    "airl: the shaping of the reward needs the state after each step, and of these demonstrations only "
                    f"every {demonstrations.subsample}th row was kept: give whole trajectories, or shaping=false"
                )
            following = demonstrations.next_observations()
            self.expert_following = observations_to_tensor(following, self.observation_space, self.generator.device)
            last = torch.as_tensor(demonstrations.lengths).cumsum(0) - 1
            self.expert_ended = torch.zeros(len(demonstrations), dtype=torch.bool, device=self.generator.device)
            ended = demonstrations.needed("terminated", "the shaping of the reward asks for; or give shaping=false")
            self.expert_ended[last] = torch.as_tensor(ended, device=self.generator.device)

    def _make_reward(self) -> nn.Module:
        network = ShapedReward(
            self.observation_space, self.action_space, self.gamma, self.reward_hidden,
            state_only=self.state_only, shaping=self.shaping, normaliser=self.normaliser,
            action_normaliser=self.action_normaliser,
        )  # fmt: skip
        self._adam = torch.optim.Adam(network.parameters(), lr=self.reward_learning_rate)
        return network

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"reward": self._adam}

    def judge(self, rollout: Rollout) -> Tensor:
        """Lets f learn from a rollout, and returns the rewards of its steps."""
        discrete = isinstance(self.action_space, spaces.Discrete)
        actions = self.expert_actions.long().flatten() if discrete else self.expert_actions
        _, expert_log_probs = evaluate(self.policy, self.expert_observations, actions)
        following = rollout.next_observations() if self.shaping else None
        ended = rollout.dones & ~rollout.truncated if self.shaping else None
        expert = (self.expert_observations, self.expert_judged, self.expert_following, self.expert_ended)
        learner = (rollout.observations, rollout.actions, following, ended)
        for _ in range(self.reward_steps):
            loss = logistic_loss(
                self._logits(*expert, expert_log_probs, some=True),
                self._logits(*learner, rollout.log_probs, some=True),
            )
            self._adam.zero_grad()
            loss.backward()
            self._adam.step()
        self.tell("discriminator_loss", float(loss.detach()))
        with torch.no_grad():
            told, found = self._logits(*expert, expert_log_probs), self._logits(*learner, rollout.log_probs)
        self.tell("accuracy_expert", 100 * float((told > 0).float().mean()))
        self.tell("accuracy_learner", 100 * float((found <= 0).float().mean()))
        return learnt_reward(found, self.reward)

    def _logits(
        self, observations: Observed, actions: Tensor, following: Observed | None, ended: Tensor | None,
        log_probs: Tensor, *, some: bool = False,
    ) -> Tensor:  # fmt: skip
        """Returns f - log pi: of all steps, or of as many as a step of Adam takes."""
        if some and self.reward_batch:
            index = torch.randint(len(actions), (self.reward_batch,), device=actions.device)
            observations, actions, log_probs = rows(observations, index), actions[index], log_probs[index]
            following = None if following is None else rows(following, index)
            ended = None if ended is None else ended[index]
        return self.reward_network(observations, actions, following, ended) - log_probs
