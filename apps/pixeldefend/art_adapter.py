"""A `Purifier` as a preprocessing defence of the Adversarial Robustness Toolbox (ART), where that is installed.

ART's own `PixelDefend` runs its network once and takes every sub-pixel's most likely level from that: not
autoregressive, so its answer is not that of Song et al. (2018). This one purifies as they define it, and has BPDA's
identity as its gradient, so that ART's white-box attacks are attacks on the defence.

Source: Nicolae et al., "Adversarial Robustness Toolbox v1.0.0", 2018, chapter on defences; written for ART 1.20.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from torch import Tensor

from core_models.errors import UserError

from .defended import Purifier


def art_preprocessor(purifier: Purifier, *, apply_fit: bool = False, apply_predict: bool = True) -> Any:
    """Makes a preprocessor for the `preprocessing_defences` of ART's PyTorchClassifier.

    Images are (n, channels, height, width) in [0, 1], as its clip_values=(0, 1) says. By itself this is no protection:
    on CIFAR-10 at 8/255 PixelDefend alone keeps 9 % accuracy under BPDA (Athalye, Carlini and Wagner 2018).

    Args:
        purifier: what purifies; on the device of the classifier.
        apply_fit: whether images are purified before training steps.
        apply_predict: whether they are before predictions.

    Returns:
        an instance of a subclass of `art.defences.preprocessor.preprocessor.PreprocessorPyTorch`.

    Raises:
        UserError: when ART is not installed.
    """
    try:
        base: Any = import_module("art.defences.preprocessor.preprocessor").PreprocessorPyTorch
    except ImportError as error:
        raise UserError(
            f"expected the Adversarial Robustness Toolbox ({error}): pip install genapps[art], "
            "or pip install adversarial-robustness-toolbox"
        ) from error

    class PixelDefendPreprocessor(base):
        """Purifies images."""

        params = ["apply_fit", "apply_predict"]  # noqa: RUF012 - as ART has it

        def __init__(self) -> None:
            parameter = next(purifier.parameters(), None)
            on_cpu = parameter is None or parameter.device.type == "cpu"
            super().__init__(
                device_type="cpu" if on_cpu else "gpu", is_fitted=True, apply_fit=apply_fit, apply_predict=apply_predict
            )
            self.purifier = purifier

        def forward(self, x: Tensor, y: Any | None = None) -> tuple[Tensor, Any | None]:
            """Returns the purified images, and the labels as they are."""
            return self.purifier(x), y

        def estimate_forward(self, x: Tensor, y: Any | None = None) -> Tensor:
            """Returns the purified images, with the gradient of the purifier."""
            return self.purifier(x)

    return PixelDefendPreprocessor()
