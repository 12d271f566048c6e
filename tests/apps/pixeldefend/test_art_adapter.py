"""The purifier inside the Adversarial Robustness Toolbox; most of it runs where that is installed."""

import importlib.util
import sys

import numpy as np
import pytest
import torch
from attack_targets import LeftNeighbour, classifier, digits
from torch.nn import functional as F

from apps.pixeldefend.art_adapter import art_preprocessor
from apps.pixeldefend.attacks import correct
from apps.pixeldefend.defended import Defended, Purifier
from core_models.errors import UserError

has_art = pytest.mark.skipif(importlib.util.find_spec("art") is None, reason="ART is not installed")


def test_without_art_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "art", None)
    monkeypatch.delitem(sys.modules, "art.defences.preprocessor.preprocessor", raising=False)
    with pytest.raises(UserError, match=r"genapps\[art\]"):
        art_preprocessor(Purifier(LeftNeighbour()))


@has_art
@pytest.mark.filterwarnings("ignore")
def test_it_purifies_and_passes_gradients_as_the_identity():
    x, _ = digits(n=6)
    purifier = Purifier(LeftNeighbour(), eps=12)
    defence = art_preprocessor(purifier)
    found, labels = defence(x.numpy(), np.arange(6))
    assert np.array_equal(found, purifier(x).numpy()) and np.array_equal(labels, np.arange(6))
    gradient = np.random.default_rng(0).normal(size=x.shape).astype(np.float32)
    assert np.array_equal(defence.estimate_gradient(x.numpy(), gradient), gradient)
    assert defence.apply_predict and not defence.apply_fit and defence.is_fitted


@has_art
@pytest.mark.filterwarnings("ignore")
def test_arts_attacks_meet_the_defence():
    from art.attacks.evasion import FastGradientMethod
    from art.estimators.classification import PyTorchClassifier

    x, y = digits(n=20)
    purifier = Purifier(LeftNeighbour(), eps=8)
    estimator = PyTorchClassifier(
        model=classifier(),
        loss=torch.nn.CrossEntropyLoss(),
        input_shape=(1, 8, 8),
        nb_classes=10,
        clip_values=(0, 1),
        preprocessing_defences=[art_preprocessor(purifier)],
        device_type="cpu",
    )
    at = Defended(purifier, classifier())
    np.testing.assert_allclose(estimator.predict(x.numpy()), at(x).detach().numpy(), atol=1e-5)
    found = torch.from_numpy(FastGradientMethod(estimator, eps=40 / 255).generate(x.numpy(), y.numpy()))
    point = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(at(point), y), point)
    torch.testing.assert_close(found, (x + 40 / 255 * gradient.sign()).clamp(0, 1))
    assert float(correct(at, found, y).float().mean()) < float(correct(at, x, y).float().mean()) - 0.2
