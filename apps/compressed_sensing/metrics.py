"""How far recovered images are from the true ones, image by image, with confidence intervals.

Published figures differ in their axes: Bora et al. plot the mean squared error of a pixel, Dhar et al. its root, Grover
and Ermon the l2 norm of an image. All of them are here by their names.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from apps.common.intervals import Z
from core_models.errors import UserError

Images = Float[Tensor, "n c h w"]
PerImage = Float[Tensor, " n"]

METRICS = ("mse", "rmse", "l2", "l1", "linf", "psnr", "ssim")
_WINDOW, _SIGMA = 11, 1.5


def errors(found: Images, true: Images) -> dict[str, PerImage]:
    """Returns the errors of each image: mse, rmse, l1 (per pixel), l2, linf, psnr [dB] and, if large enough, ssim.

    Raises:
        UserError: when the shapes differ.
    """
    if found.shape != true.shape:
        raise UserError(f"expected recovered images of shape {tuple(true.shape)}, got {tuple(found.shape)}")
    away = (found.double() - true.double()).flatten(1)
    mse = away.square().mean(1)
    told = {
        "mse": mse, "rmse": mse.sqrt(), "l2": away.norm(dim=1), "l1": away.abs().mean(1), "linf": away.abs().amax(1),
        "psnr": -10 * torch.log10(mse.clamp(min=1e-20)),
    }  # fmt: skip
    if found.ndim == 4 and min(found.shape[-2:]) >= _WINDOW:
        told["ssim"] = ssim(found.double(), true.double())
    return told


def ssim(a: Images, b: Images) -> PerImage:
    """Returns the structural similarity of images in [0, 1], with a Gaussian window of 11 pixels and deviation 1.5.

    Source: Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment: from error visibility to structural
    similarity", 2004, equation 13, C1 = 0.01^2, C2 = 0.03^2, averaged over the places where the window fits.

    Raises:
        UserError: when the images are smaller than the window.
    """
    if min(a.shape[-2:]) < _WINDOW:
        raise UserError(f"expected images of at least {_WINDOW} x {_WINDOW} pixels for SSIM, got {tuple(a.shape[-2:])}")
    line = torch.exp(-0.5 * ((torch.arange(_WINDOW, dtype=a.dtype, device=a.device) - _WINDOW // 2) / _SIGMA) ** 2)
    line = line / line.sum()
    channels = a.shape[1]
    window = torch.outer(line, line).expand(channels, 1, _WINDOW, _WINDOW)
    blurred = lambda x: functional.conv2d(x, window, groups=channels)  # noqa: E731
    mean_a, mean_b = blurred(a), blurred(b)
    var_a, var_b = blurred(a * a) - mean_a**2, blurred(b * b) - mean_b**2
    both = blurred(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    value = (2 * mean_a * mean_b + c1) * (2 * both + c2)
    return (value / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).flatten(1).mean(1)


def summary(values: PerImage) -> dict[str, float]:
    """Returns mean and the half width of its 95 % interval (1.96 standard errors) over images."""
    rows = np.asarray(values, dtype=np.float64)
    half = Z * rows.std(ddof=1) / len(rows) ** 0.5 if len(rows) > 1 else float("nan")
    return {"mean": float(rows.mean()), "half_width": float(half), "n": len(rows)}
