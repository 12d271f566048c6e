"""Images that no one would call of the data: what a detector that is any good should find.

Controls after Nalisnick et al., "Do deep generative models know what they don't know?", ICLR 2019, sections 3 and 4
(other data sets, constants), and Ren et al. 2019 (noise). Flips show how much of a score is about content: their
histogram of levels and their smoothness are those of the image.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from core_models.errors import UserError

Images = Float[Tensor, "n c h w"]
OF_CLEAN = ("horizontal flip", "vertical flip", "salt and pepper")
"""The controls that are made of the clean images, one of each."""


def controls(
    x: Images,
    *,
    seed: int = 0,
    salt_and_pepper: float = 0.1,
    others: Mapping[str, Images] | None = None,
) -> dict[str, Images]:
    """Returns sets of as many images as `x` has, by name, all of 256 levels.

    `constant` (one level in all sub-pixels, the levels spread evenly from 0 to 255), `uniform noise`,
    `horizontal flip`, `vertical flip`, `salt and pepper` and the first images of each of `others`.

    Args:
        x: clean images (n, c, h, w) in [0, 1].
        seed: of the noise.
        salt_and_pepper: the share of pixels turned black or white, all channels together.
        others: images of other data sets by name, in [0, 1] and of the same shape.

    Raises:
        UserError: when there is no image, the share lies outside of [0, 1], or another set is of another shape.
    """
    if x.ndim != 4 or not len(x):
        raise UserError(f"expected at least one image (n, c, h, w), got shape {tuple(x.shape)}")
    if not 0 <= salt_and_pepper <= 1:
        raise UserError(f"expected a share of pixels from 0 to 1, got {salt_and_pepper}")
    generator = Generator().manual_seed(seed)  # on the CPU, so that every device has the same noise
    levels = torch.linspace(0, 255, len(x)).round() if len(x) > 1 else torch.tensor([128.0])
    noise = torch.randint(256, x.shape, generator=generator)
    struck = torch.rand(len(x), 1, *x.shape[2:], generator=generator) < salt_and_pepper
    grain = torch.randint(2, struck.shape, generator=generator)
    found = {
        "constant": (levels / 255).view(-1, 1, 1, 1).expand(x.shape).to(x),
        "uniform noise": (noise / 255).to(x),
        "horizontal flip": x.flip(3),
        "vertical flip": x.flip(2),
        "salt and pepper": torch.where(struck.to(x.device), grain.to(x), x),
    }
    for name, images in (others or {}).items():
        if images.shape[1:] != x.shape[1:]:
            raise UserError(
                f"{name}: expected images of shape {tuple(x.shape[1:])} to compare with, "
                f"got {tuple(images.shape[1:])}: choose another data set"
            )
        found[name] = images[: len(x)]
    return found
