"""Data sets: where the bytes come from, checksums, splits, and what is done to pixels."""

from .catalogue import digest, load, names, require_own_name
from .dataset import UNLABELLED, DataSet, Split
from .pixels import Binarisation, binarise, dequantise, quantise, to_floats
from .sources import NoSourceError, user_cache
from .splits import balanced_draw, holdout, kept_draw
from .user import Examples, load_folder, load_npz, read_examples

__all__ = [
    "UNLABELLED",
    "Binarisation",
    "DataSet",
    "Examples",
    "NoSourceError",
    "Split",
    "balanced_draw",
    "binarise",
    "dequantise",
    "digest",
    "holdout",
    "kept_draw",
    "load",
    "load_folder",
    "load_npz",
    "names",
    "quantise",
    "read_examples",
    "require_own_name",
    "to_floats",
    "user_cache",
]
