r"""Input complexity: a density's bits less those of a lossless compressor.

.. math:: S(x) = -\log_2 p(x) - \min_{c} L_c(x)

L_c being the length [bits] of the image in the compressor c. A density alone rates smooth images as likely whatever
they show; a general-purpose compressor does so too, and the difference, a log-ratio of two codes, does not.

Source: Serrà et al., "Input complexity and out-of-distribution detection with likelihood-based generative models",
ICLR 2020, section 3; the smallest of several compressors is their suggestion. Headers of the file formats are counted:
for images of one shape they are a constant, which no rank depends on.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Sequence
from math import prod

import numpy as np
from jaxtyping import Float, Float64, UInt8
from PIL import Image, features
from torch import Tensor, nn

from core_models.data import quantise
from core_models.errors import UserError

Bytes = UInt8[np.ndarray, "h w c"]
Images = Float[Tensor, "n c h w"]
Scores = Float64[np.ndarray, " n"]


def codecs() -> tuple[str, ...]:
    """Returns the names of the lossless compressors that this machine's Pillow has."""
    return tuple(name for name, (feature, _) in _CODECS.items() if feature is None or features.check(feature))


def compress(image: Bytes, codec: str) -> bytes:
    """Returns an image (h, w, c) of 8-bit levels as a lossless compressor writes it.

    Raises:
        UserError: when there is no such compressor here.
    """
    if codec not in codecs():
        raise UserError(f"expected a compressor among {', '.join(codecs())}, got {codec!r}")
    return _CODECS[codec][1](image)


def compressed_bits(x: Images, names: Sequence[str] | None = None) -> Scores:
    """Returns the length (n,) [bits] of each image in whichever compressor makes it shortest.

    Args:
        x: images (n, c, h, w) in [0, 1], of 256 levels, with 1 or 3 channels.
        names: the compressors; all of `codecs()` where None.

    Raises:
        UserError: when a compressor is unknown, or the images have another number of channels.
    """
    chosen = codecs() if names is None else tuple(names)
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        raise UserError(f"expected images (n, 1 or 3, height, width) to compress, got shape {tuple(x.shape)}")
    levels = quantise(x).permute(0, 2, 3, 1).cpu().numpy()
    return np.array([8.0 * min(len(compress(image, name)) for name in chosen) for image in levels], dtype=np.float64)


def input_complexity(density: nn.Module, x: Images, names: Sequence[str] | None = None) -> Scores:
    """Returns S / dimensions (n,) [bits/dim], larger for more suspicious images.

    Args:
        density: the model.
        x: images (n, c, h, w) in [0, 1], of 256 levels.
        names: the compressors; all of `codecs()` where None.

    Raises:
        UserError: when the model has no exact likelihood, or a compressor is unknown.
    """
    from .scores import bits_per_dim  # which takes compressed_bits from here

    return bits_per_dim(density, x) - compressed_bits(x, names) / prod(x.shape[1:])


def _pillow(kind: str, **options: object) -> Callable[[Bytes], bytes]:
    def write(image: Bytes) -> bytes:
        with io.BytesIO() as file:
            grey = image.shape[2] == 1
            Image.fromarray(np.ascontiguousarray(image[..., 0] if grey else image)).save(file, kind, **options)
            return file.getvalue()

    return write


# the Pillow feature that a compressor needs, and the compressor
_CODECS: dict[str, tuple[str | None, Callable[[Bytes], bytes]]] = {
    "png": (None, _pillow("PNG", optimize=True)),
    "zlib": (None, lambda image: zlib.compress(np.ascontiguousarray(image).tobytes(), 9)),
    "jpeg2000": ("jpg_2000", _pillow("JPEG2000", irreversible=False)),
    "webp": ("webp", _pillow("WEBP", lossless=True, quality=100, method=4)),
}
