"""What the semi-supervised classifiers share: labels, scaling, the ways of scikit-learn, saving without pickle.

An unlabelled row has the label -1, as in scikit-learn's own semi-supervised estimators, or one that is missing (None,
NaN, pandas' NA); with string labels `y` is an object array. Since -1 has a meaning of its own it can't be a class.

A method subclasses `SemiSupervisedClassifier`, stores its constructor's arguments as they are (`scale` and
`random_state` among them) and defines `_fit` and `_log_proba`, plus `_state` and `_restore` when what it learnt is
more than fitted attributes (names that end in `_`) that are numbers, text, lists, arrays or tensors.
"""

from __future__ import annotations

import hashlib
import importlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import _safe_indexing, check_random_state
from sklearn.utils.validation import (
    check_consistent_length,
    check_is_fitted,
    validate_data,
)
from torch import Tensor, nn

from core_models.data.advice import shape_advice
from core_models.errors import UserError
from core_models.files import read_json, write_atomic, write_json

from .labels import UNLABELLED, checked_labels, encode_labels
from .saving import OWN, is_json, plain, tuples
from .saving import fitted as restored

if TYPE_CHECKING:
    from core_models.training import History, RunFolder

Rows = Float[Tensor, "n ..."]
"""Rows after scaling: (n, features) or images (n, channels, height, width), float32."""
Codes = Int[Tensor, " n"]
"""Positions in `classes_`, -1 where there is no label."""
LogProbabilities = Float[Tensor, "n classes"]
Scale = Literal["auto", "none", "standard", "unit"]

M = TypeVar("M", bound=nn.Module)

FORMAT = 1
_PREDICT_ROWS = 1000


class OutOfTime(Exception):
    """A time limit ended a training that keeps its state in a run folder: it is to be resumed, not to be used."""


def stop_if_out_of_time(history: History, run: RunFolder | None) -> None:
    """Raises `OutOfTime` when a training with a run folder was stopped by its time limit.

    Without a run folder nothing can be resumed: what the time allowed for is the result.
    """
    if run is not None and history.stopped == "time limit":
        raise OutOfTime(
            f"time limit: stopped at step {history.steps} after {history.seconds:.0f} s; saved in {run.path}"
        )


