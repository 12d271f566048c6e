"""Whether demonstrations belong to an environment, and what looks odd in them although it can be used."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from gymnasium import spaces

from core_models.errors import UserError

from .consistency import trajectory_and_row
from .data import Demonstrations, Observations

USABLE = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
ROUNDING = 1e-4
"""By which share of the sum of |reward| a return may differ from the sum of rewards, as float32 sums do."""


def check_spaces(
    demonstrations: Demonstrations,
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    environment: str = "",
) -> None:
    """Checks that demonstrations are of an environment with these spaces.

    Numbers beyond the bounds of a Box are no fault: actions drawn from a Gaussian lie there (`oddities` counts them).
    Neither are float32 numbers in a float64 space, nor the other way round.

    Args:
        demonstrations: what to check.
        observation_space: the environment's, or a VecEnv's.
        action_space: the same.
        environment: what messages call the environment.

    Raises:
        UserError: naming both shapes or types, or the value, the trajectory and the row.
    """
    whose = f"{environment} has" if environment else "the environment has"
    for name, seen, rows in (
        ("observations", demonstrations.observations, demonstrations.lengths),
        ("final_observations", demonstrations.final_observations, None),
    ):
        if seen is None:
            continue
        _check_observations(name, seen, observation_space, rows, whose, demonstrations.environment)
    _check_part(
        "actions", demonstrations.actions, action_space, demonstrations.lengths, whose, demonstrations.environment
    )


def oddities(
    demonstrations: Demonstrations,
    observation_space: spaces.Space[Any] | None = None,
    action_space: spaces.Space[Any] | None = None,
) -> list[str]:
    """Returns a line for everything that looks like a slip of whoever recorded, though it can be learned from."""
    found = [
        *_returns_that_differ(demonstrations),
        *_repeated(demonstrations),
        *_constant(demonstrations.observations),
    ]
    if action_space is not None:
        found += _beyond("actions", demonstrations.actions, action_space)
    if observation_space is not None:
        for name, seen, space in _parts("observations", demonstrations.observations, observation_space):
            found += _beyond(name, seen, space)
    return found


def _check_observations(
    name: str, seen: Observations, space: spaces.Space[Any], lengths: np.ndarray | None, whose: str, made_in: str
) -> None:
    if isinstance(space, spaces.Dict) != isinstance(seen, dict):
        have = f"the keys {', '.join(space)}" if isinstance(space, spaces.Dict) else "one array"
        got = f"the keys {', '.join(seen)}" if isinstance(seen, dict) else f"one array of shape {seen.shape[1:]} each"
        raise UserError(f"expected {name} as {whose} them, {have}, got {got}: {_other(made_in)}")
    if isinstance(space, spaces.Dict) and isinstance(seen, dict) and set(space) != set(seen):
        raise UserError(
            f"expected {name} with the keys {', '.join(space)}, as {whose} them, got {', '.join(seen)}: "
            f"{_other(made_in)}"
        )
    for part, array, own in _parts(name, seen, space):
        _check_part(part, array, own, lengths, whose, made_in)


def _check_part(
    name: str, array: np.ndarray, space: spaces.Space[Any], lengths: np.ndarray | None, whose: str, made_in: str
) -> None:
    if not isinstance(space, USABLE):
        raise UserError(
            f"expected {name} in a space of one array (Box, Discrete, MultiDiscrete, MultiBinary) or observations in a "
            f"Dict of them, {whose} {type(space).__name__}: wrap it with gymnasium's FlattenObservation"
        )
    shape = tuple(space.shape or ())
    if array.shape[1:] != shape:
        raise UserError(
            f"expected {name} of shape {shape} each, as {whose} them ({_in_words(space)}), got {array.shape[1:]}: "
            f"{_other(made_in)}"
        )
    wanted = np.dtype(space.dtype)
    whole = wanted.kind in "iub"
    if whole and array.dtype.kind not in "iub":
        raise UserError(
            f"expected whole numbers ({wanted}) in {name}, as {whose} them ({_in_words(space)}), got {array.dtype}: "
            f"{_other(made_in)}"
        )
    allowed = _allowed(space)
    if allowed is None:
        return
    low, high = allowed
    bad = ((array < low) | (array > high)).reshape(len(array), -1)
    if bad.any():
        row = int(bad.any(1).argmax())
        value = array.reshape(len(array), -1)[row][bad[row]][0]
        where = f"trajectory {row}" if lengths is None else trajectory_and_row(row, lengths)
        raise UserError(
            f"expected {name} within {_in_words(space)}, as {whose} them, got {value} in {where}: {_other(made_in)}"
        )


def _allowed(space: spaces.Space[Any]) -> tuple[Any, Any] | None:
    """Returns the least and the largest value of a space of choices; None for a Box."""
    if isinstance(space, spaces.Discrete):
        return space.start, space.start + space.n - 1
    if isinstance(space, spaces.MultiDiscrete):
        return space.start, space.start + space.nvec - 1
    if isinstance(space, spaces.MultiBinary):
        return 0, 1
    if isinstance(space, spaces.Box) and np.dtype(space.dtype).kind in "iu":
        return space.low, space.high  # an image of 8 bits given as 32-bit integers
    return None


def _parts(name: str, seen: Observations, space: spaces.Space[Any]) -> Iterator[tuple[str, np.ndarray, Any]]:
    if isinstance(seen, dict) and isinstance(space, spaces.Dict):
        yield from ((f"{name}.{key}", seen[key], space[key]) for key in space if key in seen)
    elif not isinstance(seen, dict):
        yield name, seen, space


def _in_words(space: spaces.Space[Any]) -> str:
    if isinstance(space, spaces.Box):  # its own words list every bound
        return f"Box({', '.join(map(str, (*space.shape, space.dtype)))})"
    return str(space)


def _other(made_in: str) -> str:
    return f"these demonstrations are of {made_in}"


def _returns_that_differ(demonstrations: Demonstrations) -> Iterator[str]:
    rewards, returns = demonstrations.rewards, demonstrations.returns
    if demonstrations.subsample > 1 or rewards is None or returns is None:
        return
    starts = demonstrations.row_starts()
    rewards = rewards.astype(np.float64)
    sums, size = np.add.reduceat(rewards, starts), np.add.reduceat(np.abs(rewards), starts)
    wrong = np.abs(sums - returns) > ROUNDING * (1 + size)
    if wrong.any():
        i = int(wrong.argmax())
        yield (
            f"returns differ from the sum of rewards in {wrong.sum()} of {len(wrong)} trajectories: "
            f"{returns[i]:.6g} and {sums[i]:.6g} in trajectory {i}"
        )


def _repeated(demonstrations: Demonstrations) -> Iterator[str]:
    seen = demonstrations.observations
    arrays = [*(seen.values() if isinstance(seen, dict) else [seen]), demonstrations.actions]
    first: dict[bytes, int] = {}
    again = []
    for i, (start, length) in enumerate(zip(demonstrations.row_starts(), demonstrations.lengths, strict=True)):
        digest = hashlib.sha256()
        for array in arrays:
            digest.update(np.ascontiguousarray(array[start : start + length]).tobytes())
        earlier = first.setdefault(digest.digest(), i)
        if earlier != i:
            again.append((earlier, i))
    if again:
        yield (
            f"{len(again)} of {demonstrations.trajectories} trajectories repeat an earlier one row by row, such as "
            f"{again[0][0]} and {again[0][1]}: were they recorded with one seed?"
        )


def _constant(seen: Observations) -> Iterator[str]:
    for name, array in seen.items() if isinstance(seen, dict) else [("", seen)]:
        if len(array) > 1 and (array == array[0]).all():
            yield f"observations{f'.{name}' if name else ''} are the same in every row: was nothing rendered?"


def _beyond(name: str, array: np.ndarray, space: spaces.Space[Any]) -> Iterator[str]:
    if not isinstance(space, spaces.Box) or array.shape[1:] != space.shape:
        return
    slack = 1e-6 * (1 + np.abs(np.where(np.isfinite(space.high), space.high, 0)))
    share = ((array < space.low - slack) | (array > space.high + slack)).mean()
    if share:
        yield f"{share:.2%} of the numbers in {name} lie beyond the bounds of their space"
