"""scikit-learn's digits: 1,797 handwritten digits of 8 x 8 [pixels] with 17 levels, which need no download.

Source: Alpaydin and Kaynak, "Optical recognition of handwritten digits", UCI, 1998 (its test part). The set has no
official split: here 360 digits are held out, class by class, by a fixed seed, and 1,437 stay for training.
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits as _sklearn_digits

from .dataset import DataSet
from .sources import Places
from .splits import holdout

SEED = 0


def load_digits(places: Places | None = None) -> DataSet:
    """Loads the embedded digits; `places` is not looked at."""
    bunch = _sklearn_digits()
    x = torch.from_numpy(bunch.images).to(torch.uint8)[:, None]
    y = torch.from_numpy(bunch.target).long()
    train, test = (torch.from_numpy(indices) for indices in holdout(y, 0.2, seed=SEED))
    classes = tuple(map(str, bunch.target_names))
    return DataSet("digits", x[train], y[train], x[test], y[test], classes, "scikit-learn's own copy", levels=17)
