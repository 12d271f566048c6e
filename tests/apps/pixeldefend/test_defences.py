"""Training defences: what the loss is taken of, worked out another way."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, nn

from apps.pixeldefend.defences import (
    AdversarialBIM,
    AdversarialFGSM,
    CrossEntropy,
    MadryPGD,
    ascend,
    budgets,
    defence,
    flipped,
    smoothed_cross_entropy,
)
from core_models.errors import UserError

SHAPE = (1, 4, 4)
DEFENCES = ["normal", "label-smoothing", "fgsm", "bim", "madry"]


class Net(nn.Module):
    """A classifier with batch norm that keeps what it was shown, and in which mode."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 3))
        for parameter in (self.layers[2].weight, self.layers[4].weight):
            parameter.data *= 4  # steep enough for a few levels to matter
        self.seen = []

    def forward(self, x):
        self.seen.append((self.training, x.detach().clone()))
        return self.layers(x)


def batch(n=12, seed=0):
    generator = Generator().manual_seed(seed)
    x = torch.randint(0, 256, (n, *SHAPE), generator=generator).float() / 255
    return {"x": x, "y": torch.randint(0, 3, (n,), generator=generator)}


def gen(seed=0):
    return Generator().manual_seed(seed)


def on_the_grid(x):
    return torch.equal((x * 255).round() / 255, x)


@pytest.mark.parametrize("name", DEFENCES)
def test_gradients_modes_metrics_and_determinism(name):
    net = Net()
    objective = defence(name, net, eps=8, steps=2).train()
    b = batch()
    loss, metrics = objective(b, gen())
    loss.backward()
    assert all(p.grad is not None and p.grad.any() for p in net.parameters())
    assert all(part.training for part in net.modules())
    assert metrics and all(0 <= float(value) <= 100 for value in metrics.values())
    assert torch.equal(defence(name, Net(), eps=8, steps=2)(b, gen())[0], loss)
    before = torch.get_rng_state()
    other = defence(name, Net(), eps=8, steps=2)(b, gen(1))[0]
    assert not torch.equal(other, loss)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ["fgsm", "bim", "madry"])
def test_images_are_made_in_evaluation_mode_and_leave_the_running_statistics(name):
    net = Net()
    norm = net.layers[1]
    norm.running_mean += 0.3
    objective = defence(name, net, eps=8, steps=2, flip=False).train()
    expected = Net()
    expected.layers[1].running_mean += 0.3
    b = batch()
    objective(b, gen())
    *made, last = net.seen
    assert made and not any(training for training, _ in made)
    assert last[0] and len(last[1]) == len(b["x"])
    expected(last[1])  # the statistics moved once: by the images of the loss
    assert torch.allclose(norm.running_mean, expected.layers[1].running_mean)
    assert int(norm.num_batches_tracked) == 1


def test_half_is_clean_and_the_loss_is_weighted():
    net, b = Net(), batch()
    loss, metrics = AdversarialFGSM(net, deviation=8, flip=False)(b, gen())
    shown = net.seen[-1][1]
    assert torch.equal(shown[:6], b["x"][:6])
    assert not torch.equal(shown[6:], b["x"][6:])
    logits = net(shown)
    clean, adversarial = F.cross_entropy(logits[:6], b["y"][:6]), F.cross_entropy(logits[6:], b["y"][6:])
    assert loss.item() == pytest.approx(((2 * clean + 0.6 * adversarial) / 1.3 / 2).item(), rel=1e-5)
    assert set(metrics) == {"accuracy_percent", "adversarial_accuracy_percent"}


def test_fgsm_steps_the_whole_budget_away_from_the_class_predicted():
    net = Net().eval()
    b = batch()
    made = AdversarialFGSM(net, deviation=8).attack(b["x"], b["y"], gen())
    eps = budgets(12, 8.0, gen(), b["x"])
    x = b["x"].clone().requires_grad_()
    logits = net(x)
    F.cross_entropy(logits, logits.argmax(1), reduction="sum").backward()
    wanted = ((x * 255).round() + eps.view(-1, 1, 1, 1) * x.grad.sign()).clamp(0, 255) / 255
    assert torch.equal(made, wanted.detach())
    assert on_the_grid(made)


def test_bim_is_the_steps_one_by_one():
    net = Net().eval()
    b = batch()
    made = AdversarialBIM(net, deviation=8).attack(b["x"], b["y"], gen(1))
    eps = float(budgets(1, 8.0, gen(1), b["x"]))
    steps = int(min(eps + 4, 1.25 * eps))
    assert steps > eps > 1  # more steps than the budget: the box matters
    levels = (b["x"] * 255).round()
    middle = levels.clone()
    for _ in range(steps):
        x = (levels / 255).requires_grad_()
        F.cross_entropy(net(x), b["y"]).backward()
        levels = (levels + x.grad.sign()).clamp(0, 255)
        levels = middle + (levels - middle).clamp(-eps, eps)
    assert torch.equal(made, levels / 255)


