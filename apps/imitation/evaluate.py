"""`genapps imitation evaluate`: what saved policies are worth, each by itself and as runs of several seeds.

Of one policy the interval is over its episodes. Over runs it is over the runs, whose returns are means of their
episodes; runs in several environments are put on one scale, the way from a random policy to the expert, and resampled
within each environment.

Source: Agarwal, Schwarzer, Castro, Courville and Bellemare, "Deep reinforcement learning at the edge of the statistical
precipice", NeurIPS 2021.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from apps.common.cli import command_line
from apps.common.machine import set_threads
from apps.common.options import at_least
from apps.common.provenance import device_words
from core_models.errors import UserError
from core_models.files import require_writable, write_json

from .demonstrations import Demonstrations
from .demonstrations.identity import imports_nothing, plain_id
from .environments.making import make_env
from .evaluation import Returns, check_drawn, check_film, fraction_of_expert, random_returns, returns_of
from .evaluation import film as write_film
from .shipped import located
from .statistics import interquartile_mean, stratified_bootstrap
from .trained import Trained, open_policy, policies_at

Record = Mapping[str, Any]
"""Of a run: learner, environment, environment_kwargs, returns, fraction_of_expert, as in its summary.json."""


@dataclass(frozen=True)
class Scale:
    """The ends of the way from a random policy to the expert."""

    random: float
    expert: float

    def fraction(self, value: float) -> float | None:
        """Returns how much of the way a return is; None where there is no way: the expert is no better than chance."""
        if self.expert <= self.random:
            return None
        return fraction_of_expert(value, self.random, self.expert)


FEW = 5
"""Values that an interval wants, at least."""


def evaluate(
    policy: list[str] | str,
    environment: str | None = None,
    environment_kwargs: dict[str, Any] | None = None,
    episodes: int = 50,
    seed: int = 0,
    stochastic: bool = False,
    demonstrations: str | None = None,
    film: Path | None = None,
    film_frames: int = 300,
    out: Path | None = None,
    threads: int | None = 1,
) -> None:
    """Says what policies are worth: mean and interquartile mean of their returns, each with its 95 % interval.

    Several policies, the runs of several seeds say, are also taken together; of one of InfoGAIL each code is shown.
    Opening a .zip that stable-baselines3 alone wrote runs code that it holds: open only your own, or those of somebody
    you trust.

    Args:
        policy: A run folder, a folder of run folders, or a .zip of ours or of plain stable-baselines3; or a list of
            these: '[runs/a, runs/b]'.
        environment: The gymnasium id; that of the run or of the demonstrations when left out.
        environment_kwargs: What it is made with; likewise.
        episodes: Of each policy; of one with codes, of each code.
        seed: Of the environments and of the actions that are drawn. A run's own figures are of 10,000 and its seed, so
            that other episodes here give somewhat other figures.
        stochastic: Draw the actions; else the likeliest are taken.
        demonstrations: A .npz file, or the name of one that ships: its mean return is the expert's. A run folder knows
            that of its own.
        film: Also write an episode of the (first) policy: .gif or .mp4; one for each code.
        film_frames: At most.
        out: Also write the figures, as JSON.
        threads: CPU threads.
    """
    set_threads(threads)
    at_least(1, episodes=episodes)
    at_least(0, seed=seed)
    at_least(1, film_frames=film_frames)
    if film is not None:
        require_writable(check_film(film))
    if out is not None:
        require_writable(out)
    given = [policy] if isinstance(policy, str) else policy
    paths = [found for path in given for found in policies_at(path)]
    if not paths:
        raise UserError("--policy: expected a run folder or a .zip, or several, got an empty list")
    expert = None if demonstrations is None else Demonstrations.load(located(demonstrations))
    opened = [open_policy(path) for path in paths]
    places = [_place(own, environment, environment_kwargs, expert) for own in opened]
    for own, (env_id, kwargs) in zip(opened, places, strict=True):  # all before any takes time
        with closing(make_env(env_id, kwargs)) as env:
            own.check(env, env_id)
    if film is not None:
        check_drawn(*places[0])
    scales: dict[str, Scale] = {}
    records = []
    for own, (env_id, kwargs) in zip(opened, places, strict=True):
        scale = _scale(own, env_id, kwargs, expert, scales)
        records.append(_evaluated(own, env_id, kwargs, scale, episodes, seed, deterministic=not stochastic))
        print("\n".join(words(records[-1])), flush=True)
    groups = over_runs(records)
    for group in groups:
        print(group_words(group), flush=True)
    if film is not None:
        _film(opened[0], film, *places[0], seed=seed, deterministic=not stochastic, frames=film_frames)
    if out is not None:
        write_json(
            out,
            {"policies": records, "over_runs": groups, "episodes": episodes, "seed": seed,
             "deterministic": not stochastic, "device": device_words("cpu", threads), "command": command_line()},
        )  # fmt: skip
        print(f"wrote {out}")


def _place(
    own: Trained, environment: str | None, kwargs: dict[str, Any] | None, expert: Demonstrations | None
) -> tuple[str, dict[str, Any]]:
    """Returns where a policy is evaluated: in what is named, else in that of its run, else of the demonstrations."""
    known: list[tuple[str, dict[str, Any]]] = []
    if "environment" in own.summary:
        known.append((str(own.summary["environment"]), dict(own.summary.get("environment_kwargs") or {})))
    if expert is not None:
        known.append((expert.environment, dict(expert.environment_kwargs)))
    if environment is None and not known:
        raise UserError(f"--environment: expected the gymnasium id, since {own.path} does not say where it was trained")
    name = environment or imports_nothing(known[0][0])
    if kwargs is not None:
        return name, kwargs
    return name, next((more for there, more in known if plain_id(there) == plain_id(name)), {})


def _scale(
    own: Trained, env_id: str, kwargs: dict[str, Any], expert: Demonstrations | None, known: dict[str, Scale]
) -> Scale | None:
    """Returns the scale of an environment, where an expert's return is known: measures the random policy's once."""
    key = json.dumps([env_id, kwargs], sort_keys=True)
    told = own.summary
    same = (told.get("environment"), told.get("environment_kwargs")) == (env_id, kwargs)
    if expert is not None:
        if plain_id(expert.environment) != plain_id(env_id):
            raise UserError(f"--demonstrations: expected those of {env_id}, got those of {expert.environment}")
        if key not in known:
            chance = told["random"]["mean"] if same else random_returns(env_id, kwargs).values.mean()
            returns = expert.needed("returns", "the fraction of the expert is measured by")
            known[key] = Scale(float(chance), float(returns.mean()))
        return known[key]
    if same and "random" in told and told.get("expert", {}).get("mean") is not None:
        return Scale(float(told["random"]["mean"]), float(told["expert"]["mean"]))
    return None


def _evaluated(
    own: Trained, env_id: str, kwargs: dict[str, Any], scale: Scale | None, episodes: int, seed: int, *,
    deterministic: bool,
) -> dict[str, Any]:  # fmt: skip
    by_code = [
        returns_of(one, env_id, kwargs, episodes=episodes, seed=seed, deterministic=deterministic)
        for one in own.by_code()
    ]
    every = Returns(
        np.concatenate([found.values for found in by_code]),
        np.concatenate([found.lengths for found in by_code]),
        shared=len(by_code),
    )
    record: dict[str, Any] = {
        "policy": str(own.path), "learner": own.learner, "environment": env_id, "environment_kwargs": kwargs,
        "returns": every.summary(), "fraction_of_expert": None,
    }  # fmt: skip
    if own.codes is not None:
        record["codes"] = [found.summary() for found in by_code]
    if scale is not None:
        ends = record["returns"]["interval"]
        record |= {"random": scale.random, "expert": scale.expert}
        record["fraction_of_expert_interval"] = ends and [scale.fraction(end) for end in ends]
        record["fraction_of_expert"] = scale.fraction(record["returns"]["mean"])
    return record


def words(record: Record) -> list[str]:
    """Returns what is printed of a policy: a line, and one for each code."""
    line = f"{record['learner']}, {record['policy']}, on {record['environment']}: {_figures(record['returns'])}"
    if record["fraction_of_expert"] is not None:
        shown = with_interval(record["fraction_of_expert"], record["fraction_of_expert_interval"], 3)
        line += (
            f"; {shown} of the way from a random policy's {record['random']:.1f} to the expert's {record['expert']:.1f}"
        )
    return [line, *(f"  code {code}: {_figures(own)}" for code, own in enumerate(record.get("codes", ())))]


def _figures(told: Mapping[str, Any]) -> str:
    episodes = told["episodes"]
    return (
        f"return {with_interval(told['mean'], told['interval'], 1)}, interquartile mean "
        f"{with_interval(told['interquartile_mean'], told['interquartile_mean_interval'], 1)}, "
        f"{told['episode_length']:.1f} steps an episode, {episodes} episode{'' if episodes == 1 else 's'}"
        f"{_too_few(episodes)}"
    )


def _too_few(number: int) -> str:
    """Returns what is to be said of intervals of so few values: resampled, they hardly leave what was seen."""
    return "; intervals of so few are too narrow" if 1 < number < FEW else ""


def over_runs(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Takes the runs of each learner together, where it has two or more.

    Args:
        records: of runs; their summaries are such records too.

    Returns:
        for each learner its environments, the number of runs, and mean and interquartile mean over runs with their 95 %
        intervals: of the returns where all are of one environment, of the fractions where all are known. An interval
        is None where an environment has a single run, which says nothing of how much runs differ.
    """
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(str(record["learner"]), []).append(record)
    found = []
    for learner, own in groups.items():
        if len(own) < 2:
            continue
        strata: dict[str, list[Record]] = {}
        for record in own:
            key = json.dumps([record["environment"], record["environment_kwargs"]], sort_keys=True)
            strata.setdefault(key, []).append(record)
        group: dict[str, Any] = {"learner": learner, "runs": len(own), "returns": None, "fraction_of_expert": None}
        group["environments"] = [str(runs[0]["environment"]) for runs in strata.values()]
        if len(strata) == 1:
            group["returns"] = _over_strata([[r["returns"]["mean"] for r in runs] for runs in strata.values()])
        if all(record["fraction_of_expert"] is not None for record in own):
            fractions = [[r["fraction_of_expert"] for r in runs] for runs in strata.values()]
            group["fraction_of_expert"] = _over_strata(fractions)
        found.append(group)
    return found


