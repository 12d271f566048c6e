"""What the tests of `genapps model` share: a tiny run, made once, and the command line in this process."""

import os
from pathlib import Path

import pytest
import torch

from apps.__main__ import main

TINY = ["--training.device", "cpu", "--training.threads", "1", "--training.epochs", "2", "--batch_size", "200"]
SMALL = ["--model_config.latent", "2", "--model_config.hidden", "[8]"]


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """`--threads` is for a whole process: what is set here is put back."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def model(capsys):
    """Runs `genapps model ...` and returns the exit status, stdout and stderr."""

    def call(*argv):
        status = main(["model", *map(str, argv)])
        out, error = capsys.readouterr()
        return status, out, error

    return call


@pytest.fixture
def refused(model):
    """Runs what must be refused: status 2, one line on stderr, which is returned."""

    def call(*argv):
        status, out, error = model(*argv)
        assert (status, out) == (2, ""), error
        assert error.startswith("genapps: error: ")
        assert error.count("\n") == 1
        return error.removeprefix("genapps: error: ").rstrip()

    return call


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A tiny VAE of the digits, trained by the command line."""
    folder = tmp_path_factory.mktemp("model")
    here = Path.cwd()
    os.chdir(folder)
    try:
        assert main(["model", "train", "--data", "digits", "--out", "runs/vae", *TINY, *SMALL]) == 0
    finally:
        os.chdir(here)
    return folder / "runs" / "vae"


@pytest.fixture(scope="session")
def conditional(tmp_path_factory):
    """A tiny class-conditional VAE of the digits."""
    out = tmp_path_factory.mktemp("model") / "conditional"
    options = ["--model", "conditional-vae", "--model_config.likelihood", "discretised-logistic", *TINY, *SMALL]
    assert main(["model", "train", "--data", "digits", "--out", str(out), *options]) == 0
    return out
