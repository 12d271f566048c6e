"""Images as short vectors: a small convolutional network, trained without labels and frozen.

The learners of the table of InfoGAIL see these in the place of images, so that each frame passes through the network
once, and not in every step on policy, critic and posterior. After Li, Song and Ermon, "InfoGAIL", NIPS 2017, section 5,
whose policy sees images through a frozen network trained on photographs. Ours is trained on what a driver knows without
being told anything:

- by odometry: how far the wheels have turned the car and taken it aside and ahead since the episode began (after
  Agrawal, Carreira and Malik, "Learning to see by moving", ICCV 2015). Its frames are those of the demonstrations and
  of drives with a hand that wanders, which see many more days and places than the demonstrations do;
- by the actions of the demonstrations in the last second and in the next, which tell how the road bends.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Bool, Float, Float32, Int, UInt8
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from torch import Generator, Tensor, nn

from core_models.errors import UserError
from core_models.seeding import seeded

from ..demonstrations import Demonstrations
from ..environments.road import FRAME, SHARPEST, TOP_SPEED

AT_A_TIME = 500
"""Frames in one pass."""
REACH, STRIDE = 12, 2
"""How many steps before and after a frame its actions are told, and every how manieth."""
TRUSTED = 40
"""Steps of an episode for which odometry is told: its errors add up."""
UNITS = (0.2, 3.0, 30.0)
"""What odometry is divided by: heading [radians], aside and ahead [m]."""
WANDERING, LASTING, THROTTLE = (0.2, 0.3), 0.9, 0.45
"""Of the drives: deviation of steering and throttle, how much of it stays from step to step, and the mean throttle."""


class Features(nn.Module):
    """The network, and what it makes of observations.

    Args:
        height: rows of an image, a multiple of 8.
        width: columns, likewise.
        size: how many features.
    """

    def __init__(self, height: int, width: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.layers = nn.Sequential(
            nn.Conv2d(3, 16, 5, 2, 2), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(),
            nn.Conv2d(32, 32, 3, 2, 1), nn.ReLU(), nn.Flatten(),
            nn.Linear(32 * (height // 8) * (width // 8), 128), nn.ReLU(), nn.Linear(128, size),
        )  # fmt: skip

    def forward(self, images: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n size"]:
        """Returns the features of images in [0, 1]."""
        return self.layers(images - 0.5)

    @torch.no_grad()
    def of(self, observations: Any) -> Float32[np.ndarray, "n size"]:
        """Returns the features of a batch of observations.

        Speed and last actions are left out. With the actions a clone learns to do what it just did (de Haan, Jayaraman
        and Levine, "Causal confusion in imitation learning", NeurIPS 2019); and a policy that is to tell its code does
        so by any value beside the image sooner than by the side that it drives on.

        Args:
            observations: `image` (n, height, width, 3); what is beside it is not looked at.
        """
        images = observations["image"]
        parts = [self(pixels(images[i : i + AT_A_TIME])).numpy() for i in range(0, len(images), AT_A_TIME)]
        return np.concatenate(parts)

    @property
    def space(self) -> spaces.Box:
        """Of what `of` makes of observations."""
        return spaces.Box(-np.inf, np.inf, (self.size,), np.float32)

    def encoded(self, demonstrations: Demonstrations) -> Demonstrations:
        """Returns demonstrations with features in the place of images."""
        return demonstrations.seen_as(self.of)


class FeaturesVecEnv(VecEnvWrapper):
    """Environments that are seen through features.

    Args:
        venv: with observations `image` and `state`.
        features: the network.
    """

    def __init__(self, venv: VecEnv, features: Features) -> None:
        super().__init__(venv, observation_space=features.space)
        self.features = features

    def reset(self) -> Any:
        """Begins new episodes."""
        return self.features.of(self.venv.reset())

    def step_wait(self) -> Any:
        """Takes a step."""
        observations, rewards, dones, infos = self.venv.step_wait()
        for i in np.flatnonzero(dones):
            last = infos[i]["terminal_observation"]
            infos[i]["terminal_observation"] = self.features.of({key: part[None] for key, part in last.items()})[0]
        return self.features.of(observations), rewards, dones, infos


class Drives(NamedTuple):
    """Frames and what was done in them, drive after drive."""

    images: UInt8[np.ndarray, "rows height width 3"]
    states: Float32[np.ndarray, "rows 5"]
    actions: Float32[np.ndarray, "rows 2"]
    trajectory: Int[np.ndarray, " rows"]
    """Of each row."""


def train_features(
    demonstrations: Demonstrations,
    env: VecEnv,
    *,
    seed: int = 0,
    size: int = 24,
    explored: int = 16_000,
    epochs: int = 6,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-2,
    odometry: float = 4.0,
) -> Features:
    """Returns features trained on frames of demonstrations and of drives; torch's own generator stays as it was.

    Args:
        demonstrations: of Driving; their labels are not looked at.
        env: where it drives.
        seed: of weights, batches, changes of colour and the wandering hand.
        size: how many features.
        explored: frames of the drives [env steps].
        epochs: passes over all frames.
        batch_size: frames in a step.
        learning_rate: AdamW's.
        weight_decay: likewise.
        odometry: weight of its squared error, beside that of the actions.

    Raises:
        UserError: when the demonstrations are not of Driving.
    """
    seen = demonstrations.observations
    if not isinstance(seen, dict) or set(seen) != {"image", "state"}:
        raise UserError(
            f"expected demonstrations with images and values beside them, as Driving-v0 has them, got "
            f"{demonstrations.environment}"
        )
    shown = Drives(seen["image"], seen["state"], demonstrations.actions, demonstrations.trajectory_of_rows())
    wandered = wander(env, explored, seed=seed)
    images = np.concatenate([shown.images, wandered.images])
    (turned, trusted), (done, known) = _both(dead_reckoning, shown, wandered), neighbouring_actions(shown)
    generator = Generator().manual_seed(seed)
    with seeded(seed):
        network = Features(images.shape[1], images.shape[2], size)
        told = nn.Linear(size, len(UNITS) + done[0].numel())
    both = [*network.parameters(), *told.parameters()]
    optimizer = torch.optim.AdamW(both, lr=learning_rate, weight_decay=weight_decay)
    for _ in range(epochs):
        for rows in torch.randperm(len(images), generator=generator).split(batch_size):
            found = told(network(recoloured(pixels(images[rows.numpy()]), generator)))
            loss = odometry * ((found[:, : len(UNITS)] - turned[rows]) ** 2)[trusted[rows]].sum() / (3 * len(rows))
            of_expert = rows < len(done)
            own = rows[of_expert]
            wrong = (found[of_expert, len(UNITS) :].reshape(-1, *done.shape[1:]) - done[own]) ** 2
            loss = loss + (wrong[known[own]].mean() if len(own) else 0.0)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return network.eval().requires_grad_(False)


def wander(env: VecEnv, steps: int, *, seed: int) -> Drives:
    """Returns drives with a wandering hand, until so many rows are there.

    Args:
        env: several of Driving.
        steps: at least one row.
        seed: of the hand and the worlds.
    """
    hand = np.random.default_rng(seed)
    env.seed(seed)
    observations: Any = env.reset()
    n = env.num_envs
    drift = hand.normal(size=(n, 2)) * WANDERING
    going: list[list[tuple[Any, ...]]] = [[] for _ in range(n)]
    kept: list[tuple[Any, ...]] = []
    drives = 0
    while len(kept) < steps:
        drift = LASTING * drift + np.sqrt(1 - LASTING**2) * hand.normal(size=(n, 2)) * WANDERING
        actions = np.clip(drift + np.array([0.0, THROTTLE]), -1, 1).astype(np.float32)
        for i in range(n):
            going[i].append((observations["image"][i].copy(), observations["state"][i].copy(), actions[i]))
        observations, _, dones, _ = env.step(actions)
        for i in np.flatnonzero(dones).tolist():
            kept += [(*row, drives) for row in going[i]]
            going[i] = []
            drives += 1
    images, states, done, trajectory = (np.array(part) for part in zip(*kept[:steps], strict=True))
    return Drives(images, states, done, trajectory)


def dead_reckoning(drives: Drives) -> tuple[Float[Tensor, "rows 3"], Bool[Tensor, " rows"]]:
    """Returns heading, place aside and ahead since each drive began, in UNITS, and whether it is near enough to that.

    As if the road were straight: from the speed and the steering alone.
    """
    found = np.zeros((len(drives.trajectory), 3), np.float32)
    trusted = np.zeros(len(found), bool)
    place, begun, before = np.zeros(3), 0, -1
    for row, (trajectory, state, action) in enumerate(
        zip(drives.trajectory.tolist(), drives.states, drives.actions, strict=True)
    ):
        if trajectory != before:
            place, begun, before = np.zeros(3), row, trajectory
        found[row], trusted[row] = place, row - begun < TRUSTED
        covered = float(state[0]) * TOP_SPEED * FRAME
        turned = SHARPEST * float(action[0]) * covered
        aside = np.sin(place[0] + turned / 2) * covered
        place = place + np.array([turned, aside, covered])
    return torch.from_numpy(found / np.array(UNITS, np.float32)), torch.from_numpy(trusted)


def _both(of: Any, first: Drives, second: Drives) -> tuple[Tensor, ...]:
    return tuple(torch.cat(parts) for parts in zip(of(first), of(second), strict=True))


def neighbouring_actions(
    drives: Drives,
) -> tuple[Float[Tensor, "rows places values"], Bool[Tensor, "rows places"]]:
    """Returns the actions around each row, of mean 0 and deviation 1, and which of them are of the same trajectory."""
    actions = torch.as_tensor(drives.actions).float()
    actions = (actions - actions.mean(0)) / actions.std(0).clamp_min(1e-6)
    trajectory = torch.as_tensor(drives.trajectory)
    here = torch.arange(len(actions))[:, None] + torch.arange(-REACH, REACH + 1, STRIDE)
    there = here.clamp(0, len(actions) - 1)
    return actions[there], (here == there) & (trajectory[there] == trajectory[:, None])


def recoloured(images: Float[Tensor, "n 3 height width"], generator: Generator) -> Float[Tensor, "n 3 height width"]:
    """Returns images in another light, so that a few days' weather isn't learnt by heart: contrast, tint and grain."""
    n = len(images)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    gain = torch.exp(0.15 * drawn(n, 3, 1, 1) + 0.2 * drawn(n, 1, 1, 1))
    return 0.5 + gain * (images - 0.5) + 0.1 * drawn(n, 1, 1, 1) + 0.03 * drawn(*images.shape)


def pixels(images: UInt8[np.ndarray, "n height width 3"]) -> Float[Tensor, "n 3 height width"]:
    """Returns images in [0, 1], channels first."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).float() / 255
