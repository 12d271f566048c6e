"""`genapps pixeldefend report`: the figures and the page of attacked, scored and purified images.

A run's folder has `report.html`, which it may share with other runs, and `pixeldefend/`, where all else lies:
`images.npz`, `summary.json` and `figures/`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt8

from apps.common.report import Headline, Picture, Table, add_section
from apps.common.streaming.npz import BROKEN
from core_models.errors import UserError
from core_models.files import atomic, read_json
from core_models.training import RunFolder

from .pictures import AMPLIFIED, Captioned, density_histograms, purification_grid, roc_curves

SECTION = "pixeldefend"
"""Of the page, and the sub-folder of the run."""

# images in a row of a grid
SHOWN = 8

HEAD = ("images", "n", "undefended", "purified", "adaptive", "changed", "AUC", "suspicious")
"""The columns of the table of a run; the last two are of the images that an attack changed."""


@dataclass(frozen=True, eq=False)
class Examined:
    """Images of one kind, as they are and purified, and what was found out about them."""

    x: UInt8[np.ndarray, "n c h w"]
    """Levels."""
    purified: UInt8[np.ndarray, "n c h w"]
    bits: Float64[np.ndarray, " n"]
    """[bits/dim]"""
    bits_purified: Float64[np.ndarray, " n"]
    """[bits/dim]"""
    p_value: Float64[np.ndarray, " n"]
    predicted: Int64[np.ndarray, " n"]
    """The classifier's answer without a defence."""
    predicted_purified: Int64[np.ndarray, " n"]
    """Its answer to the purified image."""

    def predicted_adaptive(self, threshold: float) -> Int64[np.ndarray, " n"]:
        """Returns the answers of adaptive PixelDefend, which purifies what has more bits/dim than a threshold."""
        return np.where(self.bits > threshold, self.predicted_purified, self.predicted)

    def changed(self, clean: Examined) -> Bool[np.ndarray, " n"]:
        """Tells which images an attack changed, given the clean ones: the others are clean, and no miss of a detector.

        BPDA leaves an image as it is that the defence classifies wrongly anyway.
        """
        return np.asarray((self.x != clean.x[: len(self.x)]).any((1, 2, 3)))


def folder_of(run: Path) -> RunFolder:
    """Returns where the files of a run lie."""
    return RunFolder(run / SECTION)


def save_examined(folder: RunFolder, examined: Mapping[str, Examined], y: Int64[np.ndarray, " n"]) -> None:
    """Writes images and what was found out, whole or not at all.

    Args:
        folder: of the run's files.
        examined: by what they are: first the clean ones, then by attack.
        y: right classes of the clean images; those of an attack are made of the first ones.
    """
    arrays = {f"{name}/{f.name}": getattr(own, f.name) for name, own in examined.items() for f in fields(Examined)}
    with atomic(folder.path / "images.npz") as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, y=y, names=np.array(list(examined)), **arrays)


def load_examined(folder: RunFolder) -> tuple[dict[str, Examined], Int64[np.ndarray, " n"]]:
    """Reads what `save_examined` wrote.

    Raises:
        UserError: when the file is missing or damaged.
    """
    path = folder.path / "images.npz"
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as found:
            examined = {
                str(name): Examined(**{f.name: found[f"{name}/{f.name}"] for f in fields(Examined)})
                for name in found["names"]
            }
            return examined, found["y"]
    except (*BROKEN, KeyError) as error:
        raise UserError(f"expected the images of a demo in {path} ({error}): run the demo again") from error


def cells(row: Mapping[str, Any]) -> list[str]:
    """Returns the cells of a row of the table as they should read, under `HEAD`."""

    def told(name: str, form: str) -> str:
        return "-" if row[name] is None else form.format(row[name])

    percent = [told(name, "{:.1f} %") for name in ("undefended", "purified", "adaptive")]
    found = [told("changed", "{}"), told("auc", "{:.3f}"), told("suspicious", "{:.1f} %")]
    return [row["images"], str(row["n"]), *percent, *found]


def draw_figures(
    folder: RunFolder, summary: Mapping[str, Any], examined: Mapping[str, Examined], y: Int64[np.ndarray, " n"]
) -> list[Picture]:
    """Draws the figures of a run, those of an earlier one of its folder taken away; returns them with their captions.

    Args:
        folder: receives `figures/*.png`.
        summary: of the run.
        examined: first the clean images, then those by attack.
        y: right classes of the clean images.
    """
    for old in folder.figures.glob("*.png"):
        old.unlink()
    (_, clean), *attacks = examined.items()
    pictures = []
    for name, own in attacks:
        chosen = _chosen(y[: len(own.x)])
        path = folder.figures / f"images_{_file_name(name)}.png"
        classes = summary["classes"]
        truth = [_class_name(classes, label) for label in y[chosen]]
        purification_grid(
            _captioned(clean.x[chosen], clean.predicted[chosen], clean.bits[chosen], classes),
            _captioned(own.x[chosen], own.predicted[chosen], own.bits[chosen], classes),
            _captioned(own.purified[chosen], own.predicted_purified[chosen], own.bits_purified[chosen], classes),
            path,
            truth=truth,
            title=f"{name} at {summary['eps']} levels, purified within {summary['eps_defend']}",
        )
        whom = "the whole defence" if name in summary["knowing"] else "the classifier alone"
        caption = (
            f"{name}, made on {whom}: test images, attacked and purified, and how both differ from the clean image "
            f"(x {AMPLIFIED}, mid grey is no change). Below each image: the class that the classifier gives it, with a "
            "cross where it is wrong, and its bits/dim."
        )
        pictures.append(Picture(path, caption))
    moved = {name: own.changed(clean) for name, own in attacks}
    pairs = {
        name: (own.bits[moved[name]], own.bits_purified[moved[name]]) for name, own in attacks if moved[name].any()
    }
    if not pairs:
        return pictures
    rate, at = summary["false_positive_rate"], f"attacks at {summary['eps']} levels"
    path = density_histograms(
        clean.bits, pairs, folder.figures / "bits_per_dim.png",
        threshold=summary["threshold"], false_positive_rate=rate,
        title=f"Bits/dim under the density, {at}",
    )  # fmt: skip
    only = "Only images that the attack changed are counted."
    words = (
        "Bits/dim of clean images, of adversarial ones, and of these purified; right of the dotted line, an image is"
    )
    pictures.append(Picture(path, f"{words} called suspicious. {only}"))
    path = roc_curves(
        clean.bits, {name: bits for name, (bits, _) in pairs.items()}, folder.figures / "roc.png",
        made_of={name: moved[name].nonzero()[0] for name in pairs},
        false_positive_rate=rate, title=f"Detection by bits/dim, {at}",
    )  # fmt: skip
    words = "Adversarial images found, against clean images called suspicious (ROC curves)."
    pictures.append(Picture(path, f"{words} {only}"))
    return pictures


