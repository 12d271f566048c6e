"""The table of GAIL: environments x trajectories x methods, as fractions of the expert, one result cell a seed.

Protocol 1: the first trajectories of a file of demonstrations, thinned as in the authors' code by an offset drawn from
the seed; the methods' settings are those of their constructors but for what `TASKS` names and the row says; 50
deterministic episodes (of CarRacing 20) of the policy that training ends with. A fraction is (return - random) /
(expert - random): the expert's return is the mean of all trajectories in the file, the random policy's was measured in
today's environment (`random_returns`).

Source of the table: Ho and Ermon, "Generative adversarial imitation learning", NIPS 2016, table 3 and figure 1.
"""

from __future__ import annotations

import os
import shlex
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from apps.common.cells import Cell, told_to_stand, write_cell
from apps.common.machine import set_threads
from apps.common.options import at_least, known_names
from apps.common.provenance import device_words
from core_models.errors import UserError
from core_models.files import hash_of, require_writable
from core_models.training.progress import Progress

from ..demonstrations import Demonstrations
from ..environments.demonstrating import expert_demonstrations
from ..environments.making import vector_env
from ..evaluation import fraction_of_expert, returns_of
from ..learners import AIRL, BC, DAC, FEM, GAIL, GTAL, Learner, OnPolicyLearner
from ..learners.off_policy.learner import OffPolicyLearner
from ..learners.over_sb3 import constructor_settings
from ..shipped import FOLDER
from .random_returns import random_return

APP, TABLE, PROTOCOL = "imitation", "gail", "1"
UNIT = "fraction of expert"


@dataclass(frozen=True)
class Task:
    """An environment of the table."""

    env_id: str
    subsample: int
    """Every how manieth row is kept."""
    steps: int
    """Of the on-policy methods [env steps]."""
    reward: str = "positive"
    """negative where it is good to be done."""
    off_policy_steps: int = 0
    """Of DAC [env steps]."""
    trajectories: tuple[int, ...] = (4, 11, 18, 25)
    kwargs: dict[str, Any] = field(default_factory=dict)
    published_expert: bool = True
    """Whether the authors' demonstrations are to be had; else those of our own expert stand in the paper's columns."""
    scripted: bool = False
    """Whether the expert is a scripted one, whose demonstrations are made where they are needed."""
    episodes: int = 50
    """Of the evaluation."""
    cloning: dict[str, Any] = field(default_factory=dict)
    """Settings of behavioural cloning that are not its constructor's."""


TASKS = {
    "CartPole": Task("CartPole-v1", 10, 150_000, trajectories=(1, 4, 7, 10)),
    "Acrobot": Task("Acrobot-v1", 5, 300_000, "negative", trajectories=(1, 4, 7, 10), published_expert=False),
    "MountainCar": Task("MountainCar-v0", 5, 300_000, "negative", trajectories=(1, 4, 7, 10)),
    "Reacher": Task("Reacher-v4", 1, 500_000, off_policy_steps=100_000, trajectories=(4, 11, 18)),
    "HalfCheetah": Task("HalfCheetah-v4", 20, 1_000_000, off_policy_steps=200_000),
    "Hopper": Task("Hopper-v4", 20, 1_000_000, off_policy_steps=500_000),
    "Walker2d": Task("Walker2d-v4", 20, 1_000_000, off_policy_steps=300_000),
    "Ant": Task("Ant-v4", 20, 3_000_000, off_policy_steps=1_000_000, kwargs={"use_contact_forces": True}),
    "Humanoid": Task("Humanoid-v4", 20, 5_000_000, off_policy_steps=1_000_000, trajectories=(80, 160, 240)),
    "CarRacing": Task(
        "CarRacing-v3",
        1,
        100_000,
        trajectories=(10,),
        published_expert=False,
        scripted=True,
        episodes=20,
        cloning={"patience": 10},
    ),
}
METHODS: dict[str, tuple[type[Learner], dict[str, Any]]] = {
    "BC": (BC, {}),
    "BC, weight decay": (BC, {"weight_decay": 1.0}),
    "FEM": (FEM, {}),
    "GTAL": (GTAL, {}),
    "GAIL": (GAIL, {}),
    "GAIL, gradient penalty": (GAIL, {"gradient_penalty": 10.0, "clip_actions": True}),
    "AIRL": (AIRL, {"shaping": False}),
    "DAC": (DAC, {}),
    "DAC, halving": (DAC, {"halving": 100_000}),
    "DAC, far absorbing state": (DAC, {"absorbing_distance": 10.0}),
    "DAC, halving, far absorbing state": (DAC, {"halving": 100_000, "absorbing_distance": 10.0}),
}
CONTROL = ", no demonstrations"
"""Ends the name of a row that is the control."""
SIGNS = ", random signs"
"""Ends the name of a row that is the control whose numbers have random signs besides."""
OWN = ", own expert"
"""Ends the name of a column whose trajectories are of an expert that was trained here."""
ORIGINS = ("published", "own expert", "scripted expert")
"""Where demonstrations come from that the user names no folder for."""
WHOLE = ", whole"
"""Ends the name of a column whose trajectories were not thinned."""


