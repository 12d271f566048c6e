"""Demonstrations: what an expert saw and did, trajectory after trajectory.

Subsampling and the return of the whole episode follow Ho and Ermon, "Generative adversarial imitation learning", NIPS
2016, section 6: every k-th row of each trajectory is kept, from a random offset, so that few rows show all of an
episode, while the figure to reach stays the return of the episode that was run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from core_models.errors import UserError

from .consistency import as_arrays, check_consistency
from .files import read_npz, write_npz
from .subsampling import kept_rows, rows_of
from .trajectories import fields_of

Observations = np.ndarray | dict[str, np.ndarray]
"""One array, or one for each key of a Dict space (an image and auxiliary values)."""


@dataclass(frozen=True, eq=False)
class Demonstrations:
    """Trajectories of an expert, their rows one trajectory after the other.

    What a demonstrator of flesh and blood, or a log, doesn't tell may be left out: rewards, returns, how an episode
    ended and what was seen last. Where a method or a figure needs it, that says so. Returns are the sums of the rewards
    where those are there and no row was left out.

    Example:
        >>> walk = Demonstrations(
        ...     observations=np.zeros((5, 2)), actions=np.zeros(5, int), lengths=np.array([3, 2]),
        ...     environment="Walk-v0", rewards=np.ones(5),
        ... )
        >>> len(walk), walk.trajectories, len(walk.take(1)), walk.mean_return
        (5, 2, 3, 2.5)

    Raises:
        UserError: when the arrays don't fit one another, a trajectory has no row, or a number is not finite.
    """

    observations: Observations
    """(rows, ...): what was seen before each action."""
    actions: Shaped[np.ndarray, "rows ..."]
    """(rows, ...)."""
    lengths: Int[np.ndarray, " trajectories"]
    """Rows of each trajectory."""
    environment: str
    """The environment's gymnasium id."""
    rewards: Float[np.ndarray, " rows"] | None = None
    returns: Float[np.ndarray, " trajectories"] | None = None
    """Of the whole episode, whether rows were left out or not."""
    terminated: Bool[np.ndarray, " trajectories"] | None = None
    """True where the environment ended the episode, False where a time limit did."""
    final_observations: Observations | None = None
    """(trajectories, ...): what was seen after the last step."""
    environment_kwargs: dict[str, Any] = field(default_factory=dict)
    subsample: int = 1
    """Every how manieth row was kept."""
    episode_lengths: Int[np.ndarray, " trajectories"] | None = None
    """Steps of each episode, where rows were left out."""
    codes: Int[np.ndarray, " trajectories"] | None = None
    """The mode of behaviour that each trajectory shows: for evaluation alone, no learner may look at it."""
    card: dict[str, Any] = field(default_factory=dict)
    """Where the demonstrations come from: who, seed, command."""

    def __post_init__(self) -> None:
        """Turns what was given into arrays and checks that they fit one another."""
        for name, value in as_arrays(vars(self)).items():
            object.__setattr__(self, name, value)
        check_consistency(vars(self))
        if self.returns is None and self.rewards is not None and self.subsample == 1:
            sums = np.add.reduceat(self.rewards.astype(np.float64), self.row_starts())
            object.__setattr__(self, "returns", sums)

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.actions)

    @property
    def trajectories(self) -> int:
        """The number of trajectories."""
        return len(self.lengths)

    @property
    def steps(self) -> Int[np.ndarray, " trajectories"]:
        """Environment steps of each episode, those of rows left out among them."""
        return self.lengths if self.episode_lengths is None else self.episode_lengths

    @property
    def mean_return(self) -> float | None:
        """Mean of the returns; None where they are not known."""
        return None if self.returns is None else float(self.returns.mean())

    def return_figures(self) -> dict[str, float]:
        """Returns what a card says of the returns; nothing where they are not known."""
        if self.returns is None:
            return {}
        return {"mean_return": float(self.returns.mean()), "std_return": float(self.returns.std())}

    def needed(self, name: str, why: str) -> Any:
        """Returns a field that may have been left out.

        Args:
            name: of the field.
            why: what needs it, for the message.

        Raises:
            UserError: when it was left out.
        """
        found = getattr(self, name)
        if found is None:
            raise UserError(f"expected {name} in the demonstrations of {self.environment}, which {why}, got none")
        return found

    def seen_as(self, function: Callable[[Observations], Observations]) -> Demonstrations:
        """Returns the same demonstrations with their observations, the final ones too, turned into others."""
        final = None if self.final_observations is None else function(self.final_observations)
        return replace(self, observations=function(self.observations), final_observations=final)

    def row_starts(self) -> Int[np.ndarray, " trajectories"]:
        """Returns the first row of each trajectory."""
        return np.cumsum(self.lengths) - self.lengths

    def trajectory_of_rows(self) -> Int[np.ndarray, " rows"]:
        """Returns the trajectory that each row belongs to."""
        return np.repeat(np.arange(self.trajectories), self.lengths)

    def take(self, n: int) -> Demonstrations:
        """Returns the first n trajectories.

        Raises:
            UserError: when there are fewer.
        """
        if not 1 <= n <= self.trajectories:
            raise UserError(
                f"expected a number of trajectories from 1 to {self.trajectories}, as many as were recorded of "
                f"{self.environment}, got {n}"
            )
        return self.select(range(n))

    def select(self, indices: Sequence[int] | np.ndarray) -> Demonstrations:
        """Returns the trajectories with these numbers, in this order.

        Raises:
            UserError: when there is no such trajectory, or none is asked for.
        """
        chosen = np.asarray(indices)
        if chosen.ndim != 1 or not len(chosen) or chosen.dtype.kind not in "iu":
            raise UserError(f"expected the numbers of one or more trajectories, got {indices!r}")
        if chosen.min() < 0 or chosen.max() >= self.trajectories:
            raise UserError(f"expected trajectories 0 to {self.trajectories - 1}, got {chosen.min()} to {chosen.max()}")
        return self._of(chosen, rows_of(chosen, self.lengths), self.lengths[chosen])

    def subsampled(self, every: int, *, seed: int) -> Demonstrations:
        """Returns every k-th row of each trajectory, from a random offset, as in GAIL.

        Offsets lie in 0..k-1, or inside a trajectory shorter than k, so that none is left without a row. The first
        trajectories keep the same rows however many there are. Demonstrations already subsampled are thinned further.

        Args:
            every: k; 1 keeps all rows.
            seed: of the offsets.

        Raises:
            UserError: when k is smaller than 1.
        """
        if every < 1:
            raise UserError(f"expected every k-th row to be kept with k of 1 or more, got {every}")
        if every == 1:
            return self
        rows, lengths = kept_rows(self.lengths, every, np.random.default_rng(seed))
        thinned = self._of(np.arange(self.trajectories), rows, lengths)
        return replace(thinned, subsample=self.subsample * every, episode_lengths=self.steps)

    def next_observations(self) -> Observations:
        """Returns (rows, ...): what was seen after each action.

        Raises:
            UserError: when rows were left out, and with them what came next, or the final observations were.
        """
        final = self.needed("final_observations", "what came after each action ends with")
        if self.subsample > 1:
            raise UserError(
                f"expected complete trajectories, which say what came after each action, got one row in "
                f"{self.subsample}: use demonstrations that are not subsampled"
            )
        ends = np.cumsum(self.lengths) - 1
        following = np.minimum(np.arange(len(self)) + 1, len(self) - 1)

        def shifted(seen: np.ndarray, final: np.ndarray) -> np.ndarray:
            after = seen[following]
            after[ends] = final
            return after

        return _mapped(shifted, self.observations, final)

    def save(self, path: Path | str) -> None:
        """Writes a .npz, whole or not at all (`files.py` says what is in it)."""
        write_npz(Path(path), vars(self))

    @classmethod
    def load(cls, path: Path | str) -> Demonstrations:
        """Reads a .npz written by `save`.

        Raises:
            UserError: when the file is missing, damaged, of a newer version, lacks an array or holds pickled ones, or
                its arrays don't fit one another.
        """
        fields = read_npz(Path(path))
        try:
            return cls(**fields)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error

    @classmethod
    def from_trajectories(cls, trajectories: Iterable[Any], environment: str, **more: Any) -> Demonstrations:
        """Returns trajectories that hold one observation more than actions, as those of the `imitation` library do.

        Args:
            trajectories: each an object with `obs` (steps + 1, ...), one array or a dict of arrays, `acts` (steps, ...)
                and `terminal`, whether the episode ended with the last step; where they are there too, `rews` (steps,)
                and `infos`, whose last one says by `TimeLimit.truncated` that it was a time limit that ended it. Where
                they are missing (the library's `rollout` leaves them out unless it is given `exclude_infos=False`) and
                `terminal` is true, `terminated` is not known: DAC and AIRL ask for it, and it can be given here.
            environment: its gymnasium id.
            **more: other fields, which win: `terminated`, `environment_kwargs`, `codes`, `card`.

        Raises:
            UserError: when one has not one observation more than actions, or as the constructor.
        """
        return cls(environment=environment, **{**fields_of(list(trajectories)), **more})

    def _of(self, trajectories: np.ndarray, rows: np.ndarray, lengths: np.ndarray) -> Demonstrations:
        def picked(array: np.ndarray | None) -> np.ndarray | None:
            return None if array is None else array[trajectories]

        return replace(
            self,
            observations=_mapped(lambda seen: seen[rows], self.observations),
            actions=self.actions[rows],
            rewards=None if self.rewards is None else self.rewards[rows],
            lengths=lengths,
            returns=picked(self.returns),
            terminated=picked(self.terminated),
            final_observations=None
            if self.final_observations is None
            else _mapped(lambda seen: seen[trajectories], self.final_observations),
            episode_lengths=picked(self.episode_lengths),
            codes=picked(self.codes),
        )


def _mapped(function: Any, first: Observations, *others: Observations) -> Observations:
    if isinstance(first, dict):
        return {key: function(seen, *(other[key] for other in others)) for key, seen in first.items()}
    mapped: np.ndarray = function(first, *others)
    return mapped
