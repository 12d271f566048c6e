"""Policies that carry the normalisation of their observations, and the same as plain SB3 policies.

While it learns, a policy's features are (s - mean) / standard deviation, from the demonstrations and the rollouts. A
saved one has no such layer: its first weights W and biases b become W / std and b - W mean / std, which is the same
function up to rounding, so that plain `TRPO.load` or `PPO.load` opens it, with nothing of this package in the file.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import torch
from gymnasium import spaces
from sb3_contrib import TRPO
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.distributions import CategoricalDistribution, DiagGaussianDistribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from core_models.errors import UserError

from .networks import Normaliser

Algorithm = Literal["trpo", "ppo"]
ALGORITHMS: dict[str, type[TRPO] | type[PPO]] = {"trpo": TRPO, "ppo": PPO}
LEAST_IMAGE = 36
"""Side of the smallest image of which SB3's convolutional layers leave anything [pixels]."""


class NormalisedVector(BaseFeaturesExtractor):
    """Observations as flat vectors of mean 0 and variance 1.

    Args:
        observation_space: a Box of vectors.
    """

    def __init__(self, observation_space: spaces.Box) -> None:
        size = int(np.prod(observation_space.shape))
        super().__init__(observation_space, size)
        self.normaliser = Normaliser(size)

    def forward(self, observations: Tensor) -> Tensor:
        """Returns the features (n, size)."""
        return self.normaliser(observations.flatten(1))


def takes_vectors(space: spaces.Space) -> bool:
    """Says whether a policy's observations are vectors of floats, which is what gets normalised."""
    return isinstance(space, spaces.Box) and not is_image_space(space, check_channels=False)


def sees_images(space: spaces.Space) -> bool:
    """Says whether a policy's observations are images, or a Dict with one."""
    return any(is_image_space(part, check_channels=False) for _, part in _parts(space))


def check_images(space: spaces.Space, otherwise: str = "") -> None:
    """Refuses images that SB3's own convolutional layers are too coarse for.

    Args:
        space: the observations.
        otherwise: what else can be done than to give larger ones, for the message.

    Raises:
        UserError: for those of fewer than `LEAST_IMAGE` pixels a side.
    """
    for name, part in _parts(space):
        if not is_image_space(part, check_channels=False):
            continue
        _, height, width = sorted(part.shape or ())  # the least is the channels', as SB3 takes it
        if height < LEAST_IMAGE:
            raise UserError(
                f"expected images of {LEAST_IMAGE} x {LEAST_IMAGE} pixels or more{name}, as the convolutional policy "
                f"of stable-baselines3 takes, got {height} x {width}: enlarge or flatten them by a wrapper "
                f"(gymnasium's ResizeObservation, FlattenObservation){otherwise}"
            )


def warn_of_flattened(space: spaces.Space, by: str = "") -> None:
    """Warns of what has the shape of images, or of a stack of them, and is not seen as one.

    Args:
        space: the observations.
        by: what doesn't see them so, for the message, where the policy does by layers of the user's own.
    """
    for name, part in _parts(space):
        if len(part.shape or ()) in (3, 4) and not is_image_space(part, check_channels=False):
            warnings.warn(
                f"observations of shape {part.shape} and type {part.dtype}{name} are taken for vectors of "
                f"{int(np.prod(part.shape or ())):,} numbers{by}; for images, make them uint8 from 0 to 255, channels "
                "last, and stack frames in the channels",
                stacklevel=4,
            )


def _parts(space: spaces.Space) -> Iterator[tuple[str, spaces.Space]]:
    """Yields the parts of a Dict, each with what a message calls it; of another space itself."""
    if isinstance(space, spaces.Dict):
        yield from ((f" in the part {key!r}", part) for key, part in space.spaces.items())
    else:
        yield "", space


def policy_name(space: spaces.Space) -> str:
    """Returns the name of SB3's policy for a space: MlpPolicy, CnnPolicy or MultiInputPolicy."""
    if isinstance(space, spaces.Dict):
        return "MultiInputPolicy"
    return "CnnPolicy" if is_image_space(space, check_channels=False) else "MlpPolicy"


