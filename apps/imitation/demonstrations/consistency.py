"""What holds for any demonstrations, whatever their environment: arrays that fit one another, and finite numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from core_models.errors import UserError

PER_TRAJECTORY = ("returns", "terminated", "episode_lengths", "codes")
"""Arrays with one entry for each trajectory, beside `lengths` itself."""
TYPES: dict[str, type] = {
    "rewards": np.float32,
    "lengths": np.int64,
    "returns": np.float64,
    "terminated": np.bool_,
    "episode_lengths": np.int64,
    "codes": np.int64,
}
WORDS = {"f": "numbers", "i": "whole numbers", "b": "true or false"}


def as_arrays(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the array fields of demonstrations as arrays of their types.

    Observations and actions keep their own type: an image stays 8-bit.

    Raises:
        UserError: when one holds something else, e.g. a fraction where whole numbers are expected.
    """
    found: dict[str, Any] = {}
    for name in ("observations", "final_observations"):
        given = fields[name]
        if given is None and name == "final_observations":
            continue
        if isinstance(given, Mapping):
            found[name] = {str(key): _numbers(f"{name}.{key}", value) for key, value in given.items()}
        else:
            found[name] = _numbers(name, given)
    found["actions"] = _numbers("actions", fields["actions"])
    for name, kind in TYPES.items():
        if fields[name] is not None:
            found[name] = _of_type(name, _numbers(name, fields[name]), kind)
    return found


def check_consistency(fields: Mapping[str, Any]) -> None:
    """Checks what `as_arrays` gave.

    Raises:
        UserError: naming the array, and where a number is not finite, the trajectory and the row.
    """
    lengths = fields["lengths"]
    _check_lengths(lengths)
    rows, trajectories = int(lengths.sum()), len(lengths)
    for name, array in _by_row(fields):
        more = name.startswith("observations") and array.ndim and len(array) == rows + trajectories
        hint = (
            ", one more for each trajectory: what was seen after its last action goes into final_observations "
            "(Demonstrations.from_trajectories splits it off)"
        )
        why = f"one for each of the {rows} rows that lengths adds up to"
        _check_length(name, array, rows, why, hint if more else "")
    for name, array in _by_trajectory(fields):
        _check_length(name, array, trajectories, f"one for each of the {trajectories} trajectories")
    for name in ("rewards", *PER_TRAJECTORY):
        if fields[name] is not None and fields[name].ndim != 1:
            raise UserError(f"expected one number at a time in {name}, got an array of shape {fields[name].shape}")
    if fields["final_observations"] is not None:
        _check_final(fields["observations"], fields["final_observations"])
    _check_steps(fields["subsample"], lengths, fields["episode_lengths"])
    for name, array in _by_row(fields):
        _check_finite(name, array, lengths)
    for name, array in _by_trajectory(fields):
        _check_finite(name, array, None)
    if not isinstance(fields["environment"], str) or not fields["environment"]:
        raise UserError(f"expected the gymnasium id of the environment, got {fields['environment']!r}")


def single_precision(array: np.ndarray) -> np.ndarray:
    """Returns numbers with a fraction in float32, which is what policies compute in, and others as they are."""
    return array.astype(np.float32) if array.dtype.kind == "f" else array


def trajectory_and_row(row: int, lengths: np.ndarray) -> str:
    """Returns a row in words.

    Example:
        >>> trajectory_and_row(4, np.array([3, 2]))
        'row 1 of trajectory 1'
    """
    ends = np.cumsum(lengths)
    trajectory = int(np.searchsorted(ends, row, side="right"))
    return f"row {row - int(ends[trajectory] - lengths[trajectory])} of trajectory {trajectory}"


