"""The improved GAN: both players' losses, its noise, its start and what it draws."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from tiny_rows import QUICK, batch, shaken
from torch.nn import functional as F

from apps.semi_supervised.estimator import load
from apps.semi_supervised.improved_gan import Discriminator, ImprovedGAN, ImprovedGANLoss, ImprovedGANNetwork


def test_the_gan_trains_with_the_papers_adam_and_average():
    training = ImprovedGAN()._training()
    assert training == {"betas": (0.5, 0.999), "epsilon": 1e-4, "schedule": "constant", "ema": 0.99995}
    assert ImprovedGAN(hold=0.5)._training()["schedule_hold"] == 0.5


def gan(noise=(0.0, 0.0)):
    torch.manual_seed(4)
    return shaken(ImprovedGANNetwork(5, (4, 4), 3, 2, (6,), noise, True))


def turns(network, unlabelled_weight=1.0):
    """Both losses with their gradients: of the classifier's turn and of the generator's."""
    found = []
    for step in (0.0, 1.0):
        network.zero_grad()
        batch_ = {**batch(), "step": torch.tensor(step)}
        loss, told = ImprovedGANLoss(network, unlabelled_weight)(batch_, torch.Generator().manual_seed(0))
        loss.backward()
        gradients = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
        found.append((loss.detach(), told, gradients))
    network.zero_grad()
    return found


def test_gan_loss_is_that_of_a_class_more():
    """log(1 + e^Z) terms as a softmax over the classes and "made", whose logit is 0; each player has its own."""
    network, rows = gan(), batch()
    network.train()
    (first, told, of_classifier), (second, told_too, of_generator) = turns(network, 0.7)
    made = network.make(8, rows["labelled"], torch.Generator().manual_seed(0))

    def log_p(x):
        logits = network.discriminator(x)[0]
        return torch.cat([logits, torch.zeros(len(x), 1, dtype=torch.float64)], 1).log_softmax(1)

    real = -(1 - log_p(rows["unlabelled"])[:, -1].exp()).log().mean()
    false = -log_p(made.detach())[:, -1].mean()
    cross_entropy = F.cross_entropy(network.discriminator(rows["labelled"])[0], rows["y"])
    expected = cross_entropy + 0.7 * (real + false) / 2
    assert torch.allclose(first, expected) and torch.allclose(told["adversarial_nats"], (real + false) / 2)
    expected.backward()
    learnt = {name: p for name, p in network.named_parameters() if p.requires_grad}
    assert of_classifier.keys() == {name for name in learnt if name.startswith("discriminator")}
    assert all(torch.allclose(gradient, learnt[name].grad) for name, gradient in of_classifier.items())
    network.zero_grad()
    wanted = network.discriminator(rows["unlabelled"])[1].mean(0).detach()
    matching = (network.discriminator(made)[1].mean(0) - wanted).square().mean()
    assert torch.allclose(second, matching) and torch.allclose(told_too["feature_distance"], matching)
    matching.backward()
    assert of_generator.keys() == {name for name in learnt if name.startswith("generator")}
    assert all(torch.allclose(gradient, learnt[name].grad) for name, gradient in of_generator.items())


def test_noise_is_of_its_own_scale_and_added_before_every_layer_but_after_the_features():
    network = gan().discriminator
    x = torch.rand(2000, 5, dtype=torch.float64)
    noise = network.noise(x, (0.3, 0.5), torch.Generator().manual_seed(0))
    assert [part.shape[1] for part in noise] == [5, 4, 4]
    assert [part.std().item() for part in noise] == pytest.approx([0.3, 0.5, 0.5], rel=0.05)
    first, second, last = network.layers
    h = first(x + noise[0]).relu()
    h = second(h + noise[1]).relu()
    logits, features = network(x, noise)
    assert torch.allclose(features, h) and torch.allclose(logits, last(h + noise[2]))


def test_both_turns_of_the_gan_have_noise():
    rows, network = batch(), gan((0.3, 0.5))
    network.train()
    (first, _, _), (second, _, _) = turns(network)
    judge = network.discriminator
    generator = torch.Generator().manual_seed(0)
    x = torch.cat([rows["labelled"], rows["unlabelled"], network.make(8, rows["labelled"], generator)])
    log_z = (logits := judge(x, judge.noise(x, (0.3, 0.5), generator))[0]).logsumexp(1)
    expected = F.cross_entropy(logits[:6], rows["y"])
    expected = expected + 0.5 * ((F.softplus(log_z) - log_z)[6:14].mean() + F.softplus(log_z)[14:].mean())
    assert torch.allclose(first, expected)
    generator = torch.Generator().manual_seed(0)
    made, real = network.make(8, rows["labelled"], generator), rows["unlabelled"]
    wanted = judge(real, judge.noise(real, (0.3, 0.5), generator))[1].mean(0)
    felt = judge(made, judge.noise(made, (0.3, 0.5), generator))[1].mean(0)
    assert torch.allclose(second, (felt - wanted).square().mean())


def test_latents_are_uniform_and_hidden_layers_of_the_generator_normalised():
    network = gan()
    seen = []
    network.generator[0].register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    network.generator[1].register_forward_hook(lambda module, inputs, output: seen.append(output))
    network.train()
    network.make(500, torch.zeros((), dtype=torch.float64), torch.Generator().manual_seed(0))
    z, h = seen
    assert 0 <= z.min() < 0.01 and 0.99 < z.max() <= 1 and z.mean().item() == pytest.approx(0.5, abs=0.03)
    weight, bias = network.generator[1].weight, network.generator[1].bias
    assert not weight.requires_grad and bias.requires_grad
    assert torch.allclose(h.mean(0), bias, atol=1e-9) and torch.allclose(
        h.std(0, correction=0), weight.abs(), rtol=1e-2
    )


@pytest.mark.parametrize("scale", ["none", "unit"])
def test_gan_draws_rows_in_the_units_of_the_data(scale, digits, tmp_path):
    """Also where they leave [0, 1]; and a saved one draws the same."""
    X, _, shown = digits
    X = 16 * X + 100 if scale == "unit" else 2 * X - 1
    model = clone(QUICK[2]).set_params(epochs=10, scale=scale).fit(X, shown)
    rows = model.sample(200)
    assert np.abs(rows.mean(0) - X.mean(0)).mean() < 0.25 * X.std()
    assert model.bounded_ == (scale == "unit") and (scale == "unit" or rows.min() < -0.05)
    model.save(tmp_path)
    assert np.array_equal(load(tmp_path).sample(200), rows)


def test_first_rows_are_looked_at_before_training(digits):
    X, _, shown = digits
    model = clone(QUICK[2]).set_params(epochs=1).fit(X, shown)
    torch.manual_seed(0)
    scales = [layer.scale for layer in model.network_.discriminator.layers[:-1]]
    assert all((scale != 1).all() for scale in scales)
    norms = [layer.direction.norm(dim=1).mean().item() for layer in model.network_.discriminator.layers]
    assert norms == pytest.approx([0.1 * n**0.5 for n in (64, 100, 50)], rel=0.3)


def test_first_rows_set_scale_and_shift():
    network = Discriminator(5, (4, 4), 3).double()
    x = torch.rand(50, 5, dtype=torch.float64)
    noise = network.noise(x, (0.3, 0.5), torch.Generator().manual_seed(0))
    network.begin(x, noise)
    h = x
    for layer, added in zip(network.layers, noise, strict=True):
        h = layer(h + added)
        assert torch.allclose(h.mean(0), torch.zeros_like(h[0]), atol=1e-6)
        assert torch.allclose(h.std(0, correction=0), torch.ones_like(h[0]), atol=1e-6)
        h = h.relu()
    assert [layer.scale.requires_grad for layer in network.layers] == [False, False, True]
