"""SB3's PPO with little around the networks of its update.

The numbers are those of SB3's own update: the same minibatches in the same order, the same losses and clipping.
Features without weights, which do not change meanwhile, are computed once in place of once a minibatch; distributions
are no objects, and figures for the log are read when all is done.

Source: Schulman, Wolski, Dhariwal, Radford and Klimov, "Proximal policy optimization algorithms", 2017, equation 9.
"""

from __future__ import annotations

from math import log, pi
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.distributions import CategoricalDistribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.utils import explained_variance
from torch import Tensor

from ...policies import is_plain


class FastPPO(PPO):
    """SB3's PPO; its update is its own where features are learnt, or values or distributions are of another kind."""

    def train(self) -> None:
        """Updates the policy and the values by what the buffer holds."""
        policy = self.policy
        if not _can_be_fast(policy) or self.clip_range_vf is not None or not self.normalize_advantage:
            super().train()
            return
        policy.set_training_mode(True)
        self._update_learning_rate(policy.optimizer)
        clip: Any = self.clip_range
        clip_range = float(clip(self._current_progress_remaining))
        with torch.no_grad():
            data = self._data()
        parameters = list(policy.parameters())
        told: list[Tensor] = []
        loss = torch.zeros(())
        epochs_kl = 0
        for epoch in range(self.n_epochs):
            order = torch.as_tensor(np.random.permutation(len(data[0])), device=self.device)
            epochs_kl = len(told)
            stop = False
            for part in zip(*(values[order].split(self.batch_size) for values in data), strict=True):
                loss, figures = self._losses(part, clip_range)
                told.append(figures)
                if self.target_kl is not None and float(figures[-1]) > 1.5 * self.target_kl:
                    stop = True
                    if self.verbose >= 1:
                        print(f"Early stopping at step {epoch} due to reaching max kl: {float(figures[-1]):.2f}")
                    break
                policy.optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(parameters, self.max_grad_norm)
                policy.optimizer.step()
            self._n_updates += 1
            if stop:
                break
        figures = torch.stack(told).double()
        policy_loss, clipped, value_loss, entropy_loss, _ = figures.mean(0).tolist()
        buffer = self.rollout_buffer
        self.logger.record("train/entropy_loss", entropy_loss)
        self.logger.record("train/policy_gradient_loss", policy_loss)
        self.logger.record("train/value_loss", value_loss)
        self.logger.record("train/approx_kl", float(figures[epochs_kl:, -1].mean()))
        self.logger.record("train/clip_fraction", clipped)
        self.logger.record("train/loss", loss.item())
        explained = explained_variance(buffer.values.flatten(), buffer.returns.flatten())
        self.logger.record("train/explained_variance", explained)
        if hasattr(policy, "log_std"):
            self.logger.record("train/std", policy.log_std.exp().mean().item())
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("train/clip_range", clip_range)

    def _data(self) -> list[Tensor]:
        """Returns features of policy and values, actions, log-densities, advantages, returns: a row for each step."""
        policy, buffer = self.policy, self.rollout_buffer

        def flat(name: str) -> Tensor:
            values = getattr(buffer, name)
            if not buffer.generator_ready:
                values = RolloutBuffer.swap_and_flatten(values)
            return torch.as_tensor(np.ascontiguousarray(values), device=self.device)

        observations, actions = flat("observations"), flat("actions")
        actions = actions.long() if isinstance(self.action_space, spaces.Discrete) else actions.flatten(1)
        acting: Any = policy.extract_features(observations, policy.pi_features_extractor)
        judging: Any = policy.extract_features(observations, policy.vf_features_extractor)
        others = [flat(name).flatten() for name in ("log_probs", "advantages", "returns")]
        return [acting, judging, actions, *others]

    def _losses(self, part: tuple[Tensor, ...], clip_range: float) -> tuple[Tensor, Tensor]:
        """Returns the loss of a minibatch, and figures: its parts, the share that is clipped, the KL divergence."""
        acting, judging, actions, old, advantages, returns = part
        policy = self.policy
        output = policy.action_net(policy.mlp_extractor.forward_actor(acting))
        values = policy.value_net(policy.mlp_extractor.forward_critic(judging)).flatten()
        if isinstance(policy.action_dist, CategoricalDistribution):
            log_p = output.log_softmax(1)
            log_prob = log_p.gather(1, actions)[:, 0]
            entropy = -(log_p.exp() * log_p).sum(1).mean()
        else:
            white = (actions - output) * (-policy.log_std).exp()
            log_prob = -0.5 * white.square().sum(1) - (policy.log_std + 0.5 * log(2 * pi)).sum()
            entropy = (policy.log_std + 0.5 + 0.5 * log(2 * pi)).sum()
        if len(advantages) > 1:
            advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        log_ratio = log_prob - old
        ratio = log_ratio.exp()
        policy_loss = -torch.min(advantages * ratio, advantages * ratio.clamp(1 - clip_range, 1 + clip_range)).mean()
        value_loss = torch.nn.functional.mse_loss(returns, values)
        loss = policy_loss + self.vf_coef * value_loss
        if self.ent_coef:
            loss = loss - self.ent_coef * entropy
        with torch.no_grad():
            clipped = ((ratio - 1).abs() > clip_range).float().mean()
            divergence = (ratio - 1 - log_ratio).mean()
            return loss, torch.stack([policy_loss, clipped, value_loss, -entropy, divergence])


def _can_be_fast(policy: ActorCriticPolicy) -> bool:
    learnt = any(True for one in (policy.pi_features_extractor, policy.vf_features_extractor) for _ in one.parameters())
    return is_plain(policy) and not learnt and not policy.use_sde