def benchmark(
    environments: list[str] | None = None,
    methods: list[str] | None = None,
    trajectories: list[int] | None = None,
    seeds: list[int] = [0],  # noqa: B006
    whole: bool = False,
    expert: Literal["published", "own"] = "published",
    no_demonstrations: bool = False,
    random_signs: bool = False,
    demonstrations: Path | None = None,
    steps: int | None = None,
    episodes: int | None = None,
    results: Path = Path("docs/results"),
    threads: int | None = 1,
    again: bool = False,
) -> int:
    """Fills the cells of the table of GAIL that don't stand yet; status 1 where demonstrations were missing.

    Args:
        environments: CartPole, Acrobot, MountainCar, Reacher, HalfCheetah, Hopper, Walker2d, Ant, Humanoid, and
            CarRacing, which is none of the paper's: from pixels, by a scripted driver; the first three when left out.
        methods: BC, "BC, weight decay", FEM, GTAL, GAIL, "GAIL, gradient penalty", whose discriminator is held to a
            slope of about 1 and sees actions clipped, AIRL, DAC, "DAC, halving", whose policy's learning rate is
            halved every 100,000 steps, "DAC, far absorbing state", whose absorbing state lies ten times as far from
            the expert's, "DAC, halving, far absorbing state"; BC and GAIL when left out.
        trajectories: Numbers of trajectories; the least of the table when left out.
        seeds: One cell each.
        whole: Whole trajectories, not thinned ones: columns of their own.
        expert: published, the demonstrations of the paper's authors; own, those of experts that were trained here and
            ship: columns of their own.
        no_demonstrations: The control: the expert's numbers are shuffled until they mean nothing. Rows of their own.
        random_signs: With --no_demonstrations, where numbers are continuous: each has its sign drawn too, so that not
            even which way an expert mostly goes is left. Rows of their own.
        demonstrations: A folder of files like Hopper-v4.npz in place of $GENAPPS_DATA/demonstrations.
        steps: Steps in the environment [env steps]; those of the protocol when left out.
        episodes: Of the evaluation; those of the protocol when left out.
        results: Where cells are filed.
        threads: CPU threads.
        again: Measure again what stands.
    """
    set_threads(threads)
    at_least(1, trajectories=min(trajectories or [1]), episodes=episodes)
    at_least(0, seeds=min(seeds, default=0), steps=steps)  # cells of BC, which takes none, are made by --steps 0
    require_writable(results / "cell.json")
    if expert == "own" and demonstrations is not None:
        raise UserError(
            "--demonstrations: expected no folder beside --expert own, whose demonstrations ship: leave one out"
        )
    if random_signs and not no_demonstrations:
        raise UserError("--random_signs: expected --no_demonstrations true beside it, which is the control")
    missing = 0
    for title in known_names("environments", environments or ["CartPole", "Acrobot", "MountainCar"], TASKS):
        task = TASKS[title]
        found = _expert(title, max(trajectories or task.trajectories[:1]), expert, demonstrations)
        if found is None:
            missing += 1
            continue
        shown, origin = found
        for number in trajectories or task.trajectories[:1]:
            for method in known_names("methods", methods or ["BC", "GAIL"], METHODS):
                for seed in seeds:
                    _cell(
                        title, method, shown, number, seed, origin, whole=whole, own=expert == "own",
                        control=no_demonstrations, signs=random_signs, steps=steps, results=results, again=again,
                        episodes=task.episodes if episodes is None else episodes,
                    )  # fmt: skip
    return 1 if missing else 0


