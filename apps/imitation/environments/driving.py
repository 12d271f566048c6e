"""Driving: a road seen by a camera, and a choice that experts make either way, nothing saying which.

`turn`: a right bend, taken on its inside or its outside. `pass`: a slower car in the middle lane, passed on its left or
its right. An episode begins at the decision point, to which a scripted driver has brought the car, and lasts up to
HORIZON frames of 0.1 s; it ends early when the car leaves the road or hits the other one. Every episode has its own
light, ground, hills, trees, bend, speeds and places (`scenery.py`).

Observation: `image` (64, 64, 3) and `state`: the speed and the last two actions. Where the car is across the road and
how it stands to it only the image says. Action: steering (-1 left, 1 right) and throttle (-1 is the full brake).
Reward: the distance covered along the road [m] while on it and before any collision.

After the driving tasks of Li, Song and Ermon, "InfoGAIL", NIPS 2017, section 5, which are in the simulator TORCS; the
numbers are ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from core_models.errors import UserError

from .drawing import draw
from .experts import MODES, ScriptedDriver, Task
from .modes import label_of
from .road import FRAME, LANE, TOP_SPEED, Car, Road
from .scenery import SIZE, Scenery

HORIZON = 100
"""Frames of an episode, of 0.1 s each."""
PREFIX = 15
"""Frames that are driven before an episode begins."""
CLEAR = 1.0
"""How far from the middle of the road the mean place in a bend must be for its side to count [m]."""


class Driving(gymnasium.Env[Any, np.ndarray]):
    """A drive. Registered as `Driving-v0`, with episodes of HORIZON frames.

    `reset(options={"code": 1})` writes the mode that somebody is going to follow (`MODES`) into every `info`, as a
    label for evaluation; nothing else depends on it. Each `info` says the `distance` covered [m], whether the car has
    `collided` or is `offroad`, and for `evaluate_mode` where it is: `progress` and `lateral` [m], and either `bend`
    (whether it is in the bend) or of the other car its `gap` ahead and its own place `other` across the road [m].

    Args:
        task: `turn` or `pass`.
        render_mode: `rgb_array`, or None.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(self, task: Task = "turn", render_mode: str | None = None) -> None:
        if task not in MODES:
            raise UserError(f"expected the task to be one of {', '.join(MODES)}, got {task!r}")
        self.task, self.render_mode = task, render_mode
        self.observation_space = spaces.Dict(
            image=spaces.Box(0, 255, (SIZE, SIZE, 3), np.uint8),
            state=spaces.Box(np.array([0, -1, -1, -1, -1], np.float32), 1.0, (5,), np.float32),
        )
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.other: Car | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict, dict[str, Any]]:
        """Brings the car to the decision point of a new drive."""
        super().reset(seed=seed)
        self._label = label_of(options, 2)
        generator = self.np_random
        self.scenery = Scenery(generator)
        if self.task == "turn":
            start = generator.uniform(5, 25)
            self.road = Road(1 / generator.uniform(60, 90), start, start + generator.uniform(130, 160))
        else:
            # a slight bend all along, to either side
            self.road = Road(float(generator.choice([-1, 1])) / generator.uniform(250, 600), -100, 1000)
        self.car = Car(0.0, generator.uniform(-1, 1), generator.uniform(-0.03, 0.03), generator.uniform(16, 20))
        driver = ScriptedDriver(self.task, None, generator)
        actions = []
        # the place of the prefix is before the start: the car is set back by what it covers
        self.car.progress = -PREFIX * FRAME * self.car.speed
        for _ in range(PREFIX):
            actions.append(driver.act(self.road, self.car))
            self.car.drive(self.road, *map(float, actions[-1]))
        self._actions = actions[-2:]
        if self.task == "pass":
            gap, speed = generator.uniform(18, 30), generator.uniform(10, 13)
            self.other = Car(self.car.progress + gap, generator.uniform(-0.1, 0.1) * LANE, 0.0, speed)
        self.distance, self.collided, self.offroad = 0.0, False, False
        self._image = draw(self.scenery, self.road, self.car, self.other)
        return self._observation(), self._info()

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Drives for a frame; the reward is the distance covered [m].

        Raises:
            UserError: when the action is not finite.
        """
        steer, throttle = float(action[0]), float(action[1])
        if not np.isfinite(steer + throttle):
            raise UserError(f"expected finite steering and throttle, got {steer}, {throttle}")
        steer, throttle = min(max(steer, -1.0), 1.0), min(max(throttle, -1.0), 1.0)
        covered = 0.0
        if not (self.collided or self.offroad):
            covered = self.car.drive(self.road, steer, throttle)
            if self.other is not None:
                self.other.drive_on(self.road)
                self.collided = self.car.hits(self.other)
            self.offroad = self.car.off_road
        self.distance += covered
        self._actions = [self._actions[1], np.array([steer, throttle], np.float32)]
        self._image = draw(self.scenery, self.road, self.car, self.other)
        return self._observation(), covered, self.collided or self.offroad, False, self._info()

    def render(self) -> np.ndarray | None:
        """Returns what the camera sees, (256, 256, 3)."""
        return None if self.render_mode is None else self._image.repeat(4, axis=0).repeat(4, axis=1)

    def _observation(self) -> dict[str, np.ndarray]:
        state = np.concatenate([[self.car.speed / TOP_SPEED], self._actions[1], self._actions[0]])
        return {"image": self._image, "state": np.clip(state, -1, 1).astype(np.float32)}

    def _info(self) -> dict[str, Any]:
        info: dict[str, Any] = {
            **self._label,
            "distance": self.distance,
            "collided": self.collided,
            "offroad": self.offroad,
            "progress": self.car.progress,
            "lateral": self.car.lateral,
        }
        if self.other is None:
            return info | {"bend": self.road.in_bend(self.car.progress)}
        return info | {"gap": self.other.progress - self.car.progress, "other": self.other.lateral}


def evaluate_mode(trajectory: Sequence[Mapping[str, Any]]) -> int | None:
    """Returns which way was chosen (`MODES`), from where the car drove; None where no choice can be told.

    Of `turn`: the side of the road on which it was in the bend, on average over at least 10 frames; None if it left the
    road there. Of `pass`: the side of the other car on which it was when it came abreast of it.

    Args:
        trajectory: the `info` of each frame of an episode.
    """
    if "gap" in trajectory[0]:
        abreast = next((info for info in trajectory if info["gap"] <= 0), None)
        if abreast is None or abreast["collided"] or abreast["offroad"]:
            return None
        return 0 if abreast["lateral"] < abreast["other"] else 1
    inside = [info for info in trajectory if info["bend"]]
    if len(inside) < 10 or inside[-1]["offroad"]:
        return None
    mean = float(np.mean([info["lateral"] for info in inside]))
    if abs(mean) < CLEAR:
        return None
    return 0 if mean > 0 else 1
