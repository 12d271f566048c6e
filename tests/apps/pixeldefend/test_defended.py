"""The purifier and the defended classifier as modules."""

import warnings

import numpy as np
import pytest
import torch
import torchattacks
from attack_targets import LeftNeighbour, classifier, digits, is_8_bit, network
from torch import nn
from torch.nn import functional as F

from apps.pixeldefend.attacks import attack, correct
from apps.pixeldefend.defended import CAUTION, Defended, Purifier
from apps.pixeldefend.detection import Calibration, fingerprint, threshold_at
from apps.pixeldefend.purification import purify
from core_models.errors import UserError


def loss_gradient(module, x, y, at=None):
    x = (x if at is None else at).clone().requires_grad_()
    return torch.autograd.grad(F.cross_entropy(module(x), y), x)[0]


def test_the_bpda_gradient_is_the_classifiers_at_the_purified_image():
    x, y = digits(n=20)
    purifier = Purifier(LeftNeighbour(), eps=20)
    purified = purify(purifier.density, x, 20)
    assert not torch.equal(purified, x)
    own = loss_gradient(Defended(purifier, classifier()), x, y)
    assert torch.equal(own, loss_gradient(classifier(), purified, y))
    assert not torch.equal(own, loss_gradient(classifier(), x, y))


def test_it_is_purification_in_batches_and_rounds_first():
    x, _ = digits(n=13)
    density = LeftNeighbour()
    whole = purify(density.eval(), x, 12)
    assert torch.equal(Purifier(density, eps=12, batch_size=5)(x), whole)
    near = (x + 0.4 / 255 * torch.where(x < 0.5, 1, -1)).clamp(0, 1)
    assert not torch.equal(near, x)
    assert torch.equal(Purifier(density, eps=12)(near), whole)
    assert is_8_bit(whole) and torch.equal(Purifier(density, eps=0)(x), x)
    assert Purifier(density)(x[:0]).shape == (0, 1, 8, 8)
    assert torch.equal(Purifier(density, eps=12)(x.double()), whole)


def test_rounding_goes_to_the_levels_of_the_density():
    class Coarse(LeftNeighbour):
        levels = 17

    x = torch.full((1, 1, 8, 8), 5.4 / 16)
    assert ((Purifier(Coarse()).rounded(x) * 16).unique()).tolist() == [5.0]


def test_adaptive_pixeldefend_leaves_likely_images_alone():
    x, _ = digits(n=30)
    density = LeftNeighbour()
    bits = Purifier(density).bits_per_dim(x)
    by_hand = -torch.stack([density.log_prob(one[None])[0] for one in x]) / (64 * torch.tensor(2.0).log())
    torch.testing.assert_close(bits, by_hand.detach())
    threshold = float(bits.sort().values[17])
    kept = bits <= threshold
    assert int(kept.sum()) == 18
    found = Purifier(density, eps=16, threshold=threshold, batch_size=7)(x)
    assert torch.equal(found[kept], x[kept])
    assert torch.equal(found[~kept], purify(density, x[~kept], 16))
    assert not torch.equal(found[~kept], x[~kept])
    assert torch.equal(Purifier(density, eps=16, threshold=99.0)(x), x)


def test_from_a_calibration_it_is_adaptive_at_a_rate_of_false_alarms():
    x, _ = digits(n=60)
    density = LeftNeighbour().eval()
    scores = {"bits_per_dim": np.sort(Purifier(density).bits_per_dim(x).double().numpy())}
    calibration = Calibration(scores, "digits", "test", fingerprint(density))
    purifier = Purifier.from_calibration(density, calibration, false_positive_rate=0.2, eps=12, batch_size=7)
    bits = calibration.scores["bits_per_dim"]
    assert purifier.threshold == threshold_at(0.2, bits) and (purifier.eps, purifier.batch_size) == (12, 7)
    changed = (purifier(x) != x).flatten(1).any(1)
    assert 0 < int(changed.sum()) <= int((bits > purifier.threshold).sum()) <= 12
    with pytest.raises(UserError, match="calibration of these weights"):
        Purifier.from_calibration(LeftNeighbour(deviation=9.0), calibration)
    with pytest.raises(UserError, match="false-positive rate"):
        Purifier.from_calibration(density, calibration, 1.5)


def test_numbers_of_numpy_are_numbers():
    purifier = Purifier(LeftNeighbour(), eps=np.int64(8), batch_size=np.int64(3), threshold=np.float32(9))
    assert type(purifier.eps) is int and type(purifier.batch_size) is int
    x, _ = digits(n=4)
    assert torch.equal(purifier(x), Purifier(LeftNeighbour(), eps=8, threshold=9.0)(x))


def test_cut_gradients_are_zero_and_said_once():
    x, y = digits(n=6)
    at = Defended(Purifier(LeftNeighbour(), eps=8, backward="none"), classifier())
    with pytest.warns(UserWarning, match="proves nothing.*9 %"):
        assert not loss_gradient(at, x, y).any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not loss_gradient(at, x, y).any()
        passes = Defended(Purifier(LeftNeighbour(), eps=8), classifier())
        assert loss_gradient(passes, x, y).any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fresh = Purifier(LeftNeighbour(), eps=8, backward="none")
        fresh(x)  # without gradients there is nothing to say


