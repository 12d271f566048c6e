"""Generative priors of the user's own: any module made one, and what is said of one that lacks something."""

import numpy as np
import pytest
import torch
from planted_priors import FromZero, Generator
from torch import nn
from verb_targets import rows_of

from apps.compressed_sensing import CSGM, Prior, build_operator
from apps.compressed_sensing.generative.own_prior import require_shapes
from core_models.errors import UserError

SHAPE = (1, 4, 4)


def test_any_module_becomes_a_prior_of_images():
    module = Generator().train()
    prior = Prior(module, (3, 1, 1), SHAPE, low=-1, high=1)
    assert not module.training and not bool(module.norm.running_mean.any())  # no statistics were taken
    z = torch.randn(5, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(prior.decode(z), (module(z).reshape(5, *SHAPE) + 1) / 2)
    same = Prior(module, (3, 1, 1), SHAPE).decode(z)
    torch.testing.assert_close(same, module(z).reshape(5, *SHAPE))
    x = prior.decode(z).detach()
    method = CSGM(build_operator("gaussian", SHAPE, 12), prior, penalty=0.0, steps=60, restarts=4, optimiser="lbfgs")
    torch.testing.assert_close(method.reconstruct(method.acquire(x)), x, rtol=0, atol=1e-2)


class Pair(Generator):
    """A generator that returns its latents beside its signals."""

    latent_shape, event_shape = (3, 1, 1), SHAPE

    def forward(self, z):
        return super().forward(z), z

    def decode(self, z):
        return self(z)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Prior(Generator(), (3,), SHAPE, low=1, high=-1), "expected high above low"),
        (lambda: Prior(Generator(), (3,), (1, 5, 5)), r"into \(16, 1, 5, 5\), as its event_shape says, got \(16, 16\)"),
        (lambda: Prior(Generator(), (4,), SHAPE), r"decode latents \(16, 4\), as its latent_shape says, got mat1"),
        (lambda: require_shapes(Pair()), "to decode latents .* got 'tuple' object has no attribute 'shape'"),
        (lambda: Prior(Pair(), (3, 1, 1), SHAPE), "to decode latents .* got unsupported operand"),
        (lambda: CSGM(build_operator("gaussian", SHAPE, 2), nn.Linear(2, 2)).recover(torch.ones(1, 2)),
         "got Linear without decode and latent_shape and event_shape: apps.compressed_sensing.Prior makes one"),
        (lambda: CSGM(build_operator("gaussian", SHAPE, 2), object()).recover(torch.ones(1, 2)), "got object without"),
    ],
)  # fmt: skip
def test_mistakes_are_named(make, words):
    with pytest.raises(UserError, match=words):
        make()


def measured(path):
    """A file of measurements of images that the generator makes, in [0, 1]."""
    operator = build_operator("gaussian", SHAPE, 10, seed=1)
    x = FromZero().decode(torch.randn(3, 3, 1, 1, generator=torch.Generator().manual_seed(0))).detach()
    np.savez(path, y=operator(x).numpy(), A=operator.matrix().numpy(), x=x.numpy(), signal_shape=np.array(SHAPE))


RECOVER = ["recover", "--input", "y.npz", "--method", "CSGM", "--method.optimiser", "lbfgs", "--method.steps", 20,
           "--method.penalty", 0, "--method.restarts", 2, "--diagnose", 0, "--prior"]  # fmt: skip


def test_a_prior_that_forgot_its_range_is_warned_of_and_one_that_did_not_recovers(tmp_path, call):
    measured(tmp_path / "y.npz")
    status, _, error = call(*RECOVER, "planted_priors.FromMinusOne", "--out", "forgot")
    assert status == 0
    assert "warning: --prior planted_priors.FromMinusOne makes values from -1 to 1, images here are in [0, 1]" in error
    status, _, error = call(*RECOVER, "planted_priors.FromZero", "--out", "rescaled")
    assert status == 0 and "warning" not in error
    right, wrong = ([float(row["mse"]) for row in rows_of(tmp_path / name)] for name in ("rescaled", "forgot"))
    assert max(right) < 1e-4 < min(wrong)


@pytest.mark.parametrize(
    ("name", "lacks"), [("Generator", "decode and latent_shape and event_shape"),
                        ("OnlyDecodes", "latent_shape and event_shape")],
)  # fmt: skip
def test_a_module_that_is_no_prior_yet_is_told_what_it_lacks(tmp_path, refused, name, lacks):
    measured(tmp_path / "y.npz")
    error = refused(*RECOVER, f"planted_priors.{name}", "--out", "out")
    assert f"--prior planted_priors.{name}: expected a model that decodes latents" in error
    assert f"got {name} without {lacks}: apps.compressed_sensing.Prior makes one of any module" in error