@pytest.mark.parametrize("name", ["fgsm", "bim", "madry"])
def test_adversarial_images_are_8_bit_within_the_budget_and_harder(name):
    net, b = Net(), batch(64)
    b["y"] = Net().eval()(b["x"]).argmax(1)  # FGSM goes away from the class predicted
    defence(name, net, eps=20, steps=6, step_size=5, flip=False)(b, gen())
    shown = net.seen[-1][1]
    assert on_the_grid(shown) and shown.min() >= 0 and shown.max() <= 1
    change = ((shown - b["x"]) * 255).abs().amax((1, 2, 3)).round()
    assert 0 < change.max() <= (20 if name == "madry" else 40)  # two deviations
    net = Net().eval()
    assert F.cross_entropy(net(shown), b["y"]) > F.cross_entropy(net(b["x"]), b["y"]) + 0.2


def test_pgd_starts_anywhere_in_the_box():
    net, b = Net().eval(), batch(200)
    b["x"][:] = 0.5
    b["x"] = (b["x"] * 255).round() / 255
    MadryPGD(net, eps=3, steps=1, step_size=1, flip=False)(b, gen())
    start = ((net.seen[0][1] - b["x"]) * 255).round()
    share = torch.stack([(start == value).float().mean() for value in range(-3, 4)])
    assert torch.allclose(share, torch.full((7,), 1 / 7), atol=0.03)


def test_more_steps_raise_the_loss_no_less():
    net, b = Net().eval(), batch(64)
    eps, one = torch.full((64,), 16.0), torch.full((64,), 2.0)
    made = [ascend(net, b["x"], b["x"], b["y"], eps, one, steps) for steps in (0, 1, 4, 12)]
    losses = [F.cross_entropy(net(x), b["y"]).item() for x in made]
    assert torch.equal(made[0], b["x"])
    assert losses == sorted(losses) and losses[-1] > losses[0] + 0.1


def test_budgets_are_the_sizes_of_truncated_normal_numbers():
    drawn = budgets(200_000, 8.0, gen(), torch.zeros(1))
    assert torch.equal(drawn, drawn.round()) and drawn.min() >= 0 and drawn.max() == 16
    normal = torch.distributions.Normal(0.0, 1.0)
    inside = 2 * normal.cdf(torch.tensor(2.0)) - 1
    for level in range(17):
        low, high = max(0.0, level - 0.5), min(16.0, level + 0.5)
        share = 2 * (normal.cdf(torch.tensor(high / 8)) - normal.cdf(torch.tensor(low / 8))) / inside
        assert float((drawn == level).float().mean()) == pytest.approx(float(share), abs=0.002)


def test_smoothed_targets():
    logits, y = torch.randn(4, 3), torch.tensor([0, 2, 1, 1])
    target = torch.full((4, 3), 0.05).scatter(1, y[:, None], 0.9)
    assert torch.allclose(smoothed_cross_entropy(logits, y, 0.9), F.cross_entropy(logits, target, reduction="none"))
    assert torch.allclose(smoothed_cross_entropy(logits, y, 1.0), F.cross_entropy(logits, y, reduction="none"))
    best = torch.tensor([[0.9, 0.05, 0.05]]).log()
    entropy = -(0.9 * math.log(0.9) + 0.1 * math.log(0.05))
    assert float(smoothed_cross_entropy(best, torch.tensor([0]), 0.9)) == pytest.approx(entropy)


def test_flips_are_of_whole_images_and_of_half_of_them():
    x = torch.rand(2000, 2, 3, 4)
    y = flipped(x, gen())
    same, mirrored = (y == x).flatten(1).all(1), (y == x.flip(3)).flatten(1).all(1)
    assert torch.equal(same, ~mirrored)
    assert 0.45 < same.float().mean() < 0.55
    net = Net()
    b = batch()
    CrossEntropy(net, flip=False)(b, gen())
    assert torch.equal(net.seen[-1][1], b["x"])


@pytest.mark.parametrize(
    ("name", "settings", "why"),
    [
        ("madri", {}, "expected a defence among normal, label-smoothing, fgsm, bim, madry, got 'madri'"),
        ("label-smoothing", {"smoothing": 0.0}, "expected a probability of the true class .*, got 0.0"),
        ("fgsm", {"eps": 0}, "expected a deviation above 0 and at most 127.5 levels, got 0"),
        ("bim", {"eps": 200}, "expected a deviation above 0 and at most 127.5 levels, got 200"),
        ("madry", {"eps": 256}, "expected eps and step_size from 1 to 255 .*, got eps = 256"),
        ("madry", {"steps": 0}, "at least one step, got .* steps = 0"),
    ],
)
def test_settings_out_of_range_are_refused(name, settings, why):
    with pytest.raises(UserError, match=why):
        defence(name, Net(), **settings)
