"""The operator of a run: by name, from a file, or learned; as options of a verb and as plain arrays of a .npz."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from core_models.errors import UserError

from .operators import LinearOperator, Matrix, build_operator
from .operators.dense import Scaling
from .priors import load_autoencoder

STACK = "stack real and imaginary parts, np.concatenate([y.real, y.imag], 1) beside np.concatenate([A.real, A.imag])"
"""What to do with complex measurements of real signals."""
RANK_VALUES = 4_000_000
"""Values of the largest matrix whose rank is computed: seconds."""


@dataclass(frozen=True, eq=False)
class Measuring:
    """What made, or is to make, measurements: a named operator, a file of a matrix, or a learned encoder."""

    operator: str | None = None
    m: int | None = None
    matrix: Path | None = None
    learned: str | None = None
    """A trained uncertainty autoencoder."""
    seed: int = 0
    scaling: Scaling = "unit"
    width: float = 1.0
    factor: int = 2
    mask: np.ndarray | None = None
    """What `mask` and `fourier` keep, in place of m drawn by the seed."""
    kernel: np.ndarray | None = None
    """Of `blur`, in place of a normal density."""

    def __post_init__(self) -> None:
        """Refuses two answers to one question."""
        given = {"--operator": self.operator, "--matrix": self.matrix, "--learned": self.learned}
        told = [option for option, value in given.items() if value is not None]
        if len(told) > 1:
            raise UserError(f"expected one operator, got {' and '.join(told)}: give one of them")
        if self.m is not None and self.operator is None:
            raise UserError("--m: expected the --operator that makes so many measurements, got none: give its name")
        if self.mask is not None and self.operator not in ("mask", "fourier"):
            raise UserError(f"--mask: expected --operator mask or fourier, which keep by it, got {self.operator}")
        if self.kernel is not None and self.operator != "blur":
            raise UserError(f"--kernel: expected --operator blur, which blurs by it, got {self.operator}")

    @property
    def given(self) -> bool:
        """Whether anything was asked for."""
        return any(value is not None for value in (self.operator, self.matrix, self.learned))

    def build(self, signal_shape: Sequence[int] | None) -> LinearOperator:
        """Makes the operator, its adjoint tested.

        Args:
            signal_shape: of one signal; where it isn't known, a matrix measures vectors as long as it is wide.

        Raises:
            UserError: when there is none of that name, or it doesn't fit signals of that shape.
        """
        if self.operator is not None:
            if signal_shape is None:
                raise UserError("expected the shape of a signal, found none: give --signal_shape, e.g. [1,28,28]")
            return build_operator(
                self.operator, signal_shape, self.m, seed=self.seed, scaling=self.scaling, width=self.width,
                factor=self.factor, mask=None if self.mask is None else torch.from_numpy(self.mask),
                kernel=None if self.kernel is None else torch.from_numpy(self.kernel),
            )  # fmt: skip
        if self.matrix is not None:
            return operator_of(read_matrix(self.matrix), signal_shape)
        if self.learned is not None:
            model = load_autoencoder(self.learned, "--learned")
            return operator_of(model.encoder().detach(), signal_shape or model.event_shape)
        raise UserError("expected an operator, got none: give --operator NAME, --matrix FILE or --learned FOLDER")

    def arrays(self, operator: LinearOperator, *, dense: bool = False) -> dict[str, np.ndarray]:
        """Returns what a .npz must hold for the operator to be made again: its recipe, or A itself."""
        if self.operator is None or dense:
            return {"A": operator.matrix().numpy()}
        own = {"mask": self.mask, "kernel": self.kernel}
        return {
            "operator": np.array(self.operator), "m": np.array(operator.m), "seed": np.array(self.seed),
            "scaling": np.array(self.scaling), "width": np.array(self.width), "factor": np.array(self.factor),
        } | {name: value for name, value in own.items() if value is not None}  # fmt: skip


def recipe_of(arrays: Mapping[str, np.ndarray], where: Path) -> Measuring:
    """Returns the operator that the arrays of a .npz name.

    Raises:
        UserError: when one is no single value of its kind.
    """
    kinds = {"operator": str, "m": int, "seed": int, "scaling": str, "width": float, "factor": int}
    found: dict[str, Any] = {}
    for name, kind in kinds.items():
        if name not in arrays:
            continue
        value = arrays[name]
        fits = {str: "U", int: "ui", float: "fui"}[kind]
        if value.ndim != 0 or value.dtype.kind not in fits:
            raise UserError(
                f"{where}: expected one {kind.__name__} in {name}, got {value.dtype} of shape {value.shape}"
            )
        found[name] = kind(value)
    # other operators leave arrays of these names, which may be of the user's own, alone
    if "mask" in arrays and found.get("operator") in ("mask", "fourier"):
        found["mask"] = _true_or_false(arrays["mask"], where)
    if "kernel" in arrays and found.get("operator") == "blur":
        found["kernel"] = real_matrix(arrays["kernel"], where, "kernel (height, width)").numpy()
    return Measuring(**found)


def measuring_of(mask: Path | None, kernel: Path | None, **given: Any) -> Measuring:
    """Returns what the options of a verb ask for; a mask and a kernel are files.

    Raises:
        UserError: when two answer one question, or a file can't be read.
    """
    kept = None if mask is None else _true_or_false(_read_array(mask, "mask"), mask)
    blur = None if kernel is None else real_matrix(_read_array(kernel, "kernel"), kernel, "kernel (height, width)")
    return Measuring(mask=kept, kernel=None if blur is None else blur.numpy(), **given)


def channels_first(signal_shape: tuple[int, ...], where: str) -> tuple[int, ...]:
    """Returns the shape of a signal, which must not be that of an image with its channels last; (n, 1, 1) is none.

    Raises:
        UserError: when it looks like one.
    """
    if len(signal_shape) == 3 and signal_shape[0] > 4 and signal_shape[2] in (1, 3) and signal_shape[1:] != (1, 1):
        height, width, channels = signal_shape
        order = ", which orders values alike" if channels == 1 else ", with the columns of A in that order"
        raise UserError(
            f"{where}: expected (channels, height, width), got {signal_shape}, which looks like (height, width, "
            f"channels): give [{channels},{height},{width}]{order}, or [{prod(signal_shape)}] for signals that are no "
            "images"
        )
    return signal_shape


def operator_of(weight: Tensor, signal_shape: Sequence[int] | None) -> Matrix:
    """Returns the operator of a matrix, its adjoint tested; signals are vectors where no shape is given."""
    made = Matrix(weight.to(torch.float32), signal_shape)
    made.check_adjoint()
    return made


def read_matrix(path: Path) -> Tensor:
    """Reads a matrix from a .npy, or from a .npz with an array A or only one.

    Raises:
        UserError: when there is none, or it isn't real.
    """
    return real_matrix(_read_array(path, "A", "--matrix"), path)


def _read_array(path: Path, wanted: str, option: str | None = None) -> np.ndarray:
    """Reads an array from a .npy, or from a .npz that holds it by name or holds only one."""
    option = option or f"--{wanted}"
    try:
        # opened here, since numpy leaves a damaged file open
        with path.open("rb") as file:
            if file.read(2) not in (b"\x93N", b"PK"):  # numpy would take anything else for a pickle
                raise ValueError("it is neither")
            file.seek(0)
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.lib.npyio.NpzFile):
                names = loaded.files
                name = wanted if wanted in names else names[0] if len(names) == 1 else None
                if name is None:
                    found = ", ".join(names) or "none"
                    raise UserError(f"{path}: expected an array {wanted}, found {found}: rename it")
                loaded = loaded[name]
    except FileNotFoundError as error:
        raise UserError(f"expected a {option[2:]} at {path}, found nothing: check {option}") from error
    except UserError:
        raise
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise no_plain_arrays(path, error) from error
    return np.asarray(loaded)


def real_matrix(found: np.ndarray, path: Path, what: str = "matrix (m, n)") -> Tensor:
    """Returns a matrix that was read.

    Raises:
        UserError: when it isn't one of real numbers.
    """
    if found.dtype.kind not in "fuib" or found.ndim != 2:
        hint = f": {STACK}" if found.dtype.kind == "c" else ""
        raise UserError(f"{path}: expected a real {what}, got {found.dtype} of shape {found.shape}{hint}")
    return torch.from_numpy(found.astype(np.float32))


def _true_or_false(found: np.ndarray, path: Path) -> np.ndarray:
    """Returns a mask that was read, as booleans; 0 and 1 are taken for them."""
    if found.dtype.kind not in "fuib" or not np.isin(found, (0, 1)).all():
        raise UserError(f"{path}: expected a mask of true and false, got {found.dtype} with other values")
    return found.astype(bool)


def no_plain_arrays(path: Path, error: BaseException) -> UserError:
    """Says that a file holds Python objects, or is no file of arrays."""
    if "pickle" in str(error):
        return UserError(f"{path}: expected plain arrays, got Python objects: store arrays of numbers and strings")
    return UserError(f"{path}: expected a whole .npy or .npz file ({error}): save it again with numpy")


def described(operator: LinearOperator) -> dict[str, Any]:
    """Returns plain values that identify an operator."""
    digest = hashlib.sha256(type(operator).__name__.encode())
    for name, buffer in operator.named_buffers():
        digest.update(name.encode() + buffer.detach().cpu().contiguous().numpy().tobytes())
    shape = list(operator.signal_shape)
    return {"kind": type(operator).__name__, "m": operator.m, "signal_shape": shape, "hash": digest.hexdigest()[:16]}


def rank_of(operator: LinearOperator) -> int | None:
    """Returns the rank of A; None where computing it would take minutes."""
    return operator.rank() if operator.m * operator.n <= RANK_VALUES else None
