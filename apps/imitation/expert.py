"""`genapps imitation expert`: trains an expert by reinforcement, to have somebody to learn from.

SB3 does the work. Observations and rewards are normalised while it learns (VecNormalize); the normalisation of the
observations goes into the first weights of the saved policy, which plain `PPO.load` and its kin open.
"""

from __future__ import annotations

import json
import math
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal

import torch
from gymnasium import spaces
from sb3_contrib import TRPO
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecNormalize
from torch import nn

from apps.common.cli import command_line
from apps.common.machine import set_threads
from apps.common.options import at_least
from apps.common.provenance import device_words
from core_models.errors import UserError
from core_models.files import require_new, write_json
from core_models.training.progress import Progress

from .environments.making import vector_env
from .evaluation import returns_of
from .learners.spaces import refusals
from .policies import check_images, policy_name

KINDS: dict[str, Any] = {"ppo": PPO, "trpo": TRPO, "sac": SAC}
ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU, "elu": nn.ELU, "silu": nn.SiLU}
KEEPING_EPISODES, KEEPING_SEED = 10, 20_000
"""Of the evaluations that say which policy is kept; the one in the end starts elsewhere, and owes them nothing."""


def expert(
    environment: str,
    out: Path,
    algorithm: Literal["ppo", "trpo", "sac"] = "ppo",
    steps: int = 100_000,
    environments: int = 8,
    settings: dict[str, Any] | None = None,
    policy: dict[str, Any] | None = None,
    environment_kwargs: dict[str, Any] | None = None,
    normalise: bool = True,
    keep_best_every: int | None = None,
    evaluation_episodes: int = 50,
    seed: int = 0,
    threads: int | None = 1,
) -> None:
    """Trains an expert on the environment's own reward; `demos record` then records it.

    Args:
        environment: Its gymnasium id.
        out: The policy, a .zip that stable-baselines3 opens; what it is worth goes into a .json beside it.
        algorithm: ppo, trpo or sac, of stable-baselines3 and sb3-contrib.
        steps: Steps in the environment [env steps].
        environments: How many side by side.
        settings: Arguments of the algorithm, e.g. {n_steps: 256, gamma: 0.98}; not those that have an option here.
        policy: Arguments of its policy, e.g. {net_arch: [64, 64], activation_fn: relu}; activations are tanh, relu, elu
            and silu.
        environment_kwargs: Arguments of the environment.
        normalise: Observations and rewards while it learns; not for images, and not by sac.
        keep_best_every: Steps between evaluations while it learns: 10 deterministic episodes from starts of their own,
            and the policy that did best in them is kept; that of the end when left out [env steps].
        evaluation_episodes: Episodes of the evaluation in the end, deterministic.
        seed: Of everything.
        threads: CPU threads.
    """
    set_threads(threads)
    at_least(1, steps=steps, environments=environments, evaluation_episodes=evaluation_episodes)
    at_least(1, keep_best_every=keep_best_every)
    at_least(0, seed=seed)
    out = out if out.suffix else out.with_suffix(".zip")
    if out.suffix != ".zip":
        raise UserError(f"--out: expected a .zip file, as stable-baselines3 opens, got {out}: end it in .zip")
    require_new(out)
    require_new(out.with_suffix(".json"))
    if algorithm not in KINDS:
        raise UserError(f"--algorithm: expected one of {', '.join(KINDS)}, got {algorithm!r}")
    kwargs = dict(environment_kwargs or {})
    raw = vector_env(environment, kwargs, environments=environments, seed=seed)
    check_images(raw.observation_space)
    name = policy_name(raw.observation_space)
    vector = isinstance(raw.observation_space, spaces.Box)
    normalised = normalise and vector and name == "MlpPolicy" and algorithm != "sac"
    given = dict(settings or {})
    for key, instead in (
        ("policy_kwargs", "give --policy"), ("seed", "give --seed"), ("device", "experts learn on the CPU"),
    ):  # fmt: skip
        if key in given:
            raise UserError(f"--settings: expected no {key}, {instead}")
    with refusals(algorithm):
        env = VecNormalize(raw, gamma=float(given.get("gamma", 0.99))) if normalised else raw
    options: dict[str, Any] = {**given, "policy_kwargs": _policy_kwargs(policy or {}), "seed": seed, "device": "cpu"}
    with refusals(algorithm):
        model: Any = KINDS[algorithm](name, env, **options)
    with Progress(f"{algorithm} on {environment}", steps) as bar:
        shown, best = _Shown(bar, steps), _Best(environment, kwargs, keep_best_every, seed + KEEPING_SEED)
        model.learn(steps, callback=[shown, best] if keep_best_every else shown)
    env.close()
    kept = best.restore(model) if keep_best_every else None
    saved = _without_normalisation(model, env) if isinstance(env, VecNormalize) else model
    saved.save(out)
    found = returns_of(saved, environment, kwargs, episodes=evaluation_episodes, seed=seed + 10_000)
    told = found.summary()
    write_json(
        out.with_suffix(".json"),
        {"environment": environment, "environment_kwargs": kwargs, "algorithm": algorithm, "steps": steps, "seed": seed,
         "returns": told, **({} if kept is None else {"kept": kept}), "device": device_words("cpu", threads),
         "command": command_line(),
         "settings": json.loads(json.dumps({**given, **(policy or {})}, default=str))},
    )  # fmt: skip
    spread = f" (95 %: {told['interval'][0]:.1f} to {told['interval'][1]:.1f})" if told["interval"] else ""
    print(
        f"{algorithm} on {environment}: return {told['mean']:.1f}{spread} in {evaluation_episodes} deterministic "
        f"episodes; {out}",
        flush=True,
    )


