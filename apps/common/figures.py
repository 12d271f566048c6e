"""Figures of runs and reports, as PNG files in one restrained style.

Every function draws one figure, writes it whole or not at all and returns its path. Images are arrays (channels,
height, width) in [0, 1], with one or three channels; arrays and tensors on the CPU are taken alike. Colours are those
of Okabe and Ito (the yellow darkened, wine and grey added), told apart by colour-blind readers too; classes also
differ by their marker.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from core_models.errors import UserError
from core_models.files import atomic

OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000", "#A89C00")
PALETTE = (*OKABE_ITO, "#882255", "#8C8C8C")
MARKERS = ("o", "^", "s", "D", "v", "P", "X")
STYLE: Any = {
    "font.size": 10.0,
    "axes.titlesize": 11.0,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#666666",
    "axes.grid": True,
    "grid.color": "#e5e5e5",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}
DPI = 150
EDGE = 0.08
"""Room left and right of everything [inches]: a label else touches the edge."""


@contextmanager
def canvas(path: Path | str, width: float, height: float) -> Iterator[Figure]:
    """Yields an empty figure of this size [inches], in the style of all, and saves it when the block ends well."""
    # no pyplot: it keeps every figure alive and picks a backend for the whole process
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), dpi=DPI, layout=ConstrainedLayoutEngine(w_pad=EDGE))
        FigureCanvasAgg(figure)
        yield figure
        with atomic(path) as temporary:
            figure.savefig(temporary, format="png")


def tiles_of(images: Any) -> np.ndarray:
    """Returns images (n, c, h, w), as an array of floats in [0, 1] (n, h, w, 3)."""
    array = np.asarray(images, dtype=np.float32)
    if array.ndim != 4 or array.shape[1] not in (1, 3):
        raise UserError(f"expected images of shape (n, 1 or 3, height, width), got {array.shape}")
    return np.clip(np.repeat(array, 3, axis=1) if array.shape[1] == 1 else array, 0, 1).transpose(0, 2, 3, 1)


def _mosaic(tiles: np.ndarray, columns: int, gap: int = 1, shade: float = 1.0) -> np.ndarray:
    """Joins tiles (n, h, w, 3) into one picture, row by row, with a gap [pixels] between them."""
    n, height, width, _ = tiles.shape
    rows = -(-n // columns)
    picture = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), shade, dtype=np.float32)
    for i, tile in enumerate(tiles):
        top, left = i // columns * (height + gap), i % columns * (width + gap)
        picture[top : top + height, left : left + width] = tile
    return picture


def _show(figure: Figure, picture: np.ndarray, title: str | None) -> Any:
    axes = figure.add_subplot()
    axes.imshow(picture, interpolation="nearest")
    axes.grid(visible=False)
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)
    if title:
        axes.set_title(title)
    return axes


def image_grid(images: Any, path: Path | str, *, columns: int = 10, title: str | None = None) -> Path:
    """Draws images (n, c, h, w) row by row.

    Args:
        images: what to show; at least one.
        path: the PNG file to write.
        columns: images in a row.
        title: shown above.
    """
    tiles = tiles_of(images)
    if len(tiles) == 0:
        raise UserError("expected at least one image to draw, got none")
    columns = min(columns, len(tiles))
    picture = _mosaic(tiles, columns, gap=max(1, tiles.shape[1] // 14))
    width = min(8.0, 0.7 * columns)
    with canvas(path, width, width * picture.shape[0] / picture.shape[1] + (0.4 if title else 0)) as figure:
        _show(figure, picture, title)
    return Path(path)


def analogies(
    sources: Any, generated: Any, path: Path | str, *, classes: Sequence[str] = (), title: str | None = None
) -> Path:
    """Draws class-conditional analogies: each row a source image, then the same style in every class.

    Args:
        sources: images (n, c, h, w) that the style was taken from.
        generated: their analogies (n, classes, c, h, w).
        path: the PNG file to write.
        classes: names of the classes, above the columns.
        title: shown above.
    """
    sources, generated = np.asarray(sources), np.asarray(generated)
    if generated.ndim != 5 or generated.shape[:1] + generated.shape[2:] != sources.shape:
        raise UserError(
            f"expected analogies of shape (n, classes, c, h, w) for sources {sources.shape}, got {generated.shape}"
        )
    height, width = sources.shape[2:]
    gap = max(1, height // 14)
    left = _mosaic(tiles_of(sources), 1, gap)
    right = _mosaic(tiles_of(generated.reshape(-1, *generated.shape[2:])), generated.shape[1], gap)
    picture = np.concatenate([left, np.ones((len(left), 3 * gap, 3), np.float32), right], axis=1)
    inches = min(8.0, 0.7 * (generated.shape[1] + 1))
    with canvas(path, inches, inches * picture.shape[0] / picture.shape[1] + 0.7) as figure:
        axes = _show(figure, picture, title)
        ticks = [width / 2, *(width + 3 * gap + width / 2 + (width + gap) * np.arange(generated.shape[1]))]
        names = classes or [str(i) for i in range(generated.shape[1])]
        axes.set_xticks(ticks, ["source", *map(_short, names)], fontsize=9)
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
    return Path(path)


def manifold(grid: Any, path: Path | str, *, title: str | None = None) -> Path:
    """Draws what a two-dimensional latent space decodes to.

    Args:
        grid: images (rows, columns, c, h, w); the first row lies at the top.
        path: the PNG file to write.
        title: shown above.
    """
    grid = np.asarray(grid)
    if grid.ndim != 5:
        raise UserError(f"expected a grid of images (rows, columns, c, h, w), got shape {grid.shape}")
    picture = _mosaic(tiles_of(grid.reshape(-1, *grid.shape[2:])), grid.shape[1], gap=0)
    with canvas(path, 6.0, 6.0 * picture.shape[0] / picture.shape[1] + (0.4 if title else 0)) as figure:
        _show(figure, picture, title)
    return Path(path)


def learning_curves(
    metrics: Sequence[Mapping[str, Any]],
    path: Path | str,
    *,
    names: Sequence[str] = (),
    x: str = "epoch",
    title: str | None = None,
) -> Path:
    """Draws one panel for each metric of a run, over its epochs.

    Args:
        metrics: the records of metrics.jsonl; a metric may be missing from some of them. Where they have a "stage",
            each stage is a line of its own.
        path: the PNG file to write.
        names: which metrics; every numeric one but the counters epoch and step where empty.
        x: the key along the horizontal axis; the records' number where they lack it.
        title: shown above.
    """
    counters = {x, "epoch", "step"}
    found = dict.fromkeys(k for record in metrics for k in record if k not in counters and _plain(record[k]))
    names = list(names) or list(found)
    if not names or not metrics:
        raise UserError("expected at least one record of metrics with a number in it, got none")
    stages = list(dict.fromkeys(record.get("stage") for record in metrics))
    columns = min(2, len(names))
    rows = -(-len(names) // columns)
    with canvas(path, 4.2 * columns, 2.4 * rows + (0.3 if title else 0)) as figure:
        for i, name in enumerate(names):
            axes = figure.add_subplot(rows, columns, i + 1)
            for stage in stages:  # the epochs of each stage count from 0
                own = [(r.get(x, j), r[name]) for j, r in enumerate(metrics) if r.get("stage") == stage and name in r]
                own = [point for point in own if _plain(point[1])]
                if not own:  # a stage that doesn't know this metric
                    continue
                axes.plot(
                    [point[0] for point in own],
                    [point[1] for point in own],
                    color=PALETTE[stages.index(stage) % len(PALETTE)],
                    marker=marker_of(own),
                    markersize=4,
                    label=str(stage),
                )
            if len(stages) > 1:
                axes.legend(fontsize=8)
            axes.set_title(name.replace("_", " "))
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
            if i >= len(names) - columns:
                axes.set_xlabel(x)
        if title:
            figure.suptitle(title, x=0.01, ha="left")
    return Path(path)


def confusion_matrix(counts: Any, path: Path | str, *, classes: Sequence[str] = (), title: str | None = None) -> Path:
    """Draws how often each true class (rows) was taken for each class (columns), with the counts in the cells.

    Colour stands for the share of the row off the diagonal, so that rare errors show beside many right answers.

    Args:
        counts: integers (classes, classes).
        path: the PNG file to write.
        classes: the classes' names.
        title: shown above.
    """
    counts = np.asarray(counts)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
        raise UserError(f"expected counts of shape (classes, classes), got {counts.shape}")
    k = len(counts)
    names = [_short(name) for name in classes] or [str(i) for i in range(k)]
    errors = counts * (1 - np.eye(k)) / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = max(3.2, 0.52 * k + 1.2)
    with canvas(path, side, side) as figure:
        axes = figure.add_subplot()
        axes.imshow(errors, cmap="Oranges", vmin=0, vmax=max(errors.max(), 1e-9) * 1.6)
        axes.grid(visible=False)
        for i in range(k):
            for j in range(k):
                if counts[i, j]:
                    weight = "bold" if i == j else "normal"
                    axes.text(j, i, str(counts[i, j]), ha="center", va="center", fontsize=8, fontweight=weight)
        turned = max(map(len, names)) > 3
        axes.set_xticks(range(k), names, rotation=45 if turned else 0, ha="right" if turned else "center")
        axes.set_yticks(range(k), names)
        axes.tick_params(length=0)
        axes.set(xlabel="predicted", ylabel="true")
        axes.set_title(title or f"{int(counts.sum() - np.trace(counts))} errors of {int(counts.sum())}")
    return Path(path)


def scatter(
    points: Any, labels: Any, path: Path | str, *, classes: Sequence[str] = (), title: str | None = None
) -> Path:
    """Draws points (n, 2) by class: a two-dimensional latent space, or a t-SNE of a larger one.

    Args:
        points: coordinates (n, 2).
        labels: integer classes (n,), indices into `classes`; -1 is unlabelled, drawn in grey.
        path: the PNG file to write.
        classes: the classes' names.
        title: shown above.
    """
    points, labels = np.asarray(points, dtype=np.float64), np.asarray(labels)
    if points.ndim != 2 or points.shape[1] != 2 or labels.shape != points.shape[:1]:
        raise UserError(f"expected points (n, 2) and labels (n,), got {points.shape} and {labels.shape}")
    with canvas(path, 6.0, 5.0) as figure:
        axes = figure.add_subplot()
        for label in np.unique(labels):
            chosen = points[labels == label]
            # 10 colours and 7 markers: no two of 70 classes look the same
            colour = "#cccccc" if label < 0 else PALETTE[label % len(PALETTE)]
            name = "unlabelled" if label < 0 else literal(classes[label]) if label < len(classes) else str(label)
            marker = MARKERS[label % len(MARKERS)] if label >= 0 else "."
            size = 14 if len(points) < 2000 else 6
            axes.scatter(
                chosen[:, 0], chosen[:, 1], s=size, color=colour, marker=marker, linewidths=0, alpha=0.75, label=name
            )
        axes.grid(visible=False)
        axes.set(xticks=[], yticks=[])
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), markerscale=2, fontsize=9, handletextpad=0.2)
        if title:
            axes.set_title(title)
    return Path(path)


def marker_of(points: Sequence[object]) -> str:
    """Returns the marker of a line's points: where they are few, a line alone may be nothing to see."""
    return "o" if len(points) < 12 else ""


def literal(name: object) -> str:
    """Returns a name as matplotlib is to draw it: no formula between dollars, and in legends whatever it begins with.

    A label that begins with an underscore is left out of legends.
    """
    text = str(name).replace("$", r"\$")
    return f"\u200a{text}" if text.startswith("_") else text


def _plain(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _short(name: object) -> str:
    text = str(name)
    return literal(text if len(text) <= 10 else text[:9] + "…")
