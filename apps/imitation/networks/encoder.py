"""What discriminators and posteriors see: observation and action as one vector.

Vectors are normalised, images pass through a small convolutional network of stride 2 (32, 64 and 128 channels, as in
Li, Song and Ermon, "InfoGAIL", NIPS 2017, appendix), parts of a Dict are encoded each by its kind and concatenated,
discrete actions are one-hot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space
from torch import Tensor, nn

from core_models.errors import UserError

from .normaliser import Normaliser

Observed = Tensor | dict[str, Tensor]


def observations_to_tensor(
    observations: np.ndarray | Mapping[str, np.ndarray], space: spaces.Space, device: torch.device | str = "cpu"
) -> Observed:
    """Returns observations as tensors whose shape is the space's; images with channels last become channels first.

    Args:
        observations: rows (n, ...) of the space, or of the same space before SB3 transposed its images.
        space: what a policy is given.
        device: where they go.

    Raises:
        UserError: when they are of another shape.
    """
    if isinstance(space, spaces.Dict):
        if not isinstance(observations, Mapping) or set(observations) != set(space.spaces):
            got = sorted(observations) if isinstance(observations, Mapping) else "an array"
            raise UserError(f"expected observations with the parts {sorted(space.spaces)}, got {got}")
        parts = {key: observations_to_tensor(observations[key], part, device) for key, part in space.spaces.items()}
        return {key: part for key, part in parts.items() if isinstance(part, Tensor)}
    if isinstance(observations, Mapping):
        raise UserError(f"expected observations in one array, got the parts {sorted(observations)}")
    array, shape = np.asarray(observations), tuple(space.shape or ())
    if array.shape[1:] != shape and array.ndim == 4 and (array.shape[3], *array.shape[1:3]) == shape:
        array = array.transpose(0, 3, 1, 2)
    if array.shape[1:] != shape:
        raise UserError(f"expected observations of shape {shape}, as the environment's are, got {array.shape[1:]}")
    return torch.as_tensor(np.ascontiguousarray(array), device=device)


def rows(observations: Observed, index: Tensor) -> Observed:
    """Returns some rows of observations."""
    if isinstance(observations, dict):
        return {key: part[index] for key, part in observations.items()}
    return observations[index]


class Encoder(nn.Module):
    """Observation and action as one vector.

    Args:
        observation_space: Box, Discrete or a Dict of these; images are channels first.
        action_space: Box or Discrete; None where the observation alone is encoded.
        normaliser: of the observation where it is a vector, shared with the policy; none for images and Dicts.
        action_normaliser: of actions that are vectors.

    Raises:
        UserError: for spaces of other kinds, or images of fewer than 8 pixels a side.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space | None,
        normaliser: Normaliser | None = None,
        action_normaliser: Normaliser | None = None,
    ) -> None:
        super().__init__()
        self.observation_space, self.action_space = observation_space, action_space
        self.normaliser, self.action_normaliser = normaliser, action_normaliser
        self.parts = nn.ModuleDict()
        self.size = 0
        if isinstance(observation_space, spaces.Dict):
            for key, part in observation_space.spaces.items():
                self.parts[key] = encoder = _part(part)
                self.size += encoder.size
        else:
            self.parts["observation"] = encoder = _part(observation_space)
            self.size += encoder.size
        if isinstance(action_space, spaces.Discrete):
            self.size += int(action_space.n)
        elif isinstance(action_space, spaces.Box):
            self.size += int(np.prod(action_space.shape))
        elif action_space is not None:
            raise UserError(f"expected an action space Box or Discrete, got {type(action_space).__name__}")

    def forward(self, observations: Observed, actions: Tensor | None = None) -> Tensor:
        """Returns the vectors (n, size).

        Args:
            observations: rows, or a dict of rows.
            actions: rows of numbers, or (n,) of indices.
        """
        return self.of_inputs(self.inputs(observations, actions))

    @property
    def learns(self) -> bool:
        """Whether there are weights in it: layers that see images."""
        return any(True for _ in self.parameters())

    def inputs(self, observations: Observed, actions: Tensor | None = None) -> list[Tensor]:
        """Returns each part of the observation, and the action, as floats (n, ...): what needs no weights is done.

        Images are from 0 to 1, vectors normalised but for those in a Dict, what is discrete one-hot.
        """
        parts = observations if isinstance(observations, dict) else {"observation": observations}
        kinds: dict[str, Any] = dict(self.parts.items())
        found = [kind.floats(parts[key]) for key, kind in kinds.items()]
        if self.normaliser is not None and not isinstance(observations, dict):
            found = [self.normaliser(found[0])]
        if self.action_space is not None:
            assert actions is not None
            if isinstance(self.action_space, spaces.Discrete):
                index = actions.long().reshape(-1) - int(self.action_space.start)
                found.append(nn.functional.one_hot(index, int(self.action_space.n)).to(found[0].dtype))
            else:
                taken = actions.reshape(len(actions), -1).to(found[0].dtype)
                found.append(taken if self.action_normaliser is None else self.action_normaliser(taken))
        return found

    def of_inputs(self, inputs: Sequence[Tensor]) -> Tensor:
        """Returns the vectors (n, size) of what `inputs` returned."""
        seen = [encoder(x) for encoder, x in zip(self.parts.values(), inputs, strict=False)]
        return torch.cat([*seen, *inputs[len(seen) :]], 1)


class _Vector(nn.Module):
    def __init__(self, space: spaces.Box) -> None:
        super().__init__()
        self.size = int(np.prod(space.shape))

    def floats(self, x: Tensor) -> Tensor:
        return x.reshape(len(x), -1).float()

    def forward(self, x: Tensor) -> Tensor:
        return x


class _OneHot(nn.Module):
    def __init__(self, space: spaces.Discrete) -> None:
        super().__init__()
        self.size, self.start = int(space.n), int(space.start)

    def forward(self, x: Tensor) -> Tensor:
        return x

    def floats(self, x: Tensor) -> Tensor:
        return nn.functional.one_hot(x.long().reshape(-1) - self.start, self.size).float()


class _Image(nn.Module):
    def __init__(self, space: spaces.Box) -> None:
        super().__init__()
        channels, height, width = space.shape
        if min(height, width) < 8:
            raise UserError(
                f"expected images of 8 x 8 pixels or more for what judges steps, got {height} x {width}: enlarge or "
                "flatten them by a wrapper (gymnasium's ResizeObservation, FlattenObservation)"
            )
        layers: list[nn.Module] = []
        for out in (32, 64, 128):
            layers += [nn.Conv2d(channels, out, 4, stride=2, padding=1), nn.LeakyReLU(0.1)]
            channels, height, width = out, height // 2, width // 2
        self.layers = nn.Sequential(*layers, nn.Flatten())
        self.size = channels * height * width

    def floats(self, x: Tensor) -> Tensor:
        return x.float() / 255

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def _part(space: spaces.Space) -> _Vector | _OneHot | _Image:
    if is_image_space(space):
        assert isinstance(space, spaces.Box)
        return _Image(space)
    if isinstance(space, spaces.Box):
        return _Vector(space)
    if isinstance(space, spaces.Discrete):
        return _OneHot(space)
    raise UserError(f"expected observations of Box, Discrete or a Dict of these, got {type(space).__name__}")
