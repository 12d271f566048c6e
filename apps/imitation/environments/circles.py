"""Circles: a point in the plane that experts drive round one of three circles, nothing saying which.

At each step the point moves STEP in the direction of the action. The state is its last five positions, oldest first
(10 numbers). It always starts at the origin, and there all three circles touch, running to the right: the first states
of the three modes are alike, and only what was done since tells them apart.

Reward: minus the distance to the nearest circle, so that the return is minus the radial error added up. It doesn't
see whether the point goes round: `evaluate_mode` does.

Source: Li, Song and Ermon, "InfoGAIL", NIPS 2017, section 5 and figure 1, which shows paths and gives no radii: those
here are ours.
"""

from __future__ import annotations

import math
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from jaxtyping import Float, Int

from core_models.errors import UserError

from .modes import label_of

STEP = 0.1
"""How far the point moves in a step."""
HORIZON = 100
"""Steps of an episode: 1.6, 3.2 and 2.1 times round the three circles."""
HISTORY = 5
"""Positions in a state."""
RADII = np.array([1.0, 0.5, 0.75])
SIDES = np.array([1.0, 1.0, -1.0])
"""1 where the circle lies above the start and is run counterclockwise, -1 where below and clockwise."""
CENTRES = np.stack([np.zeros(3), SIDES * RADII], axis=1)
NAMES = ("large above", "small above", "below")
NOISE = 0.15
"""Standard deviation of the experts' direction [radians]."""
CORRECTION = 2.0
"""How much an expert turns towards its circle for each unit of distance [radians]."""
TOLERANCE = 0.15
"""Mean radial error up to which a path is on a circle; the experts' is 0.02, that to another circle 0.3 or more."""

States = Float[np.ndarray, "*batch 10"]
Positions = Float[np.ndarray, "*batch steps 2"]
PIXELS, SCALE = 160, 40.0
"""Of a picture: its side, and pixels for each unit of distance."""


