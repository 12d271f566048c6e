"""GAIL's loop: against that of HumanCompatibleAI/imitation, and where its own time goes.

Both take the same environment steps, in as many environments, and train networks of the same sizes on batches of the
same sizes as often; the counts of both are compared turn by turn, and unequal ones are an error. What still differs:

- the peer needs gymnasium 0.29, stable-baselines3 2.2 and numpy 1.26; torch and MuJoCo are the releases that run here;
- it asks for reward, value and log-density at every step, ours once for the whole iteration;
- its policy learns on the discriminator of the iteration before, which learns last; ours learns first;
- its normalisation is updated by each pass in training mode, ours once an iteration; its discriminator draws the
  expert's rows without replacement, ours with; ours also tells how well D does on all rows;
- products with the Fisher matrix and the tries of the line search in TRPO depend on the data: both may stop early.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from apps.imitation.demonstrations import Demonstrations
from apps.imitation.environments.making import make_env, vector_env
from apps.imitation.learners.on_policy import rollouts
from apps.imitation.learners.on_policy.gail import GAIL
from apps.imitation.policies import Algorithm
from apps.imitation.tables.gail import find_demonstrations
from core_models.errors import UserError

from .imitation_peer import Peer
from .imitation_worker import Work, steps_alone
from .ratios import Clock, Measure, Stopwatch, interleaved, quotients
from .timed import CPU, Timed

FREE = "Fisher products"
"""The one count that both may disagree in."""
NOT_OURS = {"environment", "environments", "batch", "generator"}
"""Settings of a loop that are no arguments of our GAIL under these names."""


@dataclass(frozen=True)
class Loop:
    """A GAIL loop. What isn't said here is as the GAIL of the paper has it.

    Attributes:
        environment: its id.
        algorithm: of the policy.
        environments: how many side by side.
        steps: of an iteration, all environments together [env steps].
        batch: rows in a step of the values (TRPO) or of policy and values (PPO).
        discriminator_batch: expert's rows in a step of the discriminator, and learner's rows.
        discriminator_steps: an iteration.
        hidden: sizes of the layers of policy, values and discriminator.
    """

    environment: str
    algorithm: Algorithm = "trpo"
    environments: int = 1
    steps: int = 5000
    batch: int = 250
    discriminator_batch: int = 1000
    discriminator_steps: int = 1
    hidden: tuple[int, ...] = (100, 100)

    def __str__(self) -> str:
        many = f"{self.environments} environments" if self.environments > 1 else "1 environment"
        return f"{self.environment}, {self.algorithm.upper()}, {many}"

    def settings(self) -> dict[str, Any]:
        """Returns all settings, those of the algorithm under `generator`."""
        trpo = {"target_kl": 0.01, "cg_damping": 0.1, "cg_max_steps": 10, "n_critic_updates": 5}
        generator = {"batch_size": self.batch, **(trpo if self.algorithm == "trpo" else {"n_epochs": 10})}
        more = {"gamma": 0.995, "gae_lambda": 0.97, "discriminator_learning_rate": 0.01}
        return {**asdict(self), **more, "discriminator_hidden": self.hidden, "generator": generator}

    def ours(self, rows: Demonstrations) -> GAIL:
        """Returns our learner; without the entropy bonus, which the peer hasn't got."""
        env = vector_env(self.environment, rows.environment_kwargs, environments=self.environments, seed=0)
        settings = self.settings()
        own = {name: value for name, value in settings.items() if name not in NOT_OURS}
        return GAIL(env, rows, entropy=0.0, generator_settings=settings["generator"], **own)


def demonstrations_of(environment: str) -> Path:
    """Returns the file of an environment's demonstrations: the authors', else those of the expert that ships.

    Raises:
        UserError: when there are none.
    """
    file = find_demonstrations(environment) or find_demonstrations(environment, own=True)
    if file is None:
        raise UserError(f"expected demonstrations of {environment} in $GENAPPS_DATA/demonstrations, found none")
    return file