def test_the_honest_line_is_where_people_look():
    assert "9 %" in CAUTION and "8/255" in CAUTION and "Athalye" in CAUTION
    for documented in (Purifier, Defended):
        assert "9 %" in documented.__doc__


def test_the_density_never_leaves_evaluation_mode():
    density = LeftNeighbour()
    at = Defended(Purifier(density, eps=8), network())
    at.train()
    assert at.training and at.classifier.training and not density.training and not density.dropout.training
    x, _ = digits(n=5)
    assert torch.equal(at.purifier(x), at.purifier(x))


@pytest.mark.parametrize(
    "make",
    [
        lambda model: torchattacks.FGSM(model, eps=40 / 255),
        lambda model: torchattacks.PGD(model, eps=40 / 255, alpha=10 / 255, steps=6),
        lambda model: torchattacks.Square(model, eps=60 / 255, n_queries=30),
        lambda model: torchattacks.APGD(model, eps=40 / 255, steps=6),
    ],
    ids=["FGSM", "PGD", "Square", "APGD"],
)
def test_torchattacks_takes_it_as_it_takes_any_model(make):
    x, y = digits(n=20)
    at = Defended(Purifier(LeftNeighbour(), eps=8), classifier())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        found = make(at)(x, y)
    before, after = (float(correct(at, z, y).float().mean()) for z in (x, found))
    assert found.shape == x.shape and after < before - 0.2


def test_colour_images_and_a_classifier_of_ones_own():
    x = (torch.rand(4, 3, 8, 12, generator=torch.Generator().manual_seed(0)) * 255).round() / 255
    own = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 5))
    at = Defended(Purifier(LeftNeighbour((3, 8, 12)), eps=9), own)
    assert at(x).shape == (4, 5)
    found = attack("fgsm", at, x, at(x).argmax(1), 4)
    assert is_8_bit(found) and not torch.equal(found, x)
    assert "eps=9" in repr(at) and not hasattr(at, "classes")


def test_vectorised_gradients_pass_through():
    x, _ = digits(n=4)
    at = Defended(Purifier(LeftNeighbour(), eps=8), classifier())
    x = x.clone().requires_grad_()
    logits = at(x)
    every = torch.eye(10)[:, None].expand(10, 4, 10)
    (jacobian,) = torch.autograd.grad(logits, x, every, is_grads_batched=True, retain_graph=True)
    (third,) = torch.autograd.grad(logits[:, 3].sum(), x)
    torch.testing.assert_close(jacobian[3], third)


SHAPE = (2, 1, 8, 8)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Purifier(nn.Linear(2, 2)), "Autoregressive"),
        (lambda: Purifier(LeftNeighbour(), eps=256), "from 0 to 255"),
        (lambda: Purifier(LeftNeighbour(), eps=0.5), "whole number"),
        (lambda: Purifier(LeftNeighbour(), engine="warp"), "engine among"),
        (lambda: Purifier(LeftNeighbour(), backward="exact"), "bpda or none"),
        (lambda: Purifier(LeftNeighbour(), batch_size=0), "batch_size"),
        (lambda: Purifier(LeftNeighbour(), threshold=float("nan")), "threshold"),
        (lambda: Purifier(LeftNeighbour())(torch.zeros(2, 1, 7, 8)), "shape"),
        (lambda: Purifier(LeftNeighbour())(torch.zeros(1, 8, 8)), "shape"),
        (lambda: Purifier(LeftNeighbour())(torch.zeros(2, 8, 8)), r"got \(2, 8, 8\): reshape them to \(n, 1, 8, 8\)"),
        (lambda: Purifier(LeftNeighbour((3, 8, 9)))(torch.zeros(2, 8, 9, 3)), r"transpose them to \(n, 3, 8, 9\)"),
        (lambda: Purifier(LeftNeighbour())(torch.full(SHAPE, 1.7)), r"got values from 1.7 to 1.7: rescale or clip"),
        (lambda: Purifier(LeftNeighbour())(torch.full(SHAPE, 200.0)), "got values from 200 to 200: divide by 255"),
        (lambda: Purifier(LeftNeighbour())(torch.full(SHAPE, torch.nan)), "NaN"),
        (lambda: Purifier(LeftNeighbour())(torch.zeros(SHAPE, dtype=torch.uint8)), "float32"),
        (lambda: Defended(LeftNeighbour(), classifier()), "a Purifier"),
        (lambda: Defended(Purifier(LeftNeighbour()), lambda x: x), "torch.nn.Module"),
        (lambda: Defended(Purifier(LeftNeighbour()), LeftNeighbour((3, 8, 8))), "density's shape"),
    ],
)
def test_mistakes_are_named(make, words):
    with pytest.raises(UserError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_bits_are_taken_in_the_precision_that_thresholds_are_taken_in(monkeypatch):
    seen, log_prob = [], LeftNeighbour.log_prob

    def told(self, x, y=None):
        seen.append(torch.get_float32_matmul_precision())
        return log_prob(self, x, y)

    monkeypatch.setattr(LeftNeighbour, "log_prob", told)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        Purifier(LeftNeighbour()).bits_per_dim(torch.zeros(SHAPE))
    finally:
        torch.set_float32_matmul_precision(before)
    assert seen == ["highest"]
