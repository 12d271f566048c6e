"""The account of a run: where its error comes from, in figures and in words.

Of a method whose signals lie in the range of its prior, the squared error has four parts, which sum to it:

- representation: what the prior can't make at all;
- penalty: what it can make, of latents that the method's penalty holds it off from;
- search: the rest, of signals for which the search missed a latent of lower loss;
- measurements: the rest, of signals for which it didn't: they are too few or too noisy to tell the signal.

A method that recovers something beside the prior's signal has no such parts. If it knows a standard deviation, it can
be asked whether the error is as large as it says. Of other methods, and where the true signals aren't known, all that
is said is how the recovered signals meet their measurements.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import log, prod
from typing import Any

import torch
from torch import Generator

from core_models.training import seed_of

from .diagnosis import IN_RANGE, LEVELS, UNCERTAIN, PerSignal, coverage, diagnose, s_rec
from .generative.posterior_sampling import PosteriorSampling
from .metrics import summary
from .operators.base import Measurements, Signals
from .recovery import Recovered, Recovery

TO_BLAME = 0.5
"""From this share of the squared error on a part is to blame: all else together could not halve it."""
UNEXPLAINED, FITTED = 2.0, 0.5
"""Measurement error over the noise's norm. Of m normal numbers the norm is within a fifth of sigma sqrt(m) from m = 50
on, so that twice as much is no chance, nor is half."""
PAIRS = 2000
"""Of samples of the prior, for S-REC: as many decodings as the search for a few signals takes."""
MISSED = 0.1
"""The gap from which on a search has missed a better latent, as a share of the loss there: less is a search that isn't
quite at its end, which hardly moves the signal."""
NOTHING = 1e-6
"""A gap that is none, as a share of the measurements' mean square: losses are written in 8 digits."""
ROUNDING = 1e-5
"""Noise that is none, as a share of the measurements' norm: what single precision makes of a product."""
ALIKE = 0.1
"""Below this S-REC constant, A keeps less than a tenth of the distance of some signals, where 1 is to be expected."""
NARROW = 0.1
"""How many fewer values than they should intervals may hold: values of an image go together, and few images count."""

Intervals = Mapping[str, Mapping[str, float | None]]
"""By level, the shares of values inside intervals of the posterior: all, and uncertain."""
PARTS = {
    "representation": "what the prior can't make",
    "penalty": "what its penalty keeps it from",
    "search": "what the search missed",
    "measurements": "what the measurements don't tell",
}
"""What the parts of the squared error are."""
ADVICE = {
    "representation": "the prior can't make these signals: a better prior helps, more measurements don't",
    "penalty": "the prior, held by its penalty, doesn't make these signals: a smaller penalty or a better prior helps, "
    "more measurements don't",
    "search": "the search failed: more steps or restarts help",
    "measurements": "the measurements don't tell these signals apart: more of them, or less noise, help",
    "mixed": "no part of the error outweighs the others",
    "calibrated": "the error is as large as the posterior says: more measurements, less noise or a better prior help",
    "overconfident": "the error is larger than the posterior says: its prior, or the noise that was told, isn't that "
    "of these signals",
    "unexplained": "the signals meet their measurements worse than the true ones would: penalties and clipping do "
    "that, or else a search that failed, a prior or an A that is wrong",
    "explained": "the signals meet their measurements as closely as the true ones would",
    "fitted": "the signals meet their measurements more closely than the true ones would: a posterior mean does that, "
    "or else noise was fitted",
    "noiseless": "no noise is known that the measurement error could be held against",
}
"""The verdicts, and what they mean."""
NO_TRUTH = "the true signals are not known: what is to be said of it needs them"


