"""The figures of recoveries: images beside what was recovered, errors by method, and errors against measurements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import ArrayLike
from scipy.stats import chi

from apps.common.figures import MARKERS, PALETTE, canvas, tiles_of
from core_models.errors import UserError

STD_COLOURS = "magma"
STROKES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (5, 1.5, 1.2, 1.5)))
ERROR_PARTS = {
    "error": r"error $\|\hat x - x\|$", "complete_error": "if all were measured",
    "representation_error": r"representation, $\min_z \|G(z) - x\|$", "bound": "bound for Gaussian A",
}  # fmt: skip
# of an image, drawn 1 wide
SIDE = 0.94
INCHES = 0.72


@dataclass(frozen=True)
class Point:
    """A mean error at a number of measurements."""

    m: int
    mean: float
    half_width: float | None = None
    """Of its 95 % interval; None where it is not known."""


@dataclass(frozen=True)
class Curve:
    """The errors of a method."""

    name: str
    points: Sequence[Point]
    published: bool = False
    """Whether they are a paper's."""
    look: int | None = None
    """Its colour, marker and stroke, by number, which figures can so have in common; its place where None."""


def recovery_grid(
    rows: Mapping[str, ArrayLike], path: Path | str, *, stds: Mapping[str, ArrayLike] | None = None, title: str = ""
) -> Path:
    """Draws signals that are images, a column each: a row for what they are and for what each method recovered.

    Args:
        rows: images (n, c, h, w) in [0, 1], by what they are.
        path: the PNG file to write.
        stds: standard deviations of their values, of the same shape; in a colour scale of their own, from 0 to the
            largest.
        title: shown above.

    Raises:
        UserError: when there is no image, or not all rows have as many.
    """
    drawn = {name: tiles_of(images) for name, images in rows.items()}
    for name, std in (stds or {}).items():
        drawn[f"{name}\n0 to {float(np.asarray(std).max()):.2g}"] = _coloured(np.asarray(std, np.float32))
    shapes = {tiles.shape for tiles in drawn.values()}
    if len(shapes) != 1 or not next(iter(shapes))[0]:
        raise UserError(f"expected rows of as many images of one size, at least one, got {sorted(shapes)}")
    n, height, width, _ = shapes.pop()
    aspect = height / width
    words = max(len(line) for name in drawn for line in name.split("\n"))
    with canvas(
        path, INCHES * n + 0.075 * words + 0.2, INCHES * aspect * len(drawn) + (0.35 if title else 0)
    ) as figure:
        axes = figure.add_subplot()
        step = aspect * SIDE + (1 - SIDE)
        for number, tiles in enumerate(drawn.values()):
            top = number * step
            for i, tile in enumerate(tiles):
                extent = (i, i + SIDE, top + aspect * SIDE, top)
                axes.imshow(tile, extent=extent, interpolation="nearest", vmin=0, vmax=1)
                frame = Rectangle((i, top), SIDE, aspect * SIDE, fill=False, edgecolor="#c4c4c4", linewidth=0.6)
                axes.add_patch(frame)  # the ground of many images is white as the page
        axes.set(xlim=(-0.03, n), ylim=(len(drawn) * step, -0.03), aspect="equal", anchor="E", xticks=[])
        axes.set_yticks([number * step + aspect * SIDE / 2 for number in range(len(drawn))], list(drawn), fontsize=9)
        axes.tick_params(length=0)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        if title:
            axes.set_title(title)
    return Path(path)


