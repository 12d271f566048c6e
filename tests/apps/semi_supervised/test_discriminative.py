"""VAT, the ladder network and the improved GAN: their losses against what the papers write, and what they learn."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from torch.nn import functional as F

from apps.semi_supervised.baselines import NeuralNetwork
from apps.semi_supervised.estimator import OutOfTime, load
from apps.semi_supervised.improved_gan import Discriminator, ImprovedGAN, ImprovedGANLoss, ImprovedGANNetwork
from apps.semi_supervised.ladder import Combinator, Ladder, LadderLoss, LadderNetwork
from apps.semi_supervised.normalised import NormalisedNetwork
from apps.semi_supervised.vat import VAT, VirtualAdversarialLoss, curvature_product, unit
from core_models.errors import UserError
from core_models.training import RunFolder

QUICK = [
    VAT(hidden=(100, 50), epochs=30, eps=1.0, batch_size=50, device="cpu"),
    Ladder(hidden=(100, 50), epochs=30, batch_size=50, device="cpu"),
    ImprovedGAN(
        hidden=(100, 50), epochs=60, batch_size=50, latent=20, generator_hidden=(50,), ema=0.99, device="cpu"
    ),
]  # fmt: skip
IDS = [type(estimator).__name__ for estimator in QUICK]


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    X, y = (data.images / 16).astype(np.float32)[:, None], data.target
    shown = np.full(len(y), -1)
    for k in range(10):
        shown[np.flatnonzero(y == k)[:10]] = k
    return X, y, shown


@pytest.fixture(scope="module")
def alone(digits):
    """The share of the hidden rows that a network taught by the labelled ones alone has right."""
    X, y, shown = digits
    hidden = shown == -1
    return (NeuralNetwork(hidden=(100, 50), device="cpu").fit(X, shown).predict(X[hidden]) == y[hidden]).mean()


@pytest.fixture(scope="module", params=QUICK, ids=IDS)
def fitted(request, digits):
    return clone(request.param).fit(digits[0], digits[2])


def batch(n=6, m=8, inputs=5, classes=3):
    torch.manual_seed(1)
    rows = torch.rand(n + m, inputs, dtype=torch.float64)
    return {"labelled": rows[:n], "y": torch.arange(n) % classes, "unlabelled": rows[n:]}


def shaken(network):
    """Gives every parameter a value of its own, so that none can be left out of a formula unseen."""
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return network.double()


def test_the_unlabelled_rows_help(fitted, digits, alone):
    X, y, shown = digits
    hidden = shown == -1
    assert (fitted.predict(X[hidden]) == y[hidden]).mean() > alone + 0.02


def test_a_saved_one_predicts_the_same(fitted, digits, tmp_path):
    fitted.save(tmp_path)
    assert np.array_equal(load(tmp_path).predict_proba(digits[0]), fitted.predict_proba(digits[0]))


def test_predictions_do_not_depend_on_neighbours(fitted, digits):
    some = fitted.predict_proba(digits[0][:40])
    assert np.allclose(fitted.predict_proba(digits[0][:3]), some[:3], rtol=1e-9)


@pytest.mark.parametrize("estimator", QUICK, ids=IDS)
def test_a_stopped_run_goes_on_as_if_it_had_not(estimator, digits, tmp_path):
    X, _, shown = digits
    short = clone(estimator).set_params(epochs=2)
    whole = clone(short).fit(X, shown).predict_proba(X)
    with pytest.raises(OutOfTime):
        clone(short).set_params(time_limit=1e-3).fit(X, shown, run=RunFolder(tmp_path))
    assert np.array_equal(clone(short).fit(X, shown, run=RunFolder(tmp_path), resume=True).predict_proba(X), whole)


@pytest.mark.parametrize("estimator", QUICK, ids=IDS)
def test_every_row_may_be_labelled(estimator, digits):
    X, y, _ = digits
    model = clone(estimator).set_params(epochs=30).fit(X[:600], y[:600])
    assert (model.predict(X[:600]) == y[:600]).mean() > 0.9


@pytest.mark.parametrize(
    ("estimator", "name"),
    [
        (VAT(hidden=()), "hidden"),
        (VAT(eps=-1.0), "eps"),
        (VAT(power_iterations=0), "power_iterations"),
        (VAT(batch_size=0), "batch_size"),
        (Ladder(noise=()), "noise"),
        (Ladder(noise=(0.1, float("nan"))), "noise"),
        (Ladder(noise="much"), "noise"),
        (Ladder(denoising=(1.0, -1.0)), "denoising"),
        (Ladder(hidden=(4,), denoising=(1.0, 1.0, 1.0, 1.0)), "denoising: expected at most 3"),
        (Ladder(hold=2.0), "^hold"),
        (VAT(eps=float("inf")), "eps"),
        (VAT(labelled_batch_size=1), "at least two labelled rows"),
        (Ladder(batch_size=1), "at least two unlabelled rows"),
        (ImprovedGAN(generator_hidden=()), "generator_hidden"),
        (ImprovedGAN(noise=(0.3,)), "noise"),
        (ImprovedGAN(hidden=()), "hidden"),
        (ImprovedGAN(latent=0), "latent"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_settings_out_of_range_are_refused_by_name(estimator, name, digits):
    with pytest.raises(UserError, match=name):
        estimator.fit(digits[0], digits[2])


@pytest.mark.parametrize("estimator", QUICK, ids=IDS)
@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed"])
def test_other_precisions_train_and_are_saved(estimator, precision, digits, tmp_path):
    X, _, shown = digits
    model = clone(estimator).set_params(epochs=2, precision=precision).fit(X, shown)
    model.save(tmp_path)
    assert np.array_equal(load(tmp_path).predict_proba(X), model.predict_proba(X))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (Ladder(hidden=(9,)), {"noise": (0.9,)}),
        (Ladder(hidden=(9,)), {"denoising": (1.0,)}),
        (VAT(hidden=(9,)), {"eps": 1.0}),
        (ImprovedGAN(hidden=(9,), generator_hidden=(9,)), {"noise": (0.1, 0.1)}),
    ],
)
def test_a_run_does_not_go_on_with_other_settings(before, after, digits, tmp_path):
    X, _, shown = digits
    with pytest.raises(OutOfTime):
        clone(before).set_params(time_limit=1e-3).fit(X, shown, run=RunFolder(tmp_path))
    with pytest.raises(UserError, match="another model"):
        clone(before).set_params(**after).fit(X, shown, run=RunFolder(tmp_path), resume=True)


def test_settings_may_be_numbers_and_arrays(digits):
    X, _, shown = digits
    model = Ladder(hidden=np.array([9, 7]), noise=0.3, epochs=1).fit(X, shown)
    assert model.network_.widths == (64, 9, 7, 10)


# --- the network of VAT and of the ladder


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


def test_statistics_are_those_of_the_training_rows_after_fit(digits):
    X, _, shown = digits
    model = clone(QUICK[0]).set_params(epochs=1).fit(X, shown)
    z = torch.from_numpy(X).flatten(1) @ model.network_.layers[0].weight.T
    assert torch.allclose(model.network_.mean_1, z.mean(0), atol=1e-5)
    assert torch.allclose(model.network_.deviation_1, z.std(0, correction=0), atol=1e-5)


@pytest.mark.parametrize("estimator", [QUICK[0], QUICK[1]], ids=IDS[:2])
def test_the_rate_is_held_and_then_falls(estimator, digits):
    X, _, shown = digits
    model = clone(estimator).set_params(epochs=4, hold=0.5, learning_rate=1e-3).fit(X, shown)
    rates = [line["learning_rate"] for line in model.history_.metrics]
    assert rates[:2] == [1e-3] * 2 and 0 < rates[2] < 1e-3 and rates[3] == 0


def test_the_gan_trains_with_the_papers_adam_and_average():
    training = ImprovedGAN()._training()
    assert training == {"betas": (0.5, 0.999), "epsilon": 1e-4, "schedule": "constant", "ema": 0.99995}
    assert ImprovedGAN(hold=0.5)._training()["schedule_hold"] == 0.5


# --- VAT


def test_curvature_is_the_second_derivative_of_the_divergence():
    network = shaken(NormalisedNetwork(5, (4,), 3))
    x = torch.rand(6, 5, dtype=torch.float64)
    d = torch.randn(6, 5, dtype=torch.float64)

    def logits_of(rows):
        return network.encode(rows, (6,), [None] * 3).logits

    here = logits_of(x).detach().log_softmax(1)

    def divergence(r):
        return F.kl_div(logits_of(x + r).log_softmax(1), here, reduction="sum", log_target=True)

    _, expected = torch.autograd.functional.hvp(divergence, torch.zeros_like(x), d)
    product, logits = curvature_product(logits_of, x, d)
    assert torch.allclose(product, expected, rtol=1e-8, atol=1e-10)
    assert torch.allclose(logits.log_softmax(1), here) and not logits.requires_grad and not product.requires_grad


def test_power_iterations_find_where_predictions_change_most():
    """Without hidden layers' noise the divergence along r is larger than along any of many random directions."""
    network = shaken(NormalisedNetwork(5, (4,), 3))
    x = torch.rand(30, 5, dtype=torch.float64)
    with torch.no_grad():
        network.settle(x)

    def far(r):
        here = network.logits(x).log_softmax(1)
        return F.kl_div(network.logits(x + 1e-3 * r).log_softmax(1), here, reduction="none", log_target=True).sum(1)

    d = unit(torch.randn_like(x))
    for _ in range(50):
        d = unit(curvature_product(network.logits, x, d)[0])
    with torch.no_grad():
        best, others = far(d), torch.stack([far(unit(torch.randn_like(x))) for _ in range(300)]).amax(0)
    assert (best >= 0.98 * others).all() and (best > others).float().mean() > 0.7


