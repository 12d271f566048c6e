"""`genapps pixeldefend detect`: how suspicious each image of a folder or .npz is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from apps.common.machine import set_threads
from apps.common.provenance import command_line
from apps.common.streaming import Done, Job, open_source
from apps.common.streaming.job import UNREADABLE, check_folder
from apps.common.streaming.sources import Levels
from core_models import zoo
from core_models.data import Split
from core_models.errors import UserError
from core_models.files import write_json

from .detection import TESTS, Test, fingerprint, p_value, scores_of, threshold_at
from .detection.calibration import Calibration
from .detection.obtain import described, obtain_calibration
from .loading import load_classifier, load_density, predictions

COLUMNS = (
    "bits_per_dim", "p_value", "p_typicality", "complexity", "p_complexity", "ratio", "p_ratio", "suspicious",
    "prediction",
)  # fmt: skip
P_COLUMNS: dict[str, Test] = {
    "p_value": "likelihood",
    "p_typicality": "typicality",
    "p_complexity": "complexity",
    "p_ratio": "ratio",
}


def detect(
    input: Path,
    density: str,
    out: Path,
    classifier: str | None = None,
    calibration: Path | None = None,
    calibration_data: str | None = None,
    calibration_split: Split = "test",
    calibration_images: int = 1000,
    background: str | None = None,
    test: Test = "likelihood",
    false_positive_rate: float = 0.05,
    threshold: float | None = None,
    batch_size: int = 64,
    device: str = "auto",
    threads: int | None = None,
    resume: bool = False,
    resize: bool = False,
) -> int:
    """Scores images and says which are suspicious, one CSV row each.

    The columns of `images.csv`: bits_per_dim; p_value, the paper's; p_typicality, two-sided; complexity, bits/dim less
    those of a lossless compressor, and ratio, less those of a background model, each with its p-value; suspicious, 1 or
    0 by the chosen test; prediction, the number of the class. Memory does not grow with the number of images.

    Args:
        input: A folder of PNG, JPEG or WebP images, with sub-folders, or a .npz with an array x.
        density: The density model: a run folder, zoo:NAME, or the class path of your own (my_package.Mine).
        out: The folder for images.csv, settings.json and summary.json.
        classifier: A classifier whose prediction is noted: a run folder, zoo:NAME, or a class path.
        calibration: A calibration file of this density; calibration.npz beside its weights when left out.
        calibration_data: A data set by name or path whose clean images are scored for the calibration instead.
        calibration_split: Which part of it: train as in the paper, test or valid for held-out images.
        calibration_images: How many of its images.
        background: A density trained on mutated images, for the likelihood ratio: a run folder, or zoo:NAME.
        test: What decides: likelihood (the paper's), typicality, complexity or ratio.
        false_positive_rate: An image is suspicious when its p-value is at most this.
        threshold: Bits/dim above which an image is suspicious, whatever its p-value.
        batch_size: Images at a time.
        device: auto, cpu, cuda or cuda:N.
        threads: CPU threads.
        resume: Go on where an earlier run into the same folder stopped.
        resize: Cut a folder's images, around their middle, and resize them to the size that the density is of.

    Returns:
        The exit status: 1 where an image could not be read or doesn't fit the model.
    """
    set_threads(threads)
    check_folder(out, resume)
    if not 0 <= false_positive_rate <= 1:
        raise UserError(f"--false_positive_rate: expected a rate from 0 to 1, got {false_positive_rate}")
    if threshold is not None and test != "likelihood":
        raise UserError(
            f"expected --threshold [bits/dim] to go with --test likelihood, got --test {test}: leave one out"
        )
    model = load_density(density, device)
    source = open_source(input, model.event_shape, resize)
    net = load_classifier(classifier, device, model.event_shape) if classifier else None
    other = load_density(background, device) if background else None
    place = next(model.parameters(), torch.empty(0)).device
    found = obtain_calibration(
        model, zoo.located(density), file=calibration, data=calibration_data, split=calibration_split,
        images=calibration_images, background=other, batch_size=batch_size, keep=out / "calibration.npz",
    )  # fmt: skip
    _check_test(test, threshold, found, other is not None)
    settings = {
        "verb": "detect",
        "density": fingerprint(model),
        "classifier": fingerprint(net) if net else None,
        "background": fingerprint(other) if other else None,
        "calibration": described(found),
        "test": test,
        "false_positive_rate": false_positive_rate if threshold is None else None,
        "threshold": threshold,
        "device": place.type,
    }
    job = Job(source, out, settings, COLUMNS, batch_size=batch_size, description="detecting")

    def work(levels: Levels) -> tuple[Sequence[Mapping[str, object]], None]:
        x = levels.to(place, torch.float32) / 255
        codecs = found.codecs if found else ()
        scores = scores_of(model, x, background=other, codecs=codecs, batch_size=batch_size)
        columns = {name: [f"{value:.6f}" for value in values] for name, values in scores.items()}
        for name, own in P_COLUMNS.items():
            if found and TESTS[own][0] in scores and TESTS[own][0] in found.scores:
                columns[name] = [f"{p:.6g}" for p in p_value(own, scores, found)]
        if threshold is not None:
            alarms = scores["bits_per_dim"] > threshold
        else:
            assert found is not None
            alarms = p_value(test, scores, found) <= false_positive_rate
        columns["suspicious"] = [str(int(alarm)) for alarm in alarms]
        if net:
            columns["prediction"] = [str(int(label)) for label in predictions(net, x)]
        columns["status"] = ["ok"] * len(x)
        return [{name: values[i] for name, values in columns.items()} for i in range(len(x))], None

    rule = _say_rule(test, threshold, false_positive_rate, found)
    done = job.run(work, resume=resume)
    return _finish(job, done, rule)


def _check_test(test: Test, threshold: float | None, found: Calibration | None, ratio: bool) -> None:
    """Refuses a test for which something is missing before anything is scored."""
    if threshold is not None:
        return
    if found is None:
        raise UserError(
            "expected a calibration, found none beside the weights of the density: give --calibration FILE, "
            "--calibration_data NAME, or a --threshold in bits/dim"
        )
    score = TESTS[test][0]
    if test == "ratio" and not ratio:
        raise UserError("--test ratio: expected a background model, got none: give --background")
    if score not in found.scores:
        raise UserError(f"--test {test}: expected a calibration with {score}, got one without: calibrate again")


def _say_rule(test: Test, threshold: float | None, rate: float, found: Calibration | None) -> str:
    """Prints what p-values and alarms are taken from; returns the rule in words."""
    if found is not None:
        print(f"calibration: {found}")
        if found.split == "train":
            print("p-values against training images come out too small where the density has overfitted")
    if threshold is not None:
        return f"bits/dim above {threshold:g}"
    assert found is not None
    smallest = 1 / (len(found) + 1)
    if rate < smallest:
        print(f"no p-value can be as small as {rate:g}: {len(found):,} images give {smallest:.3g} at the least")
    score = TESTS[test][0]
    if test != "typicality":
        cut = threshold_at(rate, found.scores[score])
        return f"{test} test, p <= {rate:g}, that is {score} above {cut:.4f} bits/dim"
    return f"{test} test, p <= {rate:g}"


def _finish(job: Job, done: Done, rule: str) -> int:
    """Counts the rows, writes summary.json and says what was found."""
    suspicious = scored = 0
    for row in job.records:
        if row["status"] != UNREADABLE:
            scored, suspicious = scored + 1, suspicious + int(row["suspicious"])
    if not done.already:
        write_json(
            job.summary_file,
            {
                "images": done.images,
                "unreadable": done.unreadable,
                "suspicious": suspicious,
                "rule": rule,
                "calibration": job.settings["calibration"],
                "command": command_line(),
            },
        )
    print(f"{suspicious:,} of {scored:,} images are suspicious ({rule}); {job.records.path}")
    job.say_end(done)
    return done.status