def error_bars(errors: Mapping[str, tuple[float, float]], path: Path | str, *, unit: str, title: str = "") -> Path:
    """Draws the mean error of each method with its 95 % interval, on a logarithmic axis.

    Args:
        errors: mean and half width of the interval, by method.
        path: the PNG file to write.
        unit: of the errors.
        title: shown above.
    """
    with canvas(path, 6.4, 0.42 * len(errors) + 1.1) as figure:
        axes = figure.add_subplot()
        for place, (mean, half) in enumerate(errors.values()):
            colour = PALETTE[place % len(PALETTE)]
            marker = MARKERS[place % len(MARKERS)]
            axes.errorbar(mean, place, xerr=_bars(mean, half), color=colour, marker=marker, markersize=6, capsize=3)
            axes.annotate(
                f"{mean:.2g} ± {half:.1g}", (mean, place), (0, 6), textcoords="offset points", ha="center", fontsize=8
            )
        axes.set_yticks(range(len(errors)), list(errors))
        axes.set(xscale="log", ylim=(len(errors) - 0.5, -0.7), xlabel=f"{unit}, 95 %")
        _plain_ticks(axes.xaxis)
        axes.margins(x=0.12)
        axes.tick_params(axis="y", length=0)
        if title:
            axes.set_title(title)
    return Path(path)


def measurement_errors(values: ArrayLike, noise: float, m: int, path: Path | str, *, title: str = "") -> Path:
    r"""Draws how far recovered signals are from their measurements, beside what the noise alone would be.

    The norm of the noise follows the chi distribution, sigma sqrt(m) at its root mean square.

    Args:
        values: ||A x - y|| of each signal.
        noise: sigma, the standard deviation of each measurement's noise; 0 where there is none.
        m: measurements of a signal.
        path: the PNG file to write.
        title: shown above.

    Raises:
        UserError: when there is no finite value.
    """
    found = np.asarray(values, np.float64)
    found = found[np.isfinite(found)]
    if not len(found):
        raise UserError("expected the measurement error of at least one signal, got none")
    # 95 % of the norms of noise
    low, high = (float(noise * chi.ppf(share, m)) for share in (0.025, 0.975))
    ends = [found.min(), found.max(), *((low, high) if noise else ())]
    edges = np.linspace(min(ends), max(*ends, min(ends) + 1e-6), max(8, min(40, round(2 * len(found) ** 0.5))) + 1)
    heights, _ = np.histogram(found, edges)
    with canvas(path, 6.4, 3.0) as figure:
        axes = figure.add_subplot()
        axes.stairs(100 * heights / len(found), edges, fill=True, color=PALETTE[0], alpha=0.75, label="recovered")
        if noise:
            axes.axvspan(low, high, color=PALETTE[1], alpha=0.25, linewidth=0, label="95 % of the noise")
            axes.axvline(noise * m**0.5, color=PALETTE[3], linestyle="--", label=r"noise, $\sigma\sqrt{m}$")
        axes.set(xlabel=r"measurement error $\|A\hat x - y\|$", ylabel="share of signals [%]")
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=9)
        if title:
            axes.set_title(title)
    return Path(path)


def error_parts(parts: Mapping[str, Sequence[float]], path: Path | str, *, title: str = "") -> Path:
    """Draws the errors of signals, from the least to the largest, beside what the prior can't make and the bound.

    Args:
        parts: `error` and `representation_error` of each signal; `complete_error` and `bound` where they are known.
        path: the PNG file to write.
        title: shown above.

    Raises:
        UserError: when there is no signal.
    """
    found = {name: np.asarray(values, np.float64) for name, values in parts.items() if name in ERROR_PARTS}
    order = np.argsort(found["error"], kind="stable")
    if not len(order):
        raise UserError("expected the error of at least one signal, got none")
    places = np.arange(1, len(order) + 1)
    with canvas(path, 6.4, 3.4) as figure:
        axes = figure.add_subplot()
        for look, (name, label) in enumerate(ERROR_PARTS.items()):
            if name in found:
                axes.plot(
                    places, found[name][order], color=PALETTE[look], marker="" if name == "bound" else MARKERS[look],
                    markersize=4, linewidth=1, linestyle="--" if name == "bound" else "-", label=label,
                )  # fmt: skip
        axes.set(xlabel="signals, by their error", ylabel="norm", yscale="log")
        if min(own.min() for own in found.values()) <= 0:  # a prior that can make the signal itself
            axes.set_yscale("linear")
            axes.set_ylim(bottom=0)
        else:
            _plain_ticks(axes.yaxis)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=9)
        if title:
            axes.set_title(title)
    return Path(path)


