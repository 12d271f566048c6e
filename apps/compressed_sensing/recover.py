"""`genapps compressed-sensing recover`: signals from measurements, or from images that are measured here."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from apps.common.machine import set_threads
from apps.common.provenance import command_line, commit, device_words
from apps.common.streaming import ImageSource
from apps.common.streaming.job import check_folder
from apps.common.streaming.npz import NpyMember
from core_models.data import Split
from core_models.errors import UserError
from core_models.files import read_json, write_json
from core_models.persistence import fingerprint

from .account import account
from .convergence import gathered
from .fitting import fit_or_load
from .generative.csgm import checked_prior
from .generative.uncertainty_autoencoder import UncertaintyAutoencoder, UncertaintyAutoencoderModel
from .job import BatchWorker, RecoveryJob
from .measurements import Measured, Simulated, Stored, holds_measurements
from .measuring import Measuring, channels_first, described, measuring_of, rank_of
from .methods import Builder, method_of, refuse_given, settings_of
from .operators import LinearOperator
from .operators.dense import Scaling
from .outputs import RecoveredOut, coverage_of, error_columns, errors_of, join
from .priors import leaves_unit_range, load_autoencoder, load_prior, value_range
from .recovery import Recovered, Recovery
from .signals import RESCALE, open_signals

FAR_FROM_NOISE, FAR_FROM_NOTHING = 3.0, 0.3
"""The measurement error, in norms of the noise and of the measurements, from which on [0, 1] may be a wrong range."""


def recover(
    input: str,
    method: Builder,
    out: Path,
    prior: str | None = None,
    fit_data: str | None = None,
    fit_number: int = 10_000,
    noise: float | None = None,
    operator: str | None = None,
    m: int | None = None,
    matrix: Path | None = None,
    learned: str | None = None,
    scaling: Scaling = "unit",
    width: float = 1.0,
    factor: int = 2,
    mask: Path | None = None,
    kernel: Path | None = None,
    signal_shape: list[int] | None = None,
    split: Split = "test",
    number: int | None = None,
    seed: int = 0,
    batch_size: int = 100,
    diagnose: int = 20,
    threads: int | None = None,
    resume: bool = False,
) -> int:
    """Recovers signals from measurements y = A x + e, or measures images and recovers them.

    Written are recovered/000000.png and, where the method knows a standard deviation, std/000000.png (white is 0.5);
    recovered.npz with x and std; recovered.csv, a row per signal: what the method says of it, measurement_error
    ||A x - y|| beside noise_norm, sigma sqrt(m), and its errors where the truth is known; summary.json, which
    says of the first signals where their error comes from: the prior, the search or the noise. Memory does not grow
    with the number of signals.

    Args:
        input: A .npz of measurements: y (signals, m) and A (m, n), or what `acquire` wrote. Or images that are measured
            first: a data set by name, a folder, or a .npz with an array x.
        method: How, and its settings: --method CSGM --method.steps 500. See --method.help CSGM.
        out: The folder for what comes of it.
        prior: A generative prior, for the methods that search one: zoo:NAME, a run folder, or the class path of your
            own, e.g. my_gan.MyPrior, an nn.Module with decode, latent_shape and event_shape, such as a subclass of
            apps.compressed_sensing.Prior, whose constructor needs no arguments and loads its weights. For
            UncertaintyAutoencoder, the trained one.
        fit_data: Signals to learn from, for the methods that do: a data set by name, whose training split is taken, a
            folder or a .npz.
        fit_number: How many of them, drawn by the seed.
        noise: Standard deviation of each measurement's noise [units of y]; that of the file when left out. Images are
            measured with so much; without any when left out.
        operator: What made y where the file doesn't say, or what measures images: gaussian, bernoulli, dct, fourier,
            mask, blur or super-resolution.
        m: Measurements of a signal; blur and super-resolution have their own number.
        matrix: A .npy or .npz with a matrix of your own (m, n), instead of a name.
        learned: A trained uncertainty autoencoder whose encoder measures, instead of a name.
        scaling: Variance of the entries of gaussian and bernoulli: unit, 1, or isometric, 1/m.
        width: Of the blur [pixels].
        factor: Of super-resolution.
        mask: A .npy or .npz, true for the pixels that mask keeps, or the frequencies, zero first, as numpy.fft.fft2 has
            them (ifftshift a centred mask), that fourier keeps, instead of m that are drawn. Its y is real, in an order
            of its own: operator.from_spectrum(k) makes it of k-space.
        kernel: A .npy or .npz with a kernel of two odd sides for blur, instead of a normal density.
        signal_shape: Of one signal, where neither the file nor a prior says it, e.g. [1,28,28].
        split: Of a data set by name.
        number: The first so many signals; all when left out.
        seed: Of the operator, of the noise of images, and of the draw of signals to learn from.
        batch_size: Signals at a time.
        diagnose: The first so many signals are asked where their error comes from, 0 for none; of a finished run, too,
            with --resume.
        threads: CPU threads.
        resume: Go on where an earlier run into the same folder stopped.

    Returns:
        The exit status: 1 where an image could not be read.
    """
    set_threads(threads)
    check_folder(out, resume)
    if noise is not None and not noise >= 0:
        raise UserError(f"--noise: expected 0 or more, got {noise}")
    if diagnose < 0:
        raise UserError(f"--diagnose: expected a number of signals, 0 for none, got {diagnose}")
    measuring = measuring_of(
        mask, kernel, operator=operator, m=m, matrix=matrix, learned=learned, seed=seed, scaling=scaling, width=width,
        factor=factor,
    )  # fmt: skip
    made, model = _method(method, prior)
    kind = method_of(made)
    if kind.needs_signals and fit_data is None:
        raise UserError(f"{kind.cls.__name__} learns from training signals, got none: give --fit_data, a data set by "
                        "name, a folder or a .npz")  # fmt: skip
    if not kind.needs_signals and fit_data is not None:
        raise UserError(f"--fit_data: {kind.cls.__name__} learns nothing from signals: leave it out")
    wanted = channels_first(tuple(signal_shape), "--signal_shape") if signal_shape else _shape_of(model)
    outside = _outside(made, model)
    training = open_signals(fit_data, "train", wanted, outside) if fit_data is not None else None
    wanted = training.signal_shape if training is not None and wanted is None else wanted
    source, measured_by, sigma = _source(
        Path(input), input, measuring, made, wanted, noise, split, number, seed, outside
    )
    if kind.needs_noise and not sigma > 0:
        raise UserError(
            f"{kind.cls.__name__} needs the noise of the measurements, above 0, got {sigma:g}: give --noise"
        )
    if not kind.needs_model:
        changes = {"noise": sigma} if "noise" in made.get_params(deep=False) else {}
        made.set_params(operator=measured_by, **changes)
    if kind.needs_prior:
        checked_prior(model, measured_by)
    identity = fingerprint(model, type(model).__qualname__)[:16] if model is not None else None
    fitted = fit_or_load(made, training, fit_number, seed, out, identity) if training is not None else None
    settings = {
        "verb": "recover", "method": kind.cls.__name__, "settings": settings_of(made), "prior": identity,
        "fit": fitted, "operator": described(measured_by), "noise": repr(float(sigma)),
    }  # fmt: skip
    shape = measured_by.signal_shape
    truth = not isinstance(source, Stored) or source.has_truth()
    columns = (*kind.says, "measurement_error", "noise_norm", *(error_columns(shape, std=kind.std) if truth else ()))
    job = RecoveryJob(
        source, out, settings, columns, batch_size=batch_size, description="recovering", file_name="recovered.csv"
    )
    job.watched = "mse" if truth else "measurement_error"
    images = RecoveredOut(out, source, shape, std=kind.std)
    rank = rank_of(measured_by)
    ranked = "" if rank is None else f", rank {rank}"
    guessed = isinstance(source, Stored) and source.noise is None and noise is None and not kind.needs_model
    unsaid = ", since neither the file nor --noise says it" if guessed else ""
    print(f"{kind.cls.__name__}: {len(source):,} signals of shape {tuple(shape)}, {measured_by.m} measurements"
          f"{ranked}, noise {sigma:g}{unsaid}; dot-product test passed", flush=True)  # fmt: skip

    told: list[str] = []
    work = _worker(made, measured_by, sigma, columns, told, std=kind.std)
    fresh = not job.settings_file.exists()
    try:
        done = job.run(work, images, resume=resume)  # type: ignore[arg-type]
    except UserError:
        if fresh and not job.records.path.exists():  # a setting that the method refuses: the folder stays free
            job.settings_file.unlink(missing_ok=True)
        raise
    means = job.means()
    gaussian = "gaussian" in (measuring.operator, getattr(getattr(source, "measuring", None), "operator", None))
    asked = _Asked(diagnose, seed, gaussian)
    summary: dict[str, Any] = read_json(job.summary_file) if done.already else {
        "input": {"path": input, **source.identity()},
        "signals": done.images, "unreadable": done.unreadable, "means": means, "coverage": coverage_of(means),
        "diagnosis": None,
        "operator": {**described(measured_by), "n": measured_by.n, "rank": rank, "dot_test": "passed"},
        "noise": sigma, "method": kind.cls.__name__, "settings": settings["settings"], "prior": prior,
        "fit": fitted, "seconds": round(done.seconds, 2),
        "signals_per_second": round(done.processed / done.seconds, 3) if done.processed else None,
        "device": device_words("cpu"), "command": command_line(), "commit": commit(),
    }  # fmt: skip
    if not done.already:  # before the diagnosis, which may take longer, or more memory, than there is
        write_json(job.summary_file, summary)
    diagnosis = summary.get("diagnosis")
    if diagnose and (diagnosis is None or diagnosis.get("asked") != diagnose):  # of a finished run, too
        diagnosis = _diagnosis(made, sigma, source, images.path, job, asked)
        write_json(job.summary_file, {**summary, "diagnosis": diagnosis})
    for name in ("mse", "psnr", "ssim", "measurement_error"):
        if name in means:
            beside = f", the noise {sigma * measured_by.m**0.5:.5g}" if name == "measurement_error" else ""
            print(f"{name} {means[name]['mean']:.5g}{_bar(means[name]['half_width'])}{beside}")
    if diagnosis:
        _say(diagnosis)
    if not truth and outside not in (None, RESCALE):
        _warn_of_bounds(made, means["measurement_error"]["mean"] or 0.0, sigma, source)
    for words in (job.unsolved().words(made.if_unsolved()), *(told[:1] if told and images.all_zero() else ())):
        if words:
            print(f"warning: {words}", file=sys.stderr)
    print(f"wrote {out}: {images.path.name}, {job.records.path.name}, summary.json")
    job.say_end(done)
    return done.status


def _method(build: Builder, prior: str | None) -> tuple[Recovery, nn.Module | None]:
    """Makes the method, and loads its prior or its trained model.

    Raises:
        UserError: when it needs one and there is none, or doesn't need one and there is.
    """
    made = build(None)
    kind = method_of(made)
    name = kind.cls.__name__
    if kind.needs_model:
        if prior is None:
            raise UserError(f"{name} needs a trained autoencoder, got none: give --prior, a folder that `genapps "
                            "compressed-sensing train uae` wrote")  # fmt: skip
        model = load_autoencoder(prior)
        return made.set_params(model=model), model
    refuse_given(made)
    if not kind.needs_prior:
        if prior is not None:
            raise UserError(f"--prior: {name} has no use for one: leave it out, or choose a method that searches one")
        return made, None
    if prior is None:
        raise UserError(f"{name} searches a generative prior, got none: give --prior, e.g. zoo:vae_mnist")
    own = load_prior(prior)
    return made.set_params(prior=own), own


def _source(
    path: Path, name: str, given: Measuring, method: Recovery, wanted: tuple[int, ...] | None, noise: float | None,
    split: Split, number: int | None, seed: int, outside: str | None,
) -> tuple[ImageSource, LinearOperator, float]:  # fmt: skip
    """Returns the measurements, what makes or made them, and their noise."""
    learned = method.fitted if isinstance(method, UncertaintyAutoencoder) else None
    if holds_measurements(path):
        stored = Stored(path, number, outside)
        told = stored.signal_shape
        if told and wanted and told != wanted:
            raise UserError(
                f"{path}: expected measurements of signals {wanted}, as the prior, --signal_shape or --fit_data says, "
                f"got those of signals {told}"
            )
        measured_by = _learned(stored, given, learned) if learned else stored.operator(given, told or wanted)
        stored.check_measured_by(measured_by)
        found = noise if noise is not None else stored.noise
        if found is None:
            found = learned.config.noise if learned else 0.0
        return stored, measured_by, found
    if learned is not None and given.given:
        raise UserError(
            "UncertaintyAutoencoder measures by its own encoder: leave out --operator, --matrix and --learned"
        )
    if name.endswith(".npz") and not Path(name).is_file():
        raise UserError(f"expected a .npz of measurements or images, found nothing at {name}: check --input")
    if learned is None and not given.given:
        raise UserError(f"{name} holds signals, not measurements: expected what is to measure them, got none: give "
                        "--operator NAME and --m, --matrix FILE or --learned FOLDER")  # fmt: skip
    signals = open_signals(name, split, wanted, outside).first(number)
    measured_by = method.measuring if learned is not None else given.build(signals.signal_shape)
    if learned is not None and tuple(learned.event_shape) != signals.signal_shape:
        raise UserError(f"{name}: expected signals {tuple(learned.event_shape)}, as the autoencoder measures, got "
                        f"{signals.signal_shape}")  # fmt: skip
    sigma = noise if noise is not None else (learned.config.noise if learned is not None else 0.0)
    return Simulated(signals, measured_by, sigma, seed), measured_by, sigma


def _learned(stored: Stored, given: Measuring, model: UncertaintyAutoencoderModel) -> LinearOperator:
    """Returns the autoencoder's encoder, which must have made the measurements."""
    own = UncertaintyAutoencoder(model).operator
    if given.given or stored.matrix is not None or stored.measuring is not None:
        told = stored.operator(given, tuple(model.event_shape))
        if told.m != own.m or not torch.allclose(told.matrix(), own.matrix(), rtol=1e-4, atol=1e-5):
            raise UserError(f"{stored.path}: expected measurements by the autoencoder's own encoder, they were made by "
                            "another operator: use the one that measured them, or another method")  # fmt: skip
    return own


