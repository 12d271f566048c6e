"""The tables of learnt acquisition: uncertainty autoencoders beside PCA, and classifiers on their measurements.

Protocol 1. All measure with noise of standard deviation 0.1 and, but for rows that say otherwise, an encoder of the
norm of a random Gaussian matrix, sqrt(m n). `PCA` takes the leading principal directions and recovers by the best
linear map fitted to noisy measurements of the training images. The value of `learned_acquisition` is the mean squared
error of a pixel over all test images; that of `downstream` the accuracy of a classifier [%] trained on measurements of
training images and tested on those of the test images, both noisy. In `transfer` one half of an autoencoder is that
which another data set taught, and stays as it is, while the other half is trained anew.

Source: Grover and Ermon, "Uncertainty autoencoders", 2019, sections 5.1 to 5.3.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.ensemble import AdaBoostClassifier, RandomForestClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier
from torch import Generator, Tensor

import core_models
from apps.common.cells import Cell, told_to_stand, write_cell
from apps.common.intervals import around, of_share
from apps.common.machine import set_threads
from apps.common.options import known_names
from apps.common.provenance import device_words
from core_models.data import load as load_data
from core_models.errors import UserError
from core_models.files import hash_of, read_json
from core_models.latent import SquaredRecoveryError, UAEConfig, UncertaintyAutoencoderModel
from core_models.seeding import seeded
from core_models.training import RunFolder, TensorBatches, TrainingConfig, fit, resolve_device, seed_of
from core_models.training.progress import Progress

from ..diagnosis import coverage
from ..generative.posterior_sampling import PosteriorSampling
from ..metrics import errors, summary
from ..operators import Matrix
from ..recovery import Recovered
from ..splits import kept_images, places
from .rows import PRIORS, STRONG

Decoder = Callable[[Tensor], Tensor]
Found = list[tuple[float, dict[str, Any]]]
"""The values of a row's cells, each with what is told beside it."""
APP, PROTOCOL = "compressed_sensing", "1"
NOISE = 0.1
TRAINING = TrainingConfig(epochs=100, learning_rate=1e-3, schedule="cosine")
UAES: dict[str, dict[str, Any]] = {
    "UAE": {},
    "UAE, wide": {"hidden": (1500, 1500)},
    "UAE, no linear path": {"linear_path": False},
    "UAE, norm free": {"norm_matched": False, "linear_path": False},
}
"""Rows that are autoencoders: what differs from `UAEConfig`'s defaults. The paper's is the last: no norm is held."""
PCA = "PCA"
SAMPLED = "posterior sampling"
"""What recovers in rows of the form `PCA, posterior sampling`: samples of the posterior, in place of a decoder,
under the strong prior of the benchmark."""
SAMPLED_IMAGES = 1000
KEPT = {"UAE, encoder kept": "encoder", "UAE, decoder kept": "decoder"}
"""Rows of transfer, and which half is kept."""
OTHER = {"mnist": "omniglot", "omniglot": "mnist"}
"""The data set that taught the half that is kept."""
CLASSIFIERS: dict[str, Callable[[], Any]] = {
    "kNN": lambda: KNeighborsClassifier(),
    "decision tree": lambda: DecisionTreeClassifier(random_state=0),
    "random forest": lambda: RandomForestClassifier(random_state=0),
    "MLP": lambda: make_pipeline(StandardScaler(), MLPClassifier(random_state=0, max_iter=50, early_stopping=True)),
    "AdaBoost": lambda: AdaBoostClassifier(random_state=0),
    "naive Bayes": lambda: GaussianNB(),
    "QDA": lambda: QuadraticDiscriminantAnalysis(),
    "SVM": lambda: make_pipeline(StandardScaler(), SVC()),
}
"""Those of the paper's section 5.3, as scikit-learn sets them."""