def error_curves(curves: Sequence[Curve], path: Path | str, *, unit: str, title: str = "") -> Path:
    """Draws errors against the number of measurements, both axes logarithmic: a line for each method, with 95 % bars.

    Published points are hollow, in the colour of the method of the same name.

    Args:
        curves: what to draw.
        path: the PNG file to write.
        unit: of the errors.
        title: shown above.

    Raises:
        UserError: when there is no point, or an error is not above 0.
    """
    points = [point for curve in curves for point in curve.points]
    if not points:
        raise UserError("expected at least one error to draw, got none")
    if min(point.mean for point in points) <= 0:
        raise UserError("expected errors above 0 for a logarithmic axis, got one of 0 or less")
    names = list(dict.fromkeys(curve.name for curve in curves))
    with canvas(path, 8.4, max(4.2, 0.24 * len(curves) + 0.8)) as figure:
        axes = figure.add_subplot()
        for curve in curves:
            look = names.index(curve.name) if curve.look is None else curve.look
            own = sorted(curve.points, key=lambda point: point.m)
            m, means = [point.m for point in own], [point.mean for point in own]
            # more methods than colours: the same colour comes back with another marker and stroke
            colour, marker = PALETTE[look % len(PALETTE)], MARKERS[look % len(MARKERS)]
            if curve.published:
                axes.plot(
                    m, means, color=colour, marker=marker, markersize=8, markerfacecolor="none", linestyle="",
                    markeredgewidth=1.4, label=f"{curve.name}, published", zorder=3,
                )  # fmt: skip
                continue
            bars = np.array([np.ravel(_bars(point.mean, point.half_width or 0.0)) for point in own]).T
            axes.errorbar(
                m, means, yerr=bars, color=colour, marker=marker, markersize=4.5, capsize=2, elinewidth=1,
                linestyle=STROKES[look // len(PALETTE) % len(STROKES)], label=curve.name,
            )  # fmt: skip
        axes.set(xscale="log", yscale="log", xlabel="measurements m", ylabel=unit)
        ticks = _apart(sorted({point.m for point in points}))
        axes.set_xticks(ticks, list(map(str, ticks)), fontsize=9)
        axes.xaxis.set_minor_locator(NullLocator())
        _plain_ticks(axes.yaxis)
        labelled = dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
        shown = [f"{curve.name}, published" if curve.published else curve.name for curve in curves]
        axes.legend([labelled[name] for name in shown], shown, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
        if title:
            axes.set_title(title)
    return Path(path)


def _apart(ticks: Sequence[int]) -> list[int]:
    """Returns those of ascending numbers whose labels don't touch on a logarithmic axis."""
    room = 0.055 * log(ticks[-1] / ticks[0])
    kept: list[int] = []
    for tick in ticks:
        if not kept or log(tick / kept[-1]) >= room:
            kept.append(tick)
    return kept


def _plain_ticks(axis: Any) -> None:
    """Says the numbers of a logarithmic axis in full, three to a decade."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def _bars(mean: float, half: float) -> np.ndarray:
    """Returns how far a bar reaches below and above, (2, 1); on a logarithmic axis it can't reach 0."""
    return np.array([[min(half, 0.95 * mean)], [half]])


def _coloured(std: np.ndarray) -> np.ndarray:
    """Returns standard deviations (n, c, h, w), the channels' mean, as tiles (n, h, w, 3)."""
    if std.ndim != 4:
        raise UserError(f"expected standard deviations of images (n, c, h, w), got shape {std.shape}")
    shown = std.mean(1) / max(float(std.max()), 1e-12)
    return np.asarray(matplotlib.colormaps[STD_COLOURS](shown)[..., :3], np.float32)
