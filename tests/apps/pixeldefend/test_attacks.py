"""What is true of every attack, and of each by itself."""

from functools import cache

import pytest
import torch
from attack_targets import (
    LeftNeighbour,
    classifier,
    digits,
    is_8_bit,
    largest_change,
    loss_gradient,
    network,
    same_levels,
    smooth,
)
from torch import nn

from apps.pixeldefend.attacks import attack, correct, describe, find, names, register, strongest
from apps.pixeldefend.attacks.box import rounded, rounded_outwards
from apps.pixeldefend.attacks.registry import forget
from apps.pixeldefend.defended import Defended, Purifier
from core_models.errors import UserError

# the same attacks, cut short
SHORT = {
    "autoattack": {"queries": 20, "steps": 5},
    "bpda": {"steps": 4, "random_start": True},
    "cw": {"steps": 20, "c_factor": 100.0},
    "deepfool": {"steps": 10},
    "detector-aware": {"steps": 4, "random_start": True},
    "eot-pgd": {"steps": 4, "draws": 2},
    "pgd": {"steps": 4},
    "square": {"queries": 20},
}
GRADIENT = ("fgsm", "bim", "pgd", "eot-pgd", "deepfool", "cw", "bpda", "detector-aware")


def target(name):
    """What an attack is aimed at here: a defended classifier where it needs one."""
    return Defended(Purifier(LeftNeighbour(), eps=8), classifier()) if find(name).knows_defence else classifier()


def run(name, eps=16, n=24, at=None, **parameters):
    x, y = digits(n=n)
    return attack(name, at or target(name), x, y, eps, **{**SHORT.get(name, {}), **parameters})


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("eps", [0, 1.7, 7])
def test_stays_in_the_box_and_on_the_grid(name, eps):
    x, _ = digits(n=12)
    found = run(name, eps, n=12)
    assert found.shape == x.shape and found.dtype == torch.float32
    assert is_8_bit(found)
    assert largest_change(x, found) <= int(eps) + 1e-3
    if eps < 1:
        assert torch.equal(found, x)


@pytest.mark.parametrize("name", names())
def test_the_seed_decides_and_nothing_else_is_touched(name):
    at = target(name)
    at.train()
    part = next(m for m in at.modules() if isinstance(m, nn.BatchNorm2d))
    part.eval()
    part.weight.requires_grad_(False)
    modes = [m.training for m in at.modules()]
    asked = [p.requires_grad for p in at.parameters()]
    weights = {key: value.clone() for key, value in at.state_dict().items()}
    state = torch.get_rng_state()
    try:
        first = run(name, at=at, seed=3)
        assert torch.equal(torch.get_rng_state(), state)
        assert [m.training for m in at.modules()] == modes
        assert [p.requires_grad for p in at.parameters()] == asked
        assert all(p.grad is None for p in at.parameters())
        assert all(torch.equal(value, weights[key]) for key, value in at.state_dict().items())
        torch.rand(5)
        with torch.inference_mode():
            again = run(name, at=at, seed=3)
        assert torch.equal(first, again)
    finally:
        part.weight.requires_grad_(True)
        classifier().eval()


class Noisy(nn.Module):
    """Draws from torch's global state, as a randomised defence does."""

    def forward(self, x):
        return classifier()(x + 0.1 * torch.randn_like(x))


@pytest.mark.parametrize("name", ["bim", "deepfool", "bpda", "noise of one's own"])
def test_the_seed_decides_for_a_classifier_that_draws_from_the_global_state_and_that_stays_as_it_was(name):
    @register("noise of one's own", title="Noise", source="here")
    def noise(classifier, x, y, *, eps, generator):
        return x + eps / 255 * torch.randn_like(x)

    at = Defended(Purifier(LeftNeighbour(), eps=8), Noisy()) if name == "bpda" else Noisy()
    found = []
    try:
        for seed, state in ((3, 0), (3, 1), (4, 1)):
            torch.manual_seed(state)
            before = torch.get_rng_state()
            found.append(run(name, at=at, seed=seed))
            assert torch.equal(torch.get_rng_state(), before)
    finally:
        forget("noise of one's own")
    assert torch.equal(found[0], found[1]) and not torch.equal(found[1], found[2])


@pytest.mark.parametrize("name", ["rand", "pgd", "eot-pgd", "square", "autoattack"])
def test_another_seed_gives_other_images(name):
    assert not torch.equal(run(name, seed=0), run(name, seed=1))


