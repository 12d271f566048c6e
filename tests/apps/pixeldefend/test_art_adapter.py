"""The purifier inside the Adversarial Robustness Toolbox, and inside the little of it that the adapter builds upon."""

import importlib.util
import sys
from types import ModuleType

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


class PreprocessorPyTorch:
    """What the adapter asks of ART's class of this name, told from version 1.20."""

    def __init__(self, device_type="gpu", is_fitted=False, apply_fit=True, apply_predict=True):
        self.device_type = device_type
        self.is_fitted, self.apply_fit, self.apply_predict = is_fitted, apply_fit, apply_predict

    def __call__(self, x, y=None):
        found, labels = self.forward(torch.from_numpy(x), y)
        return found.detach().numpy(), labels

    def estimate_gradient(self, x, gradient):
        at = torch.from_numpy(x).requires_grad_()
        self.estimate_forward(at).backward(torch.from_numpy(gradient))
        return at.grad.numpy()


@pytest.fixture(params=["stand-in", pytest.param("ART", marks=[has_art, pytest.mark.filterwarnings("ignore")])])
def art(request, monkeypatch):
    """ART itself where it is installed, and what stands in for it everywhere."""
    if request.param == "stand-in":
        module = ModuleType("art.defences.preprocessor.preprocessor")
        module.PreprocessorPyTorch = PreprocessorPyTorch
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return request.param


def test_it_purifies_and_passes_gradients_as_the_identity(art):
    x, _ = digits(n=6)
    purifier = Purifier(LeftNeighbour(), eps=12)
    defence = art_preprocessor(purifier)
    found, labels = defence(x.numpy(), np.arange(6))
    assert np.array_equal(found, purifier(x).numpy()) and np.array_equal(labels, np.arange(6))
    assert not np.array_equal(found, x.numpy()) and torch.equal(defence.estimate_forward(x), purifier(x))
    gradient = np.random.default_rng(0).normal(size=x.shape).astype(np.float32)
    assert np.array_equal(defence.estimate_gradient(x.numpy(), gradient), gradient)
    assert defence.apply_predict and not defence.apply_fit and defence.is_fitted
    other = art_preprocessor(purifier, apply_fit=True, apply_predict=False)
    assert other.apply_fit and not other.apply_predict
    if art == "stand-in":
        assert (defence.device_type, defence.params) == ("cpu", ["apply_fit", "apply_predict"])


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
