"""Rollouts of an on-policy learner whose rewards are learnt, collected with little around the environment's own steps.

Between the steps nothing is computed but the actions. When all steps are done, the rewards, values and log-densities
of the whole rollout are computed at once, in place of SB3's three passes a step; what goes into the update is the same.
An episode that a time limit cut goes on in the values: its last reward is increased by gamma V(last observation), as in
SB3 (Pardo et al., "Time limits in reinforcement learning", ICML 2018).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback, ConvertCallback
from stable_baselines3.common.distributions import CategoricalDistribution
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from ...networks.encoder import Observed, rows
from ...policies import is_plain

AT_A_TIME = 2048
"""Observations in one pass of the networks, so that images fit in the memory."""


@dataclass
class Rollout:
    """The steps of an iteration, those of one environment after those of another.

    Attributes:
        observations: (steps, ...).
        actions: (steps, ...) as the policy gave them, before they were clipped to the space; a judge of steps is given
            what the learner's `as_judged` makes of them.
        log_probs: (steps,) [nats].
        starts: (steps,) True where an episode began.
        dones: (steps,) True where an episode ended with this step.
        truncated: (steps,) True where a time limit ended it.
        true_rewards: (steps,) of the environment: for the log alone.
        after: observations after the last step of each environment and of each episode, by the step's index.
        environments: how many.
    """

    observations: Observed
    actions: Tensor
    log_probs: Tensor
    starts: Tensor
    dones: Tensor
    truncated: Tensor
    true_rewards: Tensor
    after: tuple[Tensor, Observed]
    environments: int

    def __len__(self) -> int:
        return len(self.actions)

    def next_observations(self) -> Observed:
        """Returns the observations (steps, ...) after each step: the last of an episode, not the first of the next."""
        index, last = self.after
        steps = torch.arange(1, len(self) + 1, device=self.actions.device).clamp_max(len(self) - 1)
        found = rows(self.observations, steps)
        if isinstance(found, dict):
            assert isinstance(last, dict)
            for key, part in found.items():
                part[index] = last[key].to(part.dtype).reshape(-1, *part.shape[1:])  # a Discrete is a row of one
        else:
            assert isinstance(last, Tensor)
            found[index] = last.to(found.dtype).reshape(-1, *found.shape[1:])
        return found


Judge = Callable[[Rollout], Tensor]
"""Takes a rollout, learns from it, and returns the rewards (steps,) of its steps."""


class LearntRewards(OnPolicyAlgorithm):
    """Makes SB3's TRPO or PPO collect so: `class LearntTRPO(LearntRewards, TRPO)`.

    The attribute `judge` gives the rewards. Callbacks see the steps as in SB3, but no values and log-densities.
    """

    judge: Judge
    normalize_advantage: bool

    def collect_rollouts(
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: RolloutBuffer, n_rollout_steps: int
    ) -> bool:
        """Collects the steps of an iteration; returns False when the callback asked to stop."""
        self.policy.set_training_mode(False)
        rollout_buffer.reset()
        callback.on_rollout_start()
        act, guard, on_cpu = sampler(self.policy), torch.no_grad(), self.device.type == "cpu"
        # SB3's stand-in for no callback at all looks at nothing
        heard = not (type(callback) is ConvertCallback and callback.callback is None)
        box = self.action_space if isinstance(self.action_space, spaces.Box) else None
        low, high = (box.low, box.high) if box else (None, None)
        steps, envs = n_rollout_steps, env.num_envs
        observed = _empty(rollout_buffer.observations)
        taken = np.zeros((steps, envs, *np.shape(rollout_buffer.actions)[2:]), dtype=np.float32)
        gained = np.zeros((steps, envs), dtype=np.float32)
        starts = np.zeros((steps, envs), dtype=bool)
        ended = np.zeros((steps, envs), dtype=bool)
        truncated = np.zeros((steps, envs), dtype=bool)
        ends: list[tuple[int, int, Any]] = []
        assert self._last_obs is not None
        # callbacks look for names of SB3's own: n_steps, actions, clipped_actions, new_obs, rewards, dones, infos
        for n_steps in range(steps):
            _keep(observed, n_steps, self._last_obs)
            starts[n_steps] = self._last_episode_starts
            with guard:
                if on_cpu and isinstance(self._last_obs, np.ndarray):
                    actions = act(torch.from_numpy(self._last_obs)).numpy()
                else:
                    actions = act(obs_as_tensor(self._last_obs, self.device)).cpu().numpy()  # type: ignore[arg-type]
            taken[n_steps] = actions.reshape(envs, -1)
            actions = actions if box is None else actions.reshape(envs, *box.shape)
            clipped_actions = actions if box is None else np.clip(actions, low, high)
            new_obs, rewards, dones, infos = env.step(clipped_actions)
            gained[n_steps] = rewards
            self.num_timesteps += envs
            if heard:
                callback.update_locals(locals())
            if not callback.on_step():
                return False
            if dones.any():
                self._update_info_buffer(infos, dones)
                for i in np.flatnonzero(dones):
                    truncated[n_steps, i] = infos[i].get("TimeLimit.truncated", False)
                    ends.append((n_steps, int(i), infos[i]["terminal_observation"]))
            ended[n_steps] = dones
            self._last_obs, self._last_episode_starts = new_obs, dones  # type: ignore[assignment]
        self._fill(rollout_buffer, observed, taken, gained, starts, ended, truncated, ends)
        n_steps = steps
        callback.update_locals(locals())
        callback.on_rollout_end()
        return True

    @torch.no_grad()
    def _fill(
        self, buffer: RolloutBuffer, observed: Any, actions: np.ndarray, rewards: np.ndarray, starts: np.ndarray,
        ended: np.ndarray, truncated: np.ndarray, ends: list[tuple[int, int, Any]],
    ) -> None:  # fmt: skip
        """Computes what the update needs, for all steps at once."""
        steps, envs = rewards.shape
        observations = _flat(observed, self.device)
        taken = torch.as_tensor(_by_environment(actions), device=self.device)
        discrete = isinstance(self.action_space, spaces.Discrete)
        values, log_probs = evaluate(self.policy, observations, taken.long().flatten() if discrete else taken)
        # what follows the last step of each environment, and of each episode
        tails = [*((t, i, obs) for t, i, obs in ends if t < steps - 1)]
        finals = {i: obs for t, i, obs in ends if t == steps - 1}
        for i in range(envs):
            tails.append((steps - 1, i, finals.get(i, _one(self._last_obs, i))))
        index = torch.tensor([i * steps + t for t, i, _ in tails], device=self.device)
        following = obs_as_tensor(_stack([obs for *_, obs in tails]), self.device)
        begun, over, cut, true = (
            torch.as_tensor(_by_environment(a), device=self.device) for a in (starts, ended, truncated, rewards)
        )
        rollout = Rollout(observations, taken, log_probs, begun, over, cut, true, (index, following), envs)
        with torch.enable_grad():
            learnt = self.judge(rollout)
        gained = learnt.reshape(envs, steps).T.cpu().numpy().copy()
        tail_values = predict_values(self.policy, following).cpu().numpy()
        last_values = np.zeros(envs, dtype=np.float32)
        for (t, i, _), value in zip(tails, tail_values, strict=True):
            if truncated[t, i]:
                gained[t, i] += self.gamma * value
            if t == steps - 1:
                last_values[i] = value
        if isinstance(buffer.observations, dict):
            for key, part in buffer.observations.items():
                part[:] = observed[key]
        else:
            buffer.observations[:] = observed
        buffer.actions[:] = actions
        buffer.rewards[:] = gained
        buffer.episode_starts[:] = starts
        buffer.values[:] = values.reshape(envs, steps).T.cpu().numpy()
        buffer.log_probs[:] = log_probs.reshape(envs, steps).T.cpu().numpy()
        buffer.pos, buffer.full = steps, True
        compute_advantages(buffer, last_values, ended[-1])
        if not self.normalize_advantage:
            # SB3 scales and centres them or does neither; published codes of InfoGAIL scale alone
            buffer.advantages /= buffer.advantages.std() + 1e-8


def compute_advantages(buffer: RolloutBuffer, last_values: np.ndarray, dones: np.ndarray) -> None:
    """Puts advantages and returns into a full buffer: the very numbers of its own `compute_returns_and_advantage`.

    SB3 takes some ten operations of numpy a step; here all but the recursion is done for all steps at once.

    Args:
        buffer: with rewards, values and beginnings of episodes (steps, environments).
        last_values: (environments,) of what follows the last step.
        dones: (environments,) whether the last step ended an episode.
    """
    starts = np.concatenate([buffer.episode_starts[1:], dones[None].astype(np.float32)])
    following = np.concatenate([buffer.values[1:], last_values[None]])
    deltas = buffer.rewards + buffer.gamma * following * (1 - starts) - buffer.values
    decay = buffer.gamma * buffer.gae_lambda * (1 - starts)
    running = np.zeros_like(last_values)
    for delta, factor, advantage in zip(deltas[::-1], decay[::-1], buffer.advantages[::-1], strict=True):
        running = delta + factor * running
        advantage[:] = running
    buffer.returns = buffer.advantages + buffer.values


def sampler(policy: ActorCriticPolicy) -> Callable[[Any], Tensor]:
    """Returns a function from observations to sampled actions: SB3's distributions with little around them."""
    kind = policy.action_dist
    plain = is_plain(policy)

    def act(observations: Any) -> Tensor:
        if not plain:
            return policy.get_distribution(observations).get_actions()
        features = policy.extract_features(observations, policy.pi_features_extractor)
        assert isinstance(features, Tensor)
        output = policy.action_net(policy.mlp_extractor.forward_actor(features))
        if isinstance(kind, CategoricalDistribution):
            noise = torch.empty_like(output).exponential_()
            return (output - noise.log()).argmax(1)  # Gumbel's trick: a draw from softmax(output)
        return output + torch.randn_like(output) * policy.log_std.exp()

    return act


