"""`genapps model sample`: draws from a trained model."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from torch import Generator, Tensor

from apps.common.figures import image_grid
from apps.common.objectives import classes_of
from apps.common.options import at_least
from core_models.errors import UserError
from core_models.files import write_atomic
from core_models.training import seed_of

from .pages import decoded
from .runs import TrainedModel, open_run


def sample(
    run: Path,
    out: Path = Path("samples.png"),
    n: int = 64,
    label: str | int | None = None,
    mean: bool = False,
    seed: int = 0,
    batch_size: int = 500,
    device: str = "auto",
) -> None:
    """Draws images from a trained model into a picture or an .npz.

    Args:
        run: The run folder, or any folder that core_models.save wrote.
        out: A .png for a grid of them, or an .npz with x (n, channels, height, width) in float32, and y by class.
        n: How many.
        label: The class to draw, by name or number, of a class-conditional model; classes in turn when left out.
        mean: The decoder's means instead of draws from them: pictures without pixel noise.
        seed: Seeds the draws: the same seed, n and batch_size give the same images on the same kind of device.
        batch_size: Images drawn at a time, one block going on with the random numbers after the last: memory grows
            with it. Up to so many images it changes nothing.
        device: auto, cpu, cuda or cuda:N.
    """
    if out.suffix not in (".png", ".npz"):
        raise UserError(f"--out: expected a name that ends in .png or .npz, got {str(out)!r}")
    at_least(1, n=n, batch_size=batch_size)
    trained = open_run(run, device)
    model = trained.model
    place = next(model.parameters()).device
    y = _labels(trained, n, label)
    generator = Generator(place).manual_seed(seed_of(seed, "sample"))
    blocks = []
    for start in range(0, n, batch_size):
        size = min(batch_size, n - start)
        own = None if y is None else y[start : start + size].to(place)
        with torch.no_grad():
            drawn = decoded(model, size, own, generator) if mean else model.sample(size, own, generator=generator)
        blocks.append(drawn.float().cpu())
    x = torch.cat(blocks)
    if out.suffix == ".npz":
        buffer = io.BytesIO()
        if y is None:
            np.savez_compressed(buffer, x=x.numpy())
        else:
            np.savez_compressed(buffer, x=x.numpy(), y=y.numpy())
        write_atomic(out, buffer.getvalue())
    elif x.dim() == 4 and x.shape[1] in (1, 3):
        image_grid(x, out, columns=max(1, round(n**0.5)))
    else:
        raise UserError(f"expected grey or colour images to draw, the model's are {tuple(x.shape[1:])}: use an .npz")
    print(f"wrote {out}: {n} {'means' if mean else 'samples'} of {trained.name}")


def _labels(trained: TrainedModel, n: int, label: str | int | None) -> Tensor | None:
    """Returns the class of each image to draw."""
    k = classes_of(trained.model)
    if not k:
        if label is not None:
            raise UserError(f"--label: expected none, since {trained.name} has no classes, got {label!r}")
        return None
    if label is None:
        return torch.arange(n) % k
    names = [str(name) for name in trained.summary.get("classes", range(k))]
    if str(label) in names:
        code = names.index(str(label))
    elif str(label).isdecimal() and int(label) < k:
        code = int(label)
    else:
        raise UserError(f"--label: expected one of {', '.join(names)}, or a number from 0 to {k - 1}, got {label!r}")
    return torch.full((n,), code)
