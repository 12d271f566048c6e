"""What a table is measured on: test images, a density, classifiers, and what was already attacked, scored or purified.

Adversarial images depend on a classifier and an attack, purified ones on the density and the image alone; both are kept
as bytes under what they depend on, so that every row and column that asks for the same ones gets the same ones.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from math import log, prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import core_models
from apps.common.presets import preset_names
from apps.common.streaming.npz import BROKEN
from core_models import zoo
from core_models.base import Autoregressive, GenerativeModel
from core_models.data import DataSet
from core_models.errors import UserError
from core_models.files import atomic, hash_of
from core_models.modes import full_precision
from core_models.training.progress import Progress

from . import attacks
from .detection import Calibration, fingerprint
from .detection.calibration import FILE_NAME
from .purification import purify
from .table import NETWORKS, TRAININGS, Row

STORE_VERSIONS = {"attacked": 1, "purified": 1, "scored": 1}
"""The version of the code that each kind of array comes from. Raise it when that code comes to give other numbers (an
attack's, a purifier's), and what it gave before is made again; `measuring.PROTOCOL` then tells cells apart. Version 1
adds nothing to a key: it is that of everything kept before there were versions."""


def images_hash(x: Tensor) -> str:
    """Returns a name for some images: the first digits of the SHA-256 of their bytes."""
    return hashlib.sha256(x.contiguous().numpy().tobytes() + str(tuple(x.shape)).encode()).hexdigest()[:16]


class Store:
    """Arrays by what they depend on, in a folder; computed once.

    Args:
        folder: where they lie.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.spared: dict[Path, float] = {}
        """Time that arrays took when they were computed, of those found since this was last cleared [s]."""

    def get(self, kind: str, key: dict[str, Any], compute: Callable[[], Tensor]) -> Tensor:
        """Returns the tensor that `compute` gives, from the store where this version of it was given before."""
        if STORE_VERSIONS[kind] != 1:
            key = {**key, "version": STORE_VERSIONS[kind]}
        path = self.folder / kind / f"{hash_of(key)}.npz"
        # a file that can't be read is computed anew
        with suppress(*BROKEN), path.open("rb") as stored, np.load(stored, allow_pickle=False) as found:
            value = torch.from_numpy(found["x"])
            self.spared.setdefault(path, float(found["seconds"]) if "seconds" in found else 0.0)
            return value
        start = time.monotonic()
        value = compute()
        seconds = time.monotonic() - start
        self.spared[path] = 0.0
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path) as temporary, temporary.open("wb") as file:
            told = np.array(json.dumps(key, sort_keys=True, default=str))
            np.savez_compressed(file, x=value.numpy(), key=told, seconds=np.array(seconds))
        return value