def _worker(
    method: Recovery, operator: LinearOperator, noise: float, columns: Sequence[str], told: list[str], *, std: bool
) -> BatchWorker:
    """Returns what is done to a batch: its signals recovered, with a row for each; warnings go on a list."""

    def work(batch: Measured) -> tuple[Sequence[Mapping[str, object]], Tensor]:
        with gathered() as words:
            found = join([method.recover(batch.x[rows], first=first) for first, rows in batch.runs()])
        told.extend(words)
        values = {name: own for name, own in found.details.items() if name in columns}
        with torch.no_grad():
            values["measurement_error"] = (operator(found.x) - batch.x).norm(dim=1)
        values["noise_norm"] = torch.full((len(batch.x),), noise * operator.m**0.5)
        values |= errors_of(found, batch.truth) if batch.truth is not None else {}
        plain = {name: [f"{value:.8g}" for value in own.tolist()] for name, own in values.items()}
        rows = [{"status": "recovered", **{name: own[i] for name, own in plain.items()}} for i in range(len(batch.x))]
        return rows, _stacked(found, std=std)

    return work


@dataclass(frozen=True)
class _Asked:
    """What a diagnosis is asked for."""

    number: int
    """The first so many signals."""
    seed: int
    gaussian: bool
    """Whether A is known to be of independent normal entries."""


