"""`genapps pixeldefend attack`: adversarial images of a data set, made on a classifier or a whole defence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch

from apps.common.cli import command_line
from apps.common.importing import working_folder_importable
from apps.common.machine import find_device, set_threads
from apps.common.options import at_least
from apps.common.provenance import commit
from apps.common.training import load_as_trained
from core_models.data import DataSet, Split
from core_models.errors import UserError
from core_models.files import atomic, require_writable, write_json
from core_models.training.progress import Progress

from . import attacks
from .defended import CAUTION, Defended, Purifier
from .detection import fingerprint
from .loading import codes_of_classifier, load_classifier, load_density, predictions


def attack_images(
    data: str,
    out: Path,
    attack: str = "bim",
    eps: int = 8,
    classifier: str = "zoo:resnet_fashion_mnist",
    density: str | None = None,
    eps_defend: int = 32,
    threshold: float | None = None,
    parameters: dict[str, Any] | None = None,
    split: Literal["train", "valid", "test", "all"] = "test",
    images: int | None = None,
    batch_size: int = 250,
    seed: int = 0,
    device: str = "auto",
    threads: int | None = None,
) -> None:
    """Attacks a classifier's images, or with a density those of the classifier behind PixelDefend.

    Args:
        data: A labelled data set by name, or the path of your own .npz (x, y) or folder of class folders.
        out: The .npz that is written: x adversarial and clean, both 8-bit, and y, the classifier's class; of your own
            images names, their files or their rows in x; beside it a .json with the figures.
        attack: rand, fgsm, bim, pgd, eot-pgd, deepfool, cw, square, autoattack, or with a density bpda or
            detector-aware; or module.function of your own.
        eps: The largest change of a sub-pixel [levels].
        classifier: The classifier: a run folder, zoo:NAME, or the class path of your own (my_package.Mine).
        density: A density: with it the attack is made on the defended classifier, purification included.
        eps_defend: How far purification may move a value [levels].
        threshold: With a density, adaptive purification: images of at most this many bits/dim stay as they are.
        parameters: The attack's own, e.g. {steps: 20}.
        split: Which part of the data set; all: every image, those for training first. Where your own data has no test
            images, test is the fifth that training on it holds out too.
        images: How many images, the first ones; all when left out.
        batch_size: Images at a time.
        seed: Of the attack's random draws.
        device: auto, cpu, cuda or cuda:N.
        threads: CPU threads.
    """
    set_threads(threads)
    if threshold is not None and density is None:
        raise UserError("--threshold: expected a density beside it, whose bits/dim it is of: give --density")
    at_least(1, batch_size=batch_size, images=images)
    working_folder_importable()
    attack = attacks.named(attack)
    told = attacks.describe(attack, eps, **(parameters or {}))
    if out.suffix != ".npz":
        raise UserError(f"--out: expected the name of a .npz, got {out}")
    require_writable(out)
    data_set = load_as_trained(data, classifier)
    if data_set.levels != 256:
        raise UserError(f"--data {data}: expected 8-bit images, got {data_set.levels} levels")
    every = _parts(data_set)
    parts = every if split == "all" else [split]
    x, y = (torch.cat(list(map(of_part, parts)))[:images] for of_part in (data_set.images, data_set.labels))
    names = [name for part in parts for name in getattr(data_set, f"{part}_paths", ())][:images]
    if bool((y < 0).any()):
        raise UserError(f"--data {data}: expected a class for every image, {int((y < 0).sum())} have none: label them")
    net = load_classifier(classifier, device, data_set.event_shape)
    y = codes_of_classifier(classifier, net, data_set, y)
    if density is None:
        if attacks.find(attack).knows_defence:
            raise UserError(f"--attack {attack}: expected a density, since it is made on the whole defence: --density")
        target = net
    else:
        model = load_density(density, device, autoregressive=True)
        target = Defended(Purifier(model, eps=eps_defend, threshold=threshold), net)
        batch_size = min(batch_size, 64)
        print(CAUTION)
    place = find_device(device)
    of = f"{len(x):,} of the {sum(len(data_set.labels(part)) for part in parts):,} images"
    if split != "all":
        of += f" of the {split} split (--split all: of {sum(len(data_set.labels(part)) for part in every):,})"
    print(f"data: {data_set.source}")
    print(f"{told['attack']}, {eps} levels, on {of}: {json.dumps(told, default=str)}")
    with Progress(attack, len(x), unit="image") as shown:
        found = attacks.attack(
            attack, target, x, y, eps, seed=seed, batch_size=batch_size,
            on_batch=lambda done: shown.update(done, last=done == len(x)), **(parameters or {}),
        )  # fmt: skip
    before, after = (
        torch.cat([predictions(target, part.to(place)) for part in images_.split(batch_size)]) for images_ in (x, found)
    )
    bytes_, clean = ((images_ * 255).round().to(torch.uint8).numpy() for images_ in (found, x))
    with atomic(out) as temporary, temporary.open("wb") as file:
        own: dict[str, Any] = {"names": np.array(names)} if len(names) == len(x) else {}
        np.savez_compressed(file, x=bytes_, clean=clean, y=y.numpy(), **own)
    largest = int(np.abs(bytes_.astype(int) - clean).max()) if len(x) else 0
    summary = {
        "data": data_set.name, "split": split, "images": len(x), "classifier": fingerprint(net)[:16],
        "density": None if density is None else fingerprint(model)[:16], "eps_defend": eps_defend if density else None,
        "threshold": threshold, **told, "seed": seed, "largest_change_levels": largest,
        "accuracy_percent": 100 * float((before == y).float().mean()),
        "accuracy_under_attack_percent": 100 * float((after == y).float().mean()),
        "command": command_line(), "commit": commit(),
    }  # fmt: skip
    write_json(out.with_suffix(".json"), summary)
    print(
        f"classified rightly: {summary['accuracy_percent']:.2f} % of the clean images, "
        f"{summary['accuracy_under_attack_percent']:.2f} % of the attacked ones; wrote {out} and {out.stem}.json"
    )


def _parts(data_set: DataSet) -> list[Split]:
    """Returns the splits that a data set has."""
    return [part for part in get_args(Split) if getattr(data_set, f"{part}_x") is not None]
