"""The network of VAT and of the ladder: normalisation by groups in training, by all rows afterwards."""

import pytest
import torch
from sklearn.base import clone
from tiny_rows import QUICK, batch, shaken

from apps.semi_supervised.normalised import NormalisedNetwork


def test_groups_of_rows_are_normalised_apart():
    network = shaken(NormalisedNetwork(5, (4,), 3))
    rows = batch()
    x = torch.cat([rows["labelled"], 3 * rows["unlabelled"] + 1])
    z = network.encode(x, (6, 8), [None, None, None]).z[1]
    for part in z.split([6, 8]):
        assert torch.allclose(part.mean(0), torch.zeros(4, dtype=torch.float64), atol=1e-10)
        assert torch.allclose(part.var(0, correction=0), torch.ones(4, dtype=torch.float64), atol=1e-6)


def test_layers_keep_the_variance_of_their_input_at_first():
    network = NormalisedNetwork(400, (300,), 10)
    assert [layer.weight.std().item() for layer in network.layers] == pytest.approx([400**-0.5, 300**-0.5], rel=0.05)


def test_predictions_have_the_statistics_of_all_training_rows():
    network = shaken(NormalisedNetwork(5, (4, 4), 3))
    x = torch.rand(5300, 5, dtype=torch.float64)  # more than are computed at once
    with torch.no_grad():
        network.settle(x)
        assert torch.allclose(network.logits(x), network.encode(x, (len(x),), [None] * 4).logits, atol=1e-9)
        assert torch.allclose(network.logits(x[:3]), network.logits(x)[:3])


def test_logits_need_not_be_normalised():
    """They are then the last product and its shift, in training as in predictions; every parameter is in use."""
    network = shaken(NormalisedNetwork(5, (4,), 3, normalise_logits=False))
    x = torch.rand(40, 5, dtype=torch.float64)
    encoded = network.encode(x, (10, 30), [None] * 3)
    h = (encoded.z[1] + network.shifts[0]).relu()
    assert torch.allclose(encoded.logits, h @ network.layers[1].weight.T + network.shifts[1])
    assert torch.equal(encoded.mean[2], torch.zeros(3)) and torch.equal(encoded.deviation[2], torch.ones(3))
    encoded.logits.square().sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in network.parameters())
    with torch.no_grad():
        network.settle(x)
        assert torch.allclose(network.logits(x), network.encode(x, (40,), [None] * 3).logits)


def test_statistics_are_those_of_the_training_rows_after_fit(digits):
    X, _, shown = digits
    model = clone(QUICK[0]).set_params(epochs=1).fit(X, shown)
    z = torch.from_numpy(X).flatten(1) @ model.network_.layers[0].weight.T
    assert torch.allclose(model.network_.mean_1, z.mean(0), atol=1e-5)
    assert torch.allclose(model.network_.deviation_1, z.std(0, correction=0), atol=1e-5)
