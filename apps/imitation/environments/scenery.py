"""The day of a drive: light, ground, sky, hills, trees and paints, drawn anew for each episode.

Nothing here says anything of what the driver does. What it does is make frames differ: the ranges below set how hard it
is to tell the modes of driving from pixels, and are frozen (`difficulty.py` measures it).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float, UInt32

SIZE = 64
"""Rows and columns of an image."""
SKYLINE = 18
"""Rows above the horizon."""
ROWS = SIZE - SKYLINE
GRAINS = 5
"""Shades of the asphalt, and of the ground beside it."""
DASH, FAINT_DASH, LINE = 2 * GRAINS, 2 * GRAINS + 1, 2 * GRAINS + 2
KINDS = 2 * GRAINS + 3
"""What can be on the ground: shades of asphalt, of ground, and three of paint."""

LIGHT = (0.6, 1.05)
"""Brightness of the day."""
WARMTH = 0.08
"""How much redder or bluer its light may be."""
ASPHALT = (70.0, 130.0)
"""Grey level of the road."""
EARTHS = np.array([[70, 120, 50], [110, 125, 60], [120, 95, 70]], np.float64)
"""Ground beside the road: meadow, dry grass, earth; mixtures of two."""
SKIES = np.array([[110, 165, 225], [190, 205, 220], [235, 190, 150], [150, 155, 165]], np.float64)
PAINTS = np.array(
    [[200, 40, 40], [50, 80, 180], [235, 235, 235], [40, 40, 45], [225, 190, 50], [60, 130, 80]], np.float64
)
TREES = 60
"""At most; they stand from the start on for 330 m."""
STRIP = 1024
"""Columns of the strip of sky and hills, which closes on itself."""
PIXELS_PER_RADIAN = 44.0
"""How fast it scrolls."""


class Scenery:
    """Everything about the look of an episode.

    Args:
        generator: of the day.

    Attributes:
        colours: of what is on the ground, packed, kind by kind for each row below the horizon.
        table_rows: where in `colours` each row begins.
        phase: where on the ground the road begins [m].
        own: the paints of the own car: body, roof, glass, lamps and shadow.
        other: those of the other car.
        trunk: of trees.
    """

    def __init__(self, generator: np.random.Generator) -> None:
        self._light = generator.uniform(*LIGHT) * (1 + WARMTH * generator.uniform(-1, 1) * np.array([1.0, 0.0, -1.0]))
        self.phase = generator.uniform(0, 100)
        first, second = EARTHS[generator.choice(len(EARTHS), 2, replace=False)]
        share = generator.uniform()
        self._earth = share * first + (1 - share) * second
        self._sky = SKIES[generator.integers(len(SKIES))] + generator.uniform(-15, 15, 3)
        self.colours = self._table(generator)
        self.table_rows = np.arange(ROWS)[:, None] * KINDS
        self._strip = self._hills(generator)
        self._look = generator.uniform(0, STRIP)
        self.trunk = self._lit(np.array([75.0, 55.0, 40.0]))
        self._trees = self._plant(generator)
        self.own, self.other = (self._paint(PAINTS[generator.integers(len(PAINTS))]) for _ in range(2))

    def skyline(self, heading: float) -> UInt32[np.ndarray, "18 64"]:
        """Returns sky and hills where one looks along a heading [radians]."""
        first = int(self._look + PIXELS_PER_RADIAN * heading) % STRIP
        return self._strip[:, first : first + SIZE]

    def trees(self, progress: float, ahead: float) -> Iterator[tuple[Float[np.ndarray, "2"], float, np.uint32]]:
        """Yields the trees that stand in a stretch of the road, from far to near: place, height [m] and colour."""
        places, heights, crowns = self._trees
        last, first = np.searchsorted(-places[:, 0], [-progress - ahead, -progress])
        for i in range(last, first):
            yield places[i], heights[i], crowns[i]

    def _lit(self, colour: Float[np.ndarray, "*batch 3"]) -> Any:
        """Returns colours (*batch) in the light of the day, packed in 4 bytes, so that one look-up finds all of one."""
        packed = np.zeros((*colour.shape[:-1], 4), np.uint8)
        packed[..., :3] = np.clip(colour * self._light, 0, 255)
        return packed.view(np.uint32)[..., 0]

    def _table(self, generator: np.random.Generator) -> UInt32[np.ndarray, " places"]:
        """Returns the colour of each kind of ground in each row, the haze in it."""
        grains = np.linspace(-1, 1, GRAINS)[:, None]
        asphalt = generator.uniform(*ASPHALT) + np.array([0.0, 0.0, 4.0])
        paint = np.array([225.0, 225.0, 220.0]) if generator.uniform() < 0.7 else np.array([225.0, 185.0, 70.0])
        kinds = np.concatenate(
            [asphalt + 10 * grains, self._earth * (1 + 0.18 * grains), [paint, (paint + asphalt) / 2, paint]]
        )
        rows = np.arange(ROWS) + 0.5
        haze = np.clip(generator.uniform(0.4, 1.2) / rows, 0, 0.8)[:, None, None]
        return self._lit((1 - haze) * kinds + haze * self._horizon).reshape(-1)

    @property
    def _horizon(self) -> np.ndarray:
        return 0.5 * self._sky + 0.5 * 215

    def _hills(self, generator: np.random.Generator) -> UInt32[np.ndarray, "18 columns"]:
        angle = np.linspace(0, 2 * np.pi, STRIP, endpoint=False)
        waves = np.arange(3, 40)
        size = generator.normal(size=len(waves)) / waves**0.8
        phases = generator.uniform(0, 2 * np.pi, len(waves))
        height = generator.uniform(1, 6) + 2.5 * (size @ np.sin(waves[:, None] * angle + phases[:, None]))
        down = (SKYLINE - np.arange(SKYLINE))[:, None, None]
        sky = self._horizon + (self._sky - self._horizon) * (down / SKYLINE)
        hill = 0.55 * self._earth * generator.uniform(0.5, 1.0) + 0.45 * self._horizon
        strip = self._lit(np.where(down <= height[None, :, None], hill, sky))
        return np.concatenate([strip, strip[:, :SIZE]], axis=1)

    def _plant(self, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        n = int(generator.integers(5, TREES))
        progress = np.sort(generator.uniform(0, 330, n))[::-1]
        lateral = generator.uniform(8, 20, n) * generator.choice([-1, 1], n)
        leaves = np.array([55.0, 95.0, 45.0]) * generator.uniform(0.6, 1.3, (n, 1)) + generator.uniform(-15, 35, 3)
        return np.stack([progress, lateral], axis=1), generator.uniform(3, 8, n), self._lit(leaves)

    def _paint(self, colour: np.ndarray) -> tuple[np.uint32, ...]:
        colours = np.stack([colour, 0.8 * colour, [45, 55, 65], [150, 30, 25], [25, 25, 28]])
        return tuple(self._lit(colours))
