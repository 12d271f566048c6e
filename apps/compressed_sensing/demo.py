"""`genapps compressed-sensing demo`: digits from an eighth of their measurements, by LASSO and by a generative prior.

It shows little: a handful of test images and one matrix. The tables (`genapps compressed-sensing benchmark`) measure
the same on a thousand.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Generator, Tensor, nn

import core_models
from apps.common.demo_data import mnist_or_digits
from apps.common.machine import set_threads
from apps.common.provenance import command_line, commit, device_words
from apps.common.report import Headline, Picture, Table, add_section
from core_models.data import DataSet
from core_models.errors import UserError
from core_models.files import atomic, require_writable
from core_models.latent import VAE, NegativeELBO, VAEConfig
from core_models.seeding import seeded
from core_models.training import PixelBatches, RunFolder, TensorBatches, TrainingConfig, fit, seed_of

from .diagnosis import UNCERTAIN, coverage
from .figures import error_bars, recovery_grid
from .generative.csgm import ANNEALED, CSGM
from .generative.posterior_sampling import PosteriorSampling
from .generative.residual_covariance import ResidualCovariance
from .lasso import LASSO
from .methods import settings_of
from .metrics import summary as summed
from .operators import gaussian, measure
from .operators.base import Signals
from .outputs import errors_of
from .recovery import Recovered, Recovery
from .tables.curves import TITLES
from .tables.rows import ROWS, chosen

NAME = "compressed_sensing"
"""Of the section on the page, and of the folder."""
NOISE = 0.1
SHIPPED = "zoo:vae_mnist"
MEASUREMENTS = {"mnist": 100, "digits": 16}
EPOCHS = 60
STEPS = {"CSGM": 300, "residual covariance": 300}
"""Of the searches for latents."""
SHOWN = 10
SURE = "posterior sampling"
"""The method whose standard deviations are shown."""
PARTICLES = 32
MSE = "mean squared error of a pixel"


@dataclass(frozen=True, eq=False)
class _Shown:
    """What a method recovered."""

    settings: dict[str, Any]
    found: Recovered
    errors: dict[str, Tensor]
    seconds: float


def demo(
    out: Path = Path("runs/demo"),
    data: str = "auto",
    images: int = 20,
    m: int | None = None,
    fit_number: int = 5000,
    seed: int = 0,
    threads: int | None = 1,
) -> None:
    """Recovers a handful of digits from few Gaussian measurements, in less than a minute.

    Args:
        out: The folder: report.html, to which a section is added where it stands already, and compressed_sensing/ with
            recovered.npz, summary.json and figures. What an earlier call wrote is replaced.
        data: mnist, digits, or auto: MNIST where its files are found or can be fetched, else the 8 x 8 digits that come
            with scikit-learn, with a small prior trained on the spot.
        images: Test images, the first ones.
        m: Measurements of an image; 100 of MNIST's 784, 16 of the digits' 64 when left out.
        fit_number: Training images that the residual covariance is fitted to, the first ones.
        seed: Of the matrix, the noise, the starts and of the small prior.
        threads: CPU threads.
    """
    started = time.monotonic()
    set_threads(threads)
    data_set = mnist_or_digits(data)
    if not 2 <= images <= len(data_set.test_x):
        raise UserError(f"--images: expected 2 to {len(data_set.test_x):,}, the test images, got {images}")
    if fit_number < 2:
        raise UserError(f"--fit_number: expected at least 2, got {fit_number}")
    number = MEASUREMENTS[data_set.name] if m is None else m
    if number < 1:
        raise UserError(f"--m: expected at least 1 measurement, got {number}")
    run = RunFolder(out / NAME)
    require_writable(run.summary)
    run.summary.unlink(missing_ok=True)  # that of an earlier call says nothing of what is written now
    shutil.rmtree(run.figures, ignore_errors=True)
    x, train = data_set.images("test")[:images], data_set.images("train")[:fit_number]
    operator = gaussian(x.shape[1:], number, seed=seed)
    y = measure(operator, x, NOISE, Generator().manual_seed(seed_of(seed, "noise")))
    print(f"data: {data_set.name} ({data_set.source}), the first {images} test images; {number} Gaussian measurements "
          f"of {operator.n} pixels, noise {NOISE:g}", flush=True)  # fmt: skip
    prior, told_prior = _prior(data_set, run, seed)
    shown: dict[str, _Shown] = {}
    for name, method in _methods(data_set.name, operator, prior, number, seed).items():
        begun = time.monotonic()
        found = method.fit(train).recover(y)
        shown[name] = _Shown(settings_of(method), found, errors_of(found, x), time.monotonic() - begun)
        told = summed(shown[name].errors["mse"])
        print(f"  {name:<22} {MSE} {told['mean']:.5f}{_bar(told)}   {shown[name].seconds:.1f} s", flush=True)
    summary: dict[str, Any] = {
        "data": data_set.name, "source": data_set.source, "images": images, "m": number, "n": operator.n,
        "noise": NOISE, "prior": told_prior, "fit_number": len(train), "seed": seed,
        "methods": {name: _told(own, x) for name, own in shown.items()},
        "device": device_words("cpu", threads), "command": command_line(), "commit": commit(),
    }  # fmt: skip
    _save(run, x, y, shown)
    pictures = _draw(run, x, shown, summary)
    summary["seconds"] = round(time.monotonic() - started, 1)
    page = add_section(out / "report.html", NAME, **_page(summary, pictures))
    run.write_summary(summary)  # last: it says that the run has ended
    print(f"report: {page} ({summary['seconds']:.0f} s)")


def _prior(data_set: DataSet, run: RunFolder, seed: int) -> tuple[nn.Module, str]:
    """Returns a generative prior of a data set, and what it is: MNIST's ships, that of the small digits is trained."""
    shutil.rmtree(run.path / "prior", ignore_errors=True)
    if data_set.name == "mnist":
        return core_models.load(SHIPPED).eval(), SHIPPED
    with seeded(seed_of(seed, "initial weights")):
        net = VAE(VAEConfig(event_shape=tuple(data_set.event_shape), latent=10, hidden=(128, 128)))
    net.set_output_mean(data_set.images("train").mean(0))
    batches = PixelBatches(TensorBatches({"x": data_set.train_x}, 50, seed), data_set.levels)
    training = TrainingConfig(epochs=EPOCHS, learning_rate=2e-3, schedule="cosine", seed=seed, device="cpu")
    fit(NegativeELBO(net), batches, training)
    core_models.save(net.eval(), run.path / "prior")
    return net, f"a VAE of 10 latents, trained here for {EPOCHS} epochs"