def _policy_kwargs(policy: dict[str, Any]) -> dict[str, Any]:
    """Returns a policy's arguments with the class of its activations in the place of their name."""
    if "activation_fn" not in policy:
        return dict(policy)
    name = policy["activation_fn"]
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise UserError(f"--policy.activation_fn: expected one of {', '.join(ACTIVATIONS)}, got {name!r}")
    return {**policy, "activation_fn": ACTIVATIONS[name]}


class _Shown(BaseCallback):
    def __init__(self, bar: Progress, steps: int) -> None:
        super().__init__()
        self.bar, self.steps, self.over = bar, steps, False

    def _on_step(self) -> bool:
        episodes = self.model.ep_info_buffer or ()
        words = f"return {sum(e['r'] for e in episodes) / len(episodes):.1f}" if episodes else ""
        done = min(self.num_timesteps, self.steps)
        # SB3 finishes the rollout that it began, beyond the steps asked for: that is told once
        if done < self.steps or not self.over:
            self.bar.update(done, words, last=done == self.steps)
        self.over = done == self.steps
        return True


class _Best(BaseCallback):
    """Keeps the policy that did best in evaluations between rollouts, with its normalisation."""

    def __init__(self, environment: str, kwargs: dict[str, Any], every: int | None, seed: int) -> None:
        super().__init__()
        self.environment, self.kwargs, self.every, self.seed = environment, kwargs, every or 0, seed
        self.returns: dict[int, float] = {}
        self.kept: Any = None

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        # an off-policy algorithm's rollout may be a single step
        if self.num_timesteps // self.every > max(self.returns, default=0) // self.every:
            self._evaluate()

    def _on_training_end(self) -> None:
        self._evaluate()

    def _evaluate(self) -> None:
        found = returns_of(
            _Acting(self.model), self.environment, self.kwargs, episodes=KEEPING_EPISODES, seed=self.seed
        )
        mean = float(found.values.mean())
        if mean > max(self.returns.values(), default=-math.inf):
            env = self.model.get_vec_normalize_env()
            self.kept = deepcopy((self.num_timesteps, self.model.policy.state_dict(), env and env.obs_rms))
        self.returns[self.num_timesteps] = mean

    def restore(self, model: Any) -> dict[str, Any]:
        """Puts back what was kept; says when it was that, and what all evaluations found."""
        step, weights, statistics = self.kept
        model.policy.load_state_dict(weights)
        if (env := model.get_vec_normalize_env()) is not None:
            env.obs_rms = statistics
        return {"at": step, "of": {str(step): mean for step, mean in self.returns.items()}}


class _Acting:
    """An algorithm under training as a policy of the environment's own observations."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, Any]:
        env = self.model.get_vec_normalize_env()
        seen = observation if env is None else env.normalize_obs(observation)
        found: tuple[Any, Any] = self.model.predict(seen, deterministic=deterministic)
        return found


@torch.no_grad()
def _without_normalisation(model: Any, env: VecNormalize) -> Any:
    """Puts the normalisation of the observations into a policy's first weights.

    VecNormalize also clips at 10 standard deviations, which isn't linear and stays out.
    """
    statistics: Any = env.obs_rms
    # the policy flattens observations of any shape
    shift = torch.as_tensor(statistics.mean, dtype=torch.float64).flatten()
    scale = torch.as_tensor((statistics.var + env.epsilon) ** 0.5, dtype=torch.float64).flatten()
    policy = model.policy
    for branch, head in (
        (policy.mlp_extractor.policy_net, policy.action_net),
        (policy.mlp_extractor.value_net, policy.value_net),
    ):
        first = next((layer for layer in branch if isinstance(layer, nn.Linear)), head)
        folded = first.weight.double() / scale
        first.bias.copy_(first.bias.double() - folded @ shift)
        first.weight.copy_(folded)
    model.env = model._vec_normalize_env = None
    return model