def account(
    method: Recovery, noise: float, found: Recovered, y: Measurements, x: Signals | None = None, *, seed: int = 0,
    gaussian: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Returns what can be said of where the error of a recovery comes from, as plain values.

    Args:
        method: what recovered.
        noise: standard deviation of each measurement's noise, as it was told.
        found: what came of the measurements.
        y: the measurements.
        x: the true signals, where they are known.
        seed: of the pairs of samples that S-REC is estimated from.
        gaussian: whether A is known to be of independent normal entries, which the theory's bound is for.

    Returns:
        signals, how many; verdict, a key of `ADVICE`; parts, the shares of the squared error, or None; means, each with
        its half_width; s_rec, with a prior; coverage, by level, with a standard deviation and a truth; bound, its
        premises and the share of signals within it; words, sentences by what they are of; per_signal, lists by name.
    """
    operator, prior = method.measuring, getattr(method, "prior", None)
    with torch.no_grad():
        alone = {"measurement_error": (operator(found.x) - y).norm(dim=1)}
    told = alone if x is None else diagnose(method, x, y, found)
    missed = _missed(told, y)
    parts = _parts(told, missed)
    said = noise * operator.m**0.5
    size = float(told["noise_norm"].mean()) if "noise_norm" in told else said
    size = size if size > ROUNDING * float(y.norm(dim=1).mean()) else 0.0
    inside = _coverage(found, x)
    verdict = _verdict(told, size, parts, missed, inside)
    bound = _bound(told, method, gaussian=gaussian)
    drawn = Generator().manual_seed(seed_of(seed, "pairs of samples"))  # not that of A
    constants = None if prior is None else s_rec(prior, operator, pairs=PAIRS, generator=drawn)
    words = {
        "verdict": ADVICE[verdict],
        **({"squared error": _of_parts(parts)} if parts else {}),
        **(_of_error(told, x, missed, method) if x is not None else {"error": NO_TRUTH}),
        "measurements": _of_measurements(told, y, size, said, in_range=type(method) in IN_RANGE),
        **({"bound": _of_bound(bound)} if bound else {}),
        **({"S-REC": _of_s_rec(constants)} if constants else {}),
        **({"intervals": _of_coverage(inside)} if inside else {}),
    }
    return {
        "signals": len(y), "verdict": verdict, "parts": parts,
        "means": {name: _summary(values) for name, values in told.items()},
        "bound": bound, "s_rec": constants, "coverage": inside, "words": words,
        "per_signal": {name: [float(f"{value:.8g}") for value in values.tolist()] for name, values in told.items()},
    }  # fmt: skip


def _missed(told: Mapping[str, PerSignal], y: Measurements) -> torch.Tensor | None:
    """Returns for which signals a search missed a better latent; None where that isn't known."""
    if "optimisation_gap" not in told:
        return None
    least = NOTHING * y.square().mean(1)
    return told["optimisation_gap"] > MISSED * told["loss_at_nearest"] + least


def _parts(told: Mapping[str, PerSignal], missed: torch.Tensor | None) -> dict[str, float] | None:
    """Returns the shares of the squared error; None of a method whose signals may leave the prior's range."""
    if "complete_error" not in told or missed is None:
        return None
    error, complete = told["error"].double().square(), told["complete_error"].double().square()
    representation, total = told["representation_error"].double().square(), float(error.sum())
    if not total > 0:
        return None
    left = error - complete
    return {
        "representation": float(representation.sum()) / total,
        "penalty": float((complete - representation).sum()) / total,
        "search": float(left[missed].sum()) / total,
        "measurements": float(left[~missed].sum()) / total,
    }


def _verdict(
    told: Mapping[str, PerSignal], size: float, parts: Mapping[str, float] | None, missed: torch.Tensor | None,
    inside: Intervals | None,
) -> str:  # fmt: skip
    if parts:
        largest = max(parts, key=lambda name: parts[name])
        if parts[largest] >= TO_BLAME:
            return largest
        if parts["representation"] + parts["penalty"] >= TO_BLAME:
            return "penalty"
        return "mixed"
    if missed is not None:
        error = told["error"].square()
        if float(error[missed].sum()) >= TO_BLAME * float(error.sum()) > 0:
            return "search"
    if inside is not None:
        level, held = _widest(inside)
        return "calibrated" if held >= level - NARROW else "overconfident"
    if not size > 0:
        return "noiseless"
    ratio = float(told["measurement_error"].mean()) / size
    return "unexplained" if ratio > UNEXPLAINED else "fitted" if ratio < FITTED else "explained"


def _of_parts(parts: Mapping[str, float]) -> str:
    return ", ".join(f"{100 * share:.0f} % {name} ({PARTS[name]})" for name, share in parts.items())


def _of_error(
    told: Mapping[str, PerSignal], x: Signals, missed: torch.Tensor | None, method: Recovery
) -> dict[str, str]:
    """Says what is known of the error, of the prior and of the search."""
    error, whole, name = float(told["error"].mean()), float(x.flatten(1).norm(dim=1).mean()), type(method).__name__
    words = {"error": f"{error:.3g}" + (f", {100 * error / whole:.0f} % of the signals' norm" if whole else "")}
    if "representation_error" not in told:
        return words | {"representation": f"{name} searches no prior: representation, search and S-REC don't apply"}
    nearest = float(told["representation_error"].mean())
    if "complete_error" in told:
        complete = float(told["complete_error"].mean())
        near = f"the prior can come as near as {nearest:.3g}"
        near += f"; from complete measurements without noise {name} would come to {complete:.3g}"
    else:
        near = f"the prior alone can come as near as {nearest:.3g}; {name} recovers something beside it, "
        near += "and did better" if error < nearest else "so that the prior is no bound on its error"
    if missed is None:
        return words | {"representation": near, "search": _no_gap(method)}
    gap, share = float(told["optimisation_gap"].mean()), float(missed.double().mean())
    return words | {
        "representation": near,
        "search": f"missed a better latent for {100 * share:.0f} % of the signals; optimisation gap, the loss found "
        f"less that at the latent nearest to the signal, {gap:.3g}",
    }


def _no_gap(method: Recovery) -> str:
    """Says why there is no optimisation gap."""
    name = type(method).__name__
    if isinstance(method, PosteriorSampling):
        return f"{name} samples latents and minimises no loss: there is no gap"
    return f"the loss of {name} isn't one of latents alone: there is no gap"


def _of_measurements(
    told: Mapping[str, PerSignal], y: Measurements, size: float, said: float, *, in_range: bool
) -> str:
    away = float(told["measurement_error"].mean())
    if not size:
        share = away / max(float(y.norm(dim=1).mean()), 1e-30)
        return f"measurement error {away:.3g}, {100 * share:.2g} % of the measurements' norm; no noise is known"
    words = f"measurement error {away:.3g}, {away / size:.2g} times the noise's norm {size:.3g}"
    if in_range and away < FITTED * size:  # of one signal of the prior, not of a mean
        words += ": noise was fitted, a larger penalty helps"
    if said > 0 and not FITTED <= size / said <= UNEXPLAINED:
        words += f"; the noise that was told is {said:.3g}, not that of these measurements: check --noise"
    return words


def _of_s_rec(constants: Mapping[str, float]) -> str:
    words = (
        f"between signals of the prior A keeps {constants['least']:.2g} of the distance at least, "
        f"{constants['percentile_1']:.2g} in all but 1 % of {constants['pairs']:,} pairs, {constants['mean']:.2g} in "
        "the mean"
    )
    return words + ("; some of them look alike to A" if constants["least"] < ALIKE else "")


def _bound(told: Mapping[str, PerSignal], method: Any, *, gaussian: bool) -> dict[str, Any] | None:
    """Returns the premises of the theory's bound, and how many signals are within it; None where it isn't for them."""
    if "bound" not in told:
        return None
    operator, k = method.measuring, prod(method.prior.latent_shape)
    return {
        "within": float((told["error"] <= told["bound"]).double().mean()), "gaussian": gaussian, "m": operator.m,
        "latents": k, "k_log_n": round(k * log(operator.n), 1),
    }  # fmt: skip


def _of_bound(bound: Mapping[str, Any]) -> str:
    premise = "" if bound["gaussian"] else ", which A isn't known to be: here it promises nothing"
    few = "" if bound["m"] > bound["latents"] else ", too few"
    return (
        f"theorem 1.1 of Bora et al. 2017 is kept for {100 * bound['within']:.0f} % of the signals; it is for a "
        f"Gaussian A{premise}, a ReLU network of some depth d and m of the order of k d log n: m = {bound['m']}, "
        f"k log n = {bound['k_log_n']:g}{few}"
    )


def _coverage(found: Recovered, x: Signals | None) -> Intervals | None:
    """Returns the shares of values inside intervals by their level: of all, and of those whose std is large."""
    if found.std is None or x is None:
        return None
    whole = coverage(found, x)
    uncertain = coverage(found, x, least_std=UNCERTAIN) if bool((found.std >= UNCERTAIN).any()) else {}
    return {f"{level}": {"all": whole[level], "uncertain": uncertain.get(level)} for level in LEVELS}


def _widest(inside: Intervals) -> tuple[float, float]:
    """Returns the level of the widest intervals and what they hold, of uncertain values where there are any."""
    level, shares = max(inside.items(), key=lambda pair: float(pair[0]))
    held = shares["all"] if shares["uncertain"] is None else shares["uncertain"]
    assert held is not None
    return float(level), held


def _of_coverage(inside: Intervals) -> str:
    level, held = _widest(inside)
    beside = "" if inside[f"{level}"]["uncertain"] is None else f" with a standard deviation of {UNCERTAIN:g} or more"
    return f"{100 * level:g} % intervals hold {100 * held:.0f} % of the values{beside}"


def _summary(values: PerSignal) -> dict[str, float | None]:
    """Returns mean, half width and number, no half width of one signal: JSON knows no NaN."""
    told: dict[str, float | None] = dict(summary(values))
    return told if len(values) > 1 else told | {"half_width": None}
