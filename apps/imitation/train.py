"""`genapps imitation train`: one learner, one environment, one file of demonstrations; a run folder with all of it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import VecEnv

from apps.common.cli import command_line, configuration
from apps.common.machine import find_device, set_threads
from apps.common.options import at_least
from apps.common.provenance import device_words
from core_models.errors import UserError
from core_models.files import read_json
from core_models.training import RunFolder
from core_models.training.checkpoint import remove_leftovers
from core_models.training.progress import Progress

from .codes import CodedVecEnv
from .demonstrations import Demonstrations
from .demonstrations.checking import oddities
from .demonstrations.identity import imports_nothing, plain_id
from .environments.making import vector_env
from .evaluate import Scale, with_interval
from .evaluation import random_returns, returns_of
from .learners import BC, InfoGAIL, Learner, OnPolicyLearner
from .learners.off_policy.learner import OffPolicyLearner
from .learners.over_sb3 import OverSB3
from .learners.resuming import restore_state, save_state
from .seeds import train_seeds
from .shipped import located
from .trained import POLICY

ASKED = (
    "learner", "demonstrations", "trajectories", "subsample", "environment", "environment_kwargs", "environments",
)  # fmt: skip
"""Options that decide what is learnt, and from what."""
ON_POLICY_CHECKPOINTS = 50_000
"""Steps between checkpoints of the learners that have no number of their own [env steps]."""


def train(
    learner: Callable[[Any, Any], Learner],
    demonstrations: str,
    out: Path,
    steps: int = 300_000,
    trajectories: int | None = None,
    subsample: int = 1,
    environment: str | None = None,
    environment_kwargs: dict[str, Any] | None = None,
    environments: int = 1,
    processes: bool = False,
    evaluation_episodes: int = 50,
    checkpoint_every: int | None = None,
    resume: bool = False,
    threads: int | None = 1,
    seeds: list[int] | None = None,
    jobs: int = 1,
) -> int:
    """Trains a policy from demonstrations; writes it, its learning curve, its return beside the expert's, and a report.

    Args:
        learner: BC, GAIL, AIRL, FEM, GTAL, InfoGAIL or DAC, and its settings: --learner GAIL --learner.reward negative.
        demonstrations: A .npz file of demonstrations, or the name of one that ships: see `demos list`.
        out: The run folder.
        steps: Steps in the environment [env steps], in whole iterations of --learner.steps; BC takes none.
        trajectories: Trajectories to learn from, the first ones; all when left out.
        subsample: Keep every how manieth row of each, from an offset drawn by the learner's seed: 20 as published for
            MuJoCo; 1 keeps whole trajectories.
        environment: Its gymnasium id; that of the demonstrations when left out.
        environment_kwargs: What it is made with; as the demonstrations' when left out, where it is theirs.
        environments: How many side by side.
        processes: Each in a process of its own.
        evaluation_episodes: Episodes of the evaluation in the end, deterministic.
        checkpoint_every: Steps between checkpoints [env steps]; environments begin new episodes there, so that it
            changes what is learnt. The learner's own when left out: DAC's 25,000, of the others 50,000.
        resume: Go on with a stopped run.
        threads: CPU threads, of each process.
        seeds: Train once for each of these seeds of the learner, in run folders of their own in --out, and tell what
            they reach together. One that fails leaves the others as they are.
        jobs: How many of the seeds at a time, each in a process of its own.
    """
    at_least(1, steps=steps, evaluation_episodes=evaluation_episodes, jobs=jobs, checkpoint_every=checkpoint_every)
    given = configuration().get("learner")
    if isinstance(given, dict):
        own = given.get("init_args", {})
        at_least(0, **{"learner.seed": own.get("seed", 0)})
        find_device(own.get("device", "cpu"), "--learner.device")
    if seeds is not None:
        return train_seeds(seeds, jobs, out, resume=resume, threads=threads, asked=ASKED)
    set_threads(threads)
    run = RunFolder(out)
    if run.summary.exists() and resume:
        given_now, had = configuration(), run.read_config()
        others = [key for key in ASKED if given_now and json.dumps(given_now.get(key)) != json.dumps(had.get(key))]
        if others:
            raise UserError(f"{out} has ended, and its {', '.join(others)} was another: begin anew in another folder")
        took = read_summary(run).get("steps", 0)
        more = f"; it took {took:,} steps: to take {steps:,}, begin anew in another folder" if 0 < took < steps else ""
        print(f"{out} has ended: its figures stand in summary.json{more}")
        return 0
    if not resume and (run.summary.exists() or run.stages()):
        raise UserError(
            f"{out} already holds a run: add --resume to go on with it, or choose another folder with --out"
        )
    expert = Demonstrations.load(located(demonstrations))
    shown = expert if trajectories is None else expert.take(trajectories)
    env_id = environment or imports_nothing(expert.environment)
    theirs = expert.environment_kwargs if plain_id(env_id) == plain_id(expert.environment) else {}
    kwargs = theirs if environment_kwargs is None else environment_kwargs
    if environment_kwargs is None and expert.environment_kwargs and not theirs:
        print(
            f"warning: {env_id} is made without {json.dumps(expert.environment_kwargs, default=str)}, which "
            f"{expert.environment} of the demonstrations was made with: give --environment_kwargs for it to have them",
            file=sys.stderr,
        )
    probe = vector_env(env_id, kwargs, environments=environments, seed=0, processes=processes, demonstrations=expert)
    made = learner(probe, None)  # the seed is the learner's own: it decides the offset of the rows
    seed = getattr(made, "seed", 0)
    rows = shown if subsample == 1 else shown.subsampled(subsample, seed=seed)
    probe.seed(seed)
    run.write_config(configuration() or {"learner": made.name, "demonstrations": demonstrations, "steps": steps})
    print(
        f"{env_id}: {rows.trajectories} {'trajectory' if rows.trajectories == 1 else 'trajectories'}, {len(rows)} "
        f"rows, {'return not known' if shown.mean_return is None else f'mean return {shown.mean_return:.1f}'}; "
        f"{type(made).__name__}, seed {seed}",
        flush=True,
    )
    for line in oddities(shown, probe.observation_space, probe.action_space):
        print(f"warning: {line}", file=sys.stderr)
    start = time.monotonic()
    made = learner(probe, rows)
    try:
        begun = fit(made, run, steps, checkpoint_every=checkpoint_every, resume=resume)
    except KeyboardInterrupt as stop:
        kept = run.checkpoint().exists()
        later = "goes on from the last checkpoint" if kept else "begins again: there is no checkpoint yet"
        raise KeyboardInterrupt(
            f"interrupted at {made.num_timesteps:,} steps: the same command with --resume {later}"
        ) from stop
    probe.close()
    made.save(run.path / POLICY)
    finish(made, run, expert, env_id, kwargs, rows, evaluation_episodes, seed, time.monotonic() - start, begun)
    return 0


def fit(made: Learner, run: RunFolder, steps: int, *, checkpoint_every: int | None = None, resume: bool = False) -> int:
    """Lets a learner learn, with its progress shown and its curves and checkpoints in a run folder.

    Args:
        made: which.
        run: where.
        steps: [env steps]; of BC none are taken.
        checkpoint_every: steps between checkpoints [env steps]; the learner's own when left out.
        resume: go on from the checkpoint, where there is one.

    Returns:
        The steps that the run had taken before [env steps].
    """
    begun = 0
    if isinstance(made, OnPolicyLearner):
        made.reseed_every = checkpoint_every or made.reseed_every or ON_POLICY_CHECKPOINTS
        begun = _learn_on_policy(made, run, steps, resume)
    elif isinstance(made, BC):
        with Progress(made.name, made.most_epochs, unit="epoch") as bar:
            made.learn(callback=lambda learner: bar.update(len(learner.history), _fit(learner.history[-1])))
            bar.update(made.most_epochs, last=True)
        run.rewind_metrics("", [{"stage": "", **record} for record in made.history])
    else:
        assert isinstance(made, OffPolicyLearner)
        if checkpoint_every is not None:
            made.checkpoint_every = made.settings["checkpoint_every"] = checkpoint_every
        _learn_off_policy(made, run, steps, resume)
        begun = made.begun
    return begun


def _learn_on_policy(made: OnPolicyLearner, run: RunFolder, steps: int, resume: bool) -> int:
    """Returns the steps that were taken before [env steps]."""
    path = run.checkpoint()
    remove_leftovers(path)
    made.generator.set_logger(configure(str(run.tensorboard()), ["tensorboard"]))
    begun = resume and path.exists()
    if begun:
        restore_state(made, path)
    run.rewind_metrics("", [{"stage": "", **record} for record in made.history])
    done = made.num_timesteps
    whole = done + -(-max(steps - done, 0) // made.steps) * made.steps  # iterations are taken whole
    with Progress(made.name, whole, done=done) as bar:

        def after(learner: OnPolicyLearner) -> None:
            record = learner.history[-1]
            run.append_metrics({"stage": "", **record})
            bar.update(learner.num_timesteps, _words(record), last=learner.num_timesteps >= steps)
            before = learner.num_timesteps - learner.steps
            if learner.num_timesteps // learner.reseed_every > before // learner.reseed_every:
                save_state(learner, path)

        if done < steps:
            made.learn(steps - done, reset_num_timesteps=not begun, after_iteration=after)
    return done


def _learn_off_policy(made: OffPolicyLearner, run: RunFolder, steps: int, resume: bool) -> None:
    path = run.checkpoint()
    remove_leftovers(path)
    made.tensorboard_log = str(run.tensorboard())
    if not resume or not path.exists():
        run.rewind_metrics("", [])
    with Progress(made.NAME.lower(), steps) as bar:
        written = 0

        def after(learner: OffPolicyLearner) -> None:
            nonlocal written
            if written == 0:  # what a resumed run had before
                run.rewind_metrics("", [{"stage": "", **record} for record in learner.history[:-1]])
            written = len(learner.history)
            record = learner.history[-1]
            run.append_metrics({"stage": "", **record})
            bar.update(min(learner.num_timesteps, steps), _words(record), last=learner.num_timesteps >= steps)

        made.learn(steps, log_interval=1, checkpoint=path, resume=resume, after_log=after)


def _fit(record: dict[str, float]) -> str:
    held = record.get("validation_loss")
    return f"loss {record['loss']:.3f}" + ("" if held is None else f", of rows held back {held:.3f}")


def _words(record: dict[str, float]) -> str:
    """Says what matters of an iteration: true return, learnt reward, D's accuracy."""
    parts = []
    if "true_return" in record:
        parts.append(f"return {record['true_return']:.1f}")
    if "learnt_reward" in record:
        parts.append(f"learnt reward {record['learnt_reward']:.3f}")
    if "accuracy_expert" in record:
        expert, own = record["accuracy_expert"], record["accuracy_learner"]
        parts.append(f"D right on {expert:.0f} % of the expert's, {own:.0f} % of its own")
    return ", ".join(parts)