def kl(p, q):
    """KL(p || q) of rows of logits, mean over rows."""
    return (p.softmax(1) * (p.log_softmax(1) - q.log_softmax(1))).sum(1).mean()


def drawn(n, width, scale, generator):
    return torch.empty(n, width, dtype=torch.float64).normal_(0, scale, generator=generator)


def test_unit_scales_the_shortest_rows_too():
    assert torch.allclose(unit(torch.full((2, 4), 1e-30)), torch.full((2, 4), 0.5))
    assert torch.equal(unit(torch.zeros(2, 4)), torch.zeros(2, 4))


@pytest.mark.parametrize("power_iterations", [1, 3])
def test_vat_loss_is_equation_five(power_iterations):
    """By hand: the direction from the second derivative, a length of eps, fresh noise where it is moved."""
    rows = batch()
    labelled, x = rows["labelled"], rows["unlabelled"]
    network = shaken(NormalisedNetwork(5, (4,), 3))

    def loss_of(**settings):
        network.zero_grad()
        loss, told = VirtualAdversarialLoss(network, noise=0.3, power_iterations=power_iterations, **settings)(
            rows, torch.Generator().manual_seed(0)
        )
        loss.backward()
        return loss.detach(), told, [p.grad.clone() for p in network.parameters()]

    loss, told, found = loss_of(eps=0.5, weight=3.0)
    generator = torch.Generator().manual_seed(0)
    first, here = drawn(6, 4, 0.3, generator), drawn(8, 4, 0.3, generator)
    d = unit(torch.empty_like(x).normal_(generator=generator))
    moved = drawn(8, 4, 0.3, generator)

    def logits_of(rows, noise):
        return network.encode(rows, (len(rows),), [None, noise, None]).logits

    target = logits_of(x, here).detach()
    for _ in range(power_iterations):
        _, product = torch.autograd.functional.hvp(
            lambda r: 8 * kl(target, logits_of(x + r, here)), torch.zeros_like(x), d
        )
        d = unit(product)
    network.zero_grad()
    divergence = kl(target, logits_of(x + 0.5 * d, moved))
    expected = F.cross_entropy(logits_of(labelled, first), rows["y"]) + 3 * divergence
    expected.backward()
    assert torch.allclose(loss, expected, rtol=1e-9) and torch.allclose(told["divergence_nats"], divergence)
    for gradient, parameter in zip(found, network.parameters(), strict=True):
        assert torch.allclose(gradient, parameter.grad, rtol=1e-7, atol=1e-10)
    more, _, _ = loss_of(eps=0.5, weight=3.0, entropy=2.0)
    p = logits_of(x, here).softmax(1)
    assert torch.allclose(more - loss, -2 * (p * p.log()).sum(1).mean())


# --- the ladder


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


# --- the improved GAN


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


@pytest.mark.parametrize("fitted", QUICK[2:], ids=IDS[2:], indirect=True)
def test_gan_draws_rows_of_the_data(fitted, digits):
    rows = fitted.sample(7)
    assert rows.shape == (7, 1, 8, 8) and rows.min() >= 0 and rows.max() <= 1
    assert np.array_equal(rows, fitted.sample(7))
    mean = digits[0].mean(0)
    assert np.corrcoef(fitted.sample(200).mean(0).ravel(), mean.ravel())[0, 1] > 0.8
