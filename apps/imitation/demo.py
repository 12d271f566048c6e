"""`genapps imitation demo`: GAIL from one demonstration, its curve and a film, beside a control without demonstrations.

CartPole is learnt in seconds, and that is all that speaks for it: a reward that is never negative is worth most to who
survives longest, which is the task, so that the control learns it too. What only demonstrations can teach is how the
expert does it: how often the policy chooses as the expert did, in trajectories that it was not shown.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from apps.common.cli import command_line, configuration
from apps.common.figures import canvas
from apps.common.machine import set_threads
from apps.common.options import at_least
from apps.common.report import Headline, Picture, Table, add_section
from core_models.errors import UserError
from core_models.files import require_writable
from core_models.training import RunFolder
from core_models.training.progress import Progress

from .demonstrations import Demonstrations, Policy
from .environments.making import vector_env
from .evaluation import returns_of
from .learners import BC, GAIL, Learner
from .report import page
from .shipped import located
from .tables.gail import without_meaning
from .train import finish, fit
from .trained import POLICY

NAME = "imitation"
"""Of the section on the page, and of the folder."""
SUBSAMPLE = 10
"""Every how manieth row is shown, as published for CartPole."""
SIDE_BY_SIDE, STEPS = 10, 2000
"""Environments, and steps of an iteration: smaller than published, for more iterations in the same time."""
EPISODES = 50
CAUTION = (
    "CartPole says little of imitation: a reward that is never negative rewards surviving, which is the task. The "
    "control is the same GAIL, shown the expert's numbers shuffled until they mean nothing."
)


def demo(
    out: Path = Path("runs/demo"),
    demonstrations: str = "CartPole-v1",
    steps: int = 120_000,
    control: bool = True,
    seed: int = 0,
    threads: int | None = 1,
) -> None:
    """Learns CartPole by GAIL from one demonstration, every tenth row of it, in less than a minute.

    Args:
        out: The folder: report.html, to which a section is added where it stands already, and imitation/, a run folder
            as `train` makes it. What an earlier call wrote is replaced.
        demonstrations: The name of some that ship, or a .npz file.
        steps: Steps in the environment [env steps].
        control: Also learn without demonstrations, to see what they are worth here.
        seed: Of everything.
        threads: CPU threads.
    """
    started = time.monotonic()
    at_least(0, seed=seed)
    set_threads(threads)
    expert = Demonstrations.load(located(demonstrations))
    if isinstance(expert.observations, dict):
        raise UserError("--demonstrations: expected vectors of observations, got a dict")
    if ":" in expert.environment:  # see imports_nothing
        raise UserError(
            f"--demonstrations: expected an environment's plain id, got {expert.environment}: it names a module to "
            f"import, which a file doesn't choose; genapps imitation train --environment {expert.environment} learns "
            "from it if you trust it"
        )
    first = float(expert.needed("returns", "the demo compares with")[0])
    rows = expert.take(1).subsampled(SUBSAMPLE, seed=seed)
    run = RunFolder(out / NAME)
    require_writable(run.summary)
    run.summary.unlink(missing_ok=True)  # that of an earlier call says nothing of what is written now
    for stale in (run.tensorboard(), run.checkpoint().parent):
        shutil.rmtree(stale, ignore_errors=True)
    run.write_config(configuration() or {"demonstrations": demonstrations, "steps": steps, "seed": seed})
    print(f"{expert.environment}: 1 demonstration, {len(rows)} of its rows, return {first:.0f}", flush=True)
    learner = _gail(expert, rows, seed)
    begun = time.monotonic()
    fit(learner, run, steps)
    learner.generator.env.close()
    learner.save(run.path / POLICY)
    seconds = time.monotonic() - begun
    kwargs = dict(expert.environment_kwargs)
    summary = finish(learner, run, expert, expert.environment, kwargs, rows, EPISODES, seed, seconds)
    others: list[tuple[str, Learner]] = [("BC", _bc(expert, rows, seed))]
    if control:
        others.append(("GAIL, no demonstrations", _control(expert, rows, steps, seed)))
    told = [_row("GAIL", summary["returns"], learner, expert)]
    for name, other in others:
        found = returns_of(other, expert.environment, kwargs, episodes=EPISODES, seed=seed + 10_000)
        told.append(_row(name, found.summary(), other, expert))
    _draw(run, {"GAIL": learner, **dict(others)}, summary)
    summary |= {"demo": told, "seconds_of_all": round(time.monotonic() - started, 1), "command": command_line()}
    run.write_summary(summary)
    report = add_section(out / "report.html", NAME, **_page(run, summary))
    for row in told:
        print(f"  {row['policy']:<24}  return {row['mean']:6.1f}   {_alike(row)}")
    print(f"report: {report} ({time.monotonic() - started:.0f} s)")


def _gail(expert: Demonstrations, rows: Demonstrations, seed: int) -> GAIL:
    env = vector_env(
        expert.environment, expert.environment_kwargs, environments=SIDE_BY_SIDE, seed=seed, demonstrations=rows
    )
    return GAIL(env, rows, steps=STEPS, seed=seed)


def _bc(expert: Demonstrations, rows: Demonstrations, seed: int) -> BC:
    env = vector_env(expert.environment, expert.environment_kwargs, seed=seed)
    made = BC(env, rows, seed=seed)
    env.close()
    return made.learn()


def _control(expert: Demonstrations, rows: Demonstrations, steps: int, seed: int) -> GAIL:
    made = _gail(expert, without_meaning(rows, seed), seed)
    with Progress("gail, no demonstrations", steps) as bar:

        def shown(learner: Any) -> None:
            done = min(learner.num_timesteps, steps)
            told = learner.history[-1].get("true_return")
            bar.update(done, "" if told is None else f"return {told:.1f}", last=done >= steps)

        made.learn(steps, after_iteration=shown)
    made.generator.env.close()
    return made


def _row(name: str, returns: dict[str, Any], policy: Policy, expert: Demonstrations) -> dict[str, Any]:
    return {"policy": name, "like_the_expert": agreement(policy, expert), **returns}


def agreement(policy: Policy, expert: Demonstrations) -> float | None:
    """Returns how often a policy chooses what the expert did, in all trajectories but the first [%].

    None where there is no other trajectory, or actions are not discrete.
    """
    if expert.trajectories < 2 or expert.actions.ndim != 1 or expert.actions.dtype.kind not in "iu":
        return None
    rest = expert.select(range(1, expert.trajectories))
    chosen, _ = policy.predict(rest.observations, deterministic=True)
    return 100 * float((np.asarray(chosen) == rest.actions).mean())


def _alike(row: dict[str, Any]) -> str:
    found = row["like_the_expert"]
    return "" if found is None else f"chooses as the expert in {found:.1f} % of states"


def _draw(run: RunFolder, made: dict[str, Learner], summary: dict[str, Any]) -> None:
    """Draws the curves of all that have any into one figure, in the place of GAIL's own."""
    with canvas(run.figures / "return.png", 6.4, 3.4) as figure:
        axes = figure.add_subplot()
        for name, learner in made.items():
            points = [(record["step"], record["true_return"]) for record in learner.history if "true_return" in record]
            if points:
                axes.plot(*zip(*points, strict=True), label=name)
        axes.axhline(summary["expert"]["mean"], linestyle="--", color="#009E73", label="expert")
        axes.axhline(summary["random"]["mean"], linestyle=":", color="#8C8C8C", label="random policy")
        axes.set(xlabel="env steps", ylabel="return, mean of the last 100 episodes")
        axes.legend()


