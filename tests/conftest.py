"""What all tests share."""

import os

# One thread: tensors here are tiny, and threads that wait for one another on a busy machine cost far more than they
# bring. Said in the environment too, for the command lines that tests start.
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import torch

torch.set_num_threads(1)

# --doctest-modules would collect these files a second time, and their like names would clash
collect_ignore_glob = ["*conftest.py"]

# each of these takes one core a minute or more; begun last, they would leave the other idle
LONG_FILES = ("test_readme.py", "test_pixeldefend_benchmark.py", "test_estimators.py")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name not in LONG_FILES)
