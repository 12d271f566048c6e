"""What the driver's camera sees: 64 x 64 pixels of a road, its surroundings and the cars, by numpy alone.

The camera hangs behind and above the own car and looks along its heading. Each row below the horizon is a line on the
ground at one distance; the centre line is found on it, and how far beside and along the road each pixel lies tells what
is there (`GROUND`: a kind of asphalt, of ground, or paint), and the kind and the row tell the colour, from a table that
holds the light of the day and the haze. A frame is little more than these two look-ups. Sky and hills are a strip that
scrolls with the heading; trees and cars are rectangles, from far to near.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Int, UInt8

from .road import HALF_WIDTH, LANE, LENGTH, WIDTH, Car, Road
from .scenery import DASH, FAINT_DASH, GRAINS, LINE, ROWS, SIZE, SKYLINE, Scenery

FOCAL = 44.0
"""Of the camera [pixels]."""
HEIGHT, BACK = 3.2, 5.8
"""Where the camera hangs: above the ground, and behind the middle of the car [m]."""
BEHIND, AHEAD = 6, 110
"""How much of the road is looked at, behind the car and before it [m]."""
PER_METRE, ALONG_PER_METRE = 8, 4
"""Points of the ground for each metre across the road and along it."""
PERIOD = 32
"""After how many metres the ground begins again; as many are drawn across the road."""
ACROSS, ALONG = PERIOD * PER_METRE, PERIOD * ALONG_PER_METRE
COARSER = (12.0, 30.0)
"""Distances from which the ground is drawn with less of its grain, and with none and dashes run together [m]."""
TALL = 1.4
"""Height of a car [m]."""

DISTANCES = FOCAL * HEIGHT / (np.arange(ROWS) + 0.5)
"""Of what each row below the horizon shows, from the camera [m]."""


def _ground() -> Int[np.ndarray, " points"]:
    """Returns what is on the ground: (detail, along, across) in one line, the same on every road."""
    generator = np.random.default_rng(0)
    beside = np.abs((np.arange(ACROSS) + 0.5) / PER_METRE - ACROSS / PER_METRE / 2)
    along = (np.arange(ALONG) + 0.5)[:, None] / ALONG_PER_METRE
    fine = generator.standard_normal((ALONG, ACROSS))
    coarse = np.kron(generator.standard_normal((ALONG // 8, ACROSS // 16)), np.ones((8, 16)))
    details = []
    for grain, width, dash in ((fine + coarse, 0.13, DASH), (coarse, 0.25, DASH), (0 * fine, 0.45, FAINT_DASH)):
        kind = np.clip(np.round(1.2 * grain + (GRAINS - 1) / 2), 0, GRAINS - 1).astype(np.int64)
        kind += np.where(beside > HALF_WIDTH, GRAINS, 0)
        painted = along % 8 < 4 if dash == DASH else along >= 0
        kind = np.where((np.abs(beside - LANE / 2) < width) & painted, dash, kind)
        details.append(np.where(np.abs(beside - HALF_WIDTH + 0.3) < width, LINE, kind))
    return np.stack(details).reshape(-1)


GROUND = _ground()
_ASIDE = (np.arange(SIZE) + 0.5 - SIZE / 2)[None] * DISTANCES[:, None] / FOCAL
"""How far to the right of the camera each pixel of the ground lies [m]."""
_DETAIL = np.digitize(DISTANCES, COARSER)[:, None] * (ALONG * ACROSS)


def draw(scenery: Scenery, road: Road, car: Car, other: Car | None) -> UInt8[np.ndarray, "64 64 3"]:
    """Returns what the camera of a car sees."""
    start, ahead, aside, headings = road.seen(car.progress, car.lateral, car.heading, BEHIND, AHEAD)
    image = np.empty((SIZE, SIZE, 4), np.uint8)
    colours = image.view(np.uint32)[..., 0]
    colours[:SKYLINE] = scenery.skyline(road.heading(car.progress) + car.heading)
    # where a road turns away from the camera, what comes after is hidden
    ahead = np.maximum.accumulate(ahead) + BACK
    at = np.interp(DISTANCES, ahead, np.arange(len(ahead)))
    colours[SKYLINE:] = scenery.colours.take(_ground_of(scenery, start, at, aside, headings))
    for place, height, crown in scenery.trees(start + BEHIND, AHEAD - BEHIND):
        first = int(place[0] - start)
        heading, beside = headings[first], place[1]
        x = ahead[first] - beside * math.sin(heading)
        _draw_tree(colours, scenery, x, aside[first] + beside * math.cos(heading), height, crown)
    if other is not None and -BEHIND < other.progress - car.progress < AHEAD - 2:
        first = int(other.progress - start)
        heading, beside = float(headings[first]), other.lateral
        x = ahead[first] + (other.progress - start - first) - beside * math.sin(heading) - LENGTH / 2
        _draw_car(colours, x, float(aside[first]) + beside * math.cos(heading), scenery.other)
    _draw_car(colours, BACK - LENGTH / 2, 0.0, scenery.own)
    return np.ascontiguousarray(image[..., :3])


def _ground_of(scenery: Scenery, start: float, at: np.ndarray, aside: np.ndarray, headings: np.ndarray) -> np.ndarray:
    """Returns for each pixel below the horizon the place of its colour in the table."""
    points = np.arange(len(aside))
    heading = np.interp(at, points, headings)
    middle = np.interp(at, points, aside)
    cosine, sine = np.cos(heading), np.sin(heading)
    right = _ASIDE - middle[:, None]
    across = right * (PER_METRE * cosine)[:, None]
    across += ACROSS / 2
    np.clip(across, 0, ACROSS - 1, out=across)
    along = right * (ALONG_PER_METRE * sine)[:, None]
    # a place below 0 would be rounded the wrong way: whole periods on top
    along += (ALONG_PER_METRE * (start + at + scenery.phase + 4 * PERIOD))[:, None]
    place = along.astype(np.int64)
    place &= ALONG - 1
    place *= ACROSS
    place += across.astype(np.int64)
    place += _DETAIL
    found = GROUND.take(place)
    found += scenery.table_rows
    return found


def _box(colours: np.ndarray, left: float, top: float, right: float, bottom: float, colour: np.uint32) -> None:
    # a slice may not begin below 0: it would count from the end
    colours[max(int(top), 0) : max(int(bottom), 0), max(int(left), 0) : max(int(right), 0)] = colour


def _draw_tree(
    colours: np.ndarray, scenery: Scenery, ahead: float, aside: float, height: float, crown: np.uint32
) -> None:
    if ahead < 3:
        return
    scale = FOCAL / ahead
    x, foot = SIZE / 2 + scale * aside + 0.5, SKYLINE + scale * HEIGHT + 0.5
    half = scale * height * 0.3
    if not -half < x < SIZE + half:
        return
    top = foot - scale * height
    _box(colours, x - 0.15 * half, foot - 0.4 * scale * height, x + 0.15 * half + 1, foot, scenery.trunk)
    _box(colours, x - half, top + 0.2 * scale * height, x + half, foot - 0.3 * scale * height, crown)
    _box(colours, x - 0.6 * half, top, x + 0.6 * half, foot - 0.25 * scale * height, crown)


def _draw_car(colours: np.ndarray, ahead: float, aside: float, paint: tuple[np.uint32, ...]) -> None:
    """Draws the back of a car, its lower edge on the ground at this distance from the camera."""
    if ahead < 1:
        return
    scale = FOCAL / ahead
    x, foot = SIZE / 2 + scale * aside + 0.5, SKYLINE + scale * HEIGHT + 0.5
    half, high = scale * WIDTH / 2, scale * TALL
    body, roof, glass, lamp, shadow = paint
    _box(colours, x - 1.05 * half, foot - 0.1 * high, x + 1.05 * half, foot + 0.12 * high, shadow)
    _box(colours, x - half, foot - 0.62 * high, x + half, foot - 0.08 * high, body)
    _box(colours, x - 0.8 * half, foot - high, x + 0.8 * half, foot - 0.6 * high, roof)
    _box(colours, x - 0.68 * half, foot - 0.92 * high, x + 0.68 * half, foot - 0.62 * high, glass)
    _box(colours, x - 0.95 * half, foot - 0.5 * high, x - 0.6 * half, foot - 0.32 * high, lamp)
    _box(colours, x + 0.6 * half, foot - 0.5 * high, x + 0.95 * half, foot - 0.32 * high, lamp)
