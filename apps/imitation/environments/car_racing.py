"""A scripted driver of gymnasium's CarRacing: it knows the track, which a policy sees in pixels alone.

It steers towards a point of the track's middle line a moment ahead (pure pursuit: Coulter, "Implementation of the pure
pursuit path tracking algorithm", CMU-RI-TR-92-01, 1992), and drives as fast as the sharpest of the bends ahead lets it.
The car has rear-wheel drive and slides when it is driven and steered at once: the driver lifts off while it steers.

Its hand is unsteady: the car is steered a little otherwise than it meant to, and what is recorded is what it meant, in
places where a clone will come to and an accurate driver never is (Laskey, Lee, Fox, Dragan and Goldberg, "DART: noise
injection for robust imitation learning", CoRL 2017).
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from jaxtyping import Float

from core_models.errors import UserError

CRUISE, SLOWEST = 80.0, 35.0
"""Speeds [units of length a second]; a tile of the track is 3.5 long."""
GRIP = 250.0
"""Lateral acceleration at which bends are driven [units / s^2]."""
SEEN = 18
"""How many tiles ahead bends are looked for."""
UNSTEADY, LASTING = 0.2, 0.9
"""Of the hand: deviation of the steering [share of its range], and how much of it stays from frame to frame."""


class TrackDriver:
    """A driver, as a policy that sees the track instead of the image.

    Args:
        env: CarRacing, which is asked for the track and the car.

    Raises:
        UserError: when it is another environment.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        self.own: Any = env.unwrapped
        if type(self.own).__name__ != "CarRacing":
            raise UserError(f"expected an environment with a track and a car, CarRacing-v3, got {self.own}")

    def predict(
        self, observation: Any = None, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, None]:
        """Returns (1, 3), as SB3's `predict`: steer, gas and brake of the next frame; nothing is seen."""
        hull = self.own.car.hull
        place, heading = np.array(hull.position), np.array([-np.sin(hull.angle), np.cos(hull.angle)])
        speed = float(np.hypot(*hull.linearVelocity))
        line = np.array([tile[2:] for tile in self.own.track])
        nearest = int(((line - place) ** 2).sum(1).argmin())
        ahead = np.roll(line, -nearest, axis=0)
        aim = ahead[2 + int(speed / 12)] - place
        error = float(np.arctan2(heading[0] * aim[1] - heading[1] * aim[0], heading @ aim))  # positive to the left
        wanted = float(np.clip(np.sqrt(GRIP / max(sharpest(ahead[: SEEN + 1]), 1e-3)), SLOWEST, CRUISE))
        steer = -2.0 * error + 0.1 * hull.angularVelocity
        gas = float(np.clip(0.1 * (wanted - speed), 0, 1)) * max(0.0, 1 - 1.5 * abs(steer))
        brake = float(np.clip(0.04 * (speed - wanted), 0, 0.6))
        action = np.clip([steer, gas, brake], [-1, 0, 0], 1)
        return action[None].astype(np.float32), None


class UnsteadyHand(gymnasium.ActionWrapper[Any, Any, Any]):
    """CarRacing that is steered a little otherwise than it is told to, by a noise that lasts.

    Args:
        env: CarRacing.
        seed: of the noise; episode after episode draws on.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], seed: int = 0) -> None:
        super().__init__(env)
        self.hand = np.random.default_rng(seed)
        self._unsteady = 0.0

    def action(self, action: np.ndarray) -> np.ndarray:
        """Returns what the car is steered by: (3,) steer, gas and brake."""
        self._unsteady = LASTING * self._unsteady + UNSTEADY * np.sqrt(1 - LASTING**2) * self.hand.normal()
        return np.clip(action + np.array([self._unsteady, 0, 0]), [-1, 0, 0], 1).astype(np.float32)


def sharpest(line: Float[np.ndarray, "points 2"]) -> float:
    """Returns the largest curvature of a line [1 / unit], from the turns at every third of its points."""
    steps = np.diff(line[::3], axis=0)
    turns = np.abs(np.diff(np.unwrap(np.arctan2(steps[:, 1], steps[:, 0]))))
    lengths = np.hypot(*steps.T)
    return float((turns / lengths[1:]).max())
