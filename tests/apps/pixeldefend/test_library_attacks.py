"""What reaches the attacks of torchattacks: steps, draws, queries and budgets, as they are told."""

import pytest
import torch
import torchattacks
from attack_targets import classifier, digits, loss_gradient, network, same_levels, smooth
from torch import nn

from apps.pixeldefend.attacks import attack, find


@pytest.mark.parametrize("version", ["standard", "plus", "rand"])
@pytest.mark.parametrize(("given", "steps", "queries"), [({"steps": 5, "queries": 20}, 5, 20), ({}, 100, 5000)])
def test_every_part_of_autoattack_makes_as_many_steps_as_it_is_told(monkeypatch, version, given, steps, queries):
    parts = []

    def forward(self, x, y):
        parts.extend(self._autoattack.attacks)
        return x

    monkeypatch.setattr(torchattacks.AutoAttack, "forward", forward)
    x, y = digits(n=4)
    attack("autoattack", classifier(), x, y, 8, version=version, **given)
    squares = [part for part in parts if isinstance(part, torchattacks.Square)]
    others = [part for part in parts if part not in squares]
    assert len(parts) == {"standard": 4, "plus": 6, "rand": 2}[version]
    assert {part.steps for part in others} == {steps}
    assert [part.n_queries for part in squares] == [queries] * (version != "rand")


@pytest.mark.parametrize(("classes", "aimed_at"), [(4, 3), (10, 9), (30, 9)])
def test_autoattack_aims_at_nine_classes_at_most(monkeypatch, classes, aimed_at):
    parts = []

    def forward(self, x, y):
        parts.extend(self._autoattack.attacks)
        return x

    monkeypatch.setattr(torchattacks.AutoAttack, "forward", forward)
    x, _ = digits(n=4)
    attack("autoattack", network(classes=classes).eval(), x, torch.zeros(4).long(), 8)
    assert [part.n_target_classes for part in parts if hasattr(part, "n_target_classes")] == [aimed_at] * 2


def test_eot_pgd_owns_that_its_draws_depend_on_the_batch():
    """A classifier that draws uses the stream that the next batch starts from."""

    class Draws(nn.Module):
        def forward(self, x):
            return smooth()(x + 0.01 * torch.randn_like(x))

    x, y = digits(n=12)
    given = {"steps": 2, "draws": 2}
    whole, parts = (attack("eot-pgd", Draws(), x, y, 8, batch_size=b, **given) for b in (12, 5))
    assert not torch.equal(whole, parts) and not find("eot-pgd").any_batch_size


@pytest.mark.parametrize("eps", [1, 9, 60])
def test_fgsm_is_one_step_of_eps_along_the_sign_of_the_gradient(eps):
    x = digits(n=30)[0]
    y = smooth()(x).argmax(1)
    by_hand = (x + eps / 255 * loss_gradient(smooth(), x, y).sign()).clamp(0, 1)
    found = attack("fgsm", smooth(), x, y, eps)
    assert same_levels(found, by_hand) and not same_levels(found, x)


def test_square_is_given_its_budget_and_parameters(monkeypatch):
    told = {}

    class Square:
        def __init__(self, model, **settings):
            told.update(settings)

        def __call__(self, x, y):
            return x

    monkeypatch.setattr(torchattacks, "Square", Square)
    x, y = digits(n=4)
    attack("square", classifier(), x, y, 51, queries=30, restarts=3, first_share=0.5)
    told.pop("seed")
    assert told == {"eps": 0.2, "n_queries": 30, "n_restarts": 3, "p_init": 0.5}


def test_eot_pgd_adds_the_gradients_of_all_its_draws():
    class Changing(nn.Module):
        """Answers otherwise with every call, as a classifier that draws would; only whole batches count."""

        calls = 0

        def forward(self, x):
            if len(x) < 9:
                return smooth()(x)
            self.calls += 1
            return smooth()(x.roll(self.calls % 3, -1))

    x = digits(n=9)[0]
    y = smooth()(x).argmax(1)
    net, by_hand = Changing(), x
    for _ in range(4):
        gradient = sum(loss_gradient(net, by_hand, y) for _ in range(3))
        by_hand = (by_hand + 3 / 255 * gradient.sign()).clamp(x - 8 / 255, x + 8 / 255).clamp(0, 1)
    net.calls = 0
    found = attack("eot-pgd", net, x, y, 8, steps=4, step=3.0, draws=3, random_start=False)
    assert net.calls == 4 * 3
    assert same_levels(found, by_hand)
