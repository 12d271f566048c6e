"""Data sets by name. A new set is one module and one line here."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ..errors import UserError, suggestion
from .binarized_mnist import load_binarized_mnist
from .cifar10 import load_cifar10
from .dataset import DataSet
from .digits import load_digits
from .idx import idx_files, load_idx, load_official
from .omniglot import load_omniglot
from .sources import Places
from .svhn import load_svhn
from .user import load_folder, load_npz

LOADERS: dict[str, Callable[[Places], DataSet]] = {
    "binarized-mnist": load_binarized_mnist,
    "cifar10": load_cifar10,
    "digits": load_digits,
    "fashion-mnist": partial(load_official, "fashion-mnist"),
    "kmnist": partial(load_official, "kmnist"),
    "mnist": partial(load_official, "mnist"),
    "omniglot": load_omniglot,
    "svhn": load_svhn,
}


def names() -> list[str]:
    """Returns the names that `load` knows, in alphabetical order."""
    return sorted(LOADERS)


def digest(name: str | Path) -> str | None:
    """Returns what tells one's own data from others of the same name, 12 digits of its files' SHA-256.

    None for a set that `names` has, where the name tells, and where there is no such file. Of `idx:FOLDER/prefix`, they
    are the files that it loads.
    """
    path = Path(str(name).removeprefix("idx:"))
    if str(name) in LOADERS:
        return None
    root, files = path, [path] if path.exists() else []
    if path.is_dir():  # hidden files are none of the data
        files = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
    elif str(name).startswith("idx:"):
        root, files = path.parent, idx_files(path)
    if not files and not path.is_dir():
        return None
    found = hashlib.sha256()
    for file in files:
        found.update(f"{file.relative_to(root)} {file.stat().st_size}\n".encode())
        with file.open("rb") as opened:
            while piece := opened.read(1 << 20):
                found.update(piece)
    return found.hexdigest()[:12]


def require_own_name(name: str) -> None:
    """Refuses one's own data under the name of a known set, by which results are filed and compared.

    Raises:
        UserError: naming both.
    """
    own = Path(name.removeprefix("idx:")).stem.replace("_", "-")
    if name not in LOADERS and own in LOADERS:
        raise UserError(
            f"data {name}: expected data of your own under another name than {own}, by which results of a known set "
            "are filed and compared: rename it"
        )


def load(
    name: str | Path,
    *,
    root: Path | str | None = None,
    download: bool = True,
    progress: bool = True,
    image_size: int | tuple[int, int] | None = None,
    test_fraction: float | None = None,
) -> DataSet:
    """Loads a data set by name, or the user's own.

    Args:
        name: one of `names()`; `idx:FOLDER` for a folder of IDX files; or the path of a .npz or of a folder of images.
        root: the folder looked in first, instead of `$GENAPPS_DATA`.
        download: whether the network may be asked for what no folder holds.
        progress: whether downloads show how far they are.
        image_size: the height and width [pixels] that a folder's images are cut and resized to; by default they must
            be of one size already.
        test_fraction: the share of each class that is held out for the test where one's own data have no test split; a
            fifth by default. With 0 none is: the test split is then the training images, without labels.

    Raises:
        NoSourceError: when a known set is nowhere and can't be fetched.
        UserError: when the name is unknown, or a file is damaged or not what it should be.

    Example:
        >>> load("digits").train_x.shape
        torch.Size([1437, 1, 8, 8])
    """
    path = Path(name)
    if image_size is not None and (str(name) in LOADERS or not path.is_dir()):
        raise UserError(f"expected a folder of images to go with image_size, got {name}: leave image_size out")
    if test_fraction is not None and (str(name) in LOADERS or str(name).startswith("idx:")):
        raise UserError(f"expected data of one's own to go with test_fraction, got {name}: leave test_fraction out")
    if test_fraction is not None and not 0 <= test_fraction < 1:
        raise UserError(f"expected a test_fraction of 0 or more and less than 1, got {test_fraction}")
    if str(name) in LOADERS:
        return LOADERS[str(name)](Places(root=root, download=download, progress=progress))
    if str(name).startswith("idx:"):
        return load_idx(str(name).removeprefix("idx:"))
    if path.is_dir():
        return load_folder(path, image_size=image_size, test_fraction=test_fraction)
    if path.is_file() or path.suffix == ".npz":
        return load_npz(path, test_fraction=test_fraction)
    raise UserError(
        f"expected a data set out of {', '.join(names())}, idx:FOLDER, or the path of a .npz or of a folder of images, "
        f"got {str(name)!r}, which is none{suggestion(str(name), names())}"
    )