@pytest.mark.parametrize("name", [name for name in names() if find(name).any_batch_size])
def test_the_batch_size_changes_nothing(name):
    whole, parts = run(name, batch_size=24), run(name, batch_size=7)
    # a gradient whose last bits differ with the batch can change its sign: at most a stray sub-pixel
    assert float((whole != parts).float().mean()) < 1e-3


def test_noise_is_uniform_on_the_levels_of_the_box():
    x = torch.full((40, 1, 8, 8), 100 / 255)
    change = ((attack("rand", classifier(), x, torch.zeros(40).long(), 2) - x) * 255).round().flatten()
    counts = torch.bincount(change.long() + 2, minlength=5)
    expected = len(change) / 5
    # chi-square with 4 degrees of freedom: above 20 once in 2,000 seeds, and the seed is fixed
    assert float((counts - expected).square().sum() / expected) < 20
    edge = attack("rand", classifier(), torch.zeros_like(x), torch.zeros(40).long(), 2)
    assert set((edge * 255).round().unique().tolist()) == {0.0, 1.0, 2.0}


@pytest.mark.parametrize("name", GRADIENT)
def test_without_limits_nothing_stands(name):
    x, y = digits(n=40)
    own = {"fgsm": {}, "bim": {"steps": 20, "step": 10.0}, "cw": {"steps": 20, "learning_rate": 0.05}}
    parameters = own.get(name, {**SHORT.get(name, {}), "steps": 20})
    at = target(name)
    found = attack(name, at, x, y, 120, **parameters)
    assert float(correct(at, x, y).float().mean()) > 0.9
    # one step of FGSM goes too far for some
    assert float(correct(at, found, y).float().mean()) <= (0.3 if name == "fgsm" else 0.05)


def test_squares_need_no_gradient():
    class Opaque(nn.Module):
        def forward(self, x):
            return classifier()(x.detach())

    x, y = digits(n=20)
    found = attack("square", Opaque(), x, y, 100, queries=100)
    assert float(correct(classifier(), found, y).float().mean()) < 0.2


@pytest.mark.parametrize("name", ["deepfool", "cw"])
def test_least_changes_beat_one_step_and_move_what_is_black_or_white(name):
    x, y = digits(n=90)
    left = {
        n: float(correct(classifier(), attack(n, classifier(), x, y, 25), y).float().mean()) for n in ("fgsm", name)
    }
    assert left[name] < left["fgsm"] - 0.01
    found = attack(name, classifier(), x, y, 25)
    assert float((found[x == 0] > 0).float().mean()) > 0.2
    assert float((found[x == 1] < 1).float().mean()) > 0.2
    right = correct(classifier(), x, y)
    assert torch.equal(found[~right], x[~right])


