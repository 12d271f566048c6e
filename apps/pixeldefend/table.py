"""The rows and columns of the paper's tables, and those that stand beside them.

A row is a network, how it was trained, whether its inputs are squeezed, and how they are purified: "ResNet Adversarial
FGSM + adaptive PixelDefend (32)". A column is an attack and its budget [levels]: "FGSM 8".

Source: Song, Kim, Nowozin, Ermon and Kushman, "PixelDefend", ICLR 2018, tables 1 and 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from apps.common.options import known_names

Purifying = Literal["none", "PixelDefend", "adaptive PixelDefend"]

NETWORKS = {"ResNet": "resnet", "VGG": "vgg"}
TRAININGS = {
    "Normal": "normal",
    "Adversarial FGSM": "fgsm",
    "Adversarial BIM": "bim",
    "Label smoothing": "label-smoothing",
    "Madry PGD": "madry",
}
OBLIVIOUS = {"RAND": "rand", "FGSM": "fgsm", "BIM": "bim", "DeepFool": "deepfool", "CW": "cw"}
"""The attacks of the paper: on the classifier, which is all that they know of."""
TRANSFERRED = {"AutoAttack": "autoattack"}
"""Made on the classifier too, and in none of the paper's columns."""
KNOWING = {"BPDA": "bpda", "Square": "square", "Detector-aware": "detector-aware"}
"""Made on the whole defence."""


@dataclass(frozen=True)
class Row:
    """A defence."""

    network: str
    """As in `NETWORKS`."""
    training: str
    """As in `TRAININGS`."""
    squeezed: bool = False
    """Whether inputs are squeezed (Xu et al. 2018)."""
    purifying: Purifying = "none"
    """Whether they are purified first."""
    eps: int = 0
    """How far purification may move a value [levels]."""

    @property
    def title(self) -> str:
        """The row's name, as published."""
        if self.squeezed:
            trained = "" if self.training == "Normal" else f"{self.training} + "
            name = f"{self.network} {trained}feature squeezing" if trained else f"{self.network} Feature squeezing"
        else:
            name = f"{self.network} {self.training}"
        return name if self.purifying == "none" else f"{name} + {self.purifying} ({self.eps})"

    @property
    def undefended(self) -> Row:
        """The row whose classifier the oblivious attacks are made on."""
        return Row(self.network, self.training)


def rows(eps: int) -> list[Row]:
    """Returns all rows, those of the paper first.

    Args:
        eps: how far purification may move a value [levels]: 16 on CIFAR-10, 32 on Fashion-MNIST in the paper.
    """
    plain = [
        Row("ResNet", "Normal"),
        Row("VGG", "Normal"),
        Row("ResNet", "Adversarial FGSM"),
        Row("ResNet", "Adversarial BIM"),
        Row("ResNet", "Label smoothing"),
        Row("ResNet", "Normal", squeezed=True),
        Row("ResNet", "Adversarial FGSM", squeezed=True),
        Row("ResNet", "Madry PGD"),
    ]
    purified = [
        Row(row.network, row.training, row.squeezed, purifying, eps)
        for row in plain
        for purifying in ("PixelDefend", "adaptive PixelDefend")
    ]
    return plain + purified


def find_rows(titles: list[str] | None, eps: int) -> list[Row]:
    """Returns rows by their titles, all of them when None.

    Raises:
        UserError: when there is none of a title.
    """
    known = {row.title: row for row in rows(eps)}
    return [known[title] for title in (known if titles is None else known_names("rows", titles, known))]


def find_attacks(titles: list[str] | None) -> list[str]:
    """Returns the titles of attacks, those of the paper when None.

    Raises:
        UserError: when there is none of a title.
    """
    if titles is None:
        return list(OBLIVIOUS)
    return known_names("attacks", titles, [*OBLIVIOUS, *TRANSFERRED, *KNOWING])
