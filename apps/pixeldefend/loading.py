"""The density and the classifier that images are run through, by the names that a command line gives."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

import core_models
from apps.common.building import working_folder_importable
from apps.common.machine import find_device
from core_models.base import Autoregressive, ExactLikelihood, GenerativeModel
from core_models.errors import UserError


def load_density(name: str, device: str, *, autoregressive: bool = False) -> GenerativeModel:
    """Loads a density of images onto a device, in evaluation mode.

    Args:
        name: a run folder, or `zoo:NAME`.
        device: auto, cpu, cuda or cuda:N.
        autoregressive: whether it must be autoregressive, as purification needs.

    Raises:
        UserError: when there is no model, or it has no exact likelihood or is not autoregressive.
    """
    model = _load(name, device)
    wanted = Autoregressive if autoregressive else ExactLikelihood
    if not isinstance(model, GenerativeModel) or not isinstance(model, wanted):
        what = "an autoregressive model, such as a PixelCNN" if autoregressive else "a model with an exact likelihood"
        raise UserError(
            f"--density {name}: expected {what}, got {type(model).__name__}: "
            "train one with genapps pixeldefend train-density"
        )
    return model


def load_classifier(name: str, device: str, event_shape: Sequence[int]) -> nn.Module:
    """Loads a classifier of images of a shape onto a device, in evaluation mode.

    Args:
        name: a run folder, or `zoo:NAME`.
        device: auto, cpu, cuda or cuda:N.
        event_shape: channels, height and width [pixels] of the images.

    Raises:
        UserError: when there is no classifier, or it is one of images of another shape.
    """
    model = _load(name, device)
    if isinstance(model, ExactLikelihood):
        raise UserError(f"--classifier {name}: expected a classifier, got the density {type(model).__name__}")
    if type(model).forward is nn.Module.forward:
        raise UserError(
            f"--classifier {name}: expected a classifier, got {type(model).__name__}, which can't be called"
        )
    own = tuple(getattr(model, "event_shape", event_shape))
    if own != tuple(event_shape):
        raise UserError(
            f"--classifier {name}: expected one of images {tuple(event_shape)}, as those given are, got one of {own}"
        )
    return model


@torch.no_grad()
def predictions(classifier: nn.Module, x: Float[Tensor, "n c h w"]) -> Int64[Tensor, " n"]:
    """Returns the class (n,) that a classifier gives each image, on the CPU.

    Raises:
        UserError: when it returns anything but finite logits (n, classes), or of more or fewer classes than it says.
    """
    logits = classifier(x)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(x) or not logits.is_floating_point():
        got = f"{logits.dtype} {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise UserError(f"expected a classifier that returns logits ({len(x)}, classes), got {got}: return logits")
    classes = getattr(classifier, "classes", None)
    if isinstance(classes, int) and logits.shape[1] != classes:
        raise UserError(f"expected logits of {classes} classes, as the classifier says, got {logits.shape[1]}")
    if logits.isnan().any():
        raise UserError("expected logits that are numbers, got NaN: check the weights of the classifier")
    return logits.argmax(1).cpu()


def _load(name: str, device: str) -> nn.Module:
    place = find_device(device)
    working_folder_importable()
    model: nn.Module = core_models.load(name)
    return model.to(place).eval()
