"""Absorbing states: an episode that the environment ends goes on in a state of its own, whose reward is learnt.

    s_T -> s_a -> s_a -> ...        V(s_a) = r(s_a) / (1 - gamma)

Source: Kostrikov, Agrawal, Dwibedi, Levine and Tompson, "Discriminator-actor-critic", ICLR 2019, section 4.2. Without
it an episode's end is worth 0 whatever was learnt: a reward that is always positive then rewards surviving, one that is
always negative rewards ending, with no demonstration at all. Observations get one more value, the indicator, 0 but in
the absorbing state, whose other values are 0 and where nothing can be done (the action is 0). Time limits are no end:
their last state keeps its value.

The indicator is 1 as published, beside raw observations there. Here they are normalised by the expert, so that the
absorbing state then lies at a distance of 1 from the mean of its states, and a policy's first states at 5 or more; and
the gradient penalty holds the discriminator's slope to about 1. Where the expert's states lie close together, ending an
episode may so be told to be nearer to the expert than whatever the policy does: a larger indicator puts the two apart.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

Rows = Float[np.ndarray, "rows values"]


class Transitions(NamedTuple):
    """What goes into the replay, row by row."""

    observations: Rows
    actions: Rows
    next_observations: Rows
    rewards: Float[np.ndarray, " rows"]
    """True rewards: for the records alone."""


def with_indicator(observations: Rows) -> Rows:
    """Returns observations of real states with the indicator, 0, as their last value."""
    return np.concatenate((observations, np.zeros_like(observations[:, :1])), 1)


def absorbing_state(size: int, distance: float = 1.0) -> Float[np.ndarray, " values"]:
    """Returns the absorbing state, of as many values as an observation with its indicator, which is `distance`."""
    state = np.zeros(size, np.float32)
    state[-1] = distance
    return state


def absorbing_transitions(
    observations: Rows,
    actions: Rows,
    rewards: Float[np.ndarray, " rows"],
    next_observations: Rows,
    terminated: Bool[np.ndarray, " rows"],
    distance: float = 1.0,
) -> Transitions:
    """Returns the transitions to store of one step in each of several environments.

    Args:
        observations: before the step, without the indicator.
        actions: what was done.
        rewards: of the environment.
        next_observations: after the step, before any reset.
        terminated: whether the environment ended the episode; a time limit doesn't.
        distance: the indicator of the absorbing state.

    Returns:
        one row for each environment, in its order, followed by one from the absorbing state to itself for each that
        ended its episode.
    """
    here, there = with_indicator(observations), with_indicator(next_observations)
    if not terminated.any():
        return Transitions(here, actions, there, rewards)
    state = absorbing_state(here.shape[1], distance)
    there[terminated] = state
    ended = int(terminated.sum())
    absorbing = np.broadcast_to(state, (ended, len(state)))
    return Transitions(
        np.concatenate((here, absorbing)),
        np.concatenate((actions, np.zeros((ended, actions.shape[1]), actions.dtype))),
        np.concatenate((there, absorbing)),
        np.concatenate((rewards, np.zeros(ended, rewards.dtype))),
    )
