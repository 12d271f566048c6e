"""Transitions kept for learning off-policy: one tensor, one row each, so that a batch is one gather."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor


class Batch(NamedTuple):
    """Transitions, as views of the rows that were gathered."""

    observations: Float[Tensor, "rows observation"]
    actions: Float[Tensor, "rows action"]
    """In [-1, 1]."""
    pairs: Float[Tensor, "rows observation+action"]
    """Observations and actions side by side."""
    next_observations: Float[Tensor, "rows observation"]
    rewards: Float[Tensor, " rows"]
    going_on: Float[Tensor, " rows"]
    """1, or 0 where the episode ended for good."""


class Replay:
    """The last transitions, up to a capacity.

    Memory is only taken by rows that were written. A row is [observation, action, next observation, reward, going on].

    Args:
        capacity: rows kept.
        observation: values of an observation.
        action: values of an action.
    """

    def __init__(self, capacity: int, observation: int, action: int) -> None:
        self.observation, self.action = observation, action
        self.rows = torch.empty(capacity, 2 * observation + action + 2)
        self.added = 0
        self._array = self.rows.numpy()

    def __len__(self) -> int:
        """Rows that can be drawn."""
        return min(self.added, len(self.rows))

    def add(
        self,
        observations: np.ndarray,
        actions: np.ndarray,
        next_observations: np.ndarray,
        rewards: np.ndarray,
        going_on: np.ndarray | float,
    ) -> None:
        """Stores transitions (rows, ...) in place of the oldest."""
        o, a = self.observation, self.action
        places = np.arange(self.added, self.added + len(observations)) % len(self.rows)
        self._array[places, :o] = observations
        self._array[places, o : o + a] = actions
        self._array[places, o + a : 2 * o + a] = next_observations
        self._array[places, -2] = rewards
        self._array[places, -1] = going_on
        self.added += len(observations)

    def sample(self, n: int, generator: Generator) -> Batch:
        """Draws n transitions, each as likely as any other."""
        places = torch.randint(len(self), (n,), generator=generator)
        return self.batch(self.rows.index_select(0, places))

    def batch(self, rows: Tensor) -> Batch:
        """Returns rows by their parts."""
        o, a = self.observation, self.action
        return Batch(
            rows[:, :o], rows[:, o : o + a], rows[:, : o + a], rows[:, o + a : 2 * o + a], rows[:, -2], rows[:, -1]
        )

    def state(self) -> dict[str, Tensor]:
        """Returns what a checkpoint holds of it."""
        return {"rows": self.rows[: len(self)], "added": torch.tensor(self.added)}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Takes over what a checkpoint held."""
        self.added = int(state["added"])
        self.rows[: len(self)].copy_(state["rows"])