class Circles(gymnasium.Env[np.ndarray, np.ndarray]):
    """The point and its last positions. Registered as `Circles-v0`, with episodes of HORIZON steps.

    An action is a direction of any length; one of no length goes on as before. `reset(options={"code": 2})` writes the
    mode that somebody is going to follow into every `info`, as a label for evaluation; nothing else depends on it.

    Args:
        render_mode: `rgb_array`, or None.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        # far enough for a straight line
        furthest = STEP * HORIZON + 1
        self.observation_space = spaces.Box(-furthest, furthest, (2 * HISTORY,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self._start({})

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Puts the point back to the origin, heading right."""
        super().reset(seed=seed)
        self._start(label_of(options, len(RADII)))
        return self._state.copy(), dict(self._label)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Moves the point; the reward is minus its distance to the nearest circle.

        Raises:
            UserError: when the action is not finite.
        """
        x, y = float(action[0]), float(action[1])
        length = math.hypot(x, y)
        if not math.isfinite(length):
            raise UserError(f"expected a direction of two finite numbers, got {x}, {y}")
        if length > 0:
            self._direction = (x / length, y / length)
        self._state[:-2] = self._state[2:]
        self._state[-2] = self._state[-4] + STEP * self._direction[0]
        self._state[-1] = self._state[-3] + STEP * self._direction[1]
        error = float(radial_distances(self._state[-2:]).min())
        self._path.append((float(self._state[-2]), float(self._state[-1])))
        return self._state.copy(), -error, False, False, {**self._label, "radial_error": error}

    def render(self) -> np.ndarray | None:
        """Returns the path so far over the three circles, (160, 160, 3)."""
        if self.render_mode is None:
            return None
        angles = np.linspace(0, 2 * np.pi, 400)
        rings = CENTRES[:, None] + RADII[:, None, None] * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
        image = np.full((PIXELS, PIXELS, 3), 255, np.uint8)
        _mark(image, rings.reshape(-1, 2), (200, 200, 200), 0)
        ends = np.array(self._path)
        between = np.linspace(ends[:-1], ends[1:], 8).reshape(-1, 2)
        _mark(image, between, (0, 114, 178), 1)
        _mark(image, ends[-1:], (213, 94, 0), 3)
        return image

    def _start(self, label: dict[str, int]) -> None:
        self._label = label
        self._state = np.zeros(2 * HISTORY, np.float32)
        self._direction = (1.0, 0.0)
        self._path = [(0.0, 0.0)]


def circle_expert(
    states: States, codes: Int[np.ndarray, "*batch"], noise: Float[np.ndarray, "*batch"] | float = 0.0
) -> Float[np.ndarray, "*batch 2"]:
    """Returns the directions of experts, one for each state and its code.

    Args:
        states: where they are.
        codes: the circles that they follow.
        noise: draws from N(0, 1) that make their hands unsteady.
    """
    radius, side = RADII[codes], SIDES[codes]
    outward = states[..., -2:] - CENTRES[codes]
    distance = np.linalg.norm(outward, axis=-1)
    # along the tangent, bent inwards: the chord of a step, and back to the circle
    inward = np.arcsin(STEP / (2 * radius)) + np.clip(CORRECTION * (distance - radius), -1.0, 1.0)
    angle = np.arctan2(outward[..., 1], outward[..., 0]) + side * (np.pi / 2 + inward) + NOISE * noise
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1).astype(np.float32)


def positions_of(states: States) -> Float[np.ndarray, "*batch 2"]:
    """Returns the newest position in each state."""
    return states[..., -2:]


def radial_distances(points: Float[np.ndarray, "*batch 2"]) -> Float[np.ndarray, "*batch 3"]:
    """Returns the distance of points to each of the three circles.

    Example:
        >>> radial_distances(np.array([0.0, 1.0])).tolist()  # on top of the small one, in the middle of the large one
        [1.0, 0.0, 1.0]
    """
    return np.abs(np.linalg.norm(points[..., None, :] - CENTRES, axis=-1) - RADII)


def radial_errors(positions: Positions) -> Float[np.ndarray, "*batch 3"]:
    """Returns the mean distance of a path, or of each of several, to each circle."""
    return radial_distances(positions).mean(axis=-2)


def turns(positions: Positions) -> Float[np.ndarray, "*batch 3"]:
    """Returns how many times a path runs round each centre the way the experts do; the other way counts less than 0."""
    outward = positions[..., :, None, :] - CENTRES
    angles = np.unwrap(np.arctan2(outward[..., 1], outward[..., 0]), axis=-2)
    return SIDES * (angles[..., -1, :] - angles[..., 0, :]) / (2 * np.pi)


def evaluate_mode(positions: Float[np.ndarray, "steps 2"]) -> int | None:
    """Returns the circle that a path follows, or None where it follows none.

    It follows the one with the smallest radial error, if that is at most TOLERANCE and the path runs at least half as
    far round as its length would take it: trembling near the start is close to all three.
    """
    errors = radial_errors(positions)
    nearest = int(errors.argmin())
    expected = STEP * (len(positions) - 1) / (2 * np.pi * RADII[nearest])
    if errors[nearest] > TOLERANCE or turns(positions)[nearest] < expected / 2:
        return None
    return nearest


def _mark(image: np.ndarray, points: np.ndarray, colour: tuple[int, int, int], reach: int) -> None:
    """Paints squares of 2 reach + 1 pixels round points; what lies outside is left out."""
    columns = np.round(PIXELS / 2 + SCALE * points[:, 0]).astype(int)
    # the circles reach 2 above the start and 1.5 below
    rows = np.round(PIXELS / 2 + SCALE * (0.25 - points[:, 1])).astype(int)
    for down in range(-reach, reach + 1):
        for right in range(-reach, reach + 1):
            y, x = rows + down, columns + right
            seen = (y >= 0) & (y < PIXELS) & (x >= 0) & (x < PIXELS)
            image[y[seen], x[seen]] = colour
