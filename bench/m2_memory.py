"""Peak memory of a run of M2 on MNIST, measured by the process itself: `python -m bench.m2_memory THREADS`."""

from __future__ import annotations

import json
import sys

import numpy as np
import torch

from apps.semi_supervised.m2 import M2
from core_models.data import load
from core_models.data.splits import balanced_draw
from core_models.errors import UserError

from .peak import peak_bytes


def images() -> tuple[np.ndarray, np.ndarray, np.ndarray, str]:
    """Returns training images and labels, test images, and where they came from: MNIST, else noise of its shape."""
    try:
        data = load("mnist", download=False)
    except UserError:
        noise = np.random.default_rng(0).integers(0, 256, (70_000, 1, 28, 28), dtype=np.uint8)
        x = noise.astype(np.float32) / 255
        return x[:60_000], np.arange(60_000) % 10, x[60_000:], "made-up rows of MNIST's shape"
    train, test = data.images("train").numpy(), data.images("test").numpy()
    return train, data.train_y.numpy(), test, "MNIST"


def main() -> None:
    """Trains one epoch of 299 steps, predicts the test set and prints the peak [GiB]."""
    threads = int(sys.argv[1])
    torch.set_num_threads(threads)
    x, y, test, source = images()
    labels = np.full_like(y, -1)
    known = balanced_draw(y, 100, seed=0)
    labels[known] = y[known]
    estimator = M2(epochs=1, batch_size=200, threads=threads, device="cpu").fit(x, labels)
    estimator.predict(test)
    print(json.dumps({"gib": peak_bytes() / 2**30, "source": source, "steps": estimator.history_.steps}))


if __name__ == "__main__":
    main()
