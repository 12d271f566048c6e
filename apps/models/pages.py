"""Figures and the report page of a trained model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Generator, Tensor

from apps.common.figures import image_grid, learning_curves
from apps.common.objectives import classes_of
from apps.common.report import Headline, Picture, write_report
from core_models.base import Decodable, GenerativeModel, Variational
from core_models.errors import UserError
from core_models.latent import draw
from core_models.training import RunFolder, seed_of

from .measuring import in_words
from .pixels import Pixels

COLUMNS = 10


@torch.no_grad()
def decoded(model: GenerativeModel, n: int, y: Tensor | None, generator: Generator) -> Tensor:
    """Returns the means that n random latents decode to, of classes y where given.

    Raises:
        UserError: when the model has no latents to decode.
    """
    if not isinstance(model, Decodable):
        raise UserError(f"expected a model with latents to decode, {type(model).__name__} has none: take its samples")
    if y is None and classes_of(model):
        y = torch.randint(classes_of(model), (n,), generator=generator, device=generator.device)
    prior = model.prior(y)
    z = draw(prior, 1, generator)[0] if prior.batch_shape else draw(prior, n, generator)
    return model.decode(z, y)


@torch.no_grad()
def write_figures(run: RunFolder, model: GenerativeModel, test: Pixels, seed: int) -> list[Picture]:
    """Draws learning curves, samples and reconstructions, those that the model has and that are pictures."""
    pictures = []
    metrics = run.read_metrics()
    if metrics:
        names = [name for name in metrics[-1] if name not in ("stage", "epoch", "step", "learning_rate", "loss")]
        path = learning_curves(metrics, run.figures / "learning_curves.png", names=names)
        pictures.append(Picture(path, "Learning curves."))
    if len(model.event_shape) != 3 or model.event_shape[0] not in (1, 3):
        return pictures
    device = next(model.parameters()).device
    generator = Generator(device).manual_seed(seed_of(seed, "figures"))
    k = classes_of(model)
    y = torch.arange(k, device=device).repeat_interleave(COLUMNS) if k else None
    n = COLUMNS**2 if y is None else len(y)
    if isinstance(model, Decodable):
        images, what = decoded(model, n, y, generator), "Means of p(x | z) at random z"
    else:
        images, what = model.sample(n, y, generator=generator), "Samples"
    path = image_grid(images.cpu(), run.figures / "samples.png", columns=COLUMNS)
    pictures.append(Picture(path, f"{what}{', a class a row' if k else ''}."))
    if isinstance(model, Variational):
        some = test.part(torch.arange(min(2 * COLUMNS, len(test))))
        path = image_grid(_pairs(model, some, seed, device), run.figures / "reconstructions.png", columns=COLUMNS)
        pictures.append(Picture(path, "Test images as the model sees them, and below each its reconstruction."))
    return pictures


@torch.no_grad()
def _pairs(model: Variational, some: Pixels, seed: int, device: torch.device) -> Tensor:
    """Returns rows of images, and between them rows of their reconstructions."""
    x = some.events(seed_of(seed, "binarisation")).to(next(model.parameters()))  # type: ignore[attr-defined]
    y = None if some.y is None else some.y.to(device)
    again = model.decode(model.encode(x, y).mean, y)
    rows = zip(x.cpu().split(COLUMNS), again.cpu().split(COLUMNS), strict=True)
    return torch.cat([part for pair in rows for part in pair])


def write_page(
    run: RunFolder, summary: Mapping[str, Any], pictures: list[Picture], settings: Mapping[str, Any]
) -> None:
    """Writes report.html."""
    test = summary["test"]
    named = f"estimator {test['estimator']}, binarisation {test['binarisation']}"
    headlines = [Headline("test", f"{test['nats']:.2f} nats", f"± {test['standard_error']:.2f}; {named}")]
    if "bits_per_dim" in test:
        most = "at most " if "dequantisation" in test else ""
        headlines.append(Headline("test", f"{most}{test['bits_per_dim']:.4f} bits/dim", named))
    headlines.append(Headline("training", f"{summary['seconds']:,.0f} s", summary["device"]))
    write_report(
        run.report,
        title=f"{summary['model']} on {summary['data']}",
        summary=f"{summary['parameters']:,} parameters, {summary['epochs']} epochs, {summary['steps']:,} steps; "
        f"training {summary['stopped']}.",
        headlines=headlines,
        figures=pictures,
        configuration=settings,
        command=summary["command"],
        notes=[f"Data: {summary['source']}.", f"Measured: {in_words(test, 'test')}.", f"Commit: {summary['commit']}."],
    )