def _expert(title: str, number: int, expert: str, folder: Path | None) -> tuple[Demonstrations, str] | None:
    """Returns an environment's demonstrations and where they come from, or None, after saying what is missing."""
    task = TASKS[title]
    if task.scripted and folder is None:
        # as many whatever is asked for: their mean return is what every column is a fraction of
        return expert_demonstrations(task.env_id, trajectories=max(*task.trajectories, number)), "scripted expert"
    # the folder that the user names holds the expert of every task, whatever was published
    ours = folder is None and (expert == "own" or not task.published_expert)
    path = find_demonstrations(task.env_id, folder, own=ours)
    if path is not None:
        return Demonstrations.load(path), "own expert" if ours else "published" if folder is None else str(folder)
    if folder is not None:
        print(f"{title}: no {task.env_id}.npz in {folder}: record one with genapps imitation demos record")
    else:
        advice = "train one: genapps imitation expert" if expert == "own" else "give a folder with --demonstrations"
        print(f"{title}: no demonstrations of {task.env_id} by the {expert} expert to be found: {advice}")
    return None


def _cell(
    title: str, method: str, expert: Demonstrations, number: int, seed: int, origin: str, *, whole: bool, own: bool,
    control: bool, signs: bool, steps: int | None, episodes: int, results: Path, again: bool,
) -> None:  # fmt: skip
    task = TASKS[title]
    kind, settings = METHODS[method]
    returns = expert.needed("returns", "fractions of the expert are measured by")
    returns = returns[: max(task.trajectories)] if origin == "scripted expert" else returns
    rows = _thinned(expert.take(number), 1 if whole else task.subsample, seed)
    if control:
        rows = without_meaning(rows, seed, signs=signs)
    off_policy = issubclass(kind, OffPolicyLearner)
    budget = 0 if kind is BC else steps or (task.off_policy_steps if off_policy else task.steps)
    if issubclass(kind, OnPolicyLearner) and kind is not AIRL:
        settings = {**settings, "reward": task.reward}
    if issubclass(kind, OnPolicyLearner):
        # as most cells that stand were made, those of Reacher and of our own experts too, whose actions were clipped;
        # a row that clips says so itself
        settings = {"clip_actions": False, **settings}
    if kind is BC:
        settings = {**settings, **task.cloning}
    env = vector_env(task.env_id, task.kwargs, environments=1, seed=seed, demonstrations=rows)
    learner = kind(env, rows, seed=seed, **settings)  # type: ignore[call-arg]
    given = learner.settings if isinstance(learner, OffPolicyLearner) else constructor_settings(learner)
    config = {
        "environment": task.env_id, "kwargs": task.kwargs, "learner": kind.__name__, "steps": budget,
        "settings": {name: value for name, value in given.items() if name != "seed"}, "trajectories": number,
        "subsample": rows.subsample, "expert": hash_of(returns.tolist()), "control": control,
        "episodes": episodes,
    } | ({"signs": True} if signs else {})  # fmt: skip
    column = f"{title} {number}" + (OWN if own and task.published_expert else "") + (WHOLE if whole else "")
    row = f"{method}{CONTROL}{SIGNS if signs else ''}" if control else method
    place: dict[str, Any] = {"app": APP, "table": TABLE, "row": row, "column": column, "draw": seed}
    known, words = hash_of(config), f"{row}, {column}, seed {seed}"
    if not again and told_to_stand(results, words, **place, config_hash=known, protocol=PROTOCOL):
        env.close()
        return
    start = time.monotonic()
    _learn(learner, budget, f"{row} on {column}, seed {seed}")
    seconds = time.monotonic() - start
    env.close()
    found = returns_of(learner, task.env_id, task.kwargs, episodes=episodes, seed=seed + 10_000)
    chance = random_return(task.env_id, task.kwargs)
    value = fraction_of_expert(float(found.values.mean()), chance, float(returns.mean()))
    options = {"environments": f"[{title}]", "methods": f'["{method}"]', "trajectories": f"[{number}]"}
    options |= {"seeds": f"[{seed}]", "steps": str(budget)}
    command = ["genapps imitation benchmark", *(f"--{name} {shlex.quote(text)}" for name, text in options.items())]
    command += ["--whole true"] if whole else []
    command += ["--expert own"] if own else []
    command += [f"--demonstrations {shlex.quote(origin)}"] if origin not in ORIGINS else []
    command += ["--no_demonstrations true"] if control else []
    command += ["--random_signs true"] if signs else []
    command += [f"--episodes {episodes}"] if episodes != task.episodes else []
    write_cell(
        results,
        Cell(
            **place, value=value, unit=UNIT, better="higher", seed=seed, config_hash=known, protocol=PROTOCOL,
            device=device_words("cpu"), seconds=seconds, command=" ".join(command),
            extra={"return": found.summary(), "expert": float(returns.mean()), "random": chance,
                   "steps": learner.num_timesteps, "rows": len(rows), "settings": config,
                   "demonstrations": origin},
        ),
    )  # fmt: skip
    print(f"{words}: {value:.3f} (return {found.values.mean():.1f}), {seconds:.0f} s", flush=True)