def learned(
    data: str = "mnist",
    methods: list[str] | None = None,
    m: list[int] = [10, 25, 50, 100],  # noqa: B006
    table: Literal["learned_acquisition", "downstream", "transfer"] = "learned_acquisition",
    seeds: list[int] = [0],  # noqa: B006
    work: Path = Path("runs/compressed_sensing"),
    training: TrainingConfig = TRAINING,
    batch_size: int = 100,
    examples: int = 10_000,
    results: Path = Path("docs/results"),
    threads: int | None = 1,
    again: bool = False,
) -> None:
    """Trains uncertainty autoencoders where they are missing, and fills the cells of a table of learnt acquisition.

    Args:
        data: mnist or omniglot.
        methods: Rows: UAE, "UAE, wide", "UAE, no linear path", "UAE, norm free", PCA, and "UAE, posterior sampling" and
            "PCA, posterior sampling", which recover the first 1,000 test images by samples of the posterior; of
            transfer, "UAE, encoder kept" and "UAE, decoder kept". All when left out.
        m: Numbers of measurements.
        table: learned_acquisition, how far signals are recovered; downstream, classifiers on measurements; or transfer,
            where one half is that which the other data set taught.
        seeds: One cell each: of weights and noise.
        work: The folder of trained autoencoders, each in a run folder of its own; stopped, they go on.
        training: Settings of the training loop; its seed is the cell's.
        batch_size: Images in a batch.
        examples: Training images that classifiers learn from, the first ones.
        results: Where cells are filed.
        threads: CPU threads.
        again: Measure again what stands.
    """
    set_threads(threads)
    if table == "transfer" and data not in OTHER:
        raise UserError(f"--data: expected {' or '.join(OTHER)} for the table of transfer, got {data!r}")
    known = _rows(table, data)
    names = known_names("methods", methods or known, known)
    options = _Options(work, training, batch_size, examples, results, again)
    for name in names:
        for number in m:
            for seed in seeds:
                _cells(data, known[name], number, table, seed, options)


@dataclass(frozen=True)
class _Options:
    """What all cells of a call share; as the arguments of `learned`."""

    work: Path
    training: TrainingConfig
    batch_size: int
    examples: int
    results: Path
    again: bool


@dataclass(frozen=True)
class _Row:
    """A row of a table, as it is asked for."""

    name: str
    encoder: str
    """What measures: one of `UAES` or of `KEPT`, or `PCA`."""
    titles: Sequence[str]
    """Of its cells."""
    measure: Callable[[str, Tensor, Decoder, int, int], Found]
    """From data set, encoder, decoder, seed and number of examples to what each cell holds."""
    unit: str = "mean squared error of a pixel"
    better: Literal["lower", "higher"] = "lower"


def _rows(table: str, data: str) -> dict[str, _Row]:
    """Returns the rows that a table knows, by their names."""
    plain = [*UAES, PCA]
    if table == "transfer":
        rows = [_Row(name, name, [f"{name}, {OTHER[data]} -> {data}"], _recovery) for name in KEPT]
    elif table == "downstream":
        titles = {name: [f"{classifier}, {name}" for classifier in CLASSIFIERS] for name in plain}
        rows = [_Row(name, name, titles[name], _accuracies, "% right", "higher") for name in plain]
    else:
        sampled = {f"{name}, {SAMPLED}": name for name in ("UAE", PCA)}
        rows = [_Row(name, name, [name], _recovery) for name in plain]
        rows += [_Row(name, encoder, [name], _sampled) for name, encoder in sampled.items()]
    return {row.name: row for row in rows}


