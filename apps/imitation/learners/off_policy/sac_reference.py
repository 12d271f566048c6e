"""Soft actor-critic as one reads it, by automatic differentiation: what `sac_update.py` is held against.

Source: Haarnoja et al., "Soft actor-critic algorithms and applications", 2018, section 5; with absorbing states as in
Kostrikov et al., "Discriminator-actor-critic", 2019, section 4.2.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.distributions import Normal

from .replay import Batch
from .sac_update import LOG_STD_MAX, LOG_STD_MIN, TINY, SACUpdate
from .stacked_mlp import StackedMLP


class ReferenceSAC:
    """The same networks, weights and settings as a `SACUpdate`, updated plainly."""

    def __init__(self, like: SACUpdate, learning_rate: float = 3e-4) -> None:
        self.like = like
        self.actor = plain(like.actor, 0)
        self.critics = nn.ModuleList([plain(like.critics, k) for k in range(2)])
        self.targets = nn.ModuleList([plain(like.targets, k) for k in range(2)])
        self.log_alpha = nn.Parameter(like.log_alpha.clone())
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), learning_rate)
        self.critic_optimizer = torch.optim.Adam(self.critics.parameters(), learning_rate)
        self.alpha_optimizer = torch.optim.Adam([self.log_alpha], learning_rate)

    def __call__(self, batch: Batch, rewards: Tensor, noise: Tensor) -> None:
        """Updates critics, policy and temperature."""
        alpha = self.log_alpha.exp().detach()
        live, next_live = torch.ones(len(rewards), 1), torch.ones(len(rewards), 1)
        if self.like.absorbing:
            live, next_live = ((seen[:, -1:] == 0).float() for seen in (batch.observations, batch.next_observations))

        with torch.no_grad():
            next_actions, next_log_prob = self.draw(batch.next_observations, noise[1])
            next_q = self.worse(self.targets, batch.next_observations, next_actions * next_live)
            worth = next_q - alpha * next_log_prob * next_live
            aim = rewards[:, None] + self.like.gamma * batch.going_on[:, None] * worth
        q = [critic(torch.cat((batch.observations, batch.actions), 1)) for critic in self.critics]
        critic_loss = sum(0.5 * (one - aim).square().mean() for one in q)
        self.critic_optimizer.zero_grad()
        critic_loss.backward()
        self.critic_optimizer.step()

        actions, log_prob = self.draw(batch.observations, noise[0])
        self.critics.requires_grad_(False)  # the policy's loss is not theirs
        actor_loss = (live * (alpha * log_prob - self.worse(self.critics, batch.observations, actions))).mean()
        alpha_loss = -(self.log_alpha * live * (log_prob + self.like.target_entropy).detach()).mean()
        for optimizer, loss in ((self.actor_optimizer, actor_loss), (self.alpha_optimizer, alpha_loss)):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        self.critics.requires_grad_(True)

        with torch.no_grad():
            for slow, fast in zip(self.targets.parameters(), self.critics.parameters(), strict=True):
                slow.lerp_(fast, self.like.tau)

    def draw(self, observations: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Returns actions and their log-densities (rows, 1) [nats]."""
        mean, log_std = self.actor(observations).chunk(2, 1)
        std = log_std.clamp(LOG_STD_MIN, LOG_STD_MAX).exp()
        before = mean + std * noise
        actions = torch.tanh(before)
        density = Normal(mean, std).log_prob(before) - torch.log(1 - actions.square() + TINY)
        return actions, density.sum(1, keepdim=True)

    @staticmethod
    def worse(critics: nn.ModuleList, observations: Tensor, actions: Tensor) -> Tensor:
        """Returns the lower of both values (rows, 1)."""
        pairs = torch.cat((observations, actions), 1)
        return torch.min(critics[0](pairs), critics[1](pairs))


def plain(mlp: StackedMLP, copy_number: int) -> nn.Sequential:
    """Returns one copy of a stacked perceptron as torch's own layers, with the same weights."""
    layers: list[nn.Module] = []
    for number, (n, m) in enumerate(pairwise(mlp.sizes)):
        linear = nn.Linear(n, m)
        with torch.no_grad():
            linear.weight.copy_(mlp.weights[number][copy_number].T)
            linear.bias.copy_(mlp.biases[number][copy_number, 0])
        layers += [linear, nn.ReLU() if mlp.activation == "relu" else nn.Tanh()]
    return nn.Sequential(*layers[:-1])