def _thinned(rows: Demonstrations, every: int, seed: int) -> Demonstrations:
    """Returns one row in so many of the expert's steps, of a file that may keep one in some already."""
    if every % rows.subsample:
        raise UserError(
            f"expected demonstrations of {rows.environment} of which one row in {every} can be kept, got a file that "
            f"keeps one in {rows.subsample}: record it anew"
        )
    return rows.subsampled(every // rows.subsample, seed=seed)


def _learn(learner: Learner, budget: int, words: str) -> None:
    if isinstance(learner, BC):
        with Progress(words, learner.most_epochs, unit="epoch") as bar:
            learner.learn(callback=lambda made: bar.update(len(made.history)))
            bar.update(learner.most_epochs, last=True)
        return
    with Progress(words, budget) as bar:

        def shown(made: Any) -> None:
            done = min(made.num_timesteps, budget)
            told = made.history[-1].get("true_return")
            bar.update(done, "" if told is None else f"return {told:.1f}", last=done >= budget)

        if isinstance(learner, OnPolicyLearner):
            learner.learn(budget, after_iteration=shown)
        else:
            assert isinstance(learner, OffPolicyLearner)
            learner.learn(budget, after_log=shown)


def without_meaning(rows: Demonstrations, seed: int, *, signs: bool = False) -> Demonstrations:
    """Returns the same number of rows in which neither states nor actions are the expert's: the control.

    The states' values are shuffled among the rows, each column by itself, and the actions among the rows too: what is
    left is each number's distribution, and so its mean: of an expert who runs, how fast it goes, and which way.

    Args:
        rows: the expert's.
        seed: of the draws.
        signs: whether each number's sign is drawn too: then only how large the numbers are is left.

    Raises:
        UserError: when observations are a dict, or signs are asked of actions that are no continuous numbers.
    """
    if isinstance(rows.observations, dict):
        raise UserError("--no_demonstrations: expected vectors of observations, got a dict")
    rng = np.random.default_rng(seed)
    flat = rows.observations.reshape(len(rows), -1)
    states = np.stack([rng.permutation(flat[:, i]) for i in range(flat.shape[1])], 1)
    actions = rng.permutation(rows.actions, axis=0)
    if signs:
        if not all(np.issubdtype(numbers.dtype, np.floating) for numbers in (states, actions)):
            raise UserError("--random_signs: expected continuous observations and actions, got whole numbers")
        states, actions = (a * rng.choice([-1, 1], a.shape).astype(a.dtype) for a in (states, actions))
    return replace(rows, observations=states.reshape(rows.observations.shape), actions=actions)


def find_demonstrations(env_id: str, folder: Path | None = None, *, own: bool = False) -> Path | None:
    """Returns the file of an environment's demonstrations, or None.

    Args:
        env_id: the environment's id, which is the file's name.
        folder: where to look in place of $GENAPPS_DATA/demonstrations.
        own: whether to look among what ships instead: experts that were trained here.
    """
    data = os.environ.get("GENAPPS_DATA")
    place = FOLDER if own else folder or (Path(data) / "demonstrations" if data else None)
    path = place / f"{env_id}.npz" if place else None
    return path if path and path.is_file() else None