def _cells(data: str, row: _Row, m: int, table: str, seed: int, options: _Options) -> None:
    training, batch_size, examples, results = options.training, options.batch_size, options.examples, options.results
    settings: dict[str, Any] = {
        "data": data, "row": row.name, "m": m, "noise": NOISE, "batch_size": batch_size,
        "epochs": training.epochs, "learning_rate": training.learning_rate, "schedule": training.schedule,
        "settings": {name: repr(value) for name, value in UAES.get(row.name, {}).items()},
        "examples": examples if table == "downstream" else None,
    }  # fmt: skip
    if row.measure is _sampled:
        settings["sampled"] = {"images": SAMPLED_IMAGES, "prior": PRIORS[STRONG][data]}
    column = str(m) if data == "mnist" or table == "transfer" else f"{data} {m}"
    # of a training of other settings than the table's
    own = replace(training, seed=0).numbers()
    other = {k: v for k, v in own.items() if k not in settings and v != TRAINING.numbers().get(k)}
    if other:
        settings["training"] = other
    config_hash = hash_of(settings)
    place: dict[str, Any] = {"app": APP, "table": table, "column": column, "draw": seed}
    if not options.again:
        standing = [
            told_to_stand(
                results, f"{title}, m = {column}, seed {seed}", row=title, **place, config_hash=config_hash,
                protocol=PROTOCOL,
            )
            for title in row.titles
        ]  # fmt: skip
        if all(standing) or any(cell and not cell.is_of(config_hash, PROTOCOL) for cell in standing):
            return
    trained, start = 0.0, time.monotonic()
    if row.encoder == PCA:
        encoder, decode = _pca(data, m, seed)
    else:
        make = _transferred if row.encoder in KEPT else _autoencoder
        model, trained = make(data, row.encoder, m, seed, options)
        encoder, decode, start = model.encoder().detach(), model.decode_measurements, time.monotonic()
    found = row.measure(data, encoder, decode, seed, examples)
    seconds = trained + time.monotonic() - start
    words = ["genapps compressed-sensing learned", f"--data {data}"]
    words += [f"--methods {shlex.quote(json.dumps([row.name]))}"]
    words += [f"--m '[{m}]'", f"--table {table}", f"--seeds '[{seed}]'", f"--training.epochs {training.epochs}"]
    words += [f"--training.learning_rate {training.learning_rate:g}", f"--batch_size {batch_size}"]
    if training.schedule != TRAINING.schedule:
        words += [f"--training.schedule {training.schedule}"]
    given = {name: value if isinstance(value, str) else json.dumps(value) for name, value in other.items()}
    words += [f"--training.{name} {shlex.quote(value)}" for name, value in given.items()]
    extra = {
        "encoder_norm": float(encoder.norm()),
        "gaussian_norm": float(encoder.numel() ** 0.5),
        "settings": settings,
    }
    device = device_words("cpu" if row.encoder == PCA else resolve_device(training.device), training.threads)
    for title, (value, told) in zip(row.titles, found, strict=True):
        write_cell(
            results,
            Cell(
                row=title, **place, value=value, unit=row.unit, better=row.better, seed=seed,
                config_hash=config_hash, protocol=PROTOCOL, device=device, seconds=seconds,
                command=" ".join(words), extra={**extra, **told},
            ),
        )  # fmt: skip
        print(f"{title}, m = {column}, seed {seed}: {value:.5g}", flush=True)


def _autoencoder(
    data: str, row: str, m: int, seed: int, options: _Options
) -> tuple[UncertaintyAutoencoderModel, float]:
    """Returns a trained autoencoder, from its run folder or trained into it, and the time that training took [s]."""
    run = _run(f"{row}_{data}_{m}_{seed}", options)
    if run.model_config.exists():
        return _standing(run)
    config = UAEConfig(tuple(kept_images(data).shape[1:]), m, noise=NOISE, **UAES[row])
    with seeded(seed_of(seed, "initial weights")):
        model = UncertaintyAutoencoderModel(config)
    return _trained(model, data, seed, run, options)


def _transferred(
    data: str, row: str, m: int, seed: int, options: _Options
) -> tuple[UncertaintyAutoencoderModel, float]:
    """Returns an autoencoder one half of which the other data set taught and which was kept, the other half new.

    With it the time that both trainings took [s].
    """
    run = _run(f"{row}_{OTHER[data]}_{data}_{m}_{seed}", options)
    if run.model_config.exists():
        return _standing(run)
    taught, before = _autoencoder(OTHER[data], "UAE", m, seed, options)
    with seeded(seed_of(seed, "initial weights")):
        model = UncertaintyAutoencoderModel(taught.config)
    for (name, own), (_, kept) in zip(model.named_parameters(), taught.named_parameters(), strict=True):
        if (name == "raw") == (KEPT[row] == "encoder"):
            own.data.copy_(kept.data)
            own.requires_grad_(False)
    return _trained(model, data, seed, run, options, before)


def _standing(run: RunFolder) -> tuple[UncertaintyAutoencoderModel, float]:
    """Returns a trained autoencoder and the time that its training took [s], 0 in a folder that doesn't say."""
    model: UncertaintyAutoencoderModel = core_models.load(run.path)
    return model, float(read_json(run.summary)["seconds"]) if run.summary.exists() else 0.0


def _run(name: str, options: _Options) -> RunFolder:
    """Returns the run folder of a name and of what training depends on besides its row, data and seed."""
    plain = name.lower().replace(", ", "_").replace(" ", "_")
    settings = {**asdict(replace(options.training, seed=0)), "batch_size": options.batch_size}
    return RunFolder(options.work / f"{plain}_{hash_of(settings)[:6]}")


