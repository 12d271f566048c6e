"""What the tests of batch use run on: a tiny density and classifier, images, and the command line called."""

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.distributions import Categorical

import core_models
from apps.common.cli import Verb, run_cli
from apps.pixeldefend.detection import calibrate
from core_models.base import Autoregressive, Classifier, GenerativeModel

SHAPE = (1, 5, 4)
VERBS = {
    "detect": Verb("apps.pixeldefend.detect:detect", "say which images are suspicious"),
    "purify": Verb("apps.pixeldefend.purifying:purify_images", "purify images"),
}


class Smooth(GenerativeModel, Autoregressive):
    """Each sub-pixel is near the one before it, in raster order; the first is near the middle."""

    levels = 256

    def __init__(self, scale: float = 0.1, channels: int = 1):
        super().__init__()
        self.config = {"scale": scale, "channels": channels}
        self.event_shape = torch.Size((channels, *SHAPE[1:]))
        self.scale = nn.Parameter(torch.tensor(scale))

    def conditionals(self, x, y=None):
        flat = x.permute(0, 2, 3, 1).flatten(1) * 255  # channel after channel, pixel after pixel
        before = torch.cat([torch.full_like(flat[:, :1], 128), flat[:, :-1]], 1)
        before = before.view(len(x), *SHAPE[1:], -1).permute(0, 3, 1, 2)
        return Categorical(logits=-self.scale * (torch.arange(256) - before[..., None]).abs())

    def log_prob(self, x, y=None):
        return self.conditionals(x).log_prob((x * 255).round()).flatten(1).sum(1)

    @torch.no_grad()
    def sample(self, n, y=None, *, generator=None):
        x = torch.zeros(n, 20)
        for i in range(20):
            logits = self.conditionals(x.view(n, *SHAPE)).logits.view(n, 20, 256)[:, i]
            x[:, i] = torch.multinomial(logits.exp(), 1, generator=generator)[:, 0] / 255
        return x.view(n, *SHAPE)


class Bright(Classifier):
    """Class 1 where the left half is the brighter one."""

    classes = 2

    def __init__(self, shape: list = SHAPE):
        super().__init__()
        self.config = {"shape": list(shape)}
        self.event_shape = torch.Size(shape)
        self.sign = nn.Parameter(torch.ones(()))

    def forward(self, x):
        left, right = x[..., :2].flatten(1).mean(1), x[..., 2:].flatten(1).mean(1)
        return torch.stack([right, left], 1) * self.sign


def draws(n, seed):
    return Smooth().sample(n, generator=torch.Generator().manual_seed(seed))


def attacked(n, seed=5):
    """Images of the density with some noise, and their levels."""
    noise = torch.randint(-30, 31, (n, *SHAPE), generator=torch.Generator().manual_seed(seed))
    levels = ((draws(n, seed) * 255).round() + noise).clamp(0, 255)
    return levels / 255, levels.to(torch.uint8).numpy()


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The density with its calibration beside it, and the classifier."""
    folder = tmp_path_factory.mktemp("models")
    core_models.save(Smooth(), folder / "density")
    core_models.save(Bright(), folder / "classifier")
    calibrate(Smooth(), draws(99, 1), data="toy", split="test").save(folder / "density" / "calibration.npz")
    return folder


@pytest.fixture
def call(models, capsys):
    """Runs a verb and returns the exit status, stdout and stderr."""

    def run(verb, input, out, *more):
        given = ["--input", input, "--density", models / "density", "--out", out, "--device", "cpu", *more]
        status = run_cli(VERBS, prog="genapps pixeldefend", argv=[verb, *map(str, given)])
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


def png_folder(path, levels):
    for i, image in enumerate(levels):
        place = path / ("even" if i % 2 == 0 else "odd") / f"{i}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0]).save(place)
    return path


def rows_of(folder):
    with (folder / "images.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def column(rows, name, kind=float):
    return np.array([kind(row[name]) for row in rows])


def files_of(folder):
    """What lies in a folder, byte for byte; the summary without the command."""
    found = {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
    found["summary.json"] = {**json.loads(found["summary.json"]), "command": ""}
    return found