def write_page(run: Path, summary: Mapping[str, Any], pictures: Sequence[Picture]) -> Path:
    """Writes the section of a run on `report.html`, beside what others wrote there; returns the page's path."""
    rows = {row["images"]: row for row in summary["rows"]}
    _, *oblivious = [row for row in summary["rows"] if row["images"] not in summary["knowing"]]
    headlines = []
    if oblivious:
        worst = min(oblivious, key=lambda row: row["purified"])
        headlines += [
            Headline(
                f"{worst['images']}: accuracy",
                f"{worst['undefended']:.0f} → {worst['purified']:.0f} %",
                "the attacker does not know of the defence",
            ),
        ]
        if worst["auc"] is not None:
            headlines.append(Headline(f"{worst['images']}: AUC", f"{worst['auc']:.3f}", "detection by bits/dim"))
    headlines += [
        Headline(f"{name}: accuracy", f"{rows[name]['purified']:.0f} %", "the attacker knows the defence")
        for name in summary["knowing"]
    ]
    headlines.append(Headline("purification", f"{summary['images_per_second']:.0f} images/s", summary["device"]))
    share = f"{100 * summary['false_positive_rate']:g} %"
    table = Table(
        f"Accuracy and detection, attacks at {summary['eps']} levels",
        HEAD,
        [cells(row) for row in summary["rows"]],
        f"Undefended, purified within {summary['eps_defend']} levels, and adaptive: purified above "
        f"{summary['adaptive_threshold']:.3f} bits/dim, which {100 * (1 - summary['adaptive_quantile']):g} % of "
        f"held-out images exceed. Suspicious: by the p-value, at {share} false alarms. AUC and suspicious are of the "
        "images that the attack changed: BPDA leaves as it is, and clean, what the defence gets wrong unattacked.",
    )
    return add_section(
        run / "report.html",
        SECTION,
        title=f"PixelDefend on {summary['data']}",
        summary=summary["caution"],
        headlines=headlines,
        tables=[table],
        figures=pictures,
        notes=summary["notes"],
        command=summary["command"],
    )


def say(summary: Mapping[str, Any]) -> None:
    """Prints the table, the speed and what it is all worth."""
    lines = [list(HEAD), *map(cells, summary["rows"])]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    print(
        f"\naccuracy undefended, purified within {summary['eps_defend']} levels, and adaptive (above "
        f"{summary['adaptive_threshold']:.3f} bits/dim); suspicious at {100 * summary['false_positive_rate']:g} % "
        f"false alarms; attacks at {summary['eps']} levels, AUC and suspicious of the images that they changed:"
    )
    for line in lines:
        first, *rest = (
            text.ljust(width) if i == 0 else text.rjust(width)
            for i, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        print("  " + "   ".join([first, *rest]).rstrip())
    print(
        f"purified {summary['purified_images']} images in {summary['purification_seconds']:.1f} s: "
        f"{summary['images_per_second']:.1f} images/s on {summary['device']}"
    )
    print(summary["caution"])


def report(run: Path) -> None:
    """Draws the figures and the page of a demo again, from what its folder holds.

    Args:
        run: The folder that the demo wrote.
    """
    folder = folder_of(run)
    if not folder.summary.is_file():
        raise UserError(f"expected the folder of a demo, found no {folder.summary}: run genapps pixeldefend demo first")
    summary = read_json(folder.summary)
    examined, y = load_examined(folder)
    print(write_page(run, summary, draw_figures(folder, summary, examined, y)))


def _chosen(y: np.ndarray) -> np.ndarray:
    """Returns which images to show: the first of each class before others."""
    firsts = np.sort(np.unique(y, return_index=True)[1])
    rest = np.setdiff1d(np.arange(len(y)), firsts)
    return np.sort(np.concatenate([firsts, rest])[:SHOWN])


def _captioned(x: np.ndarray, predicted: np.ndarray, bits: np.ndarray, classes: Sequence[str]) -> Captioned:
    return Captioned(x, [_class_name(classes, label) for label in predicted], bits)


def _class_name(classes: Sequence[str], label: int) -> str:
    return str(classes[label]) if label < len(classes) else str(label)


def _file_name(name: str) -> str:
    return name.lower().replace(" ", "_").replace("-", "_")