def _trained(
    model: UncertaintyAutoencoderModel, data: str, seed: int, run: RunFolder, options: _Options, before: float = 0.0
) -> tuple[UncertaintyAutoencoderModel, float]:
    images = kept_images(data)
    batches = TensorBatches({"x": images}, min(options.batch_size, len(images)), seed)
    training = replace(options.training, seed=seed)
    history = fit(SquaredRecoveryError(model), batches, training, run=run, resume=run.checkpoint().exists())
    if history.stopped == "time limit":
        raise UserError(f"{run.path}: stopped by the time limit at step {history.steps:,}: the same command goes on")
    # before the model, which is what says that a run ended
    run.write_summary({"seconds": before + history.seconds, "steps": history.steps})
    core_models.save(model.cpu().requires_grad_(True).eval(), run.path)
    return model, before + history.seconds


def _pca(data: str, m: int, seed: int) -> tuple[Tensor, Decoder]:
    """Returns the leading principal directions, (m, n), normed as a Gaussian matrix, and the best linear decoder."""
    images = kept_images(data)
    x = images.flatten(1).double()
    if m > x.shape[1]:
        raise UserError(f"--m {m}: expected at most the {x.shape[1]} principal directions that there are")
    mean = x.mean(0)
    _, directions = torch.linalg.eigh((x - mean).T @ (x - mean) / len(x))
    encoder = (directions.T.flip(0)[:m] * x.shape[1] ** 0.5).float()
    y = _measured(images, encoder, seed, "PCA").double()
    design = torch.cat([y, y.new_ones(len(y), 1)], 1)
    weights = torch.linalg.lstsq(design, x).solution.float()
    shape = tuple(images.shape[1:])
    return encoder, lambda measured: (measured @ weights[:-1] + weights[-1]).unflatten(1, shape)


def _recovery(data: str, encoder: Tensor, decode: Decoder, seed: int, examples: int) -> Found:
    x = load_data(data).images("test")
    with torch.no_grad():
        parts = [decode(own).clamp(0, 1) for own in _measured(x, encoder, seed, "test").split(1000)]
    return [_errors_of(torch.cat(parts), x)]


def _errors_of(found: Tensor, x: Tensor) -> tuple[float, dict[str, Any]]:
    told = {name: summary(values) for name, values in errors(found, x).items()}
    mean, half_width = told["mse"]["mean"], told["mse"]["half_width"]
    return mean, {"errors": told, "interval": around(mean, half_width), "n_test": len(x)}


def _sampled(data: str, encoder: Tensor, decode: Decoder, seed: int, examples: int) -> Found:
    """Recovers test images by samples of the posterior, whose residuals are fitted to training images."""
    x = load_data(data).images("test")
    x = x[places(data, len(x))[:SAMPLED_IMAGES]]
    operator = Matrix(encoder, tuple(x.shape[1:]))
    prior = core_models.load(PRIORS[STRONG][data]).eval()
    method = PosteriorSampling(operator, prior, noise=NOISE, low_precision=True, random_state=seed)
    method.fit(kept_images(data))
    y = _measured(x, encoder, seed, "test")
    with Progress(f"samples of the posterior, m = {operator.m}", len(x)) as bar:
        parts = []
        for first in range(0, len(x), method.batch):
            parts.append(method.recover(y[first : first + method.batch], first))
            bar.update(first + len(parts[-1].x), last=first + method.batch >= len(x))
    found = Recovered(torch.cat([p.x for p in parts]), torch.cat([p.std for p in parts if p.std is not None]))
    value, told = _errors_of(found.x, x)
    return [(value, {**told, "coverage": {str(level): share for level, share in coverage(found, x).items()}})]


def _accuracies(data: str, encoder: Tensor, decode: Decoder, seed: int, examples: int) -> Found:
    data_set = load_data(data)
    shown = places(data, len(data_set.train_x))[:examples]
    train = _measured(data_set.images("train")[shown], encoder, seed, "classifiers").numpy()
    test = _measured(data_set.images("test"), encoder, seed, "test").numpy()
    y, truth = data_set.labels("train")[shown].numpy(), data_set.labels("test").numpy()
    found = []
    for make in CLASSIFIERS.values():
        hits, n = int(np.sum(make().fit(train, y).predict(test) == truth)), len(truth)
        found.append((100 * hits / n, {"interval": of_share(hits, n), "n_test": n, "examples": len(y)}))
    return found


def _measured(x: Tensor, encoder: Tensor, seed: int, what: str) -> Tensor:
    y = x.flatten(1) @ encoder.T
    return y + NOISE * torch.randn(y.shape, generator=Generator().manual_seed(seed_of(seed, what)))
