"""The tables: defences x attacks, detection, density and sanity, one result cell each.

Protocol 1: the first test images of the data set, 8-bit adversarial images, accuracy of what the whole row answers.
The attacks of the paper's columns are made on the row's classifier alone and know of no defence; AutoAttack too is
made there and carried over. BPDA, Square and the detector-aware attack are made on the whole defence, on fewer
images; on a row that leaves likely images as they are, the detector-aware attack is made on the classifier and its
density, in several variants, so that it passes unpurified. "Strongest" is the attack of the paper's columns that
leaves the least accuracy; "Worst case" counts an image only where it is right under each of these attacks, whether or
not it is without one, "Worst case of all" only where it is right without an attack and under those on the whole defence
too. Adaptive purification leaves as they are images that are likelier than a quantile of held-out clean images.
Nothing is chosen by the test set. A cell of an attack counts against the published one where the attack leaves the
undefended row no more than published.

Source of the tables: Song, Kim, Nowozin, Ermon and Kushman, "PixelDefend", ICLR 2018, tables 1 and 2.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from apps.common.intervals import Z, around
from apps.common.machine import set_threads
from apps.common.provenance import device_words
from apps.common.training import load_as_trained
from core_models.data import digest, require_own_name
from core_models.errors import UserError
from core_models.training import resolve_device

from . import attacks
from .defended import CAUTION
from .detection_table import detection_table
from .experiment import Experiment
from .knowing_columns import knowing, knowing_settings, worst_of_all
from .loading import load_density, require_calibrated
from .measuring import Grid, accuracy, counts, right, row_settings
from .sanity_table import sanity_table
from .table import KNOWING, OBLIVIOUS, TRANSFERRED, Row, find_attacks, find_rows

Table = Literal["attacks", "detection", "density", "sanity"]


def benchmark(
    data: str = "fashion-mnist",
    density: str = "zoo:pixel_cnn_fashion_mnist",
    tables: list[Table] = ["attacks"],  # noqa: B006
    rows: list[str] | None = None,
    attacks: list[str] | None = None,
    eps: list[int] = [8, 25],  # noqa: B006
    eps_defend: int = 32,
    adaptive_quantile: float = 0.9,
    images: int = 1000,
    knowing_images: int = 100,
    bpda_steps: int = 100,
    square_queries: int = 200,
    seed: int = 0,
    work: Path = Path("runs/pixeldefend"),
    results: Path = Path("docs/results"),
    background: str | None = None,
    batch_size: int = 128,
    device: str = "auto",
    threads: int | None = None,
    again: bool = False,
) -> None:
    """Fills the cells of the paper's tables that don't stand yet, and of those that belong beside them.

    PixelDefend alone falls to an attacker who knows it: 9 % accuracy at 8/255 on CIFAR-10 under BPDA, as published by
    Athalye, Carlini and Wagner 2018. Look at the columns BPDA, Square and Detector-aware before all others.

    Args:
        data: The data set: fashion-mnist or cifar10 for the published tables, or any labelled one of 8-bit images.
        density: The density model: a run folder with its calibration.npz, or zoo:NAME.
        tables: attacks (the paper's), detection (AUC by attack and control), density (test bits/dim), sanity.
        rows: Defences by name, all when left out: "ResNet Normal + PixelDefend (32)".
        attacks: Columns by name: RAND, FGSM, BIM, DeepFool, CW (these five when left out, with Clean, Strongest and
            Worst case), AutoAttack, BPDA, Square, Detector-aware.
        eps: Budgets of the attacks [levels].
        eps_defend: How far purification may move a value [levels].
        adaptive_quantile: Share of held-out clean images that adaptive purification leaves as they are.
        images: Test images, the first ones.
        knowing_images: How many of them for BPDA, Square and Detector-aware, each step of which purifies anew.
        bpda_steps: Gradient steps of BPDA and Detector-aware, at most.
        square_queries: Queries of Square.
        seed: Of the attacks, and the draw that the cells are filed under.
        work: Where trained classifiers lie, and where attacked and purified images are kept.
        results: Where cells are filed.
        background: A density trained on mutated images, a run folder or zoo:NAME: adds the likelihood ratio to the
            tests of detection.
        batch_size: Images purified at a time.
        device: auto, cpu, cuda or cuda:N.
        threads: CPU threads.
        again: Measure again what stands.
    """
    set_threads(threads)
    if not 0 < adaptive_quantile < 1:
        raise UserError(f"--adaptive_quantile: expected a share between 0 and 1, got {adaptive_quantile}")
    if not 1 <= knowing_images <= images:
        raise UserError(f"--knowing_images: expected from 1 to the {images} images, got {knowing_images}")
    require_own_name(data)
    require_calibrated(density)
    chosen, titles = find_rows(rows, eps_defend), find_attacks(attacks)
    for budget in eps:
        if not 0 < budget <= 255:
            raise UserError(f"--eps: expected budgets from 1 to 255 levels, got {budget}")
    model = load_density(density, device, autoregressive=True)
    other = load_density(background, device, autoregressive=True) if background else None
    experiment = Experiment(
        load_as_trained(data, density), Path(data).stem, model, density, images, work, seed, adaptive_quantile,
        batch_size, other, digest(data),
    )  # fmt: skip
    words = device_words(resolve_device(device), threads)
    options = {
        "data": data, "density": density, "eps": json.dumps(eps), "eps_defend": eps_defend,
        "adaptive_quantile": adaptive_quantile, "images": images, "knowing_images": knowing_images,
        "bpda_steps": bpda_steps, "square_queries": square_queries, "seed": seed,
    }  # fmt: skip
    base = "genapps pixeldefend benchmark " + " ".join(f"--{k} {shlex.quote(str(v))}" for k, v in options.items())

    def grid(table: str, more: str) -> Grid:
        return Grid(experiment, table, results, words, f"{base} {more}", again)

    own = experiment.name.replace("-", "_")
    if "density" in tables:
        _density(grid("density", "--tables [density]"))
    if "attacks" in tables:
        print(CAUTION)
        for row in chosen:
            more = f"--rows {shlex.quote(json.dumps([row.title]))}"
            if attacks is not None:
                more += f" --attacks {shlex.quote(json.dumps(titles))}"
            for budget in eps:
                _oblivious(grid(own, more), row, titles, budget, clean=attacks is None)
                for title in titles:
                    if title in KNOWING:
                        known = knowing_settings(title, bpda_steps, square_queries)
                        knowing(grid(own, more), row, title, budget, knowing_images, known)
                if "BPDA" in titles:
                    known = {t: knowing_settings(t, bpda_steps, square_queries) for t in titles if t in KNOWING}
                    worst_of_all(grid(own, more), row, budget, knowing_images, known)
    if "detection" in tables:
        more = f" --background {shlex.quote(background)}" if background else ""
        detection_table(grid("detection", f"--tables [detection]{more}"), eps, knowing_images, bpda_steps)
    if "sanity" in tables:
        sanity_table(grid("sanity", "--tables [sanity]"), eps[0], eps_defend, knowing_images, bpda_steps)


def _density(grid: Grid) -> None:
    experiment = grid.experiment
    x = experiment.data.test_x

    def measure() -> tuple[float, dict[str, Any]]:
        scores = experiment.bits_per_dim(x).double()
        parameters = sum(p.numel() for p in experiment.density.parameters())
        mean, error = float(scores.mean()), float(scores.std() / len(scores) ** 0.5)
        interval = around(mean, Z * error)
        return mean, {"images": len(x), "interval": interval, "parameters": parameters}

    settings = {"density": experiment.density_id, "images": len(x)}
    name = type(experiment.density).__name__
    grid.cell(name, f"{experiment.data.name} test", settings, measure, unit="bits/dim", better="lower")


def _oblivious(grid: Grid, row: Row, titles: list[str], eps: int, *, clean: bool) -> None:
    """The columns whose attacks know the classifier alone, and what follows from them."""
    experiment = grid.experiment
    x, y = experiment.x, experiment.y
    base = {**row_settings(experiment, row), "images": len(x)}
    if clean:
        settings = {**base, "attack": "none"}
        grid.cell(row.title, f"Clean {eps}", settings, lambda: accuracy(right(experiment, row, x, y)))
    told: dict[str, Any] = {}
    for title in titles:
        name = OBLIVIOUS.get(title) or TRANSFERRED.get(title)
        if name is None:
            continue
        told[title] = attacks.describe(name, eps)

        def measure(title: str = title, name: str = name) -> tuple[float, dict[str, Any]]:
            value, extra = accuracy(right(experiment, row, experiment.attacked(row, name, eps, x, y), y))
            return value, {**extra, **counts(experiment, row, title, name, eps)}

        grid.cell(row.title, f"{title} {eps}", {**base, "attack": told[title]}, measure)
    if set(OBLIVIOUS) <= set(titles):

        def each() -> dict[str, Tensor]:
            # anew for each cell, so that what a cell was spared doesn't depend on which was measured before
            return {
                title: right(experiment, row, experiment.attacked(row, name, eps, x, y), y)
                for title, name in OBLIVIOUS.items()
            }

        def strongest() -> tuple[float, dict[str, Any]]:
            correct = each()
            found = attacks.strongest(correct)
            value, extra = accuracy(correct[found.name])
            bare = {title: counts(experiment, row, title, name, eps) for title, name in OBLIVIOUS.items()}
            if all(bare.values()):
                # the strongest attack on the undefended row, against the strongest published one
                left = min(told["undefended"] for told in bare.values())
                theirs = min(told["undefended, published"] for told in bare.values())
                extra |= {"undefended": left, "undefended, published": theirs, "counts": left <= theirs}
            return value, {**extra, "attack": found.name}

        settings = {**base, "attacks": {title: told[title] for title in OBLIVIOUS}}
        grid.cell(row.title, f"Strongest {eps}", settings, strongest)
        grid.cell(
            row.title, f"Worst case {eps}", {**settings, "worst case": True},
            lambda: accuracy(attacks.strongest(each()).worst_case),
        )  # fmt: skip
