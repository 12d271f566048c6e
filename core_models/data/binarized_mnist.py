"""Binarized MNIST: the published static draw of binary digits, 50,000 / 10,000 / 10,000, without labels.

Source: Larochelle and Murray, "The neural autoregressive distribution estimator", AISTATS 2011; the draw follows
Salakhutdinov and Murray, "On the quantitative analysis of deep belief networks", ICML 2008.

Read from the three public text files (.amat: a row of 784 zeros and ones per image), or from one .npz that holds their
bits packed along the last axis; the sha256 of the text decides either way.
"""

from __future__ import annotations

import io
import zipfile
import zlib

import numpy as np
import torch
from jaxtyping import UInt8

from ..errors import UserError
from .checksums import check
from .dataset import UNLABELLED, DataSet
from .sources import File, FileSet, Places, locate, read_bytes

PIXELS = 784
PACKED = "binarized_mnist_packed.npz"
FILES = FileSet(
    "binarized-mnist",
    (
        File("binarized_mnist_train.amat", "ad693b29f94c14277b095f5238ddefbbdaaae0939789dd2f4f0205278cee3e4d"),
        File("binarized_mnist_valid.amat", "1de3d397c40fe8eeb33dafd4099a1f665ec01e96d9be234aaeeac8a34930e2e2"),
        File("binarized_mnist_test.amat", "e6687bfea3f820c174f33b7865140b2a2dd2930ef786f35d45795fc193b5ab2c"),
    ),
    ("http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/",),
)
SPLITS = ("train", "valid", "test")


def load_binarized_mnist(places: Places) -> DataSet:
    """Loads the static binarisation: levels 0 and 1, a validation split, every label -1."""
    bits, source = _from_packed(places) or _from_text(places)
    train, valid, test = (torch.from_numpy(bits[split].reshape(-1, 1, 28, 28)) for split in SPLITS)
    labels = [torch.full((len(x),), UNLABELLED) for x in (train, valid, test)]
    return DataSet(
        "binarized-mnist", train, labels[0], test, labels[2], (), source, levels=2, valid_x=valid, valid_y=labels[1]
    )


def to_text(bits: UInt8[np.ndarray, "n pixels"]) -> bytes:
    """Returns rows of zeros and ones as the public text files hold them."""
    text = np.full((len(bits), 2 * bits.shape[1]), ord(" "), np.uint8)
    text[:, ::2] = bits + ord("0")
    text[:, -1] = ord("\n")
    return text.tobytes()


def _from_packed(places: Places) -> tuple[dict[str, np.ndarray], str] | None:
    for said, folder in places.folders(FILES.folder):
        path = folder / PACKED
        if not path.is_file():
            continue
        try:
            with np.load(io.BytesIO(read_bytes(path)), allow_pickle=False) as arrays:
                bits = {split: np.unpackbits(arrays[split], axis=1, count=PIXELS) for split in SPLITS}
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise UserError(
                f"{path}: expected packed bits named train, valid and test, got {error}: replace it"
            ) from error
        for split, file in zip(SPLITS, FILES.files, strict=True):
            check(f"{path}: {split}", to_text(bits[split]), file.digest)
        return bits, f"{said} (bits packed)"
    return None


def _from_text(places: Places) -> tuple[dict[str, np.ndarray], str]:
    found = locate(FILES, places)
    bits = {}
    for split, content in zip(SPLITS, found.content.values(), strict=True):
        # the digest was right, so every row is known to be 784 digits with a space or a line's end behind each
        bits[split] = (np.frombuffer(content, np.uint8).reshape(-1, 2 * PIXELS)[:, ::2] - ord("0")).astype(np.uint8)
    return bits, found.source