def _methods(data: str, operator: Any, prior: nn.Module, m: int, seed: int) -> dict[str, Recovery]:
    """Returns the methods, with what validation chose for the rows of the benchmark, else the published settings."""
    rows = {"LASSO, pixels": "LASSO, pixels, boxed", "LASSO, DCT": "LASSO, DCT, boxed"}
    made: dict[str, Recovery] = {
        name: LASSO(operator, noise=NOISE, **{**ROWS[row].settings, **chosen(data, row, m)})
        for name, row in rows.items()
    }
    made["CSGM"] = CSGM(operator, prior, noise=NOISE, **{**ANNEALED, "steps": STEPS["CSGM"]}, random_state=seed)
    made["residual covariance"] = ResidualCovariance(
        operator, prior, noise=NOISE, steps=STEPS["residual covariance"], random_state=seed,
        **chosen(data, "Residual covariance, 50 latents", m),
    )  # fmt: skip
    made[SURE] = PosteriorSampling(operator, prior, noise=NOISE, particles=PARTICLES, random_state=seed)
    return made


def _told(own: _Shown, x: Signals) -> dict[str, Any]:
    """Returns what a method is worth, as plain values."""
    told: dict[str, Any] = {name: summed(own.errors[name]) for name in ("mse", "psnr")}
    if own.found.std is not None:
        uncertain = own.found.std >= UNCERTAIN
        told["coverage"] = {str(level): share for level, share in coverage(own.found, x).items()}
        told["uncertain"] = float(uncertain.double().mean())
        if bool(uncertain.any()):
            shares = coverage(own.found, x, least_std=UNCERTAIN)
            told["coverage_uncertain"] = {str(level): share for level, share in shares.items()}
    return {**told, "settings": own.settings, "seconds": round(own.seconds, 1)}


def _save(run: RunFolder, x: Signals, y: Tensor, shown: Mapping[str, _Shown]) -> None:
    """Writes what was measured and what came of it: x, y, and by each method's name its images."""
    arrays = {"x": x, "y": y} | {name: own.found.x for name, own in shown.items()}
    arrays |= {f"std, {name}": own.found.std for name, own in shown.items() if own.found.std is not None}
    with atomic(run.path / "recovered.npz") as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **{name: own.numpy() for name, own in arrays.items()})  # type: ignore[arg-type]


