"""`genapps pixeldefend demo`: a handful of images attacked, detected and purified, and the defence attacked in turn.

What it shows is small: the tables (`genapps pixeldefend benchmark`) measure the same on more images and attacks.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from apps.common.intervals import of_share
from apps.common.machine import set_threads
from apps.common.options import at_least
from apps.common.provenance import command_line, commit, device_words
from apps.common.training import load_as_trained
from core_models import zoo
from core_models.base import Autoregressive, GenerativeModel
from core_models.data import DataSet, NoSourceError
from core_models.errors import UserError
from core_models.files import require_writable
from core_models.training import resolve_device
from core_models.training.progress import Progress

from . import attacks as registry
from .defended import CAUTION, Defended, Purifier
from .detection import Calibration, area_under_curve, bits_per_dim, permutation_p_value, threshold_at
from .detection.calibration import FILE_NAME
from .detection.obtain import obtain_calibration
from .loading import class_names, codes_of_classifier, load_classifier, load_density, predictions, require_calibrated
from .purification import purify
from .report import Examined, draw_figures, folder_of, save_examined, say, write_page

KNOWING = "bpda"


def demo(
    out: Path = Path("runs/demo_pixeldefend"),
    data: str = "fashion-mnist",
    density: str = "zoo:pixel_cnn_fashion_mnist",
    classifier: str = "zoo:resnet_fashion_mnist",
    images: int = 64,
    attacks: list[str] = ["rand", "fgsm", "bim"],  # noqa: B006
    eps: int = 25,
    eps_defend: int = 32,
    bpda_images: int = 16,
    bpda_steps: int = 20,
    false_positive_rate: float = 0.05,
    adaptive_quantile: float = 0.9,
    batch_size: int = 64,
    seed: int = 0,
    device: str = "auto",
    threads: int | None = None,
) -> None:
    """Attacks a handful of test images, detects and purifies them, and attacks the defence itself, in a minute.

    PixelDefend alone falls to an attacker who knows it: 9 % accuracy at 8/255 on CIFAR-10 under BPDA, as published by
    Athalye, Carlini and Wagner 2018. The row BPDA shows how that goes here.

    Args:
        out: The folder: report.html, to which a section is added where it stands already, and pixeldefend/ with
            images.npz, summary.json and figures. What an earlier call wrote is replaced.
        data: A labelled data set by name, or the path of your own .npz (x, y) or folder of class folders.
        density: The density model, with its calibration.npz: a run folder, or zoo:NAME.
        classifier: The classifier: a run folder, zoo:NAME, or a class path.
        images: Test images, the first ones.
        attacks: Attacks on the classifier alone, by name.
        eps: Their budget, and that of BPDA [levels].
        eps_defend: How far purification may move a value [levels].
        bpda_images: Images for BPDA, which purifies them anew at each step; at most `images`.
        bpda_steps: Its steps, at most.
        false_positive_rate: An image is suspicious when its p-value is at most this.
        adaptive_quantile: Share of held-out clean images that adaptive purification leaves as they are.
        batch_size: Images purified at a time.
        seed: Of the attacks.
        device: auto, cpu, cuda or cuda:N.
        threads: CPU threads.
    """
    started = time.monotonic()
    set_threads(threads)
    _check_levels(eps=(eps, 1), eps_defend=(eps_defend, 0))
    at_least(1, images=images, bpda_images=bpda_images, bpda_steps=bpda_steps)
    _check_shares(false_positive_rate=false_positive_rate, adaptive_quantile=adaptive_quantile)
    # what they are called and their parameters, before anything takes time
    titles = {_oblivious(name): registry.describe(name, eps) for name in attacks}
    told_bpda = registry.describe(KNOWING, eps, steps=bpda_steps)
    require_calibrated(density)
    model = load_density(density, device, autoregressive=True)
    calibration = _calibration(model, density)
    net = load_classifier(classifier, device, model.event_shape)
    try:
        data_set = load_as_trained(data, density)
    except NoSourceError as error:
        reason = " ".join(str(error).split())
        print(f"{data} is out of reach ({reason}): the demo of PixelDefend is left out", file=sys.stderr)
        return
    x, y = _test_images(data_set, data, model, images)
    y = codes_of_classifier(classifier, net, data_set, y)
    run = folder_of(out)
    require_writable(run.summary)
    print(f"data: {data_set.name} ({data_set.source}), the first {images} test images; calibration: {calibration}")
    examiner = _Examiner(model, net, calibration, eps_defend, batch_size)
    made = {"clean": x}
    for name, told in titles.items():
        made[told["attack"]] = registry.attack(name, net, x, y, eps, seed=seed)
    target = Defended(Purifier(model, eps=eps_defend, batch_size=batch_size), net).eval()
    count, knowing = min(bpda_images, images), told_bpda["attack"]
    print(f"{knowing} on the whole defence, {count} images, at most {bpda_steps} steps", file=sys.stderr)
    made[knowing] = registry.attack(KNOWING, target, x[:count], y[:count], eps, seed=seed, steps=bpda_steps)
    with Progress("purifying", sum(map(len, made.values())), unit="image") as shown:
        examined = {name: examiner.examine(own, shown) for name, own in made.items()}
    labels = y.numpy()
    threshold = threshold_at(false_positive_rate, calibration.scores["bits_per_dim"])
    adaptive = float(np.quantile(calibration.scores["bits_per_dim"], adaptive_quantile))
    rows = [
        _row(name, own, examined["clean"], labels, false_positive_rate, adaptive, knows=name == knowing)
        for name, own in examined.items()
    ]
    caution = _caution(rows[-1], examined["clean"], labels, eps, told_bpda["steps"])
    rate = examiner.purified / max(examiner.seconds, 1e-9)
    notes = [
        f"Data: {data_set.name} ({data_set.source}), the first {images} test images. Calibration: {calibration}.",
        *(f"{told['attack']} ({told['source']}): {_told(told)}." for told in (*titles.values(), told_bpda)),
        f"A demonstration: an accuracy of 50 % measured on {images} images is known to within "
        f"{98 / images**0.5:.0f} percentage points (95 %). The benchmark measures the tables of the paper.",
    ]
    summary: dict[str, Any] = {
        "data": data_set.name, "source": data_set.source, "classes": class_names(classifier) or list(data_set.classes),
        "density": density,
        "classifier": classifier, "calibration": str(calibration), "images": images, "eps": eps,
        "eps_defend": eps_defend, "false_positive_rate": false_positive_rate,
        "threshold": threshold if np.isfinite(threshold) else None, "adaptive_quantile": adaptive_quantile,
        "adaptive_threshold": adaptive, "knowing": [knowing], "attacks": [*titles.values(), told_bpda], "rows": rows,
        "purified_images": examiner.purified, "purification_seconds": examiner.seconds, "images_per_second": rate,
        "caution": caution, "notes": notes, "seed": seed, "device": device_words(resolve_device(device), threads),
        "command": command_line(), "commit": commit(), "seconds": 0.0,
    }  # fmt: skip
    run.summary.unlink(missing_ok=True)  # that of an earlier call says nothing of what is written now
    save_examined(run, examined, labels)
    page = write_page(out, summary, draw_figures(run, summary, examined, labels))
    summary["seconds"] = round(time.monotonic() - started, 1)
    run.write_summary(summary)  # last: it says that the run has ended
    say(summary)
    print(f"report: {page} ({summary['seconds']:.0f} s)")


@dataclass
class _Examiner:
    """Scores, purifies and classifies images, and times purification."""

    density: nn.Module
    classifier: nn.Module
    calibration: Calibration
    eps_defend: int
    batch_size: int
    purified: int = 0
    seconds: float = 0.0

    def examine(self, x: Tensor, shown: Progress) -> Examined:
        """Returns what is found out about images in [0, 1]."""
        place = next(self.density.parameters()).device
        done: list[Tensor] = []
        for part in x.split(self.batch_size):
            images = part.to(place)
            start = _now(place)
            assert isinstance(self.density, Autoregressive)
            done.append(purify(self.density, images, self.eps_defend, batch_size=self.batch_size).cpu())
            self.seconds += _now(place) - start
            self.purified += len(part)
            shown.update(self.purified, last=self.purified == shown.total)
        z = torch.cat(done)
        bits = bits_per_dim(self.density, x, batch_size=self.batch_size)
        return Examined(
            x=_bytes(x),
            purified=_bytes(z),
            bits=bits,
            bits_purified=bits_per_dim(self.density, z, batch_size=self.batch_size),
            p_value=permutation_p_value(bits, self.calibration.scores["bits_per_dim"]),
            predicted=self._predictions(x),
            predicted_purified=self._predictions(z),
        )

    def _predictions(self, x: Tensor) -> np.ndarray:
        place = next(self.density.parameters()).device
        parts = [predictions(self.classifier, part.to(place)) for part in x.split(self.batch_size)]
        found: np.ndarray = torch.cat(parts).numpy()
        return found


def _check_levels(**options: tuple[int, int]) -> None:
    """Refuses levels, given with the least that they may be."""
    for name, (value, least) in options.items():
        if not least <= value <= 255:
            raise UserError(f"--{name}: expected levels from {least} to 255, got {value}")


def _check_shares(**options: float) -> None:
    for name, value in options.items():
        if not 0 < value < 1:
            raise UserError(f"--{name}: expected a share between 0 and 1, got {value:g}")


def _oblivious(name: str) -> str:
    """Returns the name of an attack as the registry has it.

    Raises:
        UserError: when there is none, or it is made on a whole defence.
    """
    found = registry.find(name)
    if found.knows_defence:
        raise UserError(f"--attacks: expected attacks on the classifier alone, got {name}: bpda is always made")
    return found.name


def _calibration(model: nn.Module, density: str) -> Calibration:
    """Returns the scores of clean images that lie beside a density.

    Raises:
        UserError: when there are none.
    """
    folder = zoo.located(density)
    found = obtain_calibration(model, folder)
    if found is None:
        raise UserError(
            f"expected a calibration at {folder / FILE_NAME}, found none: genapps pixeldefend calibrate --density "
            f"{density} --data NAME"
        )
    return found


def _test_images(data_set: DataSet, name: str, model: GenerativeModel, images: int) -> tuple[Tensor, Tensor]:
    """Returns the first test images in [0, 1] and their classes.

    Raises:
        UserError: when the density is of other images, there are not as many, or one has no class.
    """
    if tuple(data_set.event_shape) != tuple(model.event_shape) or data_set.levels != 256:
        raise UserError(
            f"--data {name}: expected 8-bit images {tuple(model.event_shape)}, as the density is of, got "
            f"{tuple(data_set.event_shape)} with {data_set.levels} levels"
        )
    if images > len(data_set.test_x):
        raise UserError(f"--images: expected at most the {len(data_set.test_x):,} test images, got {images}")
    y = data_set.labels("test")[:images].long()
    if bool((y < 0).any()):
        raise UserError(f"--data {name}: expected a class for every image, {int((y < 0).sum())} have none: label them")
    return data_set.test_x[:images].to(torch.float32) / 255, y


def _row(
    name: str, own: Examined, clean: Examined, y: np.ndarray, rate: float, adaptive: float, *, knows: bool
) -> dict[str, Any]:
    """Returns a row of the table: accuracies and the share of suspicious images [%], and the AUC.

    Images made on the whole defence say nothing of what they were not made on: there the other accuracies are None.
    What the density says is of the images that the attack changed, and None where it changed none.
    """
    truth = y[: len(own.x)]
    seen = np.full(len(own.x), True) if own is clean else own.changed(clean)
    some = bool(seen.any())
    area = None
    if some and own is not clean:
        area = area_under_curve(clean.bits, own.bits[seen], made_of=seen.nonzero()[0])
    return {
        "images": name,
        "n": len(truth),
        "undefended": None if knows else _percent(own.predicted == truth),
        "purified": _percent(own.predicted_purified == truth),
        "adaptive": None if knows else _percent(own.predicted_adaptive(adaptive) == truth),
        "changed": None if own is clean else int(seen.sum()),
        "auc": None if area is None else area.value,
        "auc_interval": None if area is None else [area.low, area.high],
        "suspicious": _percent(own.p_value[seen] <= rate) if some else None,
        "median_p_value": float(np.median(own.p_value[seen])) if some else None,
        "bits_per_dim": float(own.bits[seen].mean()) if some else None,
    }


def _caution(row: dict[str, Any], clean: Examined, y: np.ndarray, eps: int, steps: int) -> str:
    """Returns what is known of attackers who know the defence: the published figure and the one found here."""
    n = row["n"]
    before = _percent(clean.predicted_purified[:n] == y[:n])
    right = round(row["purified"] * n / 100)
    low, high = of_share(right, n)
    return (
        f"{CAUTION}. Here, at {eps} levels, {row['images']} with at most {steps} steps leaves it "
        f"{row['purified']:.1f} % (95 %: {low:.1f} to {high:.1f}; {right} of {n} images), from {before:.1f} % "
        "without attack."
    )


def _told(told: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in told.items() if key not in ("attack", "source"))


def _percent(found: np.ndarray) -> float:
    return 100 * float(found.mean())


def _bytes(x: Tensor) -> np.ndarray:
    levels: np.ndarray = (x * 255).round().to(torch.uint8).numpy()
    return levels


def _now(place: torch.device) -> float:
    """Returns the time [s], once a GPU has done what it was given."""
    if place.type == "cuda":
        torch.cuda.synchronize(place)
    return time.monotonic()
