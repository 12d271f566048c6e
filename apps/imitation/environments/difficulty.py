"""How hard it is to tell the modes of driving from single frames: without labels by pixels, and with labels.

InfoGAIL finds modes without labels. That says something only where pixels alone don't give them away: k-means and the
first principal component on raw pixels, their two clusters matched to the modes at their best, have to stay near
chance, while a classifier that is told the labels shows what there is to find. The classifiers are judged on
trajectories that they weren't trained on. After Li, Song and Ermon, "InfoGAIL", NIPS 2017, section 5, who compare with
the same four.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int, UInt8
from torch import nn

from apps.imitation.demonstrations import Demonstrations
from core_models.errors import UserError
from core_models.seeding import seeded

from .modes import matched_accuracy

COMPONENTS = 60
"""Principal components that the support vector machine sees."""
BATCH = 32


@dataclass(frozen=True)
class Difficulty:
    """Shares of frames given the right mode."""

    frames: int
    kmeans: float
    pca: float
    svm: float
    cnn: float


def measure_difficulty(
    demonstrations: Demonstrations, *, seed: int = 0, every: int = 1, held_out: float = 0.3, epochs: int = 8
) -> Difficulty:
    """Returns how well modes are told from frames.

    Args:
        demonstrations: with images and codes, at least two trajectories of each of two modes.
        seed: of the clusters, of the trajectories held out and of the network.
        every: every how manieth frame is looked at.
        held_out: share of the trajectories of each mode that classifiers are judged on.
        epochs: of the network.

    Raises:
        UserError: when images or codes are missing, there are not two modes, or too few trajectories.
    """
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    images, codes, trained = _frames(demonstrations, np.random.default_rng(seed), every, held_out)
    pixels = images.reshape(len(images), -1).astype(np.float32) / 255
    clusters = KMeans(2, n_init=4, random_state=seed).fit_predict(pixels)
    first = PCA(1, random_state=seed, svd_solver="randomized").fit_transform(pixels)
    halves = KMeans(2, n_init=4, random_state=seed).fit_predict(first)
    few = min(COMPONENTS, int(trained.sum()) - 1)
    machine = make_pipeline(
        StandardScaler(), PCA(few, random_state=seed, svd_solver="randomized"), SVC(C=10.0, kernel="rbf")
    ).fit(pixels[trained], codes[trained])
    told = machine.predict(pixels[~trained])
    network = train_classifier(images[trained], codes[trained], seed=seed, epochs=epochs)
    seen = np.concatenate([network(_tensor(part)).argmax(1).numpy() for part in _parts(images[~trained])])
    return Difficulty(
        frames=len(images),
        kmeans=matched_accuracy(clusters, codes),
        pca=matched_accuracy(halves, codes),
        svm=float((told == codes[~trained]).mean()),
        cnn=float((seen == codes[~trained]).mean()),
    )


def train_classifier(
    images: UInt8[np.ndarray, "frames height width 3"], codes: Int[np.ndarray, " frames"], *, seed: int, epochs: int
) -> nn.Module:
    """Returns a small convolutional network trained on labelled frames; torch's own generator stays as it was."""
    order = np.random.default_rng(seed)
    height, width = images.shape[1] // 8, images.shape[2] // 8
    with seeded(seed):
        network = nn.Sequential(
            nn.Conv2d(3, 16, 5, 2, 2), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(),
            nn.Conv2d(32, 32, 3, 2, 1), nn.ReLU(), nn.Flatten(),
            nn.Linear(32 * height * width, 64), nn.ReLU(), nn.Linear(64, 2),
        )  # fmt: skip
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=1e-2)
    labels = torch.from_numpy(codes)
    for _ in range(epochs):
        for rows in np.array_split(order.permutation(len(images)), max(len(images) // BATCH, 1)):
            loss = F.cross_entropy(network(_tensor(images[rows])), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return network.eval().requires_grad_(False)


def _frames(
    demonstrations: Demonstrations, generator: np.random.Generator, every: int, held_out: float
) -> tuple[UInt8[np.ndarray, "frames height width 3"], Int[np.ndarray, " frames"], Bool[np.ndarray, " frames"]]:
    """Returns frames, their codes, and whether they are for training."""
    observations, codes = demonstrations.observations, demonstrations.codes
    if not isinstance(observations, dict) or "image" not in observations:
        raise UserError(
            f"expected demonstrations with images, as Driving-v0 has them, got {demonstrations.environment}"
        )
    if codes is None or set(codes.tolist()) != {0, 1} or np.bincount(codes).min() < 2:
        got = "none" if codes is None else np.unique(codes, return_counts=True)[1].tolist()
        raise UserError(f"expected two or more trajectories of each of two modes, labelled 0 and 1, got {got}")
    trained = np.ones(len(codes), bool)
    for mode in (0, 1):
        own = generator.permutation(np.flatnonzero(codes == mode))
        trained[own[: min(max(round(held_out * len(own)), 1), len(own) - 1)]] = False
    trajectory = demonstrations.trajectory_of_rows()[::every]
    return observations["image"][::every], codes[trajectory], trained[trajectory]


def _tensor(images: UInt8[np.ndarray, "frames height width 3"]) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - 0.5


def _parts(images: np.ndarray) -> list[np.ndarray]:
    return [images[first : first + 512] for first in range(0, len(images), 512)]
