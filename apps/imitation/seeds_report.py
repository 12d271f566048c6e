"""The page of several seeds of one training: what each reached, what they reach together, and their learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from apps.common.figures import PALETTE, canvas, marker_of
from apps.common.report import Headline, Picture, Table, write_report
from core_models.training import RunFolder

from .evaluate import with_interval

CURVES = "returns.png"
CAPTION = (
    "Return of the environment, which the learner does not see, over the steps of each seed; actions are drawn, where "
    "the figures above are of the likeliest ones."
)


def write_seeds_report(out: Path, told: Mapping[str, Any]) -> Path:
    """Writes the page, and the figure in it; returns the page's path.

    Args:
        out: the folder that holds the seeds' run folders.
        told: what `train --seeds` writes to seeds.json: runs, failed, over_runs, command.
    """
    whole, runs = RunFolder(out), told["runs"]
    group = told["over_runs"][0] if told["over_runs"] else None
    headlines = []
    if group is not None:
        both = (("return", group["returns"], 1), ("of the way to the expert", group["fraction_of_expert"], 3))
        headlines = [
            Headline(name, f"{own['mean']:.{digits}f}", with_interval(own["mean"], own["interval"], digits))
            for name, own, digits in both
            if own is not None
        ]
    drawn = _draw(out, runs, whole.figures / CURVES)
    first = runs[0] if runs else {}
    named = f"{first['learner']} on {first['environment']}" if first else "No seed has ended"
    seeds = ", ".join(map(str, told["failed"]))
    failed = [f"Seeds that failed: {seeds}; their logs say why."] if seeds else []
    return write_report(
        whole.report,
        title=f"{named}, {len(runs)} seed{'' if len(runs) == 1 else 's'}",
        summary="Each seed has a page of its own in its folder.",
        headlines=headlines,
        tables=[Table("Seeds", ("seed", "return", "95 % over episodes", "of the way", "steps"), list(map(_row, runs)))],
        figures=[Picture(drawn, CAPTION)] if drawn else [],
        configuration=whole.read_config(),
        command=told["command"],
        notes=["Intervals of the figures on top are over the seeds, resampled.", *failed],
    )


def _row(run: Mapping[str, Any]) -> list[str]:
    returns, way = run["returns"], run["fraction_of_expert"]
    interval = "" if returns["interval"] is None else "{:.1f} to {:.1f}".format(*returns["interval"])
    return [
        str(run["seed"]), f"{returns['mean']:.1f}", interval, "" if way is None else f"{way:.3f}", f"{run['steps']:,}",
    ]  # fmt: skip


def _draw(out: Path, runs: Sequence[Mapping[str, Any]], path: Path) -> Path | None:
    """Draws the true returns of all seeds between the random policy's and the expert's; None where none was noted."""
    curves = {}
    for run in runs:
        records = RunFolder(out / run["run"]).read_metrics()
        curves[run["seed"]] = [(own["step"], own["true_return"]) for own in records if "true_return" in own]
    if not any(curves.values()):
        return None
    with canvas(path, 6.4, 3.4) as figure:
        axes = figure.add_subplot()
        for i, (seed, points) in enumerate(curves.items()):
            colour = PALETTE[i % len(PALETTE)]
            axes.plot(*zip(*points, strict=True), marker=marker_of(points), color=colour, label=f"seed {seed}")
        expert, chance = runs[0]["expert"]["mean"], runs[0]["random"]["mean"]
        if expert is not None:
            axes.axhline(expert, linestyle="--", color="#8C8C8C", label="expert")
        axes.axhline(chance, linestyle=":", color="#8C8C8C", label="random policy")
        axes.set(xlabel="env steps", ylabel="return")
        axes.legend(fontsize=8)
    return path
