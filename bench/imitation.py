"""Speed of the imitation app, as ratios measured in one run: `python -m bench.imitation`.

- `gail`: environment steps a second of a GAIL loop against HumanCompatibleAI/imitation's, which is installed into a
  virtual environment of its own the first time; the same environments, networks, batches, steps and threads.
- `share`: how much of the loop's time is spent outside the environment's step and the networks.
- `dac`: environment steps a second of SAC and of DAC, its discriminator included, against stable-baselines3's plain
  SAC; the same environment, one update a step, batch, networks and threads, which is checked. Before anything is
  timed, an update is held against the plain one by automatic differentiation.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from stable_baselines3 import SAC as PlainSAC
from torch import nn

from apps.common.cells import Cell
from apps.common.cli import run_cli
from apps.common.options import at_least
from apps.common.provenance import device_words
from apps.imitation.demonstrations import Demonstrations
from apps.imitation.environments.making import vector_env
from apps.imitation.learners.off_policy.dac import DAC
from apps.imitation.learners.off_policy.learner import OffPolicyLearner
from apps.imitation.learners.off_policy.sac import SAC
from apps.imitation.learners.off_policy.sac_reference import ReferenceSAC
from apps.imitation.policies import Algorithm
from core_models.errors import UserError
from core_models.files import hash_of

from .imitation_gail import Loop, against_the_peer, demonstrations_of, share
from .imitation_peer import peer_python
from .ratios import Clock, Measure, Stopwatch, conditions, interleaved, quotients, run_parts, speed_cell
from .timed import CPU, Timed

Part = Literal["gail", "share", "dac"]
PROTOCOL = "1"
WARM_UP = 300
"""Steps of random actions at first, before which no learner updates anything."""


def bench(
    parts: tuple[Part, ...] = get_args(Part),
    environments: tuple[str, ...] = ("CartPole-v1", "HalfCheetah-v4"),
    algorithms: tuple[Algorithm, ...] = get_args(Algorithm),
    side_by_side: tuple[int, ...] = (1, 8),
    iteration: int = 5000,
    iterations: int = 2,
    peer: Path | None = None,
    demonstrations: Path | None = None,
    trajectories: int = 4,
    subsample: int = 20,
    steps: int = 1000,
    repeats: int = 5,
    threads: int = 1,
    clock: Clock = "wall",
    write: bool = False,
    out: Path = Path("docs/results"),
) -> None:
    """Measures speed as ratios and prints them beside their targets.

    Args:
        parts: what to measure.
        environments: of the GAIL loops; their demonstrations are found in $GENAPPS_DATA/demonstrations.
        algorithms: of the GAIL loops' policies.
        side_by_side: how many environments a GAIL loop steps at once.
        iteration: Steps of an iteration of a GAIL loop, all environments together [env steps].
        iterations: of a GAIL loop a turn.
        peer: folder of the virtual environment with HumanCompatibleAI/imitation, made where it is missing. When left
            out, bench-imitation in the user's cache.
        demonstrations: for dac, a file of demonstrations; they name the environment. When left out, HalfCheetah-v4.npz
            in $GENAPPS_DATA/demonstrations.
        trajectories: for dac, how many of them, the first ones.
        subsample: for dac, every how manieth row is kept.
        steps: for dac, environment steps a turn, each with one update.
        repeats: rounds, of which the median counts; at least three for a figure to be kept.
        threads: CPU threads, the same for all.
        clock: wall, or cpu (computing time of the process, for one thread of a shared machine).
        write: write result cells.
        out: folder of the result cells.
    """
    at_least(1, iteration=iteration, iterations=iterations, side_by_side=min(side_by_side, default=1))
    at_least(1, steps=steps, repeats=repeats, threads=threads, trajectories=trajectories, subsample=subsample)
    if clock == "cpu" and threads > 1:
        raise UserError("clock: expected wall unless one CPU thread is timed, got cpu")
    if write and repeats < 3:
        raise UserError(f"repeats: expected at least 3 for cells to be written, got {repeats}")
    torch.set_num_threads(threads)
    loops = [
        Loop(env, algorithm, many, steps=iteration)
        for env, algorithm, many in product(environments, algorithms, side_by_side)
    ]

    def gail() -> Iterator[Measure]:
        python = peer_python(peer)
        for loop in loops:
            yield from against_the_peer(
                loop, python, iterations=iterations, repeats=repeats, threads=threads, clock=clock
            )

    def shares() -> Iterator[Measure]:
        for loop in loops:
            yield from share(loop, iterations=iterations, repeats=repeats, clock=clock)

    def dac() -> Iterator[Measure]:
        file = demonstrations or demonstrations_of("HalfCheetah-v4")
        rows = Demonstrations.load(file).take(trajectories).subsampled(subsample, seed=0)
        yield from Runs(rows, steps, repeats, threads, clock).dac()

    ways: dict[Part, Callable[[], Iterator[Measure]]] = {"gail": gail, "share": shares, "dac": dac}
    words = device_words(CPU, threads)

    def cell(measure: Measure, took: float) -> Cell:
        hashed = hash_of({**measure.extra["settings"], "threads": threads, "clock": clock})
        return speed_cell("imitation", measure, CPU, words, config_hash=hashed, protocol=PROTOCOL, seconds=took)

    run_parts(parts, ways, cell, write, out)
    print(conditions(words, clock, repeats))


class Runs:
    """SAC and DAC against stable-baselines3's SAC."""

    def __init__(self, rows: Demonstrations, steps: int, repeats: int, threads: int, clock: Clock) -> None:
        self.rows, self.steps, self.repeats, self.threads = rows, steps, repeats, threads
        self.clock, self.stopwatch = clock, Stopwatch(CPU, clock)

    def dac(self) -> Iterator[Measure]:
        """SAC and DAC against stable-baselines3's SAC, with its own settings: 256-256, batch 256, one update a step."""
        env_id = self.rows.environment

        def envs() -> Any:
            return vector_env(env_id, self.rows.environment_kwargs, environments=1, seed=0)

        learners: dict[str, Any] = {
            "stable-baselines3": PlainSAC("MlpPolicy", envs(), learning_starts=WARM_UP, seed=0, device="cpu"),
            "SAC": SAC(envs(), learning_starts=WARM_UP),
            "DAC": DAC(envs(), self.rows, learning_starts=WARM_UP),
        }
        equal = same_settings(learners)
        for learner in learners.values():
            learner.learn(2 * WARM_UP)
        check_update(learners["SAC"])
        check_update(learners["DAC"])
        times = interleaved({name: self.turns(learner) for name, learner in learners.items()}, self.repeats)
        rates = {name: self.steps / sorted(taken)[len(taken) // 2] for name, taken in times.items()}
        told = ", ".join(f"{name} {rate:.0f}" for name, rate in rates.items())
        settings = {
            **equal, "environment": env_id, "trajectories": self.rows.trajectories, "subsample": self.rows.subsample,
            "steps": self.steps, "updates a step": 1, "CPU threads of each": self.threads,
        }  # fmt: skip
        extra = {"steps a second": rates, "clock": self.clock, "settings": settings}
        sizes = "-".join(map(str, equal["hidden"]))
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        where = f"{env_id}, one update a step, batch {equal['batch']}, networks {sizes}, {threads}"
        yield Measure(
            f"SAC's steps a second against stable-baselines3's, {where}", quotients(times, "stable-baselines3", "SAC"),
            "higher", None, note=f"steps a second: {told}", extra=extra,
        )  # fmt: skip
        split = self.split(learners["DAC"])
        yield Measure(
            f"DAC's steps a second against stable-baselines3's SAC, {where}",
            quotients(times, "stable-baselines3", "DAC"), "higher", 1.2,
            note=", ".join(f"{name} {100 * share:.0f} %" for name, share in split.items()),
            extra={**extra, "where DAC's time goes": split},
        )  # fmt: skip

    def turns(self, learner: Any) -> Callable[[], float]:
        """Returns a turn: so many steps, and the time that they took [s]."""

        def go() -> float:
            before = updates_of(learner)
            self.stopwatch.start()
            learner.learn(self.steps, log_interval=None, reset_num_timesteps=False)
            took = self.stopwatch.stop()
            if updates_of(learner) - before != self.steps:
                raise RuntimeError(f"expected {self.steps} updates, got {updates_of(learner) - before}")
            return took

        return go

    def split(self, learner: DAC) -> dict[str, float]:
        """Returns the shares of a turn's time, by what took it."""
        timed = {
            "update of policy and critics": Timed(learner.update_networks, self.clock),
            "update of the discriminator": Timed(learner.discriminator, self.clock),
        }
        assert learner.env is not None
        step = Timed(learner.env.step, self.clock)
        learner.update_networks, learner.discriminator = timed.values()  # type: ignore[assignment]
        learner.env.step = step  # type: ignore[method-assign]
        total = self.turns(learner)()
        shares = {name: part.seconds / total for name, part in {**timed, "environment": step}.items()}
        return {**shares, "all else": 1 - sum(shares.values())}


def updates_of(learner: Any) -> int:
    """Returns how many updates a learner has taken."""
    return int(learner._n_updates if isinstance(learner, PlainSAC) else learner._counted)


def same_settings(learners: dict[str, Any]) -> dict[str, Any]:
    """Makes sure that all learners have the same settings, and returns them.

    Raises:
        RuntimeError: with the settings, when they haven't.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, learner in learners.items():
        if isinstance(learner, PlainSAC):
            policy = [m.out_features for m in learner.actor.latent_pi if isinstance(m, nn.Linear)]
            critics = [
                [m.out_features for m in q.children() if isinstance(m, nn.Linear)][:-1]
                for q in learner.critic.q_networks
            ]
            rate, tau = learner.learning_rate, learner.tau
        else:
            networks = learner.update_networks
            policy = list(networks.actor.sizes[1:-1])
            critics = [list(networks.critics.sizes[1:-1])] * networks.critics.copies
            rate, tau = networks.critic_optimizer.param_groups[0]["lr"], networks.tau
        found[name] = {
            "hidden": policy, "critics": critics, "batch": learner.batch_size, "learning rate": rate, "tau": tau,
            "gamma": learner.gamma if isinstance(learner, PlainSAC) else learner.update_networks.gamma,
            "environments": learner.get_env().num_envs,
        }  # fmt: skip
    first, *others = found.values()
    if any(other != first for other in others):
        raise RuntimeError(f"expected the same settings of all, got {found}")
    return first


def check_update(learner: OffPolicyLearner) -> None:
    """Makes sure that an update has the gradients that automatic differentiation gives; leaves the learner as it was.

    Raises:
        RuntimeError: when it hasn't.
    """
    before = {name: tensor.clone() for name, tensor in learner._tensors().items()}
    networks, generator = learner.update_networks, torch.Generator().manual_seed(0)
    for optimizer in (networks.actor_optimizer, networks.critic_optimizer):
        optimizer.state.clear()  # as the plain one's are
    slow = ReferenceSAC(networks)
    batch = learner.replay.sample(256, generator)
    noise = torch.randn(2, 256, networks.action, generator=generator)
    networks(batch, batch.rewards, noise)
    slow(batch, batch.rewards, noise)
    for fast, reference in ((networks.actor, nn.ModuleList([slow.actor])), (networks.critics, slow.critics)):
        layers = [layer for layer in reference.modules() if isinstance(layer, nn.Linear)]
        gradients = [grads[number] for number in range(fast.copies) for grads in fast.weight_grads]
        for gradient, layer in zip(gradients, layers, strict=True):
            assert layer.weight.grad is not None
            if (gradient.T - layer.weight.grad).abs().max() > 1e-4 * layer.weight.grad.abs().max():
                raise RuntimeError("the fast update has other gradients than automatic differentiation")
    learner._take(before)


if __name__ == "__main__":
    sys.exit(run_cli(bench, prog="python -m bench.imitation"))
