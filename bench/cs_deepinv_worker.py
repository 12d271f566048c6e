"""deepinv's latent solver, run by the interpreter of a virtual environment that has it: reads settings (JSON).

`CSGMGenerator` has one latent whatever the batch, so that it is given one signal at a time, and stops early unless told
otherwise; here it takes all its steps. The decoder, the matrix and the torch release are those of our side.
"""

from __future__ import annotations

import json
import sys
import types
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import core_models
from apps.compressed_sensing.operators.deepinv import from_deepinv

from .ratios import Stopwatch


class Backbone(nn.Module):
    """A decoder of ours as deepinv wants one: latents (batch, nz, 1, 1)."""

    def __init__(self, prior: Any) -> None:
        super().__init__()
        self.prior, self.nz = prior, prior.latent_shape.numel()

    def forward(self, z: Tensor) -> Tensor:
        """Returns images (batch, channels, height, width)."""
        decoded: Tensor = self.prior.decode(z.reshape(len(z), *self.prior.latent_shape))
        return decoded


def main() -> None:
    """Recovers signals one after another and prints the time that it took [s]."""
    # its compiled operators, of object detection, are built for CUDA: without their shapes torchvision imports beside a
    # torch for the CPU, and nothing here uses them
    sys.modules["torchvision._meta_registrations"] = types.ModuleType("torchvision._meta_registrations")
    deepinv, gan, physics_of = (import_module(name) for name in ("deepinv", "deepinv.models.gan", "deepinv.physics"))
    settings = json.loads(sys.stdin.readline())
    torch.set_num_threads(settings["threads"])
    torch.manual_seed(0)
    with np.load(settings["measurements"], allow_pickle=False) as arrays:
        A, y = torch.from_numpy(arrays["A"]), torch.from_numpy(arrays["y"])
    prior: Any = core_models.load(settings["prior"]).eval()
    prior.requires_grad_(False)
    shape = tuple(prior.event_shape)
    physics = physics_of.CompressedSensing(m=len(A), img_size=shape)
    physics._A.copy_(A)
    physics._A_adjoint = physics._A.T
    apart = float((from_deepinv(physics, shape).matrix() - A).abs().max())
    if apart > 1e-6:
        raise RuntimeError(f"the physics of deepinv measures otherwise, by {apart:.1e}")
    solver = gan.CSGMGenerator(Backbone(prior), inf_max_iter=settings["steps"], inf_tol=0.0, inf_lr=0.01).eval()
    solver(y[:1], physics)
    stopwatch = Stopwatch(torch.device("cpu"), settings["clock"])
    stopwatch.start()
    found = torch.cat([solver(one[None], physics) for one in y]).detach()
    seconds = stopwatch.stop()
    loss = float((y - physics.A(found)).square().mean())
    print(json.dumps({"seconds": seconds, "loss": loss, "deepinv": deepinv.__version__}))


if __name__ == "__main__":
    main()
