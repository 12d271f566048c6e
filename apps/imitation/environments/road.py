"""What is driven on and how a car moves: a road with one bend, and a car in the road's own coordinates.

A place is `progress` along the centre line and `lateral` from it, to the right [m]; a heading is relative to the
road's, clockwise [radians]; a curvature is positive where the road bends right [1/m]. With curvature k of the road and
k_c of the car's path,

    progress' = v cos(heading) / (1 - k lateral)      lateral' = v sin(heading)      heading' = v k_c - k progress'

The tyres hold up to GRIP: v^2 k_c stays below it, so that a car too fast runs wide. Steering follows its command with
a lag. Source of the coordinates: Werling, Ziegler, Kammel and Thrun, "Optimal trajectory generation for dynamic street
scenarios in a Frenet frame", ICRA 2010; the numbers are ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

HALF_WIDTH = 6.0
"""Of the road, which has three lanes [m]."""
LANE = 4.0
"""Width of a lane [m]."""
LENGTH, WIDTH = 4.4, 1.8
"""Of every car [m]."""
FRAME = 0.1
"""Between two actions [s]."""
SUBSTEPS = 4
TOP_SPEED = 30.0
"""At full throttle, after a while [m/s]."""
THROTTLE, BRAKE = 4.0, 8.0
"""Acceleration of a full throttle at rest, and of the brake [m/s^2]."""
GRIP = 10.0
"""Largest acceleration to the side [m/s^2]."""
SHARPEST = 0.04
"""Curvature of the path at full steering [1/m]."""
LAG = 0.1
"""Time constant of the steering [s]."""
LAID_BEFORE, LAID_AFTER = 60, 420
"""How far the road is laid out before and after the start [m]; it goes on straight."""


class Road:
    """A road that is straight, bends with a constant curvature, and is straight again.

    Args:
        curvature: of the bend, positive to the right [1/m].
        start: where the bend begins [m].
        end: where it ends [m].
        ramp: over how many metres the curvature grows and falls.
    """

    def __init__(self, curvature: float, start: float, end: float, ramp: float = 15.0) -> None:
        self.bend, self.start, self.end, self.ramp = curvature, start, end, ramp
        along = np.arange(-LAID_BEFORE, LAID_AFTER + 1)
        curvatures = np.array([self.curvature(float(own)) for own in along])
        self.headings: Float[np.ndarray, " metres"] = np.cumsum(curvatures) - curvatures[0]
        # between two points the road runs along the mean of their headings
        means = (self.headings[1:] + self.headings[:-1]) / 2
        self.forward = np.concatenate([[0.0], np.cumsum(np.cos(means))])
        self.right = np.concatenate([[0.0], np.cumsum(np.sin(means))])

    def curvature(self, progress: float) -> float:
        """Returns the curvature at a place [1/m]."""
        inside = min(progress - self.start, self.end - progress) / self.ramp
        return self.bend * min(max(inside, 0.0), 1.0)

    def in_bend(self, progress: float) -> bool:
        """Returns whether a place lies in the bend, where its curvature is the full one."""
        return self.start + self.ramp <= progress <= self.end - self.ramp

    def heading(self, progress: float) -> float:
        """Returns the heading of the road at a place, from its start [radians]."""
        place = min(max(progress + LAID_BEFORE, 0.0), LAID_BEFORE + LAID_AFTER - 1.0)
        first = int(place)
        return float(self.headings[first] + (place - first) * (self.headings[first + 1] - self.headings[first]))

    def seen(
        self, progress: float, lateral: float, heading: float, behind: int, ahead: int
    ) -> tuple[float, Float[np.ndarray, " metres"], Float[np.ndarray, " metres"], Float[np.ndarray, " metres"]]:
        """Returns a stretch of the centre line as seen from a car.

        Args:
            progress: where the car is.
            lateral: likewise.
            heading: likewise.
            behind: how far back the stretch begins [m].
            ahead: how far on it ends [m].

        Returns:
            The progress of its first point, and for points 1 m apart along the line: how far ahead of the car they lie
            [m], how far to its right [m], and the road's heading there relative to the car's [radians].
        """
        # where the road is laid out no further it is straight, and one place on it looks like another
        place = min(max(progress + LAID_BEFORE, float(behind)), LAID_BEFORE + LAID_AFTER - ahead - 1.0)
        first = int(place)
        rest = place - first
        own = float(self.headings[first] + rest * (self.headings[first + 1] - self.headings[first]))
        x = float(self.forward[first] + rest * (self.forward[first + 1] - self.forward[first]))
        y = float(self.right[first] + rest * (self.right[first + 1] - self.right[first]))
        x, y = x - lateral * math.sin(own), y + lateral * math.cos(own)
        stretch = slice(first - behind, first + ahead)
        east, south = self.forward[stretch] - x, self.right[stretch] - y
        facing = own + heading
        cosine, sine = math.cos(facing), math.sin(facing)
        start = progress - rest - behind
        return start, cosine * east + sine * south, cosine * south - sine * east, self.headings[stretch] - facing


@dataclass
class Car:
    """A car on a road."""

    progress: float
    lateral: float
    heading: float
    speed: float
    """[m/s]."""
    path_curvature: float = 0.0
    """What the wheels are turned to, before the tyres have their say [1/m]."""

    def drive(self, road: Road, steer: float, throttle: float) -> float:
        """Moves the car for one frame.

        Args:
            road: what it drives on.
            steer: from -1, left, to 1, right.
            throttle: from -1, full brake, to 1.

        Returns:
            The distance that it covered in the road's direction [m].
        """
        dt = FRAME / SUBSTEPS
        covered = 0.0
        for _ in range(SUBSTEPS):
            self.path_curvature += (SHARPEST * steer - self.path_curvature) * dt / LAG
            held = GRIP / max(self.speed, 1.0) ** 2
            curvature = min(max(self.path_curvature, -held), held)
            k = road.curvature(self.progress)
            along = self.speed * math.cos(self.heading)
            ahead = along / (1 - k * self.lateral)
            self.progress += ahead * dt
            self.lateral += self.speed * math.sin(self.heading) * dt
            self.heading += (self.speed * curvature - k * ahead) * dt
            gain = THROTTLE * (throttle - (self.speed / TOP_SPEED) ** 2) if throttle > 0 else BRAKE * throttle
            self.speed = max(self.speed + gain * dt, 0.0)
            covered += along * dt
        return covered

    def drive_on(self, road: Road) -> None:
        """Moves the car for one frame at its speed, its place across the road kept."""
        self.progress += self.speed * FRAME / (1 - road.curvature(self.progress) * self.lateral)

    @property
    def off_road(self) -> bool:
        """Whether its middle has left the road."""
        return abs(self.lateral) > HALF_WIDTH

    def hits(self, other: Car) -> bool:
        """Returns whether the two touch; they are taken as aligned with the road."""
        return abs(self.progress - other.progress) < LENGTH and abs(self.lateral - other.lateral) < WIDTH
