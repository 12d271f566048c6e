r"""Apprenticeship learning with linear rewards: feature expectation matching (FEM) and its game-theoretic kin (GTAL).

The reward is w . phi(s, a) with phi = [s, a, (0.01 s)^2, (0.01 a)^2, 1], or, where actions are discrete, with
[s, (0.01 s)^2] in the place of the action that was taken, zeros in the others', and 1; each iteration w is the one, of
those allowed, by which the expert is ahead of the learner most:

.. math:: \text{FEM}: \max_{\|w\|_2 \le 1} w \cdot (\mu_E - \mu_\pi), \qquad
    \text{GTAL}: \max_{\|w\|_1 \le 1} w \cdot (\mu_E - \mu_\pi)

with mu the mean of phi over steps. FEM's answer is the difference over its length; GTAL's, from the simplex over the
features and their negatives, is the one feature, with its sign, in which they differ most.

Sources: Abbeel and Ng, "Apprenticeship learning via inverse reinforcement learning", ICML 2004; Syed and Schapire, "A
game-theoretic approach to apprenticeship learning", NIPS 2007; both with the policy step of Ho, Gupta and Ermon,
"Model-free imitation learning with policy optimization", ICML 2016, and the features of the authors' code of GAIL.
States and actions are normalised, since the length of w weighs them against each other. A constant added to w . phi
changes nothing of who is ahead, but it changes what an early end is worth: the least or the largest reward seen so far
is taken for zero.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn

from ...networks import Encoder, RewardForm
from ...networks.discriminator import check_form
from ...networks.encoder import Observed, rows
from .learner import OnPolicyLearner
from .rollouts import AT_A_TIME, Rollout

SQUARED = 0.01
"""Scale of what is squared."""


class LinearReward(nn.Module):
    """w . phi(s, a).

    Args:
        encoder: of observation and action.
    """

    weights: Tensor
    least: Tensor
    most: Tensor

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        space = encoder.action_space
        self.actions = int(space.n) if isinstance(space, spaces.Discrete) else 0
        own = encoder.size - self.actions
        size = 2 * own * self.actions + 1 if self.actions else 2 * own + 1
        self.register_buffer("weights", torch.zeros(size))
        self.register_buffer("least", torch.zeros(()))
        self.register_buffer("most", torch.zeros(()))

    def features(self, observations: Observed, actions: Tensor) -> Tensor:
        """Returns phi (n, features)."""
        x = self.encoder(observations, actions)
        if self.actions:
            state, taken = x[:, : -self.actions], x[:, -self.actions :]
            blocks = taken[:, :, None] * torch.cat([state, (SQUARED * state) ** 2], 1)[:, None, :]
            return torch.cat([blocks.flatten(1), torch.ones_like(x[:, :1])], 1)
        return torch.cat([x, (SQUARED * x) ** 2, torch.ones_like(x[:, :1])], 1)

    def forward(self, observations: Observed, actions: Tensor) -> Tensor:
        """Returns the rewards (n,)."""
        return self.features(observations, actions) @ self.weights


class Apprenticeship(OnPolicyLearner):
    """The loop of both.

    Args:
        env: as `OnPolicyLearner`'s, like all arguments that are not named here.
        demonstrations: of the expert.
        reward: positive, less the least seen so far, which rewards surviving; negative, less the largest, which rewards
            an early end; logit, w . phi itself, of either sign.
    """

    def __init__(self, env: Any, demonstrations: Any, *, reward: RewardForm = "positive", **common: Any) -> None:
        self.reward: RewardForm = check_form(reward)
        super().__init__(env, demonstrations, **common)

    @staticmethod
    @abstractmethod
    def best_weights(expert: Tensor, learner: Tensor) -> Tensor:
        """Returns w, from the mean features of both."""

    def _make_reward(self) -> nn.Module:
        encoder = Encoder(self.observation_space, self.action_space, self.normaliser, self.action_normaliser)
        return LinearReward(encoder).requires_grad_(False)

    @torch.no_grad()
    def judge(self, rollout: Rollout) -> Tensor:
        """Chooses w by a rollout, and returns what its steps are worth."""
        network = self.reward_network
        assert isinstance(network, LinearReward)
        expert = self._features(self.expert_observations, self.expert_judged)
        learner = self._features(rollout.observations, rollout.actions)
        network.weights.copy_(self.best_weights(expert.mean(0), learner.mean(0)))
        self.tell("behind_the_expert", float(network.weights @ (expert.mean(0) - learner.mean(0))))
        rewards = learner @ network.weights
        network.least.copy_(torch.minimum(network.least, rewards.min()))
        network.most.copy_(torch.maximum(network.most, rewards.max()))
        if self.reward == "positive":
            return rewards - network.least
        return rewards - network.most if self.reward == "negative" else rewards

    def _features(self, observations: Observed, actions: Tensor) -> Tensor:
        network = self.reward_network
        assert isinstance(network, LinearReward)
        parts = torch.arange(len(actions), device=actions.device).split(AT_A_TIME)
        return torch.cat([network.features(rows(observations, part), actions[part]) for part in parts])


class FEM(Apprenticeship):
    """Feature expectation matching: w from the ball."""

    name = "fem"

    @staticmethod
    def best_weights(expert: Tensor, learner: Tensor) -> Tensor:
        """Returns the unit vector along the difference of the means."""
        difference = expert - learner
        return difference / difference.norm().clamp_min(1e-12)


class GTAL(Apprenticeship):
    """Game-theoretic apprenticeship learning: w from the simplex over features and their negatives."""

    name = "gtal"

    @staticmethod
    def best_weights(expert: Tensor, learner: Tensor) -> Tensor:
        """Returns the unit vector of the feature in which they differ most, towards the expert."""
        difference = expert - learner
        weights = torch.zeros_like(expert)
        place = difference.abs().argmax()
        weights[place] = difference[place].sign()
        return weights
