"""The loss of M2 against sums written out by hand, in float64."""

from math import log

import pytest
import torch

from apps.semi_supervised.m2_objective import M2Network, M2Objective, Noise
from core_models.latent import ConditionalVAEConfig

K, LATENT, SHAPE = 3, 2, (1, 2, 3)
CONFIG = ConditionalVAEConfig(event_shape=SHAPE, latent=LATENT, hidden=(5,), classes=K, activation="tanh")


def make(n_labelled=2, n_unlabelled=8, **settings):
    torch.manual_seed(0)
    network = M2Network(CONFIG).double()
    with torch.no_grad():  # away from the uniform q(y | x) that it starts from
        network.classifier.head[-1].weight.normal_()
        network.classifier.head[-1].bias.normal_()
    return M2Objective(network, n_labelled=n_labelled, n_unlabelled=n_unlabelled, **settings)


def batch_of(objective, seed=1):
    generator = torch.Generator().manual_seed(seed)
    batch = {
        "labelled": torch.rand(2, *SHAPE, generator=generator).round().double(),
        "y": torch.tensor([2, 0]),
        "unlabelled": torch.rand(4, *SHAPE, generator=generator).round().double(),
    }
    return batch, objective.noise(batch, generator)


def bound(vae, x, y, noise):
    """log p(x | y, z) + log p(z) - log q(z | x, y) with its KL term in closed form, value by value."""
    raw = vae.encoder(x[None], torch.tensor([y]))[0]
    mean, log_variance = raw[:LATENT], raw[LATENT:]
    z = mean + (0.5 * log_variance).exp() * noise
    logits = vae.decoder(z[None], torch.tensor([y]))[0]
    probability = torch.sigmoid(logits)
    pixels = x.flatten()
    log_px = (pixels * probability.log() + (1 - pixels) * (1 - probability).log()).sum()
    kl = sum(0.5 * (m**2 + v.exp() - v - 1) for m, v in zip(mean, log_variance, strict=True))
    return log_px - kl


def test_the_loss_is_the_sum_over_classes_written_out():
    objective = make(alpha=0.3)
    batch, noise = batch_of(objective)
    network, vae = objective.network, objective.network.vae
    unlabelled = 0.0
    for i, x in enumerate(batch["unlabelled"]):
        q = torch.softmax(network.classifier(x[None])[0], 0)
        for y in range(K):
            joint = bound(vae, x, y, noise.unlabelled_latent[y, i]) - log(K)
            unlabelled -= q[y] * (joint - q[y].log()) / 4
    labelled, cross_entropy = 0.0, 0.0
    for i, (x, y) in enumerate(zip(batch["labelled"], batch["y"].tolist(), strict=True)):
        labelled -= (bound(vae, x, y, noise.labelled_latent[i]) - log(K)) / 2
        cross_entropy -= torch.log_softmax(network.classifier(x[None])[0], 0)[y] / 2
    expected = 8 / 10 * unlabelled + 2 / 10 * labelled + 0.3 * cross_entropy
    loss, metrics = objective.loss(batch, noise)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(metrics["unlabelled_nats"], unlabelled.detach(), rtol=1e-12, atol=1e-12)


def test_class_by_class_and_all_at_once_give_one_loss_and_one_gradient():
    fast, plain = make(), make(class_by_class=True)
    batch, noise = batch_of(fast)
    gradients = []
    for objective in (fast, plain):
        loss, _ = objective.loss(batch, noise)
        loss.backward()
        gradients.append([loss.detach(), *(p.grad for p in objective.parameters())])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_alpha_weighs_the_mean_cross_entropy_and_not_the_sum():
    # By hand: q is uniform at initialisation, so the mean cross-entropy is log 3 whatever the rows, and the reference's
    # (0.1 N / n_l) sum_l CE / N is 0.1 log 3. The port that puts 0.1 N / n_l on the mean would add 300 times as much.
    network = M2Network(CONFIG).double()
    rows = {"n_labelled": 2, "n_unlabelled": 598}
    with_term = M2Objective(network, alpha=0.1, **rows)
    without = M2Objective(network, alpha=0.0, **rows)
    batch, noise = batch_of(with_term)
    difference = with_term.loss(batch, noise)[0] - without.loss(batch, noise)[0]
    assert difference.item() == pytest.approx(0.1 * log(3), rel=1e-9)


def test_the_labelled_bound_counts_by_its_share_of_the_rows():
    objective = make(n_labelled=2, n_unlabelled=598, alpha=0.0)
    batch, noise = batch_of(objective)
    loss, metrics = objective.loss(batch, noise)
    expected = 598 / 600 * metrics["unlabelled_nats"] + 2 / 600 * metrics["labelled_nats"]
    torch.testing.assert_close(loss.detach(), expected, rtol=1e-12, atol=0)


def test_without_unlabelled_rows_it_is_the_labelled_bound_and_the_classifier():
    objective = make(n_labelled=2, n_unlabelled=0)
    batch, _ = batch_of(objective)
    del batch["unlabelled"]
    noise = objective.noise(batch)
    assert isinstance(noise, Noise) and noise.unlabelled_latent is None
    loss, metrics = objective.loss(batch, noise)
    expected = metrics["labelled_nats"] + 0.1 * metrics["cross_entropy_nats"]
    torch.testing.assert_close(loss.detach(), expected, rtol=1e-12, atol=0)


def test_labels_first_keeps_the_bounds_away_from_the_classifier_for_so_many_steps():
    objective = make(labels_first_steps=3, alpha=0.0)
    batch, noise = batch_of(objective)
    plain, _ = make(alpha=0.0).loss(batch, noise)
    classifier = list(objective.network.classifier.parameters())
    for step, taught in ((2.0, False), (3.0, True)):
        loss, _ = objective.loss({**batch, "step": torch.tensor(step)}, noise)
        torch.testing.assert_close(loss, plain, rtol=1e-12, atol=0)  # the same loss throughout, another gradient
        gradients = torch.autograd.grad(loss, classifier, allow_unused=True)
        assert all((g is not None and bool(g.any())) == taught for g in gradients)


def test_the_weight_of_the_class_kl_rises_from_zero_to_one():
    objective = make(class_warmup_steps=10, alpha=0.0)
    batch, noise = batch_of(objective)
    whole, metrics = make(alpha=0.0).loss(batch, noise)
    kl = log(K) - metrics["class_entropy_nats"]
    for step, weight in ((0.0, 0.0), (5.0, 0.5), (10.0, 1.0), (99.0, 1.0)):
        loss, _ = objective.loss({**batch, "step": torch.tensor(step)}, noise)
        torch.testing.assert_close(loss, whole - 8 / 10 * (1 - weight) * kl, rtol=1e-12, atol=1e-12)
