"""Scripted drivers: they know the road and where the cars are, choose a side by their code, and keep to it.

A driver steers towards a lateral place: it wants a heading in proportion to how far that place is, and a curvature in
proportion to how far its heading is from the wanted one, on top of the road's own. Every driver has a style of its own
(where exactly, when, how briskly, how fast) and an unsteady hand, so that no two drives are alike.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from .road import LANE, SHARPEST, TOP_SPEED, Car, Road

Task = Literal["turn", "pass"]
MODES: dict[Task, tuple[str, str]] = {"turn": ("inside", "outside"), "pass": ("left", "right")}
"""What the codes 0 and 1 of a task mean. The bend of `turn` is a right one, so that its inside is on the right."""
SIDES: dict[Task, tuple[int, int]] = {"turn": (1, -1), "pass": (-1, 1)}
"""On which side of the road a code drives: 1 is the right."""
UNSTEADY = 0.04
"""Standard deviation of the unsteadiness of the hand [share of full steering]."""
LASTING = 0.8
"""How much of the unsteadiness stays from one frame to the next."""


class ScriptedDriver:
    """A driver of one episode.

    Args:
        task: `turn` or `pass`.
        code: which side to drive on (`MODES`), or None for a driver that keeps near the middle.
        generator: of its style and its unsteadiness.
    """

    def __init__(self, task: Task, code: int | None, generator: np.random.Generator) -> None:
        self.generator = generator
        self.speed = generator.uniform(19.0, 21.0)
        self.brisk = generator.uniform(0.9, 1.3)
        self.delay = int(generator.integers(0, 4))
        if code is None:
            self.target = generator.uniform(-1.0, 1.0)
        else:
            self.target = SIDES[task][code] * (LANE + generator.uniform(-0.5, 0.5))
        self._unsteady = 0.0

    def act(self, road: Road, car: Car) -> np.ndarray:
        """Returns the action (steer, throttle) of the next frame."""
        target = car.lateral if self.delay > 0 else self.target
        self.delay -= 1
        wanted = min(max(self.brisk * (target - car.lateral) / max(car.speed, 5.0), -0.22), 0.22)
        # the steering lags: look a moment ahead
        k = road.curvature(car.progress + 0.15 * car.speed)
        own = k * math.cos(car.heading) / (1 - k * car.lateral)
        curvature = own + 3.5 * (wanted - car.heading) / max(car.speed, 5.0)
        self._unsteady = LASTING * self._unsteady + UNSTEADY * math.sqrt(1 - LASTING**2) * self.generator.normal()
        held = (self.speed / TOP_SPEED) ** 2
        throttle = held + 0.3 * (self.speed - car.speed)
        action = np.array([curvature / SHARPEST + self._unsteady, throttle])
        return np.clip(action, -1.0, 1.0).astype(np.float32)