@cache
def linear_case():
    """A linear classifier, images and classes, and the exact least change that fools it [levels]."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        linear = nn.Sequential(nn.Flatten(), nn.Linear(64, 4)).requires_grad_(False)
        x = (torch.rand(30, 1, 8, 8) * 120 + 60).round() / 255
    logits = linear(x)
    y = logits.argmax(1)
    weight = linear[1].weight
    lead = logits - logits.gather(1, y[:, None])
    norm = (weight[None] - weight[y][:, None]).abs().sum(2)
    return linear, x, y, (lead.abs() / norm).scatter(1, y[:, None], torch.inf).amin(1) * 255


@pytest.mark.parametrize("name", ["deepfool", "cw"])
def test_least_changes_of_a_linear_classifier_are_the_exact_ones(name):
    linear, x, y, exact = linear_case()
    found = attack(name, linear, x, y, 60)
    assert not correct(linear, found, y).any()
    needed = ((found - x) * 255).abs().amax((1, 2, 3))
    # to whole levels; and the steps of Adam are more than one long
    most = exact * 1.02 + 1 if name == "deepfool" else exact + 2.5
    assert bool((needed >= exact - 1e-3).all()) and bool((needed <= most).all())


def test_cw_asks_for_fewer_levels_as_long_as_it_fools():
    linear, x, y, _ = linear_case()
    # long steps overshoot: what a smaller tau and its penalty win back then is much
    long = {"learning_rate": 0.05, "steps": 60}
    once = attack("cw", linear, x, y, 255, tau_factor=1e-6, **long)
    again = attack("cw", linear, x, y, 255, **long)
    needed = [((found - x) * 255).abs().amax((1, 2, 3)) for found in (once, again)]
    assert not correct(linear, again, y).any()
    assert bool((needed[1] <= needed[0]).all()) and float((needed[0] - needed[1]).mean()) > 1


def test_cw_weighs_the_margin_more_where_it_does_not_fool():
    linear, x, y, _ = linear_case()
    # the penalty of what is above tau is divided by c: of the first c alone, nothing smaller is found
    stuck = attack("cw", linear, x, y, 255, first_c=1e-5, largest_c=1e-5, learning_rate=0.05, steps=60)
    grown = attack("cw", linear, x, y, 255, first_c=1e-5, largest_c=1e-1, learning_rate=0.05, steps=60)
    needed = [((found - x) * 255).abs().amax((1, 2, 3)).mean() for found in (stuck, grown)]
    assert needed[1] < needed[0] - 0.2


@pytest.mark.parametrize("eps", [8 / 255, 0.031, 0.999])
def test_a_budget_in_shares_of_the_range_is_refused(eps):
    linear, x, y, _ = linear_case()
    with pytest.raises(UserError, match="8-bit levels, from 1 to 255"):
        attack("fgsm", linear, x, y, eps)


def test_rounding_outwards_never_shrinks_a_change():
    x = torch.full((1, 1, 1, 4), 100 / 255)
    adversarial = x + torch.tensor([0.2, -0.2, 7.0, 30.0]) / 255
    assert ((rounded(x, adversarial, 8) - x) * 255).round().flatten().tolist() == [0, 0, 7, 8]
    assert ((rounded_outwards(x, adversarial, 8) - x) * 255).round().flatten().tolist() == [1, -1, 7, 8]


def test_an_attack_that_came_to_give_other_images_says_so():
    told = describe("autoattack", 8)
    assert (told["version"], told["revision"]) == ("standard", 2) and "revision" not in describe("bim", 8)


def test_what_autoattack_ends_with_between_two_levels_still_fools(monkeypatch):
    """FAB ends just beyond the boundary, and the nearest 8-bit image can lie before it."""

    def brighter(x):
        lead = (x.mean((1, 2, 3)) * 255 - 100.2) * 10
        return torch.stack([-lead, lead, lead - 50, lead - 60], 1)

    change = torch.tensor([0.3, 2.0, -0.3]).view(3, 1, 1, 1) / 255
    monkeypatch.setattr("apps.pixeldefend.attacks.library._run", lambda name, classifier, x, *_, **__: x + change)
    x = torch.full((3, 1, 4, 4), 100 / 255)
    found = attack("autoattack", Answers(brighter), x, torch.zeros(3).long(), 8)
    assert correct(Answers(brighter), found, torch.zeros(3).long()).tolist() == [False, False, True]
    assert (found * 255).round()[:2, 0, 0, 0].tolist() == [101, 102] and is_8_bit(found)


@pytest.mark.parametrize(("eps", "steps"), [(1, 1), (2, 2), (3, 3), (8, 10), (16, 20), (25, 29)])
def test_bim_takes_as_many_steps_as_the_paper(eps, steps):
    assert describe("bim", eps)["steps"] == steps
    assert describe("bim", eps, steps=4)["steps"] == 4


def test_what_is_printed_is_what_is_run():
    told = describe("pgd", 8, steps=10, random_start=False)
    assert told["attack"] == "PGD" and "Madry" in told["source"]
    assert (told["steps"], told["step"], told["random_start"], told["eps"]) == (10, 2.0, False, 8)
    assert describe("bim")["steps"] == "from eps"
    assert describe("detector_aware", 8, density=LeftNeighbour())["density"] == "LeftNeighbour"
    x = digits(n=8)[0]
    y = smooth()(x).argmax(1)
    by_hand = x
    for _ in range(10):
        by_hand = (by_hand + 2 / 255 * loss_gradient(smooth(), by_hand, y).sign()).clamp(x - 8 / 255, x + 8 / 255)
        by_hand = by_hand.clamp(0, 1)
    assert same_levels(attack("pgd", smooth(), x, y, 8, steps=10, random_start=False), by_hand)
    assert not same_levels(attack("pgd", smooth(), x, y, 8, steps=9, random_start=False), by_hand)


def test_strongest_is_the_least_accuracy_and_worst_cases_are_stricter():
    right = {
        "a": torch.tensor([True, True, True, False]),
        "b": torch.tensor([True, False, False, True]),
        "c": torch.tensor([False, True, True, True]),
    }
    found = strongest(right)
    assert (found.name, found.accuracy, found.worst_case_accuracy) == ("b", 0.5, 0.0)
    with pytest.raises(UserError, match="same images"):
        strongest({**right, "d": torch.ones(3, dtype=torch.bool)})
    with pytest.raises(UserError, match="one attack at least"):
        strongest({})


X, Y = torch.full((3, 1, 8, 8), 10 / 255), torch.tensor([0, 1, 2])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"y": Y[:, None]}, "one class per image"),
        ({"y": Y[:2]}, "one class per image"),
        ({"y": Y + 8}, "below the 10 classes"),
        ({"x": X * 255}, "in \\[0, 1\\]"),
        ({"x": (X * 255).byte()}, "as float32"),
        ({"x": X[0]}, "tensor of images"),
        ({"x": X[:, :, :3]}, "does not take"),
        ({"classifier": lambda x: x}, "torch.nn.Module"),
    ],
)
def test_what_correct_is_given_is_looked_at_as_an_attack_does(change, words):
    arguments = {"classifier": classifier(), "x": X, "y": Y} | change
    with pytest.raises(UserError, match=words) as caught:
        correct(**arguments)
    assert "\n" not in str(caught.value)


def test_an_attack_of_ones_own_is_one_function():
    @register("invert", title="Invert", source="here")
    def invert(classifier, x, y, *, eps, generator, by: float = 1.0):
        return x + by * (1 - 2 * x)

    try:
        x, y = digits(n=5)
        found = attack("invert", classifier(), x, y, 9)
        assert largest_change(x, found) == pytest.approx(9, abs=1e-3) and is_8_bit(found)
        assert "invert" in names() and "invert" in names(knows_defence=False)
        assert "invert" not in names(knows_defence=True)
    finally:
        forget("invert")


def test_progress_is_told():
    seen = []
    run("rand", batch_size=10, on_batch=seen.append)
    assert seen == [10, 20, 24]


def test_a_classifier_without_parameters_can_be_attacked():
    class Means(nn.Module):
        def forward(self, x):
            return x.reshape(len(x), 4, -1).mean(2) * 30

    x, _ = digits(n=10)
    y = Means()(x).argmax(1)
    assert not correct(Means(), attack("bim", Means(), x, y, 100), y).all()


class Answers(nn.Module):
    """Answers what it is told."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x):
        return self.answer(x)


