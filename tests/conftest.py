"""What all tests share."""

import os

# One thread: tensors here are tiny, and threads that wait for one another on a busy machine cost far more than they
# bring. Said in the environment too, for the command lines that tests start.
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import jaxtyping
import pytest
import torch

torch.set_num_threads(1)

# --doctest-modules would collect these files a second time, and their like names would clash
collect_ignore_glob = ["*conftest.py"]

# each of these takes one core a minute or more; begun last, they would leave the other idle
LONG_FILES = (
    "test_autoregressive.py",
    "test_estimators.py",
    "test_generative.py",
    "test_pixeldefend_benchmark.py",
    "test_readme.py",
)

# these train for long, in calls of the core whose shapes the tests of the core check; checked here too they would take
# a third longer
UNCHECKED = (
    "test_discriminative.py",
    "test_estimators.py",
    "test_generative.py",
    "test_pixeldefend_batch_use.py",
    "test_pixeldefend_benchmark.py",
    "test_pixeldefend_demo.py",
    "test_purification.py",
    "test_readme.py",
    "test_runner.py",
)


@pytest.fixture(scope="module", autouse=True)
def shapes_are_checked(request):
    """Whether what the core's annotations say is checked at each call."""
    jaxtyping.config.update("jaxtyping_disable", request.path.name in UNCHECKED)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name not in LONG_FILES)