def _over_strata(strata: list[list[float]]) -> dict[str, Any]:
    every = np.concatenate([np.asarray(values, dtype=float) for values in strata])
    several = min(map(len, strata)) > 1
    return {
        "mean": float(every.mean()),
        "interval": list(stratified_bootstrap(strata)) if several else None,
        "interquartile_mean": interquartile_mean(every),
        "interquartile_mean_interval": list(stratified_bootstrap(strata, interquartile_mean)) if several else None,
    }


def group_words(group: Mapping[str, Any]) -> str:
    """Returns what is printed of several runs."""
    parts = [
        f"{name} {with_interval(told['mean'], told['interval'], digits)}, interquartile mean "
        f"{with_interval(told['interquartile_mean'], told['interquartile_mean_interval'], digits)}"
        for name, told, digits in (
            ("return", group["returns"], 1),
            ("of the way to the expert", group["fraction_of_expert"], 3),
        )
        if told is not None
    ]
    parts = parts or ["no common scale: give --demonstrations, or evaluate each environment by itself"]
    least = group["runs"] // len(group["environments"])
    return (
        f"{group['learner']}, {group['runs']} runs on {', '.join(group['environments'])}: {'; '.join(parts)}"
        f"{_too_few(least)}"
    )


def with_interval(value: float, interval: Sequence[float] | None, digits: int) -> str:
    """Returns a figure in words, with its 95 % interval where there is one."""
    if interval is None:
        return f"{value:.{digits}f}"
    return f"{value:.{digits}f} (95 %: {interval[0]:.{digits}f} to {interval[1]:.{digits}f})"


def _film(
    own: Trained, path: Path, env_id: str, kwargs: dict[str, Any], *, seed: int, deterministic: bool, frames: int
) -> None:
    policies = own.by_code()
    for code, one in enumerate(policies):
        each = path if len(policies) == 1 else path.with_name(f"{path.stem}_code_{code}{path.suffix}")
        write_film(one, each, env_id, kwargs, seed=seed, deterministic=deterministic, frames=frames)
        print(f"wrote {each}")