BAD = {
    "eps in 8-bit levels": [{"eps": -1}, {"eps": 256}, {"eps": float("nan")}, {"eps": "8"}, {"eps": True}],
    "got NaN": [{"x": torch.where(X > 2, X, torch.nan)}],
    "in \\[0, 1\\]": [{"x": X + 2}, {"x": X - 1}, {"x": (X * 255).to(torch.uint8)}],
    "8-bit images": [{"x": X + 0.3 / 255}],
    "tensor of images": [{"x": X[0]}, {"x": X[:0], "y": Y[:0]}, {"x": X.numpy()}],
    "one class per image": [{"y": Y[:2]}, {"y": Y.float()}, {"y": [0, 1, 2]}],
    "classes from 0": [{"y": Y - 1}],
    "below the 3 classes": [{"y": Y + 1, "classifier": network(classes=3).eval()}],
    "does not take": [{"x": torch.zeros(3, 2, 8, 8)}, {"classifier": nn.Linear(3, 3)}],
    "expected logits": [
        {"classifier": Answers(lambda x: (classifier()(x), x))},
        {"classifier": Answers(lambda x: classifier()(x).argmax(1))},
        {"classifier": nn.Sequential(classifier(), nn.Softmax(1))},
    ],
    "finite logits": [{"classifier": Answers(lambda x: classifier()(x) * torch.nan)}],
    "torch.nn.Module": [{"classifier": lambda x: x}],
    "did you mean bim": [{"name": "bimm"}],
    "expected an attack among": [{"name": "zoo"}, {"name": 3}],
    "no field 'stepz'; did you mean step": [{"name": "bim", "stepz": 4}],
    "expected": [{"name": "bim", "steps": "many"}, {"name": "bim", "steps": 0}, {"name": "pgd", "step": -1.0}],
    "expected c_factor above 1, got 0.5": [{"name": "cw", "c_factor": 0.5}],
    "expected classes of 2 or more, got 1": [{"name": "deepfool", "classes": 1}],
    "batch_size": [{"batch_size": 0}, {"batch_size": 2.5}],
    "at least 4 classes": [{"name": "autoattack", "classifier": network(classes=3).eval()}],
    "Defended": [{"name": "bpda"}],
    "a density with a log_prob": [{"name": "detector-aware"}, {"name": "detector-aware", "density": classifier()}],
}


@pytest.mark.parametrize(("words", "change"), [(w, c) for w, changes in BAD.items() for c in changes])
def test_mistakes_are_named_in_one_line(words, change):
    arguments = {"name": "fgsm", "classifier": classifier(), "x": X, "y": Y, "eps": 8} | change
    with pytest.raises(UserError, match=words) as caught:
        attack(**arguments)
    assert "\n" not in str(caught.value)
