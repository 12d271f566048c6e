"""The attacks that know of the defence."""

import pytest
import torch
from attack_targets import LeftNeighbour, classifier, digits, is_8_bit, largest_change, same_levels, smooth
from torch import nn
from torch.nn import functional as F

from apps.pixeldefend.attacks import attack, correct, describe
from apps.pixeldefend.attacks.ascent import Judged, ascend, loss_of
from apps.pixeldefend.defended import Defended, Purifier
from core_models.errors import UserError


def defended(eps=8, net=None, **settings):
    return Defended(Purifier(LeftNeighbour(), eps=eps, **settings), net or classifier())


class Sharp(nn.Module):
    """Classifies as the small one does, with more confidence."""

    def forward(self, x):
        return 4 * classifier()(x)


def accuracy(at, x, y):
    return float(correct(at, x, y).float().mean())


def test_bpda_beats_every_transferred_attack():
    x, y = digits(n=60)
    at = defended(eps=32)
    transferred = {n: accuracy(at, attack(n, classifier(), x, y, 40), y) for n in ("fgsm", "bim", "pgd", "deepfool")}
    found = attack("bpda", at, x, y, 40, steps=15)
    assert accuracy(at, found, y) < min(transferred.values()) - 0.04


def test_more_steps_never_help_the_defence():
    x, y = digits(n=40)
    at = defended()
    left = [correct(at, attack("bpda", at, x, y, 20, steps=steps, step=3), y) for steps in (1, 3, 9)]
    assert not bool((left[1] & ~left[0]).any()) and not bool((left[2] & ~left[1]).any())
    assert int(left[2].sum()) < int(left[0].sum())


def test_what_fools_the_defence_is_kept_and_purified_no_more():
    x, y = digits(n=30)
    at = defended()
    seen = []
    purify = at.purifier.purify

    def counted(point):
        assert is_8_bit(point)
        seen.append(len(point))
        return purify(point)

    wrong = (y + 1) % 10
    at.purifier.purify = counted
    untouched = attack("bpda", at, x, wrong, 8, steps=5)
    right = correct(at, x, y)
    assert torch.equal(untouched[right], x[right])
    seen.clear()
    attack("bpda", at, x, y, 25, steps=10)
    checks, rounds = seen[0], seen[1:]
    assert checks == 4 and rounds[0] == 30 and rounds == sorted(rounds, reverse=True) and rounds[-1] < 25


def test_without_a_purifier_to_speak_of_bpda_is_bim():
    x, y = digits(n=20)
    at = defended(eps=0)
    # one step, so that a gradient near 0 whose sign turns with the batch changes a sub-pixel and not a whole path
    found, plain = (
        attack("bpda", at, x, y, 16, steps=1, step=2),
        attack("bim", classifier(), x, y, 16, steps=1, step=2.0),
    )
    moved = (found != x).flatten(1).any(1)
    assert moved.sum() >= 15 and (found[moved] == plain[moved]).float().mean() > 0.98
    # an image that the step did not make worse, or that is wrong as it is, stays
    assert torch.equal(found[~moved], x[~moved])
    more = attack("bpda", at, x, y, 16, steps=6, step=2)
    assert accuracy(at, more, y) <= accuracy(at, found, y)


def test_bpda_does_not_depend_on_the_backward_pass_of_the_module():
    x, y = digits(n=12)
    passes, cut = (attack("bpda", defended(backward=b), x, y, 16, steps=4) for b in ("bpda", "none"))
    assert torch.equal(passes, cut)


def test_a_random_start_is_another_start():
    x, y = digits(n=12)
    at = defended()
    plain, started, other = (
        attack("bpda", at, x, y, 16, steps=3, random_start=r, seed=s) for r, s in ((False, 0), (True, 0), (True, 1))
    )
    assert not torch.equal(plain, started) and not torch.equal(started, other)


@pytest.mark.parametrize("through", [False, True], ids=["classifier", "defended"])
def test_an_attacker_who_minds_the_detector_stays_likelier(through):
    x, y = digits(n=40)
    density = LeftNeighbour().eval()
    at = defended() if through else classifier()
    given = {} if through else {"density": density}
    bits = {}
    for weight in (0.0, 1.0):
        found = attack("detector-aware", at, x, y, 32, weight=weight, steps=15, **given)
        assert largest_change(x, found) <= 32 + 1e-3
        fooled = ~correct(at, found, y)
        bits[weight] = Purifier(density).bits_per_dim(found)
        assert int(fooled.sum()) > 10
    assert float((bits[1.0] - bits[0.0]).mean()) < -0.3


@pytest.mark.parametrize("through", [False, True], ids=["classifier", "defended"])
def test_selective_steps_fool_what_a_sum_leaves_right_and_stay_likelier(through):
    """Confident images: the loss has next to no gradient, and the likelihood outweighs it from the first step on."""
    x, y = digits(n=24)
    density = LeftNeighbour().eval()
    net = Sharp()
    at = defended(net=net) if through else net
    given = {} if through else {"density": density}
    found = {w: attack("detector-aware", at, x, y, 32, weight=w, steps=12, **given) for w in (0.0, 1.0, None)}
    fooled = {w: ~correct(at, own, y) for w, own in found.items()}
    assert fooled[None].sum() >= 0.9 * fooled[0.0].sum() > fooled[1.0].sum()
    both = fooled[None] & fooled[0.0]
    bits = {w: Purifier(density).bits_per_dim(own)[both] for w, own in found.items()}
    assert float((bits[None] - bits[0.0]).mean()) < -0.3


