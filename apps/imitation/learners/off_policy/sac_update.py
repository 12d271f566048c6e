"""One update of soft actor-critic, its gradients written out for one CPU thread.

    y       = r + gamma (min_k Q'_k(s', a') - alpha log pi(a'|s')),          a' ~ pi(.|s')
    Q_k:      minimise  1/2 E (Q_k(s, a) - y)^2
    pi:       minimise  E alpha log pi(a|s) - min_k Q_k(s, a),                a = tanh(mu(s) + sigma(s) noise)
    alpha:    minimise  -log alpha E (log pi(a|s) + target entropy)

Source: Haarnoja et al., "Soft actor-critic algorithms and applications", 2018, section 5, as stable-baselines3 does it
(`sac_reference.py` has it as one reads it, and tests hold both and stable-baselines3 against one another). What makes
it fast: both critics are one stacked network, the policy passes over s and s' at once, the critics' parameters get no
gradient in the policy's step, and each network's parameters are one tensor.

With absorbing states (`absorbing.py`) nothing is chosen there: the action is 0, with no entropy, and the policy does
not learn from it (Kostrikov et al. 2019, section 4.2).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from .replay import Batch
from .stacked_mlp import StackedMLP

LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0
TINY = 1e-6
"""Keeps the logarithm of tanh's derivative finite; the same as stable-baselines3's."""


class Losses(NamedTuple):
    """Means over a batch."""

    critic: Tensor
    actor: Tensor
    temperature: Tensor


class SACUpdate:
    """The networks of soft actor-critic, and the step that trains them.

    Args:
        observation: values of an observation, an absorbing state's indicator (its last) among them.
        action: values of an action.
        hidden: units of each hidden layer.
        learning_rate: of all three.
        gamma: discount.
        tau: share of the critics that goes into their targets at each update.
        target_entropy: [nats]; -1 for each value of an action where left out.
        absorbing: whether the last value of an observation is the indicator of the absorbing state, 0 in all others.
        generator: draws first weights.
    """

    def __init__(
        self,
        observation: int,
        action: int,
        *,
        hidden: tuple[int, ...] = (256, 256),
        learning_rate: float = 3e-4,
        gamma: float = 0.99,
        tau: float = 0.005,
        target_entropy: float | None = None,
        absorbing: bool = False,
        generator: Generator,
    ) -> None:
        self.action, self.absorbing = action, absorbing
        self.gamma, self.tau = gamma, tau
        self.target_entropy = -float(action) if target_entropy is None else target_entropy
        self.actor = StackedMLP(1, (observation, *hidden, 2 * action), generator=generator)
        """Gives the mean and the logarithm of the deviation of the Gaussian that tanh squashes."""
        self.critics = StackedMLP(2, (observation + action, *hidden, 1), generator=generator)
        self.targets = self.critics.clone()
        self.log_alpha = torch.zeros(1)
        self.log_alpha.grad = torch.zeros(1)
        self.actor_optimizer = torch.optim.Adam([self.actor.flat, self.log_alpha], learning_rate, fused=True)
        self.critic_optimizer = torch.optim.Adam([self.critics.flat], learning_rate, fused=True)

    @torch.no_grad()
    def __call__(self, batch: Batch, rewards: Float[Tensor, " rows"], noise: Float[Tensor, "2 rows action"]) -> Losses:
        """Updates critics, policy and temperature, in this order.

        Args:
            batch: transitions; their own rewards are not looked at.
            rewards: what the policy is to collect.
            noise: standard normal, for the actions at s and at s'.
        """
        n = len(rewards)
        alpha = self.log_alpha.exp()
        live = (batch.observations[:, -1:] == 0).float() if self.absorbing else None
        draws = self.draw(torch.cat((batch.observations, batch.next_observations)), noise.view(2 * n, -1))
        actions, log_probs = draws.actions, draws.log_probs
        next_actions, next_log_probs = actions[n:], log_probs[n:]
        if self.absorbing:
            next_live = (batch.next_observations[:, -1:] == 0).float()
            next_actions, next_log_probs = next_actions * next_live, next_log_probs * next_live
        worth = self.targets.forward(torch.cat((batch.next_observations, next_actions), 1))[-1].amin(0)
        worth = (worth - alpha * next_log_probs)[:, 0]
        aim = rewards + self.gamma * batch.going_on * worth

        layers = self.critics.forward(batch.pairs)
        errors = layers[-1] - aim[:, None]
        self.critics.backward(layers, errors / n)
        self.critic_optimizer.step()

        # the policy's own step, against the critics as they are now
        share = torch.full((n, 1), 1 / n) if live is None else live / n
        actions, log_probs = actions[:n], log_probs[:n]
        layers = self.critics.forward(torch.cat((batch.observations, actions), 1))
        worse, which = layers[-1].min(0)
        grad = torch.zeros_like(layers[-1]).scatter_(0, which[None], -share[None])
        columns = slice(batch.observations.shape[1], None)
        grad = self.critics.backward(layers, grad, columns, parameters=False).sum(0)  # type: ignore[union-attr]
        self.actor.backward(*draws.back(n, grad, alpha * share))
        short = log_probs + self.target_entropy
        self.log_alpha.grad = -(share * short).sum(0)
        self.actor_optimizer.step()
        self.targets.flat.lerp_(self.critics.flat, self.tau)
        return Losses(
            0.5 * errors.square().mean((1, 2)).sum(), (share * (alpha * log_probs - worse)).sum(), alpha.squeeze()
        )

    def draw(self, observations: Float[Tensor, "rows observation"], noise: Float[Tensor, "rows action"]) -> Draws:
        """Draws actions from the policy."""
        layers = self.actor.forward(observations)
        mean, log_std = layers[-1][0].chunk(2, 1)
        return Draws(layers, mean, log_std, noise)


class Draws:
    """Actions drawn from a Gaussian that tanh squashes, their log-densities [nats], and the way back to its parameters.

    log pi(a|s) = sum_i -noise_i^2 / 2 - log sigma_i - log sqrt(2 pi) - log(1 - a_i^2 + tiny)
    """

    def __init__(self, layers: list[Tensor], mean: Tensor, log_std: Tensor, noise: Tensor) -> None:
        self.layers, self.log_std = layers, log_std
        clamped = log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)
        self.spread = clamped.exp().mul_(noise)
        self.actions = torch.tanh(mean + self.spread)
        self.slope = 1 - self.actions.square()
        gaussian = noise.square().mul_(-0.5).sub_(clamped).sub_(0.5 * math.log(2 * math.pi))
        self.log_probs = gaussian.sub_((self.slope + TINY).log_()).sum(1, keepdim=True)

    def back(self, n: int, grad_actions: Tensor, grad_log_probs: Tensor) -> tuple[list[Tensor], Tensor]:
        """Returns the policy's layers for the first n rows and the gradient of their output.

        Args:
            n: rows, the others having no gradient.
            grad_actions: (n, action).
            grad_log_probs: (n, 1).
        """
        actions, slope, log_std = self.actions[:n], self.slope[:n], self.log_std[:n]
        # d log pi / d a = 2 a / (1 - a^2 + tiny)
        grad_mean = slope * (grad_actions + grad_log_probs * 2 * actions / (slope + TINY))
        grad_log_std = grad_mean * self.spread[:n] - grad_log_probs
        grad_log_std *= (log_std >= LOG_STD_MIN) & (log_std <= LOG_STD_MAX)
        return [layer[:, :n] for layer in self.layers], torch.cat((grad_mean, grad_log_std), 1)[None]
