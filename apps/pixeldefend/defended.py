r"""PixelDefend inside a PyTorch program: a purifier, and a classifier that it stands before, as modules.

.. math:: \text{Defended}(x) = C(P(x)), \qquad \frac{\partial P}{\partial x} := I

The gradient of purification is taken as the identity, which is the backward pass of BPDA (Athalye, Carlini and Wagner,
"Obfuscated gradients give a false sense of security", ICML 2018, section 4.1.1): any attack by gradients that is run on
a `Defended` attacks the defence, and is not stopped by its flat steps. Purification itself: Song, Kim, Nowozin, Ermon
and Kushman, "PixelDefend", ICLR 2018, section 4.
"""

from __future__ import annotations

import warnings
from math import log, prod
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Size, Tensor, nn

from core_models.base import Autoregressive, Classifier
from core_models.data.advice import shape_advice
from core_models.errors import UserError
from core_models.modes import full_precision

from .detection.p_values import threshold_at
from .normalised import unit_advice
from .purification import Engine, purify

if TYPE_CHECKING:
    from .detection.calibration import Calibration

Backward = Literal["bpda", "none"]
Images = Float[Tensor, "n channels height width"]

CAUTION = (
    "PixelDefend alone falls to an attacker who knows it: on CIFAR-10 at 8/255 it keeps 9 % accuracy under BPDA "
    "(Athalye, Carlini and Wagner 2018)"
)
"""What is said wherever a figure of this defence is shown."""

# attacks of others leave [0, 1] by their rounding errors
SLACK = 1e-4


class _Purified(torch.autograd.Function):
    """Purified images in the forward pass; in the backward pass the identity, or nothing."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, purified: Tensor, backward: Backward) -> Tensor:
        return purified.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Backward], output: Tensor) -> None:
        ctx.passes = inputs[2] == "bpda"

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient if ctx.passes else torch.zeros_like(gradient), None, None


class Purifier(nn.Module):
    """Moves images, within a box, to where a density finds them likely: PixelDefend.

    PixelDefend alone falls to an attacker who knows it: on CIFAR-10 at 8/255 it keeps 9 % accuracy under BPDA (Athalye,
    Carlini and Wagner 2018). Measure with `attack("bpda", Defended(...), ...)` before you rely on it.

    The density stays in evaluation mode whatever mode the module is put in: dropout has no place in a likelihood.

    Args:
        density: any `Autoregressive` model of images; its `event_shape` is that of the images.
        eps: half the side of the box [levels]; the paper takes 16 on CIFAR-10 and 32 on Fashion-MNIST.
        threshold: adaptive PixelDefend: images of at most this many bits/dim stay as they are. Choose a quantile of
            held-out clean images, or see `from_calibration`. None purifies all.
        engine: how the purified images are computed; all engines give the same ones.
        batch_size: images at a time.
        backward: bpda passes gradients through unchanged; none cuts them (they are 0), and says so once.

    Raises:
        UserError: when an argument is no such thing.

    Example:
        >>> purifier = Purifier(density, eps=32)  # doctest: +SKIP
        >>> logits = Defended(purifier, classifier)(x)  # doctest: +SKIP
    """

    def __init__(
        self,
        density: nn.Module,
        eps: int = 16,
        threshold: float | None = None,
        engine: Engine = "auto",
        batch_size: int = 64,
        backward: Backward = "bpda",
    ) -> None:
        super().__init__()
        if not (isinstance(density, Autoregressive) and isinstance(density, nn.Module)):
            raise UserError(
                f"expected a density that is both an nn.Module and core_models.base.Autoregressive, got "
                f"{type(density).__name__}"
            )
        for name in ("event_shape", "levels"):
            if not hasattr(density, name):
                raise UserError(f"expected a density with {name}, got {type(density).__name__}, which has none: set it")
        if not _whole(eps) or not 0 <= eps <= 255:
            raise UserError(f"expected eps as a whole number of levels from 0 to 255, got {eps!r}")
        if threshold is not None and (not isinstance(threshold, Real) or threshold != threshold):
            raise UserError(f"expected a threshold in bits/dim, or None, got {threshold!r}")
        if not _whole(batch_size) or batch_size < 1:
            raise UserError(f"expected a batch_size of at least 1, got {batch_size!r}")
        if engine not in get_args(Engine):
            raise UserError(f"expected an engine among {', '.join(get_args(Engine))}, got {engine!r}")
        if backward not in get_args(Backward):
            raise UserError(f"expected backward to be bpda or none, got {backward!r}")
        self.density = density
        self.eps, self.threshold, self.engine = int(eps), threshold, engine
        self.batch_size, self.backward = int(batch_size), backward
        self.event_shape: Size = density.event_shape  # type: ignore[assignment]
        self._warned = False
        density.eval()

    @classmethod
    def from_calibration(
        cls, density: nn.Module, calibration: Calibration, false_positive_rate: float = 0.1, **settings: Any
    ) -> Purifier:
        """Returns an adaptive purifier, whose threshold is that of a rate of false alarms among clean images.

        Args:
            density: the model that the calibration was made with.
            calibration: scores of clean images; held-out ones, unless an overfitted density may call more of them
                suspicious than the rate says.
            false_positive_rate: the largest share of clean images that is purified.
            **settings: the purifier's other arguments.

        Raises:
            UserError: when the calibration is of other weights, the rate is none, or an argument is no such thing.
        """
        calibration.check(density)
        return cls(density, threshold=threshold_at(false_positive_rate, calibration.scores["bits_per_dim"]), **settings)

    def train(self, mode: bool = True) -> Purifier:
        """Sets the mode of this module; the density stays in evaluation mode."""
        super().train(mode)
        self.density.eval()
        return self

    def forward(self, x: Images) -> Images:
        """Returns the purified images of images (n, *event_shape) in [0, 1], with the gradient that `backward` names.

        Images that are not on the density's levels (an attack's points on the way, mostly) are rounded first.

        Raises:
            UserError: when they are of another shape, outside [0, 1] or NaN.
        """
        if self.backward == "none" and x.requires_grad and torch.is_grad_enabled() and not self._warned:
            self._warned = True
            warnings.warn(
                "gradients of this Purifier are cut (backward='none'): an attack by gradients that fails here proves "
                f"nothing. {CAUTION}",
                stacklevel=2,
            )
        return _Purified.apply(x, self.purify(x), self.backward)

    @torch.no_grad()
    def purify(self, x: Images) -> Images:
        """Returns the purified images, without gradients; see `forward`.

        Raises:
            UserError: when they are of another shape, outside [0, 1] or NaN.
        """
        rounded = self.rounded(x)
        if not len(rounded):
            return rounded
        return torch.cat([self._purify(part) for part in rounded.split(self.batch_size)])

    def _purify(self, x: Images) -> Images:
        if self.threshold is None:
            return purify(self.density, x, self.eps, engine=self.engine).to(x.dtype)
        # an image that is likely enough has a box of 0 levels: it needs no engine
        suspicious = self.bits_per_dim(x) > self.threshold
        done = x.clone()
        if suspicious.any():
            done[suspicious] = purify(self.density, x[suspicious], self.eps, engine=self.engine).to(x.dtype)
        return done

    @torch.no_grad()
    def bits_per_dim(self, x: Images) -> Float[Tensor, " n"]:
        """Returns minus log2 p(x) per sub-pixel [bits/dim] of images on the density's levels."""
        with full_precision():  # as the threshold's scores were computed
            parts = [self.density.log_prob(part) for part in x.split(self.batch_size)]
        return -torch.cat(parts) / (prod(x.shape[1:]) * log(2))

    @torch.no_grad()
    def rounded(self, x: Images) -> Images:
        """Returns images as float32 on the density's levels, the nearest ones.

        Raises:
            UserError: when they are of another shape, outside [0, 1] or NaN.
        """
        if x.ndim != 4 or tuple(x.shape[1:]) != tuple(self.event_shape):
            raise UserError(
                f"expected images of the density's shape (n, {_words(self.event_shape)}), got ({_words(x.shape)}): "
                f"{shape_advice(self.event_shape, x.shape)}"
            )
        if not x.is_floating_point():
            raise UserError(f"expected images in [0, 1] as float32, got {x.dtype}: divide 8-bit levels by 255")
        if len(x):
            low, high = float(x.min()), float(x.max())
            if low != low or high != high:
                raise UserError("expected images in [0, 1], got NaN")
            if low < -SLACK or high > 1 + SLACK:
                advice = unit_advice(low, high)
                raise UserError(f"expected images in [0, 1], got values from {low:g} to {high:g}: {advice}")
        top = getattr(self.density, "levels", 256) - 1
        return (x.detach().to(torch.float32).clamp(0, 1) * top).round() / top

    def extra_repr(self) -> str:
        """Returns the settings, for printing."""
        threshold = "" if self.threshold is None else f", threshold={self.threshold:g} bits/dim"
        return f"eps={self.eps} levels{threshold}, engine={self.engine}, backward={self.backward}"