def policy_settings(
    space: spaces.Space, hidden: list[int] | tuple[int, ...], *, normalise: bool, **more: Any
) -> dict[str, Any]:
    """Returns the keyword arguments of a policy: tanh layers of these sizes for policy and value, as in GAIL.

    Args:
        space: its observations.
        hidden: sizes of the layers.
        normalise: vector observations.
        **more: other arguments of SB3's policy, which win.

    Raises:
        UserError: when a class among these is given by its name, images are too small for SB3's own layers, or policy
            and values are each to have their own features where these are normalised.
    """
    for name in ("features_extractor_class", "activation_fn", "optimizer_class"):
        if isinstance(more.get(name), str):
            raise UserError(
                f"policy_kwargs: expected a class as {name}, got the text {more[name]!r}: give the class itself, from "
                "Python, and again to load what was saved with one"
            )
    settings: dict[str, Any] = {"net_arch": list(hidden), "activation_fn": nn.Tanh}
    if normalise and takes_vectors(space):
        settings["features_extractor_class"] = NormalisedVector
    settings |= more
    seen_by, shared = settings.get("features_extractor_class"), settings.get("share_features_extractor", True)
    if seen_by is None:
        check_images(space, ", or give policy_kwargs a features_extractor_class of your own")
    if seen_by is NormalisedVector and not shared:
        raise UserError(
            "policy_kwargs: expected share_features_extractor to be true where observations are normalised, got false: "
            "leave it out, or give normalise=False"
        )
    return settings


def normaliser_of(policy: ActorCriticPolicy) -> Normaliser | None:
    """Returns the normalisation inside a policy, None where there is none."""
    extractor = policy.features_extractor
    return extractor.normaliser if isinstance(extractor, NormalisedVector) else None


def is_plain(policy: ActorCriticPolicy) -> bool:
    """Says whether actions are categorical or Gaussian, and not squashed: what is written out without objects."""
    return type(policy.action_dist) in (CategoricalDistribution, DiagGaussianDistribution) and not policy.squash_output


def algorithm_class(name: str) -> type[TRPO] | type[PPO]:
    """Returns TRPO or PPO.

    Raises:
        UserError: for another name.
    """
    if name not in ALGORITHMS:
        raise UserError(f"expected an algorithm among {', '.join(ALGORITHMS)}, got {name!r}")
    return ALGORITHMS[name]


def without_environment(
    kind: type[BaseAlgorithm], policy: str, observation_space: spaces.Space, action_space: spaces.Space, **settings: Any
) -> Any:
    """Returns an SB3 algorithm for spaces alone: it predicts, is saved and loaded, and can't collect."""
    made: Any = kind(policy, None, _init_setup_model=False, **settings)  # type: ignore[call-arg]
    made.observation_space, made.action_space, made.n_envs = observation_space, action_space, 1
    made._setup_model()
    return made


@torch.no_grad()
def plain_weights(policy: ActorCriticPolicy) -> dict[str, Tensor]:
    """Returns the weights of the SB3 policy that is the same function without a normalisation of its own."""
    weights = {name: value.clone() for name, value in policy.state_dict().items()}
    normaliser = normaliser_of(policy)
    if normaliser is None:
        return weights
    weights = {name: value for name, value in weights.items() if ".normaliser." not in name}
    branches = (
        (policy.mlp_extractor.policy_net, "mlp_extractor.policy_net", "action_net"),
        (policy.mlp_extractor.value_net, "mlp_extractor.value_net", "value_net"),
    )
    for branch, layers, head in branches:
        # the first layer that sees the features: the head itself where there are no hidden layers
        first = next((f"{layers}.{i}" for i, layer in enumerate(branch) if isinstance(layer, nn.Linear)), head)
        matrix, bias = weights[f"{first}.weight"].double(), weights[f"{first}.bias"].double()
        folded = matrix / normaliser.scale.double()
        weights[f"{first}.weight"] = folded.to(weights[f"{first}.weight"].dtype)
        weights[f"{first}.bias"] = (bias - folded @ normaliser.shift.double()).to(weights[f"{first}.bias"].dtype)
    return weights


def plain_algorithm(generator: TRPO | PPO) -> TRPO | PPO:
    """Returns a copy of an algorithm whose policy needs nothing of this package: what is saved."""
    kind = TRPO if isinstance(generator, TRPO) else PPO
    settings = dict(generator.policy_kwargs)
    settings.pop("features_extractor_class", None) if normaliser_of(generator.policy) is not None else None
    for name in ("optimizer_class", "optimizer_kwargs"):  # of training
        settings.pop(name, None)
    numbers = ("learning_rate", "n_steps", "batch_size", "gamma", "gae_lambda", "seed")
    more = {name: getattr(generator, name) for name in numbers}
    if isinstance(generator, TRPO):
        names = ("target_kl", "cg_damping", "cg_max_steps", "n_critic_updates")
        more |= {name: getattr(generator, name) for name in names}
    else:
        more |= {"n_epochs": generator.n_epochs, "ent_coef": generator.ent_coef}
    found = without_environment(
        kind, policy_name(generator.observation_space), generator.observation_space, generator.action_space,
        policy_kwargs=settings, device="cpu", **more,
    )  # fmt: skip
    found.policy.load_state_dict(plain_weights(generator.policy))
    found.num_timesteps = generator.num_timesteps
    return found