def experts_of(loop: Loop) -> Demonstrations:
    """Returns the demonstrations of a loop's environment, all and whole.

    Raises:
        UserError: when there are none, or fewer rows than a step of the discriminator takes.
    """
    rows = Demonstrations.load(demonstrations_of(loop.environment))
    if len(rows) < loop.discriminator_batch:
        raise UserError(f"expected {loop.discriminator_batch} rows of {loop.environment} or more, got {len(rows)}")
    return rows


class Ours:
    """Our learner, taking turns."""

    def __init__(self, loop: Loop, rows: Demonstrations, clock: Clock) -> None:
        self.learner = loop.ours(rows)
        self.work = Work(self.learner.generator, self.learner.discriminator.head, self.learner._adam)
        self._stopwatch = Stopwatch(CPU, clock)

    def turn(self, steps: int) -> dict[str, Any]:
        """Takes so many environment steps; returns their time [s] and the work that was done."""
        self.work.take()
        self._stopwatch.start()
        self.learner.learn(steps, log_interval=None, reset_num_timesteps=False)  # type: ignore[arg-type]
        return {"seconds": self._stopwatch.stop(), "work": self.work.take()}


def against_the_peer(
    loop: Loop, python: Path, *, iterations: int, repeats: int, threads: int, clock: Clock
) -> Iterator[Measure]:
    """Yields the ratio of steps a second, ours above the peer's.

    Raises:
        RuntimeError: when the two did not do the same work.
    """
    rows = experts_of(loop)
    steps = iterations * loop.steps
    done: dict[str, list[dict[str, int]]] = {"imitation": [], "ours": []}

    def turns(name: str, turn: Callable[[int], dict[str, Any]]) -> Callable[[], float]:
        def go() -> float:
            found = turn(steps)
            done[name].append(found["work"])
            return float(found["seconds"])

        return go

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "expert.npz"
        np.savez(file, observations=rows.observations, actions=rows.actions)  # type: ignore[arg-type]
        more = {"clock": clock, "threads": threads, "demonstrations": str(file), "kwargs": rows.environment_kwargs}
        with Peer(python, {**loop.settings(), **more}) as peer:
            ours = Ours(loop, rows, clock)
            alone = steps_alone(make_env(loop.environment, rows.environment_kwargs), clock)
            asked = turns("imitation", lambda n: peer.ask({"steps": n}))
            times = interleaved({"imitation": asked, "ours": turns("ours", ours.turn)}, repeats)
    same_work(done["ours"], done["imitation"])
    rates = {name: steps / median(taken) for name, taken in times.items()}
    work = {name: {what: median(turn[what] for turn in found) for what in found[0]} for name, found in done.items()}
    yield Measure(
        f"GAIL's steps a second against imitation {peer.versions['imitation']}'s, {loop}",
        quotients(times, "imitation", "ours"), "higher", 2.0,
        note=f"steps a second: ours {rates['ours']:.0f}, imitation {rates['imitation']:.0f}; "
        f"the environment's step alone {1e6 * alone:.0f} and {1e6 * peer.environment_step:.0f} us",
        extra={
            "steps a second": rates, "work of a turn": work, "peer": peer.versions, "clock": clock,
            "environment's step alone [s]": {"ours": alone, "imitation": peer.environment_step},
            "settings": json.loads(json.dumps({**loop.settings(), "iterations of a turn": iterations})),
        },
    )  # fmt: skip


def same_work(ours: list[dict[str, int]], peer: list[dict[str, int]]) -> None:
    """Makes sure that both did the same work in each turn.

    Raises:
        RuntimeError: with the counts, when they didn't.
    """
    for a, b in zip(ours, peer, strict=True):
        told = {what: (a[what], b[what]) for what in a if what != FREE and a[what] != b[what]}
        if told:
            raise RuntimeError(f"ours and the peer did not do the same work (ours, peer's): {told}")


