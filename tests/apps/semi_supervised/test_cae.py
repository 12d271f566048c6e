"""The contractive auto-encoder: its penalty against autograd, and what training does."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits

from apps.semi_supervised.cae import ContractiveAutoencoder, ContractiveLayer, ContractiveLoss
from core_models.errors import UserError
from core_models.training import RunFolder

QUICK = ContractiveAutoencoder(
    hidden=(64,), epochs=8, steps=100, batch_size=20, learning_rate=1e-2, fine_tuning_rate=1e-2, device="cpu"
)


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    X, y = (data.data / 16).astype(np.float32)[:600], data.target[:600]
    shown = np.full(len(y), -1)
    for k in range(10):
        shown[np.flatnonzero(y == k)[:10]] = k
    return X, y, shown


def test_penalty_is_the_norm_of_the_jacobian():
    torch.manual_seed(0)
    layer = ContractiveLayer(5, 7).double()
    with torch.no_grad():
        layer.encoder.weight.mul_(3)
    x = torch.rand(4, 5, dtype=torch.float64)
    expected = [torch.autograd.functional.jacobian(lambda row: layer(row[None])[0], row).square().sum() for row in x]
    assert torch.allclose(layer.contraction(layer(x)), torch.stack(expected), rtol=1e-10)


def jacobian(layer, row):
    return torch.autograd.functional.jacobian(lambda row: layer(row[None])[0], row)


def test_higher_order_penalty_is_the_change_of_the_jacobian_nearby():
    """By autograd, for the very draws that the loss takes."""
    torch.manual_seed(0)
    layer = ContractiveLayer(5, 7).double()
    with torch.no_grad():
        layer.encoder.weight.mul_(3)
    x = torch.rand(4, 5, dtype=torch.float64)
    plain, _ = ContractiveLoss(layer, 0.3, True)({"x": x})
    loss, told = ContractiveLoss(layer, 0.3, True, 2.0, 0.4, 3)({"x": x}, torch.Generator().manual_seed(1))
    epsilon = torch.empty(12, 5, dtype=torch.float64).normal_(0, 0.4, generator=torch.Generator().manual_seed(1))
    changes = [
        (jacobian(layer, row) - jacobian(layer, row + e)).square().sum()
        for row, e in zip(x.repeat(3, 1), epsilon, strict=True)
    ]
    expected = torch.stack(changes).mean()
    assert expected > 0.1 and torch.allclose(told["bending"], expected, rtol=1e-10)
    assert torch.allclose(loss, plain + 2 * expected, rtol=1e-10)


def test_the_higher_order_penalty_takes_part_in_training(digits):
    X, _, shown = digits
    small = clone(QUICK).set_params(epochs=1, steps=5)
    plain, none, some = (
        clone(small).set_params(**settings).fit(X, shown).predict_proba(X)
        for settings in ({}, {"hessian_draws": 2, "hessian_noise": 0.3}, {"hessian": 10.0, "hessian_noise": 0.3})
    )
    assert np.array_equal(plain, none) and not np.allclose(plain, some, atol=1e-4)


@pytest.mark.parametrize("pixels", [True, False])
def test_loss_is_reconstruction_plus_penalty(pixels):
    torch.manual_seed(0)
    layer = ContractiveLayer(5, 7)
    x = torch.rand(4, 5)
    h = layer(x)
    back = h @ layer.encoder.weight + layer.decoder_bias
    error = -(x * back.sigmoid().log() + (1 - x) * (1 - back.sigmoid()).log()) if pixels else (back - x) ** 2
    loss, _ = ContractiveLoss(layer, 0.3, pixels)({"x": x})
    assert loss.item() == pytest.approx((error.sum(1) + 0.3 * layer.contraction(h)).mean().item(), rel=1e-5)


def test_every_parameter_has_a_gradient():
    layer = ContractiveLayer(5, 7)
    ContractiveLoss(layer, 0.3, True)({"x": torch.rand(4, 5)})[0].backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in layer.parameters())


def test_penalty_contracts(digits):
    X, _, shown = digits

    def contraction(penalty):
        model = clone(QUICK).set_params(penalty=penalty, hidden=(32,), steps=1, fine_tuning_rate=1e-9).fit(X, shown)
        layer = model._network[0]
        return layer.contraction(layer(torch.from_numpy(X).double())).mean().item()

    assert contraction(3.0) < 0.5 * contraction(0.0)


def test_digits_are_learnt_from_ten_labels_each(digits):
    X, y, shown = digits
    model = clone(QUICK).fit(X, shown)
    hidden = shown == -1
    assert (model.predict(X[hidden]) == y[hidden]).mean() > 0.73


def test_unlabelled_rows_matter_and_labels_alone_are_fine_tuned_on(digits):
    X, _, shown = digits
    small = clone(QUICK).set_params(epochs=1, steps=5)
    labelled = shown >= 0
    some = small.fit(X, shown).predict_proba(X)
    none = clone(small).fit(X[labelled], shown[labelled]).predict_proba(X)
    assert not np.allclose(some, none, atol=1e-3)


def test_every_layer_is_a_stage_of_the_run(digits, tmp_path):
    X, _, shown = digits
    small = clone(QUICK).set_params(hidden=(16, 8), epochs=1, steps=3)
    model = small.fit(X, shown, run=RunFolder(tmp_path / "run"))
    lines = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert all(stage in lines for stage in ("layer1", "layer2", "classifier"))
    again = clone(small).fit(X, shown, run=RunFolder(tmp_path / "run"), resume=True)
    assert np.array_equal(again.predict_proba(X), model.predict_proba(X))


def test_no_layer_is_refused(digits):
    with pytest.raises(UserError, match="hidden"):
        ContractiveAutoencoder(hidden=(), device="cpu").fit(digits[0], digits[2])
