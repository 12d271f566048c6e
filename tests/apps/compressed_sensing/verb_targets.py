"""What the tests of the verbs run on: a tiny prior, the command line called, and what it wrote."""

import csv
import json
from typing import Any

import numpy as np
import pytest
import torch

import core_models
from apps.compressed_sensing.__main__ import main
from apps.compressed_sensing.recovery import Recovered, Recovery
from core_models.latent import VAE
from core_models.latent.vae import VAEConfig

SHAPE = (1, 8, 8)


class BackProjection(Recovery):
    """A user's own method.

    Args:
        operator: what made the measurements.
        noise: standard deviation of each measurement's noise.
        scale: of what comes back.
    """

    def __init__(self, operator: Any = None, *, noise: float = 0.0, scale: float = 1.0) -> None:
        self.operator, self.noise, self.scale = operator, noise, scale

    def _recover(self, y, first):
        return Recovered(self.scale * self.measuring.adjoint(y))


@pytest.fixture(scope="session")
def vae(tmp_path_factory):
    """The folder of an untrained prior of digits of 8 x 8 pixels."""
    folder = tmp_path_factory.mktemp("prior") / "vae"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        core_models.save(VAE(VAEConfig(event_shape=SHAPE, latent=3, hidden=(16,))), folder)
    return folder


@pytest.fixture
def call(capsys, tmp_path, monkeypatch):
    """Runs the command line and returns the exit status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        status = main(list(map(str, arguments)))
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture
def refused(call):
    """Runs what must be refused: status 2 and one line, which is returned."""

    def run(*arguments):
        status, _, error = call(*arguments)
        lines = [line for line in error.splitlines() if line.startswith("genapps: error: ")]
        assert (status, len(lines), error.count("Traceback")) == (2, 1, 0), error
        assert error.splitlines()[-1] == lines[0]
        return lines[0].removeprefix("genapps: error: ")

    return run


def rows_of(folder):
    with (folder / "recovered.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def column(rows, name, kind=float):
    return np.array([kind(row[name]) for row in rows])


def summary_of(folder):
    return json.loads((folder / "summary.json").read_text())


def files_of(folder):
    """What lies in a folder, byte for byte; the summary without the command and the time."""
    found = {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
    told = json.loads(found["summary.json"])
    found["summary.json"] = {key: told[key] for key in told if key not in ("command", "seconds", "signals_per_second")}
    return found