def finish(
    made: Learner,
    run: RunFolder,
    expert: Demonstrations,
    env_id: str,
    kwargs: dict[str, Any],
    rows: Demonstrations,
    episodes: int,
    seed: int,
    seconds: float,
    begun: int = 0,
) -> dict[str, Any]:
    """Evaluates a trained learner and writes summary, figures and report; returns the summary.

    `seconds` are those since `begun`, the steps that a run gone on with had taken before [env steps].
    """
    from .report import draw, write_run_report

    wrap: Callable[[VecEnv], VecEnv] | None = None
    if isinstance(made, InfoGAIL):
        codes = made.codes
        wrap = lambda envs: CodedVecEnv(envs, codes)  # noqa: E731
    found = returns_of(made, env_id, kwargs, episodes=episodes, seed=seed + 10_000, wrap=wrap)
    chance = random_returns(env_id, kwargs)
    least, most = float(chance.values.mean()), expert.mean_return
    scale = None if most is None else Scale(least, most)
    summary: dict[str, Any] = {
        "learner": type(made).__name__,
        "environment": env_id,
        "environment_kwargs": kwargs,
        "demonstrations": {"trajectories": rows.trajectories, "rows": len(rows), "subsample": rows.subsample},
        "seed": seed,
        "steps": made.num_timesteps,
        "returns": found.summary(),
        "expert": {"mean": most, "trajectories": expert.trajectories},
        "random": chance.summary(),
        "fraction_of_expert": None if scale is None else scale.fraction(float(found.values.mean())),
        "seconds": seconds,
        **({"seconds_since_step": begun} if begun else {}),
        "device": device_words(_device_of(made)),
        "command": command_line(),
    }
    draw(made, run, summary, wrap_codes=getattr(made, "codes", None))
    write_run_report(run, summary)
    run.write_summary(summary)
    told = summary["returns"]
    assert isinstance(told, dict)
    share = summary["fraction_of_expert"]
    way = ", which the expert is no better than" if share is None else f": {share:.3f} of the way"
    way = "" if most is None else way
    beside = "the expert's is not known" if most is None else f"the expert's {most:.1f}"
    print(
        f"{summary['learner']} on {env_id}: return {with_interval(told['mean'], told['interval'], 1)} in {episodes} "
        f"episode{'' if episodes == 1 else 's'}, {beside}, a random policy's {least:.1f}{way}; {run.report}",
        flush=True,
    )
    return summary


def _device_of(made: Learner) -> torch.device:
    """Returns where a learner's networks are."""
    found: torch.device = made.policy.device if isinstance(made, OverSB3) else made.generator.device  # type: ignore[attr-defined]
    return found


def read_summary(run: RunFolder) -> dict[str, Any]:
    """Reads what `finish` wrote."""
    found: dict[str, Any] = read_json(run.summary)
    return found
