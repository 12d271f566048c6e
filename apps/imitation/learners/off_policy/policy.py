"""A policy's network with what surrounds it: observations normalised on the way in, actions scaled on the way out.

a = tanh(mu(z) + sigma(z) noise),     z = (s - mean) / scale
"""

from __future__ import annotations

import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Float

from core_models.errors import UserError

from ..spaces import from_unit
from .absorbing import with_indicator
from .sac_update import LOG_STD_MAX, LOG_STD_MIN
from .stacked_mlp import StackedMLP

CONSTANT = 1e-3
"""A value that deviates less among the expert's states than this is taken for constant, and not scaled."""


class Normaliser:
    """A fixed shift and scale of observations: those of the expert, or none.

    Args:
        mean: (values,).
        scale: (values,).
    """

    def __init__(self, mean: np.ndarray, scale: np.ndarray) -> None:
        self.mean, self.scale = mean.astype(np.float32), scale.astype(np.float32)

    @classmethod
    def of(cls, observations: Float[np.ndarray, "rows values"]) -> Normaliser:
        """Returns the one that gives these observations mean 0 and deviation 1."""
        deviation = observations.std(0, dtype=np.float64)
        return cls(observations.mean(0, dtype=np.float64), np.where(deviation < CONSTANT, 1, deviation))

    @classmethod
    def none(cls, values: int) -> Normaliser:
        """Returns one that leaves observations as they are."""
        return cls(np.zeros(values), np.ones(values))

    def __call__(self, observations: Float[np.ndarray, "rows values"]) -> Float[np.ndarray, "rows values"]:
        """Normalises."""
        return (observations.astype(np.float32) - self.mean) / self.scale


class SquashedPolicy:
    """Acts by a network that gives mean and log-deviation of a Gaussian.

    Args:
        network: the actor.
        normaliser: of observations.
        observation_space: vectors.
        action_space: vectors with bounds.
        indicator: whether the network expects an absorbing state's indicator, 0, behind an observation.
    """

    def __init__(
        self,
        network: StackedMLP,
        normaliser: Normaliser,
        observation_space: spaces.Box,
        action_space: spaces.Box,
        indicator: bool,
    ) -> None:
        self.network, self.normaliser, self.indicator = network, normaliser, indicator
        self.observation_space, self.action_space = observation_space, action_space
        self.actions = action_space.shape[0]
        self._forward = network.act_function()

    def draw(self, observations: np.ndarray, noise: np.ndarray | float) -> Float[np.ndarray, "rows action"]:
        """Returns actions in [-1, 1] for observations (rows, values), the most likely ones where noise is 0."""
        z = self.normaliser(observations)
        out = self._forward(with_indicator(z) if self.indicator else z)
        mean = out[:, : self.actions]
        if isinstance(noise, np.ndarray):
            mean = mean + np.exp(np.clip(out[:, self.actions :], LOG_STD_MIN, LOG_STD_MAX)) * noise
        return np.tanh(mean)

    def predict(self, observation: np.ndarray | dict[str, np.ndarray], *, deterministic: bool) -> np.ndarray:
        """Returns actions for one observation or several; torch's global generator draws them.

        Raises:
            UserError: when an observation has another shape.
        """
        shape = self.observation_space.shape
        if isinstance(observation, dict) or np.shape(observation)[-1:] != shape or np.ndim(observation) > 2:
            got = "a dict" if isinstance(observation, dict) else f"shape {np.shape(observation)}"
            raise UserError(f"expected an observation of shape {shape}, or rows of them, got {got}")
        rows = np.asarray(observation).reshape(-1, *shape)
        noise = 0.0 if deterministic else torch.randn(len(rows), self.actions).numpy()
        actions = from_unit(self.draw(rows, noise), self.action_space)
        return actions if np.ndim(observation) == 2 else actions[0]
