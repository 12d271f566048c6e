"""The figures and the page of a run: learning curve, returns beside the expert's, a film."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gymnasium

from apps.common.figures import canvas, learning_curves, marker_of
from apps.common.report import Headline, Picture, Table, write_report
from core_models.errors import UserError
from core_models.files import read_json
from core_models.training import RunFolder

from .codes import Coded
from .evaluation import film
from .learners.base import Learner
from .seeds import SUMMARY as SEEDS
from .seeds_report import write_seeds_report

CURVES = ("true_return", "learnt_reward", "accuracy_expert", "accuracy_learner", "information", "posterior_accuracy")
"""What is drawn of a run, as far as it has it; of behavioural cloning its losses."""
LOSSES = ("loss", "validation_loss")
FILM = "rollout.gif"
FRAMES, EVERY = 120, 2
"""Of the film, and steps from one to the next."""


def draw(made: Learner, run: RunFolder, summary: Mapping[str, Any], *, wrap_codes: int | None = None) -> None:
    """Draws the figures of a run that has ended; a film where the environment can be drawn here."""
    draw_curves(run, summary)
    wrap: Callable[[gymnasium.Env], gymnasium.Env] | None = None
    if wrap_codes:
        wrap = lambda env: Coded(env, wrap_codes)  # noqa: E731
    try:
        film(
            made, run.figures / FILM, str(summary["environment"]), dict(summary["environment_kwargs"]),
            seed=int(summary["seed"]), frames=FRAMES, every=EVERY, wrap=wrap,
        )  # fmt: skip
    except UserError as error:
        print(f"no film: {error}", file=sys.stderr)


def draw_curves(run: RunFolder, summary: Mapping[str, Any]) -> None:
    """Draws the true return over the steps, between a random policy's and the expert's, and what else was noted."""
    records = run.read_metrics()
    found = [name for name in CURVES if any(name in record for record in records)]
    if any("true_return" in record for record in records):
        expert, chance = summary["expert"]["mean"], summary["random"]["mean"]
        points = [(r["step"], r["true_return"]) for r in records if "true_return" in r]
        with canvas(run.figures / "return.png", 6.4, 3.4) as figure:
            axes = figure.add_subplot()
            axes.plot(*zip(*points, strict=True), marker=marker_of(points), label=summary["learner"])
            if expert is not None:
                axes.axhline(expert, linestyle="--", color="#009E73", label="expert")
            axes.axhline(chance, linestyle=":", color="#8C8C8C", label="random policy")
            axes.set(xlabel="env steps", ylabel="return", title=f"{summary['learner']} on {summary['environment']}")
            axes.legend()
    if found:
        learning_curves(records, run.figures / "learning.png", names=found, x="step")
    elif records:
        learning_curves(records, run.figures / "learning.png", names=LOSSES)


def pictures(run: RunFolder) -> list[Picture]:
    """Returns the figures that a run has."""
    captions = {
        "return.png": "Return of the environment, which the learner does not see, over the steps; actions are drawn, "
        "where the figures above are of the likeliest ones.",
        "learning.png": "What was noted in each iteration, over the env steps. Accuracy: how many of the expert's "
        "pairs, and of the learner's, the discriminator tells for what they are [%]; of the posterior, how many codes "
        "it names [%].",
        FILM: f"The first {FRAMES * EVERY} steps at most of an episode of the trained policy, deterministic.",
    }
    return [
        Picture(run.figures / name, caption) for name, caption in captions.items() if (run.figures / name).is_file()
    ]


def page(run: RunFolder, summary: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what the page of a run shows, as arguments of `report_page`."""
    told, expert, chance = summary["returns"], summary["expert"], summary["random"]
    episodes = f"{told['episodes']} episode{'' if told['episodes'] == 1 else 's'}"
    if told["interval"] is not None:
        episodes = "95 %: {:.1f} to {:.1f}, ".format(*told["interval"]) + episodes
    shown, way = summary["demonstrations"], summary["fraction_of_expert"]
    fraction = [] if way is None else [Headline("of the way from random to expert", f"{way:.3f}")]
    return {
        "title": f"{summary['learner']} on {summary['environment']}",
        "summary": f"{shown['trajectories']} trajectories, {shown['rows']} rows; "
        f"{summary['steps']:,} steps in the environment; seed {summary['seed']}.",
        "headlines": [
            Headline("return", f"{told['mean']:.1f}", episodes),
            Headline(
                "expert", "not known" if expert["mean"] is None else f"{expert['mean']:.1f}",
                f"{expert['trajectories']} trajectories",
            ),
            *fraction,
        ],
        "tables": [
            Table(
                "Returns",
                ("policy", "mean", "interquartile mean", "least", "most", "episodes"),
                [
                    [name, *(f"{found[key]:.1f}" for key in ("mean", "interquartile_mean", "least", "most")),
                     str(found["episodes"])]
                    for name, found in ((str(summary["learner"]), told), ("random policy", chance))
                ],
            )
        ],
        "figures": pictures(run),
        "notes": [
            f"Measured on {summary['device']}, {summary['seconds']:.0f} s{_since(summary)}.",
            _opened_by(summary),
        ],
        "configuration": run.read_config(),
        "command": summary["command"],
    }  # fmt: skip


def _since(summary: Mapping[str, Any]) -> str:
    """Says from where on the seconds of a run that was gone on with were counted."""
    begun = summary.get("seconds_since_step")
    return f" since step {begun:,}, where the run was gone on with" if begun else ""


def _opened_by(summary: Mapping[str, Any]) -> str:
    """Returns which class of stable-baselines3 opens the policy, and what it is to be given."""
    opened = "SAC.load" if summary["learner"] == "DAC" else "TRPO.load (PPO.load where PPO trained it)"
    codes = " Behind each observation it expects its code, one-hot." if summary["learner"] == "InfoGAIL" else ""
    return f"policy.zip opens with plain {opened} of stable-baselines3 and sb3-contrib.{codes}"


def write_run_report(run: RunFolder, summary: Mapping[str, Any]) -> None:
    """Writes the page of a run."""
    write_report(run.report, **page(run, summary))


def report(run: Path) -> None:
    """Draws the curves and the page of a run again, from what lies in its folder.

    Args:
        run: a folder that `train` made and finished, of one seed or of several.
    """
    folder = RunFolder(run)
    if (run / SEEDS).is_file():
        print(write_seeds_report(run, read_json(run / SEEDS)))
        return
    if not folder.summary.is_file():
        raise UserError(f"expected a finished run of genapps imitation train in {run}, found no summary.json")
    summary = read_json(folder.summary)
    draw_curves(folder, summary)
    write_run_report(folder, summary)
    print(folder.report)