def _draw(run: RunFolder, x: Signals, shown: Mapping[str, _Shown], summary: Mapping[str, Any]) -> list[Picture]:
    rows = {"truth": x} | {name: own.found.x for name, own in shown.items()}
    std = shown[SURE].found.std
    assert std is not None
    counted = f"{summary['m']} measurements of {summary['n']} pixels"
    grid = recovery_grid(
        {name: own[:SHOWN] for name, own in rows.items()}, run.figures / "recovered.png", stds={"its std": std[:SHOWN]},
        title=f"{TITLES.get(summary['data'], summary['data'])}, {counted}, noise {NOISE:g}",
    )  # fmt: skip
    errors = {name: (own["mse"]["mean"], own["mse"]["half_width"]) for name, own in summary["methods"].items()}
    bars = error_bars(errors, run.figures / "errors.png", unit=MSE, title=f"{summary['images']} images, {counted}")
    return [
        Picture(grid, "Test images, what each method made of the same measurements, and how sure the posterior "
                      "is of every pixel (standard deviation of its samples, bright is uncertain)."),
        Picture(bars, "Mean squared error of a pixel and its 95 % interval over images."),
    ]  # fmt: skip


def _page(summary: Mapping[str, Any], pictures: list[Picture]) -> dict[str, Any]:
    """Returns what the section shows, as arguments of `report_page`."""
    methods, n, m = summary["methods"], summary["n"], summary["m"]
    data = TITLES.get(summary["data"], summary["data"])
    rows = [
        [
            name,
            f"{own['mse']['mean']:.5f}",
            _bar(own["mse"]).strip(),
            f"{own['psnr']['mean']:.1f}",
            f"{own['seconds']:.1f}",
        ]
        for name, own in methods.items()
    ]
    last = methods[SURE]
    inside = [
        [f"{100 * float(level):g} %", f"{100 * share:.1f} %",
         f"{100 * last['coverage_uncertain'][level]:.1f} %" if "coverage_uncertain" in last else ""]
        for level, share in last["coverage"].items()
    ]  # fmt: skip
    names = ("LASSO, pixels", "LASSO, DCT", "CSGM", "residual covariance", SURE)
    headlines = [Headline(f"{name}: MSE", f"{methods[name]['mse']['mean']:.4f}", _bar(methods[name]["mse"]).strip())
                 for name in names]  # fmt: skip
    return {
        "title": f"Compressed sensing: digits from {m} measurements of {n} pixels",
        "summary": f"A demonstration: {summary['images']} images and one matrix. The benchmark measures the same on a "
        "thousand.",
        "headlines": headlines,
        "tables": [
            Table(f"Errors on the first {summary['images']} test images of {data}",
                  ("method", "MSE", "95 %", "PSNR [dB]", "seconds"), rows,
                  "LASSO is held in [0, 1]. 95 %: over these images."),
            Table("Coverage of posterior sampling", ("interval", "all pixels", f"std ≥ {UNCERTAIN:g}"), inside,
                  "Share of pixels inside the central intervals of the posterior. "
                  f"{100 * last['uncertain']:.0f} % of pixels have a standard deviation of {UNCERTAIN:g} or more; the "
                  "others are nearly sure, most of them black, and swell the first column."),
        ],
        "figures": pictures,
        "notes": [
            f"Data: {data} ({summary['source']}). Gaussian matrix with entries of variance 1, noise "
            f"{NOISE:g} in each measurement. Prior: {summary['prior']}; what it can't make has a covariance, "
            f"fitted to {summary['fit_number']:,} training images.",
            f"{_alphas(methods)}: chosen on validation images by `genapps compressed-sensing tune`, where it did, else "
            "the first that it tries; nothing is chosen by these images.",
            f"All of it took {summary['seconds']:.0f} s on {summary['device']}.",
        ],
        "command": summary["command"],
    }  # fmt: skip


def _alphas(methods: Mapping[str, Any]) -> str:
    """Returns the penalties of LASSO in words."""
    told = {name.removeprefix("LASSO, "): own["settings"]["alpha"] for name, own in methods.items() if "LASSO" in name}
    return "Alpha of LASSO, " + ", ".join(f"{alpha:g} ({basis})" for basis, alpha in told.items())


def _bar(told: Mapping[str, float]) -> str:
    return f" ± {told['half_width']:.2g}"
