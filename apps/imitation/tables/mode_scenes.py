"""The scenes of the table of InfoGAIL: environments, how much is shown and learnt there, and what is measured.

The settings were chosen on seeds of 100 and more; the table has seeds from 0. `modes.py` runs them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from apps.common.cells import Better

from ..demonstrations import Demonstrations
from .mode_evaluation import ModeRollout, code_accuracy, mean_total, mutual_information, radial_error


class Measure(NamedTuple):
    """A column."""

    column: str
    unit: str
    better: Better
    of: Callable[[list[ModeRollout], Demonstrations], float] | None = None
    """What it makes of episodes; None where no episodes are judged."""


@dataclass(frozen=True)
class Scene:
    """An environment of the table."""

    env_id: str
    codes: int
    trajectories: int
    """Of the demonstrations."""
    steps: int
    """Of the learners that act [env steps]."""
    environments: int
    """Side by side."""
    each: int
    """Episodes of each code in the evaluation."""
    measures: tuple[Measure, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    deterministic: bool = False
    features: dict[str, Any] | None = None
    """Settings of `train_features`, where images are seen through them."""
    frames: Measure | None = None
    """The column of who tells modes from single frames, where the table has it."""
    gail: dict[str, Any] = field(default_factory=dict)
    info_gail: dict[str, Any] = field(default_factory=dict)
    """Those of Circles are configs/imitation/info_gail_circles.yaml too."""

    @property
    def task(self) -> str | None:
        """Of Driving."""
        return self.kwargs.get("task")


def _accuracy(rollouts: list[ModeRollout], _: Demonstrations) -> float:
    return 100 * code_accuracy(rollouts)


def _fraction(rollouts: list[ModeRollout], expert: Demonstrations) -> float:
    return mean_total(rollouts) / return_of(expert)


def return_of(expert: Demonstrations) -> float:
    """Returns the mean return of the demonstrations."""
    return float(expert.needed("returns", "the distance is measured by").mean())


CIRCLES = Scene(
    "Circles-v0", codes=3, trajectories=60, steps=450_000, environments=10, each=50,
    measures=(
        Measure("Circles matched accuracy", "%", "higher", _accuracy),
        Measure("Circles NMI", "of 1", "higher", lambda rollouts, _: mutual_information(rollouts)),
        Measure("Circles radial error", "units of length", "lower", lambda rollouts, _: radial_error(rollouts)),
    ),
    # a discriminator like InfoGAIL's
    gail={
        "gamma": 0.99, "discriminator_hidden": [128, 128], "discriminator_learning_rate": 1e-3,
        "discriminator_steps": 20, "discriminator_batch": 500,
    },
    info_gail={"codes": 3, "critic": "gan", "gamma": 0.99, "information": 0.2},
)  # fmt: skip


def _driving(task: str, steps: int) -> Scene:
    common = {"gamma": 0.97, "generator_settings": {"target_kl": 0.02}}
    return Scene(
        "Driving-v0", codes=2, trajectories=80, steps=steps, environments=10, each=50, kwargs={"task": task},
        measures=(
            Measure(f"Driving {task} code accuracy", "%", "higher", _accuracy),
            Measure(f"Driving {task} rollout distance", "fraction of expert", "higher", _fraction),
        ),
        frames=Measure(f"Frames of Driving {task}", "%", "higher"),
        deterministic=True,
        features={"size": 24, "explored": 16_000, "epochs": 6},
        gail={
            **common, "discriminator_hidden": [128, 128], "discriminator_learning_rate": 1e-3,
            "discriminator_steps": 20, "discriminator_batch": 500,
        },
        # a constant and a fifth of D, as published; in a step an expert covers 2 m. With less information the sides of
        # a bend, which nothing on the road forces apart, stay mixed; with Q told of the action they do too, since it
        # then knows the code by how the hand moves. A soft target keeps it from rewarding ever wider sides
        info_gail={
            **common, "codes": 2, "survival": 3.0, "critic_weight": 0.2, "information": 2.0, "target": 0.7,
            "augmentation": 0.2, "spread": 0.2, "posterior_actions": False,
        },
    )  # fmt: skip


SCENES = {
    "Circles": CIRCLES,
    # on seed 100 InfoGAIL drives 0.91 (turn) and 0.96 (pass) of the expert's distance after 300,000 steps, 0.96 and
    # 0.99 after twice as many
    "Driving turn": _driving("turn", 600_000),
    "Driving pass": _driving("pass", 600_000),
}
