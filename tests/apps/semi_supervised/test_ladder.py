"""The ladder network's loss against the paper's algorithm, layer by layer."""

import torch
from tiny_rows import batch, drawn, shaken
from torch.nn import functional as F

from apps.semi_supervised.ladder import Combinator, LadderLoss, LadderNetwork


def test_combinator_starts_with_a_sigmoid_of_no_weight():
    assert [row.unique().item() for row in Combinator(4).weights] == [0, 1, 0, 0, 0, 0, 1, 0, 0, 0]


def test_combinator_is_equation_two():
    combinator = shaken(Combinator(4))
    z, u = torch.randn(2, 3, 4, dtype=torch.float64)
    a = combinator.weights

    def line(k):
        return a[k] / (1 + (-(a[k + 1] * u + a[k + 2])).exp()) + a[k + 3] * u + a[k + 4]

    assert torch.allclose(combinator(z, u), (z - line(0)) * line(5) + line(0))


def test_ladder_loss_is_algorithm_one():
    """Clean and noisy pass apart, layer by layer, as the paper writes them."""
    torch.manual_seed(3)
    network = shaken(LadderNetwork(5, (4,), 3))
    rows = batch()
    labelled, x = rows["labelled"], rows["unlabelled"]
    loss, told = LadderLoss(network, (2.0, 3.0, 5.0), (0.3, 0.2, 0.1))(rows, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    noise = [drawn(14, width, scale, generator) for width, scale in ((5, 0.3), (4, 0.2), (3, 0.1))]

    def normalised(values):
        return (values - values.mean(0)) / (values.var(0, correction=0) + 1e-10).sqrt()

    def run(h, noise):
        z, before = [h + noise[0]], [None]
        h = z[0]
        for i, layer in enumerate(network.layers):
            before.append(h @ layer.weight.T)
            z.append(normalised(before[-1]) + noise[i + 1])
            h = z[-1] + network.shifts[i]
            h = h.relu() if i == 0 else h * network.scale
        return z, before, h

    silence = [torch.zeros(1, width, dtype=torch.float64) for width in (5, 4, 3)]
    _, _, logits = run(labelled, [n[:6] for n in noise])
    noisy, _, top = run(x, [n[6:] for n in noise])
    clean, before, _ = run(x, silence)
    expected = F.cross_entropy(logits, rows["y"])
    u = normalised(top.softmax(1))
    for i, weight in ((2, 5.0), (1, 3.0), (0, 2.0)):
        estimate = network.combinators[i](noisy[i], u)
        back = estimate
        if i:
            back = (estimate - before[i].mean(0)) / (before[i].var(0, correction=0) + 1e-10).sqrt()
            u = normalised(estimate @ network.decoder[i - 1].weight.T)
        expected = expected + weight / network.widths[i] * (back - clean[i]).square().sum(1).mean()
    assert torch.allclose(loss, expected, rtol=1e-9)
    assert set(told) == {"cross_entropy_nats", "denoising_0", "denoising_1", "denoising_2"}
    # also through the clean values and their statistics
    loss.backward()
    found = [p.grad.clone() for p in network.parameters()]
    network.zero_grad()
    expected.backward()
    assert all(torch.allclose(a, p.grad, atol=1e-10) for a, p in zip(found, network.parameters(), strict=True))


def test_every_ladder_parameter_has_a_gradient():
    network = shaken(LadderNetwork(5, (4,), 3))
    LadderLoss(network, (1.0,), (0.3,))(batch())[0].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_the_last_weight_holds_for_all_layers_above():
    loss = LadderLoss(LadderNetwork(5, (4, 4, 4), 3), (1000.0, 10.0, 0.1), (0.3,))
    assert loss.denoising == [1000.0, 10.0, 0.1, 0.1, 0.1] and loss.noise == [0.3] * 5
