r"""Generative adversarial imitation learning: a discriminator tells expert from learner, and its answer is the reward.

.. math:: \min_\pi \max_D\; E_{\pi_E}[\log D(s,a)] + E_{\pi}[\log(1 - D(s,a))] - \lambda H(\pi)

Each iteration: rollouts; one step (or some) of Adam on D over all of them and all demonstrations, with D = P(expert);
one TRPO step on the reward that D is made into, where the learner's pairs that pass for the expert's are worth more.

Source: Ho and Ermon, "Generative adversarial imitation learning", NIPS 2016, algorithm 1, with the settings of the
authors' code: gamma 0.995, lambda 0.97, networks of 100-100 tanh, Adam at 0.01, entropy bonus 1e-3, TRPO at KL 0.01.
That KL divergence is their sum over the numbers of a continuous action, and the mean here, as sb3_contrib's TRPO takes
it: for their bound on n numbers give generator_settings={"target_kl": 0.01 / n, "cg_damping": 0.1 / n}.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from core_models.errors import require_numbers

from ...networks import Discriminator, RewardForm, gradient_penalty, learnt_reward
from ...networks.discriminator import check_form, logistic_loss, logistic_part, penalty_between
from ...networks.encoder import Observed, rows
from .learner import OnPolicyLearner
from .rollouts import AT_A_TIME, Rollout

PENALISED = 256
"""Pairs in the penalty on the gradient where it goes through layers that see images."""


class GAIL(OnPolicyLearner):
    """GAIL, with TRPO or PPO.

    Args:
        env: as `OnPolicyLearner`'s, like all arguments that are not named here.
        demonstrations: of the expert.
        reward: positive, -log(1 - D), which is never below 0 and rewards surviving; negative, log D, never above 0,
            which rewards an early end (Acrobot, MountainCar); logit, of either sign. The wrong one may decide more than
            the demonstrations do.
        discriminator_hidden: Sizes of D's layers.
        discriminator_learning_rate: Adam's.
        discriminator_steps: Steps of Adam an iteration.
        discriminator_batch: Pairs of expert and learner each in a step; 0 takes all of them, as published.
        entropy: Weight of the entropy of D's answers.
        gradient_penalty: Weight of the penalty on D's gradient; 0 for none, as published. Of images it is taken through
            the layers that see them, in a sample of the pairs.
        spectral_norm: Divides D's weight matrices by their largest singular value.
    """

    name = "gail"

    def __init__(
        self,
        env: Any,
        demonstrations: Any,
        *,
        reward: RewardForm = "positive",
        discriminator_hidden: Sequence[int] = (100, 100),
        discriminator_learning_rate: float = 0.01,
        discriminator_steps: int = 1,
        discriminator_batch: int = 0,
        entropy: float = 1e-3,
        gradient_penalty: float = 0.0,
        spectral_norm: bool = False,
        **common: Any,
    ) -> None:
        self.discriminator_hidden = list(discriminator_hidden)
        self.discriminator_learning_rate = discriminator_learning_rate
        self.discriminator_steps, self.discriminator_batch = discriminator_steps, discriminator_batch
        self.entropy, self.gradient_penalty, self.spectral_norm = entropy, gradient_penalty, spectral_norm
        self.reward: RewardForm = check_form(reward)
        require_numbers(
            above_0={"discriminator_hidden": self.discriminator_hidden, "discriminator_steps": discriminator_steps,
                     "discriminator_learning_rate": discriminator_learning_rate},
            from_0={"discriminator_batch": discriminator_batch, "entropy": entropy,
                    "gradient_penalty": gradient_penalty},
        )  # fmt: skip
        super().__init__(env, demonstrations, **common)

    @property
    def discriminator(self) -> Discriminator:
        """D."""
        assert isinstance(self.reward_network, Discriminator)
        return self.reward_network

    def _make_reward(self) -> nn.Module:
        network = Discriminator(
            self.observation_space, self.action_space, self.discriminator_hidden,
            spectral_norm=self.spectral_norm, normaliser=self.normaliser, action_normaliser=self.action_normaliser,
        )  # fmt: skip
        self._adam = torch.optim.Adam(network.parameters(), lr=self.discriminator_learning_rate)
        return network

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"discriminator": self._adam}

    def judge(self, rollout: Rollout) -> Tensor:
        """Lets D learn from a rollout, and returns what its steps are then worth."""
        self._learn_to_tell(rollout)
        with torch.no_grad():
            expert = self._logits(self.expert_observations, self.expert_judged)
            learner = self._logits(rollout.observations, rollout.actions)
        self.tell("accuracy_expert", 100 * float((expert > 0).float().mean()))
        self.tell("accuracy_learner", 100 * float((learner <= 0).float().mean()))
        return learnt_reward(learner, self.reward)

    def _logits(self, observations: Any, actions: Tensor) -> Tensor:
        parts = torch.arange(len(actions), device=actions.device).split(AT_A_TIME)
        return torch.cat([self.discriminator(rows(observations, part), actions[part]) for part in parts])

    def _learn_to_tell(self, rollout: Rollout) -> None:
        network = self.discriminator
        network.train()
        for _ in range(self.discriminator_steps):
            self._adam.zero_grad()
            told = self._in_parts(rollout) if network.encoder.learns else self._at_once(rollout)
            self._adam.step()
        self.tell("discriminator_loss", float(told))
        network.eval()

    def _at_once(self, rollout: Rollout) -> Tensor:
        """Adds the gradient of D's loss to those of its weights, and returns the loss."""
        network = self.discriminator
        expert, learner = (network.encoder(*pairs) for pairs in self._pairs(rollout))
        loss = logistic_loss(network.logits(expert), network.logits(learner), self.entropy)
        if self.gradient_penalty:
            n = min(len(expert), len(learner))
            some = (t[torch.randperm(len(t), device=t.device)[:n]] for t in (expert, learner))
            loss = loss + self.gradient_penalty * gradient_penalty(network, *some)
        loss.backward()
        return loss.detach()

    def _in_parts(self, rollout: Rollout) -> Tensor:
        """Does the same where images are seen, of which all rows at once would keep too much: 1 MB of 84 x 84 x 4."""
        network, kinds = self.discriminator, self._pairs(rollout)
        every = sum(len(actions) for _, actions in kinds)
        total = torch.zeros((), device=self.generator.device)
        for of_expert, (observations, actions) in zip((True, False), kinds, strict=True):
            for i, part in enumerate(torch.arange(len(actions), device=actions.device).split(AT_A_TIME)):
                network.train(i == 0)  # a spectral norm takes its step once for all rows of a kind
                logits = network(rows(observations, part), actions[part])
                loss = logistic_part(
                    logits, of_expert=of_expert, rows=len(actions), all_rows=every, entropy=self.entropy
                )
                loss.backward()
                total += loss.detach()
        network.train()
        if self.gradient_penalty:
            n = min(PENALISED, *(len(actions) for _, actions in kinds))
            chosen = [torch.randperm(len(a), device=a.device)[:n] for _, a in kinds]
            expert, learner = ((rows(o, some), a[some]) for (o, a), some in zip(kinds, chosen, strict=True))
            loss = self.gradient_penalty * penalty_between(network, expert, learner)
            loss.backward()
            total += loss.detach()
        return total

    def _pairs(self, rollout: Rollout) -> list[tuple[Observed, Tensor]]:
        """Returns the expert's pairs and the learner's: all, or as many as were asked for."""
        kinds = [(self.expert_observations, self.expert_judged), (rollout.observations, rollout.actions)]
        if not self.discriminator_batch:
            return kinds
        drawn = [torch.randint(len(a), (self.discriminator_batch,), device=a.device) for _, a in kinds]
        return [(rows(o, some), a[some]) for (o, a), some in zip(kinds, drawn, strict=True)]
