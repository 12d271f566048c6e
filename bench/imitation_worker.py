"""GAIL by HumanCompatibleAI/imitation, run by the interpreter of a virtual environment that has it.

It imports nothing of this project. The first line that it reads is the settings of a loop (JSON); it makes the learner
and answers with the versions that it runs on. Each line after that asks for so many environment steps, and is answered
with the time that they took and the work that was done in them.

The learner is put together as the library's documentation has it, with its own running normalisation in the policy and
in the discriminator. What a user might leave on and what would slow it is off: tables and progress bars of its loggers.
`Work` and `steps_alone` are used on our side too, so that the same code counts both.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

COUNTED = (
    "environment steps", "steps of D", "rows in the steps of D", "steps of policy or values", "Fisher products",
)  # fmt: skip


class Work:
    """Counts what a GAIL loop does.

    Args:
        algorithm: SB3's TRPO or PPO.
        discriminator: the network whose rows are counted, where gradients flow.
        optimizer: the discriminator's.
    """

    def __init__(self, algorithm: Any, discriminator: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.counts = dict.fromkeys(COUNTED, 0)
        discriminator.register_forward_hook(self._judged)
        optimizer.register_step_post_hook(lambda *_: self._add("steps of D", 1))
        algorithm.policy.optimizer.register_step_post_hook(lambda *_: self._add("steps of policy or values", 1))
        if hasattr(algorithm, "hessian_vector_product"):
            algorithm.hessian_vector_product = self._counted("Fisher products", 1, algorithm.hessian_vector_product)
        env = algorithm.env.unwrapped  # the innermost vector: what is around it may step it in ways of its own
        env.step_wait = self._counted("environment steps", env.num_envs, env.step_wait)

    def take(self) -> dict[str, int]:
        """Returns the counts and begins anew."""
        found, self.counts = self.counts, dict.fromkeys(self.counts, 0)
        return found

    def _add(self, what: str, n: int) -> None:
        self.counts[what] += n

    def _judged(self, network: nn.Module, given: tuple[Any, ...], answers: Any) -> None:
        if torch.is_grad_enabled():
            self._add("rows in the steps of D", len(answers))

    def _counted(self, what: str, n: int, inner: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self._add(what, n)
            return inner(*args, **kwargs)

        return call


def steps_alone(env: Any, clock: str, steps: int = 2000) -> float:
    """Returns the time of a step of an environment with nothing around it, in the median of five goes [s]."""
    now = now_of(clock)
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(steps)]
    found = []
    for seed in range(5):
        env.reset(seed=seed)
        start, resets = now(), 0.0
        for action in actions:
            *_, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                before = now()
                env.reset()
                resets += now() - before
        found.append((now() - start - resets) / steps)
    return sorted(found)[2]


def now_of(clock: str) -> Callable[[], float]:
    """Returns the function that reads a clock [s]."""
    return time.process_time if clock == "cpu" else time.perf_counter


class Peer:
    """The library's GAIL with given settings.

    Args:
        settings: of `bench.imitation_gail.Loop`, with `clock`, `threads`, `kwargs` of the environment, a
            `folder` to write to and `demonstrations`, an .npz of the expert's `observations` and `actions`.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        import gymnasium
        import numpy as np
        from imitation.algorithms.adversarial.gail import GAIL  # type: ignore[import-not-found]
        from imitation.data.types import Transitions  # type: ignore[import-not-found]
        from imitation.policies.base import NormalizeFeaturesExtractor  # type: ignore[import-not-found]
        from imitation.rewards.reward_nets import BasicRewardNet  # type: ignore[import-not-found]
        from imitation.util import logger  # type: ignore[import-not-found]
        from imitation.util.networks import RunningNorm  # type: ignore[import-not-found]
        from sb3_contrib import TRPO
        from stable_baselines3 import PPO
        from stable_baselines3.common.monitor import Monitor
        from stable_baselines3.common.vec_env import DummyVecEnv

        torch.set_num_threads(settings["threads"])
        torch.manual_seed(0)
        self.settings, self.now = settings, now_of(settings["clock"])

        def make() -> Any:
            return gymnasium.make(settings["environment"], disable_env_checker=True, **settings["kwargs"])

        self.alone = steps_alone(make(), settings["clock"])
        envs = DummyVecEnv([lambda: Monitor(make())] * settings["environments"])
        envs.seed(0)
        kinds: dict[str, Any] = {"trpo": TRPO, "ppo": PPO}
        policy = {
            "net_arch": settings["hidden"], "activation_fn": nn.Tanh,
            "features_extractor_class": NormalizeFeaturesExtractor,
        }  # fmt: skip
        algorithm = kinds[settings["algorithm"]](
            "MlpPolicy", envs, n_steps=settings["steps"] // settings["environments"], policy_kwargs=policy, seed=0,
            device="cpu", gamma=settings["gamma"], gae_lambda=settings["gae_lambda"], **settings["generator"],
        )  # fmt: skip
        network = BasicRewardNet(
            envs.observation_space, envs.action_space, hid_sizes=settings["discriminator_hidden"], activation=nn.Tanh,
            normalize_input_layer=RunningNorm,
        )  # fmt: skip
        with np.load(settings["demonstrations"], allow_pickle=False) as arrays:
            observations, actions = arrays["observations"], arrays["actions"]
        n = len(observations)
        # the discriminator sees state and action alone: what follows is asked for and not looked at
        rows = Transitions(
            obs=observations, acts=actions, next_obs=observations, dones=np.zeros(n, dtype=bool),
            infos=np.array([{}] * n),
        )  # fmt: skip
        folder = tempfile.mkdtemp(dir=settings["folder"])
        self.learner = GAIL(
            demonstrations=rows, demo_batch_size=settings["discriminator_batch"], venv=envs, gen_algo=algorithm,
            reward_net=network, n_disc_updates_per_round=settings["discriminator_steps"],
            disc_opt_kwargs={"lr": settings["discriminator_learning_rate"]}, allow_variable_horizon=True,
            log_dir=folder, custom_logger=logger.configure(folder, []),
        )  # fmt: skip
        self.work = Work(algorithm, network.mlp, self.learner._disc_opt)

    def turn(self, steps: int) -> dict[str, Any]:
        """Takes so many environment steps; returns their time [s] and the work that was done."""
        self.work.take()
        start = self.now()
        self.learner.train(steps)
        return {"seconds": self.now() - start, "work": self.work.take()}


def main() -> None:
    """Answers requests until there are no more."""
    from importlib.metadata import version

    peer = Peer(json.loads(sys.stdin.readline()))
    names = ("imitation", "stable-baselines3", "sb3-contrib", "gymnasium", "mujoco", "numpy", "torch")
    print(json.dumps({"versions": {n: version(n) for n in names}, "environment step": peer.alone}), flush=True)
    for line in sys.stdin:
        print(json.dumps(peer.turn(json.loads(line)["steps"])), flush=True)


if __name__ == "__main__":
    main()
