"""The density and the classifier that images are run through, by the names that a command line gives."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from apps.common.building import load_model, names_class
from apps.common.machine import find_device
from core_models import zoo
from core_models.base import Autoregressive, ExactLikelihood, GenerativeModel
from core_models.data import DataSet
from core_models.data.idx import CLASSES
from core_models.errors import UserError
from core_models.files import read_json
from core_models.training import RunFolder


def load_density(name: str, device: str, *, autoregressive: bool = False) -> GenerativeModel:
    """Loads a density of images onto a device, in evaluation mode.

    Args:
        name: a run folder, `zoo:NAME`, or a class path, see `load_model`.
        device: auto, cpu, cuda or cuda:N.
        autoregressive: whether it must be autoregressive, as purification needs.

    Raises:
        UserError: when there is no model, or it has no exact likelihood, is not autoregressive, or doesn't tell of
            what images it is.
    """
    model = _load(name, device)
    wanted = Autoregressive if autoregressive else ExactLikelihood
    if not isinstance(model, wanted):
        what = "an autoregressive model, such as a PixelCNN" if autoregressive else "a model with an exact likelihood"
        raise UserError(
            f"--density {name}: expected {what}, got {type(model).__name__}: "
            "train one with genapps pixeldefend train-density"
        )
    needed = ("event_shape", "levels") if autoregressive else ("event_shape",)
    if not isinstance(model, GenerativeModel) or not all(hasattr(model, attribute) for attribute in needed):
        raise UserError(
            f"--density {name}: expected a core_models.base.GenerativeModel with {' and '.join(needed)}, got "
            f"{type(model).__name__}: make it one"
        )
    return model


def require_calibrated(density: str) -> None:
    """Refuses a density that can have no calibration beside its weights.

    Raises:
        UserError: when it is named by its class path.
    """
    if names_class(density):
        raise UserError(
            f"--density {density}: expected a run folder with its calibration.npz, or zoo:NAME, got a class path, "
            "which detect (with --calibration_data), purify and attack take"
        )


def load_classifier(name: str, device: str, event_shape: Sequence[int]) -> nn.Module:
    """Loads a classifier of images of a shape onto a device, in evaluation mode.

    Args:
        name: a run folder, `zoo:NAME`, or a class path, see `load_model`.
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


def codes_of_classifier(name: str, classifier: nn.Module, data_set: DataSet, y: Int64[Tensor, " n"]) -> Tensor:
    """Returns labels (n,) of a data set as the classes of a classifier that may have been trained on another.

    A data set numbers the classes that it has; one of the user's may lack some. Where the classifier's run folder tells
    its names, these decide. Names that are whole numbers are taken as they are otherwise, and where the folder tells
    no names, any as many as the classifier has classes.

    Args:
        name: a run folder, `zoo:NAME`, or a class path, which tells no names.
        classifier: what was loaded from there.
        data_set: whose labels they are.
        y: the labels, as `data_set` numbers its classes, none of them missing.

    Raises:
        UserError: when a class is none of the classifier's, or nobody can say which it is.
    """
    names = data_set.classes
    known, count = class_names(name), getattr(classifier, "classes", None)
    if set(names) <= set(known):
        codes = [known.index(one) for one in names]
    elif all(one.isdecimal() for one in names):
        codes = [int(one) for one in names]
    elif not known and (count is None or len(names) == count):
        return y
    else:
        strange = next(one for one in names if one not in known)
        own = f"{', '.join(known[:10])}{', …' if len(known) > 10 else ''}" if known else f"{count} of them"
        raise UserError(
            f"--data {data_set.name}: expected the classes of {name} ({own}), got {strange!r} among {len(names)}: name "
            "them as there, or number them as there, from 0 on"
        )
    return torch.tensor(codes)[y]


def class_names(name: str) -> list[str]:
    """Returns the names of a classifier's classes, in its order; none where its run folder doesn't tell."""
    run = RunFolder(zoo.located(name))
    told = read_json(run.summary).get("classes") if run.summary.exists() else None
    return list(told or CLASSES.get(str(run.read_config().get("data")), ()))


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
    return load_model(name).to(place)