def _diagnosis(
    method: Recovery, noise: float, source: ImageSource, path: Path, job: RecoveryJob, asked: _Asked
) -> dict[str, Any] | None:
    """Returns what can be said of the first signals' errors, from what was written; None where none could be read."""
    y, truth, places = [], [], []
    for batch in source.batches(asked.number):
        assert isinstance(batch, Measured)
        places += [batch.start + i for i in range(len(batch.names)) if i not in batch.faults]
        y.append(batch.x)
        truth += [] if batch.truth is None else [batch.truth]
        if len(places) >= asked.number:
            break
    places = places[: asked.number]
    if not places:
        return None
    print(f"asking where the error of {len(places)} signals comes from", file=sys.stderr, flush=True)
    first = max(places) + 1
    arrays = NpyMember(path, "x").members
    x, std = (torch.from_numpy(next(NpyMember(path, name).chunks(first))[places]) if name in arrays else None
              for name in ("x", "std"))  # fmt: skip
    rows = [row for place, row in zip(range(first), job.records, strict=False) if place in places]
    details = {"loss": torch.tensor([float(row["loss"]) for row in rows])} if rows[0].get("loss") else {}
    assert x is not None
    true = torch.cat(truth)[: len(places)] if truth else None
    measured = torch.cat(y)[: len(places)]
    told = account(method, noise, Recovered(x, std, details), measured, true, seed=asked.seed, gaussian=asked.gaussian)
    return {"asked": asked.number, **told}