@torch.no_grad()
def evaluate(policy: ActorCriticPolicy, observations: Observed, actions: Tensor) -> tuple[Tensor, Tensor]:
    """Returns values (n,) and log-densities (n,) [nats] of many steps."""
    found = [
        policy.evaluate_actions(rows(observations, part), actions[part])[:2]
        for part in torch.arange(len(actions), device=actions.device).split(AT_A_TIME)
    ]
    return torch.cat([value.flatten() for value, _ in found]), torch.cat([log_prob for _, log_prob in found])


@torch.no_grad()
def predict_values(policy: ActorCriticPolicy, observations: Observed) -> Tensor:
    """Returns the values (n,) of many observations."""
    n = len(next(iter(observations.values())) if isinstance(observations, dict) else observations)
    parts = torch.arange(n, device=policy.device).split(AT_A_TIME)
    return torch.cat([policy.predict_values(rows(observations, part)).flatten() for part in parts])


def _empty(like: Any) -> Any:
    if isinstance(like, dict):
        return {key: np.zeros_like(part) for key, part in like.items()}
    return np.zeros_like(like)


def _keep(observed: Any, t: int, obs: Any) -> None:
    if isinstance(observed, dict):
        for key, part in observed.items():
            part[t] = obs[key].reshape(part[t].shape)
    else:
        observed[t] = obs.reshape(observed[t].shape)


def _one(obs: Any, i: int) -> Any:
    return {key: part[i] for key, part in obs.items()} if isinstance(obs, dict) else obs[i]


def _stack(observations: list[Any]) -> Any:
    if isinstance(observations[0], dict):
        return {key: np.stack([obs[key] for obs in observations]) for key in observations[0]}
    return np.stack(observations)


def _by_environment(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array.swapaxes(0, 1)).reshape(-1, *array.shape[2:])


def _flat(observed: Any, device: torch.device) -> Observed:
    if isinstance(observed, dict):
        return {key: torch.as_tensor(_by_environment(part), device=device) for key, part in observed.items()}
    return torch.as_tensor(_by_environment(observed), device=device)