def share(loop: Loop, *, iterations: int, repeats: int, clock: Clock) -> Iterator[Measure]:
    """Yields the share of the time that is spent outside the environment's step and the networks [%].

    The networks are: the policy's answers, the steps of D and its answers, values and log-densities, and the whole
    update of policy and values. The environment's step is that of the vector that a learner is given; how much of it is
    SB3's Monitor and DummyVecEnv, around the environment's own, is told by a second figure, which counts them outside.
    """
    learner = loop.ours(experts_of(loop))
    stopwatch, steps = Stopwatch(CPU, clock), iterations * loop.steps
    learner.learn(loop.steps, log_interval=None)  # type: ignore[arg-type]
    rounds: list[dict[str, float]] = []
    for _ in range(repeats):
        with parts_timed(learner, clock) as seconds:
            stopwatch.start()
            learner.learn(steps, log_interval=None, reset_num_timesteps=False)  # type: ignore[arg-type]
            total = stopwatch.stop()
        rounds.append({what: 100 * took / total for what, took in seconds().items()})
    middle = {what: median(found[what] for found in rounds) for what in rounds[0]}
    inner = "environment's own step and reset"
    told = ", ".join(f"{what} {part:.1f} %" for what, part in middle.items() if what != inner)
    extra = {"where the time goes [%]": middle, "clock": clock, "settings": json.loads(json.dumps(loop.settings()))}
    outside = [100 - sum(part for what, part in found.items() if what != inner) for found in rounds]
    yield Measure(
        f"GAIL's time outside the vector's step and the networks, {loop}", outside, "lower", 15.0, unit="%", note=told,
        extra=extra,
    )  # fmt: skip
    wrappers = [found["environment"] - found[inner] for found in rounds]
    yield Measure(
        f"GAIL's time outside the environment's own step and the networks, {loop}",
        [a + b for a, b in zip(outside, wrappers, strict=True)], "lower", 15.0, unit="%",
        note=f"of it SB3's DummyVecEnv and Monitor {median(wrappers):.1f} %", extra=extra,
    )  # fmt: skip


@contextmanager
def parts_timed(learner: GAIL, clock: Clock) -> Iterator[Callable[[], dict[str, float]]]:
    """Times the parts of a learner's loop; gives a function that returns what they took [s]."""
    generator: Any = learner.generator
    envs = list(generator.env.unwrapped.envs)
    acts: list[Timed] = []
    before = rollouts.sampler

    def sampler(policy: Any) -> Any:
        acts.append(Timed(before(policy), clock))
        return acts[-1]

    places: list[tuple[Any, str]] = [
        (rollouts, "evaluate"), (rollouts, "predict_values"), (learner, "_learn_to_tell"), (learner, "_logits"),
        (generator, "train"), (learner, "_after_iteration"), (generator.env, "step"),
        *((env.env, name) for env in envs for name in ("step", "reset")),
    ]  # fmt: skip
    timed = [Timed(getattr(place, name), clock) for place, name in places]
    evaluate, values, tell, logits, train, after, step, *own = timed

    def seconds() -> dict[str, float]:
        return {
            "environment": step.seconds,
            "environment's own step and reset": sum(one.seconds for one in own),
            "policy's answers": sum(one.seconds for one in acts),
            "values and log-densities": evaluate.seconds + values.seconds,
            "discriminator": tell.seconds + logits.seconds,
            "update of policy and values": train.seconds - after.seconds,
        }

    rollouts.sampler = sampler
    for (place, name), one in zip(places, timed, strict=True):
        setattr(place, name, one)
    try:
        yield seconds
    finally:
        rollouts.sampler = before
        for (place, name), one in zip(places, timed, strict=True):
            if place is rollouts:
                setattr(place, name, one.inner)
            else:
                delattr(place, name)