def _say(diagnosis: Mapping[str, Any]) -> None:
    """Says in a few lines where the error comes from."""
    words = dict(diagnosis["words"])
    print(f"where the error comes from, {diagnosis['signals']} signals: {words.pop('verdict')}")
    for name, told in words.items():
        print(f"  {name}: {told}")


def _shape_of(model: Any) -> tuple[int, ...] | None:
    return None if model is None else tuple(model.event_shape)


def _outside(method: Recovery, model: nn.Module | None) -> str | None:
    """Returns what to do with signals outside [0, 1]; None where neither the method nor its prior holds them in it."""
    if isinstance(method, UncertaintyAutoencoder):  # what it learnt from was in [0, 1]
        return RESCALE
    if model is not None and not leaves_unit_range(*value_range(model)):  # whatever the method's settings
        return RESCALE
    if not method.bounded:
        return None
    return f"rescale them, or recover them as they are by {_off(method)}" if method.bounds() else RESCALE


def _off(method: Recovery) -> str:
    return " ".join(f"--method.{name} false" for name in method.bounds())


def _warn_of_bounds(method: Recovery, away: float, noise: float, source: ImageSource) -> None:
    """Says that signals held in [0, 1] leave measurements unexplained, which may be of others."""
    first = next(iter(source.batches(1000))).x
    size = float(first.norm(dim=1).mean())
    if away > max(FAR_FROM_NOISE * noise * first.shape[1] ** 0.5, FAR_FROM_NOTHING * size):
        print(
            f"warning: {type(method).__name__} holds signals in [0, 1] and leaves {100 * away / size:.0f} % of the "
            f"measurements' norm unexplained: signals of another range do that, for which give {_off(method)}, or too "
            "large a penalty",
            file=sys.stderr,
        )


def _stacked(found: Recovered, *, std: bool) -> Tensor:
    parts = [found.x] if not std or found.std is None else [found.x, found.std]
    return torch.stack([part.detach() for part in parts])


def _bar(half_width: float | None) -> str:
    return "" if half_width is None else f" ± {half_width:.2g}"