@dataclass
class Experiment:
    """Everything that the cells of a call share."""

    data: DataSet
    name: str
    """Of the data set, as the presets of its classifiers spell it."""
    density: GenerativeModel
    density_name: str
    images: int
    """Test images, the first ones."""
    work: Path
    seed: int
    adaptive_quantile: float
    """Share of held-out clean images that adaptive purification leaves as they are."""
    batch_size: int = 64
    background: GenerativeModel | None = None
    """A density of mutated images, for the likelihood ratio."""
    digest: str | None = None
    """Of one's own data, what tells it from other data of that name."""

    def __post_init__(self) -> None:
        """Refuses what doesn't fit.

        Raises:
            UserError: when a density is not autoregressive or of another shape, or there are not as many images.
        """
        for role, model in (("density", self.density), ("background model", self.background)):
            if model is None:
                continue
            if not isinstance(model, Autoregressive):
                raise UserError(f"expected an autoregressive {role}, got {type(model).__name__}")
            if tuple(model.event_shape) != tuple(self.data.event_shape) or model.levels != self.data.levels:
                raise UserError(
                    f"expected a {role} of images {tuple(self.data.event_shape)} with {self.data.levels} levels, as "
                    f"{self.data.name} has, got one of {tuple(model.event_shape)} with {model.levels}"
                )
        if self.batch_size < 1:
            raise UserError(f"--batch_size: expected 1 or more, got {self.batch_size}")
        if not 1 <= self.images <= len(self.data.test_x):
            raise UserError(f"--images: expected from 1 to {len(self.data.test_x):,} test images, got {self.images}")
        self.store = Store(self.work / "store")
        self._classifiers: dict[Row, nn.Module] = {}

    @cached_property
    def density_id(self) -> str:
        """Names the density's weights."""
        return fingerprint(self.density)[:16]

    @property
    def x(self) -> Tensor:
        """The clean test images, as bytes."""
        return self.data.test_x[: self.images]

    @property
    def y(self) -> Tensor:
        """Their classes."""
        return self.data.test_y[: self.images]

    def pixels(self, x: Tensor) -> Tensor:
        """Returns bytes as images in [0, 1], on the density's device."""
        return x.to(next(self.density.parameters()).device, torch.float32) / (self.data.levels - 1)

    @cached_property
    def calibration(self) -> Calibration:
        """The scores of held-out clean images.

        Raises:
            UserError: when there is no calibration beside the density's weights.
        """
        folder = zoo.located(self.density_name)
        if not (folder / FILE_NAME).is_file():
            raise UserError(
                f"expected a calibration at {folder / FILE_NAME}, found none: genapps pixeldefend calibrate"
            )
        found = Calibration.load(folder / FILE_NAME)
        found.check(self.density)
        return found

    @cached_property
    def threshold(self) -> float:
        """Bits/dim up to which adaptive purification leaves an image as it is: a quantile of held-out clean images."""
        return float(np.quantile(self.calibration.scores["bits_per_dim"], self.adaptive_quantile))

    def classifier_folder(self, row: Row) -> Path:
        """Returns where a row's classifier lies."""
        training = TRAININGS[row.training].replace("-", "_")
        return self.work / f"classifier_{NETWORKS[row.network]}_{training}_{self.name.replace('-', '_')}"

    def classifier(self, row: Row) -> nn.Module:
        """Returns the classifier of a row, without what stands before it.

        A normally trained one that isn't in the folder of the work is taken from the zoo, if it is there.

        Raises:
            UserError: when it wasn't trained yet; says how.
        """
        own = row.undefended
        if own not in self._classifiers:
            folder = self.classifier_folder(own)
            shipped = f"{NETWORKS[own.network]}_{self.name.replace('-', '_')}"
            trained = (folder / "model.json").is_file()
            if not trained and own.training == "Normal" and shipped in zoo.names():
                folder = zoo.folder(shipped)
            elif not trained:
                preset = f"pixeldefend/{folder.name.replace('_normal', '')}"
                if own.training == "Normal" and f"{preset}_80k" in preset_names():
                    preset += "_80k"
                raise UserError(
                    f"expected the classifier of {own.title} in {folder}, found none: "
                    f"genapps pixeldefend train-classifier --config {preset} --out {folder}"
                )
            net: nn.Module = core_models.load(folder)
            self._classifiers[own] = net.to(next(self.density.parameters()).device).eval()
        return self._classifiers[own]

    def attacked(self, row: Row, name: str, eps: int, x: Tensor, y: Tensor, **parameters: Any) -> Tensor:
        """Returns adversarial images, as bytes, made on a row's classifier alone.

        Args:
            row: whose classifier.
            name: the attack, as in the registry.
            eps: its budget [levels].
            x: clean images, as bytes.
            y: their classes.
            **parameters: the attack's own; a density among them is the experiment's.
        """
        if attacks.find(name).budgetless and eps < self.data.levels - 1:
            # made once, without a budget, and clipped to any
            change = self.attacked(row, name, self.data.levels - 1, x, y, **parameters).int() - x.int()
            return (x.int() + change.clamp(-eps, eps)).to(torch.uint8)
        net = self.classifier(row)
        told = attacks.describe(name, eps, **parameters)
        key = {"classifier": fingerprint(net), "images": images_hash(x), "seed": self.seed, **told}
        if "density" in parameters:
            key["density"] = self.density_id

        at_a_time = 50 if "density" in parameters else 250  # gradients through a density take memory

        def compute() -> Tensor:
            with Progress(f"{name} {eps} on {row.undefended.title}", len(x), unit="image") as shown:
                found = attacks.attack(
                    name, net, self.pixels(x), y, eps, seed=self.seed, batch_size=at_a_time,
                    on_batch=lambda done: shown.update(done, last=done == len(x)), **parameters,
                )  # fmt: skip
            return self.bytes(found)

        return self.store.get("attacked", key, compute)

    def bytes(self, x: Tensor) -> Tensor:
        """Returns images in [0, 1] as bytes."""
        return (x * (self.data.levels - 1)).round().to(torch.uint8).cpu()

    def purified(self, x: Tensor, eps: int) -> Tensor:
        """Returns purified images, as bytes."""

        def compute() -> Tensor:
            assert isinstance(self.density, Autoregressive)
            done = []
            with Progress(f"purifying at {eps}", len(x), unit="image") as shown:
                for start in range(0, len(x), self.batch_size):
                    part = self.pixels(x[start : start + self.batch_size])
                    done.append(self.bytes(purify(self.density, part, eps, batch_size=self.batch_size)))
                    shown.update(start + len(part), last=start + len(part) == len(x))
            return torch.cat(done)

        key = {"density": self.density_id, "images": images_hash(x), "eps": eps}
        return self.store.get("purified", key, compute)

    def bits_per_dim(self, x: Tensor, model: GenerativeModel | None = None) -> Tensor:
        """Returns the bits/dim (n,) of images given as bytes: those of the density, or of another model."""
        scored = self.density if model is None else model

        @torch.no_grad()
        def compute() -> Tensor:
            assert isinstance(scored, Autoregressive)
            with full_precision():  # as the training images' scores were computed
                parts = [scored.log_prob(self.pixels(part)).cpu() for part in x.split(self.batch_size)]
            return -torch.cat(parts) / (prod(x.shape[1:]) * log(2))

        named = self.density_id if model is None else fingerprint(model)[:16]
        return self.store.get("scored", {"density": named, "images": images_hash(x)}, compute)

    def defended(self, row: Row, x: Tensor) -> Tensor:
        """Returns what a row's classifier is shown for images, as bytes."""
        if row.purifying == "none":
            return x
        if row.purifying == "PixelDefend":
            return self.purified(x, row.eps)
        # adaptive: what is likely enough stays; the rest is the same as without
        suspicious = self.bits_per_dim(x) > self.threshold
        return torch.where(suspicious.view(-1, 1, 1, 1), self.purified(x, row.eps), x)