class SemiSupervisedClassifier(ClassifierMixin, BaseEstimator, ABC):
    """A classifier that learns from labelled and unlabelled rows.

    `scale` says what happens to the inputs, with statistics of all training rows (labelled or not):

    - `none`: nothing;
    - `standard`: zero mean and unit standard deviation, per feature or, for images, per channel;
    - `unit`: the range of the training rows as a whole goes to [0, 1], so 8-bit pixels stay comparable;
    - `auto`: `none` if the training rows lie in [0, 1] (pixels, usually), else `unit` for images, and for vectors of
      8-bit pixels (whole numbers from 0 to 255, both of which occur), else `standard`.

    Rows to be predicted are to be in the units of the training rows: a warning says so when they hardly can be.

    Attributes:
        classes_: the classes, sorted, in the user's own type.
        transduction_: the label of every training row: the given one, or the predicted one where none was given.
        n_features_in_: number of inputs of one row.
        event_shape_: shape of one row: (features,) or (channels, height, width).
        scale_mean_: what is subtracted from the inputs.
        scale_std_: what they are divided by.
        scaling_: which of `none`, `standard` and `unit` was chosen.
        input_range_: the least and the largest input of the training rows.
        usual_most_: the median, over the training rows, of a row's largest input.
    """

    scale: Scale
    random_state: int | np.random.RandomState | None

    @abstractmethod
    def _fit(self, x: Rows, y: Codes, *, run: RunFolder | None, resume: bool) -> None:
        """Learns from scaled rows (on the CPU) and their codes. `classes_` and `event_shape_` are set by then."""

    @abstractmethod
    def _log_proba(self, x: Rows) -> LogProbabilities:
        """Returns log q(y | x) [nats] of at most 1000 scaled rows (on the CPU).

        Work in float64 (see `in_double`): then a row's probabilities do not depend on its neighbours in the batch.
        """

    def _state(self) -> dict[str, Any]:
        """Returns what was learnt beyond plain fitted attributes, as tensors or numeric arrays by name."""
        return {}

    def _restore(self, state: Mapping[str, Tensor]) -> None:
        """Takes back what `_state` returned. The constructor's arguments and fitted attributes are set by then."""

    def _saved_params(self) -> dict[str, Any]:
        """Returns the constructor's arguments as they are saved; objects that are learnt parts become None here."""
        return self.get_params(deep=False)

    def _save_parts(self, folder: Path) -> None:
        """Saves learnt parts that have a file format of their own, in sub-folders."""

    def _load_parts(self, folder: Path) -> None:
        """Takes back what `_save_parts` saved; called before `_restore`."""

    def fit(self, X: Any, y: Any, *, run: RunFolder | None = None, resume: bool = False) -> Self:
        """Learns from all rows of X and the labels that y gives.

        Args:
            X: (n, features) or images (n, channels, height, width); an array or a tensor.
            y: (n,), -1, NaN or None for the rows without a label.
            run: folder that receives metrics and checkpoints of a long training.
            resume: go on from the run's checkpoint.

        Raises:
            ValueError: no or wrongly shaped data, NaN, no labelled row, fewer than two classes.
        """
        x, codes = self._begin(X, y)
        self._fit(x, torch.from_numpy(codes.copy()), run=run, resume=resume)
        return self._end(x, codes)

    def _begin(self, X: Any, y: Any) -> tuple[Rows, np.ndarray]:
        """Checks and scales what `fit` was given; sets classes, shape and scale."""
        raw, shape = self._rows(X, reset=True)
        self.classes_, codes = encode_labels(y, type(self).__name__)
        check_consistent_length(raw, codes)
        self.event_shape_ = shape
        self._choose_scale(raw)
        return self._scaled(raw), codes

    def _end(self, x: Rows, codes: np.ndarray) -> Self:
        """Labels the training rows that had no label."""
        hidden = np.flatnonzero(codes == UNLABELLED)
        if len(hidden):
            codes[hidden] = self._predict_log_proba(x[torch.from_numpy(hidden)]).argmax(1).numpy()
        self.transduction_ = self.classes_[codes]
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Returns the most probable class of each row, in the user's own label type."""
        best = self.predict_proba(X).argmax(1)
        return self.classes_[best]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Returns (n, classes) float64 probabilities, columns in the order of `classes_`; rows sum to one."""
        return self._predict_log_proba(self._inputs(X)).exp().numpy()

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Returns the share of the labelled rows, or of their weights, whose label is predicted.

        Rows without a label are left out, as cross-validation of few labels hands them in.

        Raises:
            UserError: no row has a label.
        """
        truth, hidden = checked_labels(y, type(self).__name__)
        check_consistent_length(X, truth, sample_weight)
        known = np.flatnonzero(~hidden)
        if not len(known):
            raise UserError(f"expected some labelled rows to score by (y other than {UNLABELLED}), got none")
        if len(known) < len(truth):
            X = X[torch.from_numpy(known)] if isinstance(X, Tensor) else _safe_indexing(X, known)
        weights = None if sample_weight is None else np.asarray(sample_weight)[known]
        return float(np.average(self.predict(X) == truth[known], weights=weights))

    def save(self, folder: Path | str) -> None:
        """Writes the fitted estimator as `model.safetensors` and `estimator.json`; no pickle.

        A `random_state` that is a `RandomState` is written as None.

        Raises:
            UserError: a constructor argument can't be written as JSON, or the folder can't be written to.
        """
        check_is_fitted(self, "classes_")
        tensors = {name: torch.as_tensor(value) for name, value in self._state().items()}
        fitted: dict[str, Any] = {}
        for name, value in vars(self).items():
            if not name.endswith("_") or name.startswith("_"):
                continue
            if isinstance(value, np.ndarray) and value.dtype.kind not in "OU":
                tensors[OWN + name] = torch.from_numpy(np.array(value))
                fitted[name] = {"array": value.dtype.str}
            elif isinstance(value, np.ndarray):
                fitted[name] = {"array": value.dtype.str, "values": value.tolist()}
            elif isinstance(value, Tensor):
                tensors[OWN + name] = value
                fitted[name] = {"tensor": str(value.dtype)}
            elif is_json(plain(value)):
                fitted[name] = {"tuple" if isinstance(value, tuple) else "value": plain(value)}
        parameters = {name: plain(value) for name, value in self._saved_params().items()}
        for name, value in parameters.items():
            if not is_json(value):
                raise UserError(f"expected {name} to be made of numbers, text and lists to be saved, got {value!r}")
        self._save_parts(Path(folder))
        data = save_tensors({name: value.detach().cpu().contiguous() for name, value in tensors.items()})
        write_atomic(Path(folder) / "model.safetensors", data)
        description = {
            "format": FORMAT,
            "class_path": f"{type(self).__module__}.{type(self).__qualname__}",
            "params": parameters,
            "fitted": fitted,
            "weights_sha256": _sha256(data),
        }
        write_json(Path(folder) / "estimator.json", description)

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """Reads an estimator that `save` wrote; on the base class, of whatever kind it is.

        Raises:
            UserError: a file is missing, cut short or altered, or holds another kind of estimator.
        """
        description_path, weights_path = Path(folder) / "estimator.json", Path(folder) / "model.safetensors"
        description = read_json(description_path)
        if not isinstance(description, dict) or description.get("format") != FORMAT:
            raise UserError(f"expected an estimator of format {FORMAT} in {description_path}, found something else")
        kind = _class_of(str(description.get("class_path")), description_path)
        if not issubclass(kind, cls):
            raise UserError(f"expected a {cls.__name__} in {folder}, found a {kind.__name__}: use {kind.__name__}.load")
        try:
            data = weights_path.read_bytes()
        except OSError as error:
            raise UserError(f"expected the weights {weights_path}, could not read them ({error.strerror})") from error
        if _sha256(data) != description.get("weights_sha256"):
            raise UserError(f"{weights_path} is not the file that {description_path} describes: save the model again")
        try:
            tensors = load_tensors(data)
            self = kind(**{name: tuples(value) for name, value in description["params"].items()})
            for name, entry in description["fitted"].items():
                setattr(self, name, restored(name, entry, tensors))
            self._load_parts(Path(folder))
            self._restore({name: value for name, value in tensors.items() if not name.startswith(OWN)})
        except (SafetensorError, AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"{folder} does not hold a whole {kind.__name__} ({reason}): save it again") from error
        return self

    def _seed(self) -> int:
        """Returns the seed that `random_state` stands for: an int is its own seed, None a fresh one."""
        if isinstance(self.random_state, int | np.integer):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _inputs(self, X: Any) -> Rows:
        """Checks and scales rows as `predict` takes them: of the training rows' shape, or flat."""
        check_is_fitted(self, "classes_")
        raw, shape = self._rows(X, reset=False)
        if len(shape) > 1 and shape != self.event_shape_:
            advice = shape_advice(self.event_shape_, (len(raw), *shape))
            raise UserError(f"expected rows of shape {self.event_shape_} as in training, got {shape}: {advice}")
        self._warn_of_other_units(raw)
        return self._scaled(raw)

    def _rows(self, X: Any, *, reset: bool) -> tuple[np.ndarray, tuple[int, ...]]:
        """Returns the checked rows, flat, in the user's number type, and the shape that one of them had."""
        if isinstance(X, Tensor):
            X = X.detach().cpu().numpy()
        shape: tuple[int, ...] | None = None
        if isinstance(X, np.ndarray) and X.ndim > 2:
            if X.ndim != 4:
                raise UserError(
                    f"expected X of shape (n, features) or (n, channels, height, width), got {X.shape}: reshape it"
                )
            shape = tuple(X.shape[1:])
            if shape[2] in (1, 3) and shape[0] not in (1, 3) and shape[1] > 3:
                raise UserError(
                    f"expected images of shape (n, channels, height, width), got {X.shape} with the channels last: "
                    "transpose it to (n, c, h, w), by X.transpose(0, 3, 1, 2)"
                )
            X = X.reshape(len(X), int(np.prod(shape)))
        rows = validate_data(self, X, reset=reset)
        return rows, shape or tuple(rows.shape[1:])

    def _choose_scale(self, raw: np.ndarray) -> None:
        """Sets what is subtracted from the inputs and what they are divided by, broadcast against an event."""
        low, high = float(raw.min()), float(raw.max())
        how = self.scale
        if how == "auto":
            bytes_ = low == 0 and high == 255 and bool((raw == np.floor(raw)).all())
            pixels = bytes_ or len(self.event_shape_) == 3
            how = "none" if low >= 0 and high <= 1 else "unit" if pixels else "standard"
        self.scaling_, self.input_range_, self.usual_most_ = how, (low, high), float(np.median(raw.max(1)))
        ones = (1,) * len(self.event_shape_)
        if how == "none":
            mean, std = np.zeros(ones), np.ones(ones)
        elif how == "unit":
            mean, std = np.full(ones, low), np.full(ones, high - low)
        elif how == "standard":
            channels = raw.reshape(len(raw), self.event_shape_[0], -1)
            mean = channels.mean((0, 2), dtype=np.float64).reshape(-1, *ones[1:])
            std = channels.std((0, 2), dtype=np.float64).reshape(-1, *ones[1:])
        else:
            raise UserError(f"expected scale to be auto, none, standard or unit, got {how!r}")
        # A feature that never varies (up to rounding) stays a constant instead of amplified rounding errors.
        self.scale_mean_, self.scale_std_ = mean, np.where(std > 1e-12 * np.maximum(1, np.abs(mean)), std, 1.0)

    def _warn_of_other_units(self, raw: np.ndarray) -> None:
        """Warns of rows that hardly are in the units of the training rows, such as pixels divided by 255.

        They reach ten times the range of the training rows beyond it or, as pixels of several rows, fill the lowest
        hundredth alone of what a training row usually does: one row may be dark, as one training pixel may be glaring.
        """
        if not hasattr(self, "usual_most_"):  # loaded from a file of before it was kept
            return
        (low, high), least, most = self.input_range_, float(raw.min()), float(raw.max())
        beyond = 0 < 10 * (high - low) < max(low - least, most - high)
        pixels = len(raw) > 1 and (self.scaling_ == "unit" or len(self.event_shape_) == 3)
        if beyond or (pixels and 0 < most - low <= (self.usual_most_ - low) / 100):
            warnings.warn(
                f"expected rows in the units of the training rows, which lay in [{low:g}, {high:g}], got rows in "
                f"[{least:g}, {most:g}]: scale them alike, or their labels mean nothing",
                stacklevel=4,
            )

    def _scaled(self, raw: np.ndarray) -> Rows:
        """Returns float32 rows of the training rows' shape; the subtraction is in float64 for offsets' sake."""
        x = raw.reshape(-1, *self.event_shape_)
        if np.any(self.scale_mean_ != 0) or np.any(self.scale_std_ != 1):
            x = (x - self.scale_mean_) / self.scale_std_
        x = np.ascontiguousarray(x, dtype=np.float32)
        return torch.from_numpy(x if x.flags.writeable else x.copy())

    @torch.no_grad()
    def _predict_log_proba(self, x: Rows) -> LogProbabilities:
        parts = [self._log_proba(part).double().cpu() for part in x.split(_PREDICT_ROWS)]
        return torch.cat(parts).log_softmax(1)  # rows sum to one in float64 whatever the method computed in


def load(folder: Path | str) -> SemiSupervisedClassifier:
    """Reads an estimator that `SemiSupervisedClassifier.save` wrote, of whatever kind it is."""
    return SemiSupervisedClassifier.load(folder)


def in_double(module: M) -> M:
    """Returns a copy of a trained module for prediction: on the CPU, in float64, in evaluation mode."""
    return deepcopy(module).cpu().double().eval()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _class_of(class_path: str, source: Path) -> type[SemiSupervisedClassifier]:
    """Finds an estimator class; a file may name only our modules or classes that the user has already imported."""
    module, _, _ = class_path.rpartition(".")
    if module.startswith("apps."):
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise UserError(f"{source} names the class {class_path}, which this version does not have") from error
    known: list[Any] = [SemiSupervisedClassifier]
    for kind in known:  # grows as it goes: all subclasses, direct or not
        known.extend(kind.__subclasses__())
    for kind in known[1:]:
        if f"{kind.__module__}.{kind.__qualname__}" == class_path:
            return kind
    raise UserError(
        f"{source} names the class {class_path}, which is no semi-supervised estimator known here: "
        f"if it is your own, import its module first, or give the command line --method {class_path}"
    )