def test_a_selective_step_is_along_one_gradient():
    """By hand: one step on the loss, and from a point that fools one on the likelihood."""
    x, _ = digits(n=20)
    density = LeftNeighbour().eval()
    right = smooth()(x).argmax(1)
    for labels, model in ((right, smooth()), ((right + 1) % 10, None)):
        at = x.clone().requires_grad_()
        goal = -density.log_prob(at).sum() if model is None else -F.cross_entropy(model(at), labels, reduction="sum")
        step = -torch.autograd.grad(goal, at)[0].sign() * 2 / 255
        moved = (x + step).clamp(0, 1)
        found = attack("detector-aware", smooth(), x, labels, 8, density=density, steps=1, step=2)
        stayed = (found == x).flatten(1).all(1)  # the step made it no better
        assert same_levels(found[~stayed], moved[~stayed]) and int(stayed.sum()) <= 10


def test_among_points_that_fool_the_likeliest_is_kept():
    x, y = digits(n=30)
    density = LeftNeighbour().eval()
    wrong = (y + 1) % 10  # fooled from the start: likelihood alone is left to gain
    found = attack("detector-aware", classifier(), x, wrong, 8, density=density, steps=6, weight=5.0)
    gained = (density.log_prob(found) - density.log_prob(x)).detach()
    assert bool((gained >= 0).all()) and float(gained.mean()) > 10
    assert not correct(classifier(), found, wrong)[correct(classifier(), x, y)].any()


@pytest.mark.parametrize("name", ["bpda", "detector-aware"])
def test_restarts_go_on_where_the_first_run_stopped_and_only_help(name):
    x, y = digits(n=24)
    density = LeftNeighbour().eval()
    at = defended(eps=0) if name == "bpda" else classifier()
    given = {"steps": 2, "step": 4} | ({} if name == "bpda" else {"density": density})
    one, three = (attack(name, at, x, y, 12, restarts=r, **given) for r in (1, 3))
    fooled = [~correct(at, found, y) for found in (one, three)]
    assert int(fooled[1].sum()) > int(fooled[0].sum()) and bool(fooled[1][fooled[0]].all())
    if name == "bpda":
        assert torch.equal(one[fooled[0]], three[fooled[0]])  # they are not attacked again
    else:
        bits = [Purifier(density).bits_per_dim(found)[fooled[0]] for found in (one, three)]
        assert bool((bits[1] <= bits[0] + 1e-5).all())
    parts = attack(name, at, x, y, 12, restarts=3, batch_size=7, **given)
    assert float((parts != three).float().mean()) < 1e-3
    with pytest.raises(UserError, match="restarts above 0"):
        attack(name, at, x, y, 12, restarts=0, **given)


def test_the_margin_has_a_gradient_where_the_cross_entropy_has_none():
    class Sure(nn.Module):
        def forward(self, x):
            return 1e4 * smooth()(x)

    x, _ = digits(n=20)
    y = smooth()(x).argmax(1)
    at = Defended(Purifier(LeftNeighbour(), eps=0), Sure())
    left = {
        name: accuracy(at, attack("bpda", at, x, y, 40, steps=8, loss=name), y) for name in ("cross-entropy", "margin")
    }
    assert left["margin"] < left["cross-entropy"] - 0.3
    logits = torch.tensor([[1.0, 3.0, 2.5], [0.0, -1.0, 4.0]])
    assert loss_of("margin", logits, torch.tensor([1, 0])).tolist() == [-0.5, 4.0]


@pytest.mark.parametrize("name", ["bpda", "detector-aware"])
def test_what_was_told_of_an_attack_before_it_had_restarts_is_told_still(name):
    assert not {"restarts", "loss"} & set(describe(name, 8)) and describe(name, 8, restarts=1) == describe(name, 8)
    told = describe(name, 8, restarts=2, loss="margin")
    assert (told["restarts"], told["loss"]) == (2, "margin")


def test_a_density_without_gradients_is_refused():
    class Deaf(LeftNeighbour):
        def log_prob(self, x, y=None):
            return super().log_prob(x.detach(), y)

    x, y = digits(n=4)
    with pytest.raises(UserError, match="gradients in x"):
        attack("detector-aware", classifier(), x, y, 8, density=Deaf(), steps=2)
    with pytest.raises(UserError, match="weight of at least 0"):
        attack("detector-aware", classifier(), x, y, 8, density=LeftNeighbour(), weight=-1.0)


def test_ascent_climbs_to_the_best_corner_and_keeps_what_fools():
    x = torch.full((2, 1, 1, 3), 100 / 255)
    slope = torch.tensor([1.0, -2.0, 0.0])
    fools_at = 105 / 255

    def judge(point, labels):
        fooled = (point[:, 0, 0, 0] >= fools_at - 1e-6) & (labels == 1)
        return Judged(fooled, (point * slope).sum((1, 2, 3)), slope.expand_as(point))

    def climb(stops):
        return ascend(
            judge,
            x,
            torch.tensor([0, 1]),
            10,
            torch.Generator(),
            steps=20,
            step=3,
            starts_at_random=False,
            stops_when_fooled=stops,
        )

    levels = (climb(True) * 255).round()[:, 0, 0].tolist()
    assert levels == [[110, 90, 100], [106, 94, 100]]
    assert (climb(False) * 255).round()[1, 0, 0].tolist() == [110, 90, 100]


def test_ascent_that_goes_past_the_best_point_keeps_it():
    def judge(point, labels):
        levels = point[:, 0, 0, 0] * 255
        return Judged(labels > 5, -((levels - 104) ** 2), torch.ones_like(point))

    found = ascend(
        judge,
        torch.full((1, 1, 1, 1), 100 / 255),
        torch.tensor([0]),
        10,
        torch.Generator(),
        steps=8,
        step=2,
        starts_at_random=False,
        stops_when_fooled=True,
    )
    assert float(found * 255) == pytest.approx(104)
