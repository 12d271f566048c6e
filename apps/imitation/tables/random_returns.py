"""Returns of random actions: the zero of the scale on which the tables compare policies.

A return means little by itself, and another version of an environment moves it. What compares is the share of the way
from a random policy to the expert, (return - random) / (expert - random), each measured in its own environment; Ho and
Ermon's figures, "Generative adversarial imitation learning", NIPS 2016, are scaled so too, with the random policy
measured in today's environment, since theirs was not published.

`python -m apps.imitation.tables.random_returns` measures them again; what it wrote last ships as
apps/common/published/imitation_random_returns.csv.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, fields
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from apps.common.cli import run_cli
from core_models.errors import UserError
from core_models.files import write_atomic

from ..demonstrations import RandomPolicy
from ..environments.making import make_env
from ..evaluation import returns_of

SHIPPED = "imitation_random_returns.csv"
EPISODES, SEED = 100, 0


@dataclass(frozen=True)
class RandomReturn:
    """What random actions are worth in an environment."""

    name: str
    """As in the tables, e.g. Walker2d."""
    environment: str
    """Its gymnasium id."""
    environment_kwargs: dict[str, Any] = field(default_factory=dict)
    mean: float = float("nan")
    std: float = float("nan")
    episodes: int = EPISODES
    seed: int = SEED
    longest: int = 0
    """Steps of the longest episode: a time limit above it changes nothing."""


ENVIRONMENTS = (
    RandomReturn("CartPole", "CartPole-v1"),
    RandomReturn("Acrobot", "Acrobot-v1"),
    RandomReturn("MountainCar", "MountainCar-v0"),
    RandomReturn("Reacher", "Reacher-v4"),
    RandomReturn("HalfCheetah", "HalfCheetah-v4"),
    RandomReturn("Hopper", "Hopper-v4"),
    RandomReturn("Walker2d", "Walker2d-v4"),
    RandomReturn("Ant", "Ant-v4", {"use_contact_forces": True}),
    RandomReturn("Humanoid", "Humanoid-v4"),
    RandomReturn("CarRacing", "CarRacing-v3"),
)
"""Those of the table of Ho and Ermon, to be measured, and the one from pixels that stands beside them."""


def measure(of: RandomReturn) -> RandomReturn:
    """Returns the same environment with its figures; one episode after the other, as they were measured first."""
    with closing(make_env(of.environment, of.environment_kwargs)) as env:
        found = returns_of(RandomPolicy(env.action_space, of.seed), env, episodes=of.episodes, seed=of.seed)
    return RandomReturn(
        of.name, of.environment, of.environment_kwargs, round(float(found.values.mean()), 4),
        round(float(found.values.std()), 4), of.episodes, of.seed, int(found.lengths.max()),
    )  # fmt: skip


@lru_cache(maxsize=1)
def shipped() -> tuple[RandomReturn, ...]:
    """Returns the figures that ship."""
    text = (files("apps.common.published") / SHIPPED).read_text(encoding="utf-8")
    return tuple(
        RandomReturn(
            line["name"], line["environment"], json.loads(line["environment_kwargs"]), float(line["mean"]),
            float(line["std"]), int(line["episodes"]), int(line["seed"]), int(line["longest"]),
        )
        for line in csv.DictReader(io.StringIO(text))
    )  # fmt: skip


def random_return(environment: str, environment_kwargs: dict[str, Any] | None = None) -> float:
    """Returns the mean return of random actions that ships.

    Raises:
        UserError: when it was not measured.
    """
    for own in shipped():
        if (own.environment, own.environment_kwargs) == (environment, environment_kwargs or {}):
            return own.mean
    known = ", ".join(own.environment for own in shipped())
    raise UserError(f"expected an environment whose random return is known ({known}), got {environment}")


def write_random_returns(out: Path | None = None, only: list[str] | None = None, episodes: int = EPISODES) -> None:
    """Measures the returns of random actions and prints them as CSV.

    Args:
        out: The file to write instead.
        only: Environments by their names in the tables, e.g. [CartPole, Ant]; all where left out.
        episodes: How many episodes of each.
    """
    known = {own.name: own for own in ENVIRONMENTS}
    for name in only or ():
        if name not in known:
            raise UserError(f"--only: expected names of {', '.join(known)}, got {name!r}")
    text = io.StringIO()
    writer = csv.DictWriter(text, [own.name for own in fields(RandomReturn)], lineterminator="\n")
    writer.writeheader()
    for name in only or known:
        own = known[name]
        found = measure(RandomReturn(own.name, own.environment, own.environment_kwargs, episodes=episodes))
        writer.writerow({**asdict(found), "environment_kwargs": json.dumps(found.environment_kwargs)})
    if out is None:
        print(text.getvalue(), end="")
    else:
        write_atomic(out, text.getvalue())


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit status."""
    return run_cli(write_random_returns, prog="python -m apps.imitation.tables.random_returns", argv=argv)


if __name__ == "__main__":
    sys.exit(main())