def _page(run: RunFolder, summary: dict[str, Any]) -> dict[str, Any]:
    """Returns what the section shows: the page of the run, with what it is compared with."""
    told = page(run, summary)
    rows = []
    for row in summary["demo"]:
        low, high = row["interval"]
        alike = "" if row["like_the_expert"] is None else f"{row['like_the_expert']:.1f} %"
        rows.append([row["policy"], f"{row['mean']:.1f}", f"{low:.1f} to {high:.1f}", alike])
    expert, chance = summary["expert"], summary["random"]
    rows += [["expert", f"{expert['mean']:.1f}", "", ""], ["random policy", f"{chance['mean']:.1f}", "", ""]]
    note = f"{EPISODES} episodes, deterministic. Like the expert: in its trajectories that were not shown."
    captions = {"return.png": "Return of the environment, which GAIL does not see, as the policy samples its actions."}
    figures = [Picture(own.path, captions.get(Path(own.path).name, own.caption), own.alt) for own in told["figures"]]
    headlines = [Headline("return by GAIL", *_first(told["headlines"])), *told["headlines"][1:]]
    return {
        **told,
        "title": f"Imitation: {told['title']}, from one demonstration",
        "headlines": headlines,
        "tables": [Table("Returns", ("policy", "return", "95 %", "like the expert"), rows, note)],
        "figures": figures,
        "notes": [CAUTION, *told["notes"], f"All of it took {summary['seconds_of_all']:.0f} s."],
    }


def _first(headlines: list[Headline]) -> tuple[str, str]:
    return headlines[0].value, headlines[0].note
