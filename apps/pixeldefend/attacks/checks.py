"""What an attack is given, looked at once for all of them."""

from __future__ import annotations

from itertools import chain
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from core_models.data.advice import shape_advice
from core_models.errors import UserError

from ..normalised import unit_advice
from .box import LEVELS, Images, Labels

# images that are shown to a classifier to see what it answers
SHOWN = 4


def check_eps(eps: Any) -> float:
    """Returns a budget as a number of levels.

    Raises:
        UserError: when it is none from 0 to 255, or a part of one level, as of the range from 0 to 1.
    """
    if isinstance(eps, (float, np.floating)) and 0 < eps < 1:
        raise UserError(f"expected eps in 8-bit levels, from 1 to 255, got {eps!r}: of 8/255 of the range it is 8")
    if isinstance(eps, (int, float, np.number)) and not isinstance(eps, bool) and 0 <= eps <= LEVELS:
        return float(eps)
    raise UserError(f"expected eps in 8-bit levels, a number from 0 to 255, got {eps!r}")


def check_range(x: Any) -> Images:
    """Returns images as they are.

    Raises:
        UserError: when they are no images (n, channels, height, width) in [0, 1].
    """
    if not isinstance(x, Tensor) or x.ndim != 4 or not len(x):
        came = f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise UserError(f"expected a tensor of images (n, channels, height, width), at least one, got {came}")
    if not x.is_floating_point():
        raise UserError(f"expected images in [0, 1] as float32, got {x.dtype}: divide 8-bit levels by 255")
    if torch.isnan(x).any():
        raise UserError("expected images in [0, 1], got NaN: leave those images out")
    low, high = float(x.min()), float(x.max())
    if low < 0 or high > 1:
        raise UserError(f"expected images in [0, 1], got values from {low:g} to {high:g}: {unit_advice(low, high)}")
    return x


def check_images(x: Any) -> Images:
    """Returns images as float32, each sub-pixel exactly its level / 255.

    Raises:
        UserError: when they are no 8-bit images (n, channels, height, width) in [0, 1].
    """
    levels = check_range(x).detach().to(torch.float32) * LEVELS
    if float((levels - levels.round()).abs().max()) > 1e-2:
        raise UserError("expected 8-bit images, multiples of 1/255, got values between them: round them first")
    return levels.round() / LEVELS


def check_labels(y: Any, n: int) -> Labels:
    """Returns the classes of n images as int64.

    Raises:
        UserError: when they are not n whole numbers from 0 on.
    """
    whole = isinstance(y, Tensor) and not (y.is_floating_point() or y.is_complex() or y.dtype == torch.bool)
    if not whole or tuple(y.shape) != (n,):
        came = f"{y.dtype} of shape {tuple(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
        raise UserError(f"expected one class per image, a whole-number tensor of shape ({n},), got {came}")
    if int(y.min()) < 0:
        raise UserError(f"expected classes from 0 on, got {int(y.min())}: leave images without a label out")
    return y.detach().to(torch.int64)


@torch.no_grad()
def answered(classifier: nn.Module, x: Images, y: Labels) -> Float[Tensor, "n classes"]:
    """Returns what a classifier answers to images, on its own device.

    Raises:
        UserError: when it doesn't take them, returns nothing of that shape, or knows fewer classes than labels y name.
    """
    shape = getattr(classifier, "event_shape", None)
    if shape is not None and tuple(shape) != tuple(x.shape[1:]):
        advice = shape_advice(shape, x.shape)
        raise UserError(f"expected images of the classifier's shape {tuple(shape)}, got {tuple(x.shape[1:])}: {advice}")
    n, name = len(x), type(classifier).__name__
    try:
        logits = classifier(x.to(device_of(classifier, x.device)))
    except UserError:
        raise
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{name} does not take images of shape {tuple(x.shape[1:])}: {reason}") from error
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != n or logits.shape[1] < 2:
        came = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise UserError(f"expected logits of shape ({n}, classes) for {n} images from {name}, got {came}")
    if int(y.max()) >= logits.shape[1]:
        raise UserError(
            f"expected labels below the {logits.shape[1]} classes of {name}, got {int(y.max())}: retrain it on them"
        )
    return logits


def check_classifier(classifier: nn.Module, x: Images, y: Labels) -> None:
    """Shows a classifier a few images.

    Raises:
        UserError: when it doesn't take them, returns no logits, or knows fewer classes than the labels name.
    """
    logits, name = answered(classifier, x[:SHOWN], y), type(classifier).__name__
    if not logits.is_floating_point() or not torch.isfinite(logits).all():
        came = "infinite values or NaN" if logits.is_floating_point() else str(logits.dtype)
        raise UserError(f"expected finite logits from {name}, got {came}: check its weights")
    if bool((logits >= 0).all()) and bool(((logits.sum(1) - 1).abs() < 1e-4).all()):
        raise UserError(f"expected logits from {name}, got probabilities (they sum to 1): leave its softmax out")


def check_module(classifier: Any) -> None:
    """Refuses what is no module.

    Raises:
        UserError: when it isn't.
    """
    if not isinstance(classifier, nn.Module):
        raise UserError(f"expected a classifier that is a torch.nn.Module, got {type(classifier).__name__}: wrap it")


def check_positive(**values: float) -> None:
    """Refuses parameters of an attack that are not above 0.

    Raises:
        UserError: for the first that isn't.
    """
    for name, value in values.items():
        if not value > 0:
            raise UserError(f"expected {name} above 0, got {value!r}")


def device_of(module: nn.Module, default: torch.device) -> torch.device:
    """Returns where a module's parameters are, or the default where it has none."""
    return next((tensor.device for tensor in chain(module.parameters(), module.buffers())), default)