def _by_row(fields: Mapping[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    yield from _named("observations", fields["observations"])
    yield "actions", fields["actions"]
    if fields["rewards"] is not None:
        yield "rewards", fields["rewards"]


def _by_trajectory(fields: Mapping[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    if fields["final_observations"] is not None:
        yield from _named("final_observations", fields["final_observations"])
    yield from ((name, fields[name]) for name in PER_TRAJECTORY if fields[name] is not None)


def _named(name: str, observations: Any) -> Iterator[tuple[str, np.ndarray]]:
    if isinstance(observations, dict):
        yield from ((f"{name}.{key}", array) for key, array in observations.items())
    else:
        yield name, observations


def _numbers(name: str, value: Any) -> np.ndarray:
    try:
        array = np.asarray(value)
    except ValueError as error:  # rows of different shapes
        raise UserError(f"expected an array of numbers in {name}, got rows of different shapes") from error
    if array.dtype.kind not in "fiub":
        what = "Python objects" if array.dtype.hasobject else f"{array.dtype}"
        raise UserError(f"expected an array of numbers in {name}, got {what}")
    return array


def _of_type(name: str, array: np.ndarray, kind: type) -> np.ndarray:
    with np.errstate(invalid="ignore", over="ignore"):  # of NaN: refused below, or when finiteness is checked
        converted: np.ndarray = array.astype(kind)
    exact = np.dtype(kind).kind == "f" or np.array_equal(converted, array)
    if not exact:
        wrong = array[converted != array]
        raise UserError(f"expected {WORDS[np.dtype(kind).kind]} in {name}, got {wrong[0]}")
    return converted


def _check_lengths(lengths: np.ndarray) -> None:
    if lengths.ndim != 1 or not len(lengths):
        raise UserError(f"expected one or more trajectories, got lengths of shape {lengths.shape}: record some")
    if lengths.min() < 1:
        raise UserError(
            f"expected trajectories of one row or more, got {lengths.min()} in trajectory {int(lengths.argmin())}: "
            "take it out"
        )


def _check_length(name: str, array: np.ndarray, wanted: int, why: str, hint: str = "") -> None:
    got = len(array) if array.ndim else "a single number"
    if got != wanted:
        raise UserError(f"expected {wanted} entries in {name}, {why}, got {got}{hint}")


def _check_final(seen: Any, final: Any) -> None:
    if isinstance(seen, dict) != isinstance(final, dict):
        raise UserError("expected observations and final_observations both with keys or both without, got one of each")
    if not isinstance(seen, dict):
        seen, final = {"": seen}, {"": final}
    if not seen or set(seen) != set(final):
        got = f"{', '.join(seen) or 'none'} and {', '.join(final) or 'none'}"
        raise UserError(f"expected the same keys in observations and final_observations, got {got}")
    for key, array in seen.items():
        if array.shape[1:] != final[key].shape[1:]:
            name = f"final_observations.{key}" if key else "final_observations"
            other = f"observations.{key}" if key else "observations"
            raise UserError(
                f"expected {other} and {name} of the same shape, got {array.shape[1:]} and {final[key].shape[1:]}"
            )


def _check_steps(subsample: Any, lengths: np.ndarray, steps: np.ndarray | None) -> None:
    if not isinstance(subsample, int) or isinstance(subsample, bool) or subsample < 1:
        raise UserError(f"expected subsample to be a whole number of 1 or more, got {subsample!r}")
    if steps is None:
        return
    if (steps < lengths).any():
        i = int((steps < lengths).argmax())
        raise UserError(f"expected at least as many steps as rows, got {steps[i]} for {lengths[i]} in trajectory {i}")
    if subsample == 1 and (steps != lengths).any():
        i = int((steps != lengths).argmax())
        raise UserError(
            f"expected episodes as long as their trajectories where no row was left out (subsample 1), got {steps[i]} "
            f"steps for {lengths[i]} rows in trajectory {i}"
        )


def _check_finite(name: str, array: np.ndarray, lengths: np.ndarray | None) -> None:
    if array.dtype.kind != "f":
        return
    bad = ~np.isfinite(array.reshape(len(array), -1))
    if not bad.any():
        return
    row = int(bad.any(1).argmax())
    value = array.reshape(len(array), -1)[row][bad[row]][0]
    where = f"trajectory {row}" if lengths is None else trajectory_and_row(row, lengths)
    raise UserError(f"expected finite numbers in {name}, got {value} in {where}: take that trajectory out")
