"""`genapps pixeldefend purify`: the images of a folder or .npz, moved to where the density finds them likelier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from apps.common.machine import set_threads
from apps.common.provenance import command_line
from apps.common.streaming import Job, images_out, open_source
from apps.common.streaming.job import UNREADABLE, check_folder
from apps.common.streaming.sources import Levels
from core_models import zoo
from core_models.base import Autoregressive
from core_models.data import Split, quantise
from core_models.errors import UserError
from core_models.files import write_json

from .defended import CAUTION
from .detection import bits_per_dim, fingerprint, permutation_p_value, threshold_at
from .detection.obtain import described, obtain_calibration
from .loading import load_classifier, load_density, predictions
from .purification import Engine, purify

COLUMNS = (
    "eps", "bits_per_dim", "bits_per_dim_after", "p_value", "p_value_after", "prediction", "prediction_after",
    "largest_change", "pixels_changed",
)  # fmt: skip


def purify_images(
    input: Path,
    density: str,
    out: Path,
    classifier: str | None = None,
    eps: int = 32,
    threshold: float | None = None,
    false_positive_rate: float | None = None,
    calibration: Path | None = None,
    calibration_data: str | None = None,
    calibration_split: Split = "test",
    calibration_images: int = 1000,
    format: Literal["png", "npz"] | None = None,
    engine: Engine = "auto",
    batch_size: int = 64,
    device: str = "auto",
    threads: int | None = None,
    resume: bool = False,
    resize: bool = False,
) -> int:
    """Purifies images: each sub-pixel in turn becomes the likeliest level within eps of what it was.

    Written are the purified images and `images.csv`, a row per image: eps, the one used [levels]; bits_per_dim and
    p_value before and after; prediction before and after, the number of the class; largest_change [levels];
    pixels_changed. Memory does not grow with the number of images.

    Args:
        input: A folder of PNG, JPEG or WebP images, with sub-folders, or a .npz with an array x.
        density: The density model: a run folder, zoo:NAME, or the class path of your own (my_package.Mine).
        out: The folder for purified/ or purified.npz, images.csv, settings.json and summary.json.
        classifier: A classifier whose predictions before and after are noted: a run folder, zoo:NAME, or a class path.
        eps: How far a sub-pixel may be moved [8-bit levels], 0 to 255.
        threshold: Adaptive PixelDefend: images of at most so many bits/dim are left as they are.
        false_positive_rate: Adaptive PixelDefend with the threshold taken from the calibration, so that this share of
            clean images is purified.
        calibration: A calibration file of this density; calibration.npz beside its weights when left out.
        calibration_data: A data set by name or path whose clean images are scored for the calibration instead.
        calibration_split: Which part of it: train as in the paper, test or valid for held-out images.
        calibration_images: How many of its images.
        format: png, files with the names of the input, or npz, one array; that of the input when left out.
        engine: How purification is computed, the same images by each: auto, naive, cached, fixed-point or row.
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
    if not 0 <= eps <= 255:
        raise UserError(f"--eps: expected levels from 0 to 255, got {eps}")
    if threshold is not None and false_positive_rate is not None:
        raise UserError("expected --threshold or --false_positive_rate, got both: give one")
    model = load_density(density, device, autoregressive=True)
    source = open_source(input, model.event_shape, resize)
    net = load_classifier(classifier, device, model.event_shape) if classifier else None
    place = next(model.parameters(), torch.empty(0)).device
    found = obtain_calibration(
        model, zoo.located(density), file=calibration, data=calibration_data, split=calibration_split,
        images=calibration_images, batch_size=batch_size, keep=out / "calibration.npz",
    )  # fmt: skip
    if false_positive_rate is not None:
        if found is None:
            raise UserError(
                "--false_positive_rate: expected a calibration, found none beside the weights of the density: give "
                "--calibration FILE, --calibration_data NAME, or the --threshold itself"
            )
        threshold = threshold_at(false_positive_rate, found.scores["bits_per_dim"])
    chosen = format or ("png" if input.is_dir() else "npz")
    settings = {
        "verb": "purify",
        "density": fingerprint(model),
        "classifier": fingerprint(net) if net else None,
        "calibration": described(found),
        "eps": eps,
        "threshold": None if threshold is None else repr(threshold),  # infinite is no JSON
        "format": chosen,
        "device": place.type,
    }
    job = Job(source, out, settings, COLUMNS, batch_size=batch_size, description="purifying")
    images = images_out(chosen, out, "purified", source)

    assert isinstance(model, Autoregressive)

    def work(levels: Levels) -> tuple[Sequence[Mapping[str, object]], Levels]:
        x = levels.to(place, torch.float32) / 255
        before = bits_per_dim(model, x, batch_size=batch_size)
        budget = np.full(len(x), eps) if threshold is None else np.where(before > threshold, eps, 0)
        z = purify(
            model,
            x,
            eps if threshold is None else torch.from_numpy(budget).to(place),
            engine=engine,
            batch_size=batch_size,
        )
        purified = quantise(z).cpu()
        after = bits_per_dim(model, z, batch_size=batch_size)
        change = (purified.int() - levels.int()).abs()
        columns = {
            "status": ["purified" if own or threshold is None else "kept" for own in budget],
            "eps": [str(own) for own in budget],
            "bits_per_dim": [f"{bits:.6f}" for bits in before],
            "bits_per_dim_after": [f"{bits:.6f}" for bits in after],
            "largest_change": [str(int(own)) for own in change.flatten(1).amax(1)],
            "pixels_changed": [str(int(own)) for own in (change > 0).any(1).flatten(1).sum(1)],
        }
        if found:
            clean = found.scores["bits_per_dim"]
            columns["p_value"] = [f"{p:.6g}" for p in permutation_p_value(before, clean)]
            columns["p_value_after"] = [f"{p:.6g}" for p in permutation_p_value(after, clean)]
        if net:
            columns["prediction"] = [str(int(label)) for label in predictions(net, x)]
            columns["prediction_after"] = [str(int(label)) for label in predictions(net, z)]
        return [{name: values[i] for name, values in columns.items()} for i in range(len(x))], purified

    print(CAUTION)
    print(f"calibration: {found or 'none, so no p-values'}")
    if threshold is not None:
        rate = "" if false_positive_rate is None else f", exceeded by {false_positive_rate:.3g} of clean images"
        print(f"adaptive: images of at most {threshold:.4f} bits/dim are left as they are{rate}")
    done = job.run(work, images, resume=resume)
    counts = {"purified": 0, "kept": 0, UNREADABLE: 0}
    turned = 0
    for row in job.records:
        counts[row["status"]] += 1
        turned += row["prediction"] != row["prediction_after"]
    if not done.already:
        summary: dict[str, Any] = {
            "images": done.images,
            **counts,
            "predictions_changed": turned if net else None,
            "eps": eps,
        }
        summary |= {"threshold": settings["threshold"], "calibration": settings["calibration"]}
        write_json(job.summary_file, {**summary, "command": command_line()})
    kept = f", {counts['kept']:,} left as they were" if threshold is not None else ""
    told = f", {turned:,} predictions changed" if net else ""
    print(f"{counts['purified']:,} images purified within {eps} levels{kept}{told}; {images.path}, {job.records.path}")
    job.say_end(done)
    return done.status