class Defended(Classifier):
    """A classifier that sees purified images only.

    Any attack of torchattacks, or of ours, takes it as its model. By itself this is no protection: on CIFAR-10 at 8/255
    PixelDefend alone keeps 9 % accuracy under BPDA (Athalye, Carlini and Wagner 2018).

    Args:
        purifier: purifies what comes in.
        classifier: any module from images in [0, 1] to logits (n, classes); one that was trained on normalised images
            goes into `Normalised` first, since nothing here can tell.

    Raises:
        UserError: when the two are no such modules, or were made for images of different shapes.
    """

    def __init__(self, purifier: Purifier, classifier: nn.Module) -> None:
        super().__init__()
        if not isinstance(purifier, Purifier):
            raise UserError(
                f"expected a Purifier, got {type(purifier).__name__}: Defended(Purifier(density), classifier)"
            )
        if not isinstance(classifier, nn.Module):
            raise UserError(
                f"expected a classifier that is a torch.nn.Module, got {type(classifier).__name__}: wrap it"
            )
        shape = getattr(classifier, "event_shape", purifier.event_shape)
        if tuple(shape) != tuple(purifier.event_shape):
            raise UserError(
                f"expected a classifier of the density's shape ({_words(purifier.event_shape)}), got ({_words(shape)})"
            )
        self.purifier = purifier
        self.classifier = classifier
        self.event_shape = purifier.event_shape
        if hasattr(classifier, "classes"):
            self.classes = classifier.classes  # type: ignore[assignment]

    def forward(self, x: Images) -> Float[Tensor, "n classes"]:
        """Returns the logits (n, classes) of the purified images of x (n, *event_shape) in [0, 1]."""
        return self.classifier(self.purifier(x))


def _whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _words(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))
