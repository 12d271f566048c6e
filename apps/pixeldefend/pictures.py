"""The figures of PixelDefend: what is done to images, what a density thinks of them, and how well they are detected.

After figures 2, 3 and 5 of Song, Kim, Nowozin, Ermon and Kushman, "PixelDefend", ICLR 2018. In all of them clean images
are grey, adversarial ones red-brown and purified ones blue; lines differ by their strokes too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from numpy.typing import ArrayLike

from apps.common.figures import OKABE_ITO, canvas, tiles_of
from core_models.errors import UserError

from .detection import area_under_curve, roc_curve

AMPLIFIED = 4
"""How many times differences are shown larger than they are."""

CLEAN, ADVERSARIAL, PURIFIED = "#8C8C8C", "#D55E00", "#0072B2"
STROKES = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (5, 1.5, 1.2, 1.5)), (0, (9, 2)))
# of a tile, below it: two lines of a caption
CAPTION = 0.27


@dataclass(frozen=True, eq=False)
class Captioned:
    """Images with what a classifier and a density say of them."""

    images: UInt8[np.ndarray, "n c h w"]
    """Levels, with one or three channels."""
    predicted: Sequence[str]
    """Names of the classes."""
    bits_per_dim: Float[np.ndarray, " n"]


def difference(images: UInt8[np.ndarray, "n c h w"], clean: UInt8[np.ndarray, "n c h w"]) -> np.ndarray:
    """Returns the change of images from clean ones as a picture: amplified, mid grey where there is none."""
    return np.clip(0.5 + AMPLIFIED * (images.astype(np.float32) - clean) / 255, 0, 1)


def purification_grid(
    clean: Captioned,
    adversarial: Captioned,
    purified: Captioned,
    path: Path | str,
    *,
    truth: Sequence[str],
    title: str,
) -> Path:
    """Draws images a column each: clean, adversarial, purified, and the changes of the latter two from the first.

    Below each are the class that it is given, with a cross where that is wrong, and its bits/dim; below a difference
    the largest change [levels].

    Args:
        clean: the images.
        adversarial: the same, attacked.
        purified: those, purified.
        path: the PNG file to write.
        truth: names of the right classes.
        title: shown above, before what is said of the differences.

    Raises:
        UserError: when there is no image, or the three are not as many and of one shape.
    """
    rows = {"clean": clean, "adversarial": adversarial, "purified": purified}
    shapes = {row.images.shape for row in rows.values()}
    n = len(truth)
    if len(shapes) != 1 or n == 0 or {len(row.images) for row in rows.values()} != {n}:
        raise UserError(f"expected clean, adversarial and purified images of one shape for {n} classes, got {shapes}")
    inches, aspect = 1.08, clean.images.shape[2] / clean.images.shape[3]
    with canvas(path, inches * n + 1.0, inches * aspect * (1 + CAPTION) * 5 + 0.4) as figure:
        axes = figure.add_subplot()
        middles = []
        for number, (name, row) in enumerate(rows.items()):
            said = zip(row.predicted, row.bits_per_dim, truth, strict=True)
            words = [_words(predicted, bits, right) for predicted, bits, right in said]
            wrong = [predicted != right for predicted, right in zip(row.predicted, truth, strict=True)]
            middles.append((_draw_row(axes, number, row.images / 255, words, wrong), name))
        for number, name in ((3, "adversarial"), (4, "purified")):
            images = rows[name].images
            change = np.abs(images.astype(int) - clean.images).reshape(n, -1).max(axis=1)
            words = [f"up to {own} level{'' if own == 1 else 's'}" for own in change]
            shown = difference(images, clean.images)
            middles.append((_draw_row(axes, number, shown, words, [False] * n), f"{name}\nless clean"))
        axes.set(xlim=(-0.04, n - 0.04), ylim=(5 * (1 + CAPTION) - 0.1, -0.03), aspect=aspect)
        axes.set_yticks([middle for middle, _ in middles], [name for _, name in middles], fontsize=9)
        axes.set_xticks([])
        axes.tick_params(length=0)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.set_title(f"{title}; differences x {AMPLIFIED}, grey is none")
    return Path(path)


def density_histograms(
    clean: ArrayLike,
    attacks: Mapping[str, tuple[ArrayLike, ArrayLike]],
    path: Path | str,
    *,
    threshold: float | None = None,
    false_positive_rate: float | None = None,
    bins: int = 32,
    title: str | None = None,
) -> Path:
    """Draws how bits/dim are distributed: a panel for each attack, clean images in all, the same bins throughout.

    Args:
        clean: bits/dim of clean images.
        attacks: of each attack, bits/dim of adversarial images and of the same ones purified.
        path: the PNG file to write.
        threshold: bits/dim above which an image is called suspicious; none is drawn where None or infinite.
        false_positive_rate: the share of clean images that are, told beside it.
        bins: how many.
        title: shown above.

    Raises:
        UserError: when there is no attack, or nothing finite to draw.
    """
    values = {name: [np.asarray(own, np.float64) for own in pair] for name, pair in attacks.items()}
    every = np.concatenate([np.asarray(clean, np.float64), *(own for pair in values.values() for own in pair)])
    finite = every[np.isfinite(every)]
    if not attacks or not len(finite):
        raise UserError("expected bits/dim of at least one attack and finite ones, got none")
    edges = np.linspace(finite.min(), max(finite.max(), finite.min() + 1e-3), bins + 1)
    with canvas(path, 7.0, 1.35 * len(attacks) + 1.1) as figure:
        first = None
        for number, (name, (adversarial, purified)) in enumerate(values.items()):
            axes = first = figure.add_subplot(len(attacks), 1, number + 1, sharex=first)
            heights, _ = np.histogram(np.clip(clean, edges[0], edges[-1]), edges)
            axes.stairs(100 * heights / np.size(clean), edges, color="#d4d4d4", fill=True, label="clean")
            axes.stairs(100 * heights / np.size(clean), edges, color=CLEAN, linewidth=1)
            looks: list[tuple[str, np.ndarray, str, Any]] = [
                ("adversarial", adversarial, ADVERSARIAL, STROKES[0]),
                ("adversarial, purified", purified, PURIFIED, STROKES[1]),
            ]
            for label, own, colour, stroke in looks:
                heights, _ = np.histogram(np.clip(own, edges[0], edges[-1]), edges)
                shares = 100 * heights / max(len(own), 1)
                axes.stairs(shares, edges, color=colour, linestyle=stroke, linewidth=1.6, label=label)
            if threshold is not None and np.isfinite(threshold):
                told = "" if false_positive_rate is None else f", {100 * false_positive_rate:g} % false alarms"
                label = f"suspicious above {threshold:.2f}{told}"
                axes.axvline(threshold, color="black", linestyle=STROKES[2], linewidth=1.4, label=label)
            axes.set_title(f"{name} (n = {len(adversarial)})", fontsize=10)
            axes.tick_params(labelbottom=number == len(attacks) - 1)
            if number == 0:
                figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
        axes.set_xlabel("bits/dim")
        figure.supylabel("share of images [%]", fontsize=10)
        if title:
            figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return Path(path)


def roc_curves(
    clean: ArrayLike,
    attacks: Mapping[str, ArrayLike],
    path: Path | str,
    *,
    made_of: Mapping[str, ArrayLike] | None = None,
    false_positive_rate: float | None = None,
    title: str | None = None,
) -> Path:
    """Draws how many adversarial images are found at each share of false alarms, by attack.

    Args:
        clean: scores of clean images.
        attacks: scores of the images of each attack, larger for more suspicious ones.
        path: the PNG file to write.
        made_of: of attacks on the clean images themselves, the place of each image's own among them, by attack.
        false_positive_rate: a rate to mark.
        title: shown above.

    Raises:
        UserError: when there is no attack, no score, or one is NaN.
    """
    if not attacks:
        raise UserError("expected scores of at least one attack, got none")
    colours = [colour for colour in OKABE_ITO if colour != "#000000"]
    with canvas(path, 5.6, 4.9) as figure:
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=CLEAN, linewidth=1, linestyle=STROKES[2], label="chance")
        if false_positive_rate is not None:
            label = f"{100 * false_positive_rate:g} % false alarms"
            axes.axvline(false_positive_rate, color="black", linestyle=STROKES[2], linewidth=1.2, label=label)
        for number, (name, scores) in enumerate(attacks.items()):
            own = (made_of or {}).get(name)
            curve, area = roc_curve(clean, scores), area_under_curve(clean, scores, made_of=own)
            axes.plot(
                curve.false_positive_rate,
                curve.true_positive_rate,
                color=colours[number % len(colours)],
                linestyle=STROKES[number % len(STROKES)],
                # curves that lie on one another stay visible: each is thinner than the one below it
                linewidth=3.6 * 0.75**number + 0.6,
                label=f"{name}: AUC {area.value:.3f} (95 %: {area.low:.3f} to {area.high:.3f}, n = {area.suspicious})",
            )
        axes.set(xlim=(-0.015, 1.015), ylim=(-0.015, 1.015), aspect="equal")
        axes.set(xlabel="clean images called suspicious [share]", ylabel="adversarial images called suspicious [share]")
        axes.legend(loc="lower right", fontsize=8)
        if title:
            axes.set_title(title)
    return Path(path)


def _words(predicted: str, bits: float, right: str) -> str:
    name = predicted if len(predicted) <= 14 else predicted[:13] + "…"
    return f"{name}{'' if predicted == right else ' ✗'}\n{bits:.2f} bits/dim"


def _draw_row(axes: Any, number: int, images: np.ndarray, words: Sequence[str], wrong: Sequence[bool]) -> float:
    """Draws images beside one another, each of width 1 with a gap, their captions below; returns the row's middle."""
    top, side = number * (1 + CAPTION), 0.92
    for i, tile in enumerate(tiles_of(images)):
        axes.imshow(tile, extent=(i, i + side, top + side, top), interpolation="nearest", vmin=0, vmax=1)
        colour, weight = (ADVERSARIAL, "bold") if wrong[i] else ("black", "normal")
        axes.text(
            i + side / 2, top + side + 0.03, words[i], ha="center", va="top", fontsize=7, color=colour,
            fontweight=weight, linespacing=1.15,
        )  # fmt: skip
        axes.add_patch(_frame(i, top, side))
    return top + side / 2


def _frame(left: float, top: float, side: float) -> Any:
    from matplotlib.patches import Rectangle

    # the ground of many images is white as the page
    return Rectangle((left, top), side, side, fill=False, edgecolor="#c4c4c4", linewidth=0.6)
