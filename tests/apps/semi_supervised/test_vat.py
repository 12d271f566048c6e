"""VAT's loss against the paper's, and the direction of its perturbation against the exact one."""

import pytest
import torch
from sklearn.base import clone
from tiny_rows import QUICK, batch, drawn, shaken
from torch.nn import functional as F

from apps.semi_supervised.normalised import NormalisedNetwork
from apps.semi_supervised.vat import VAT, VirtualAdversarialLoss, curvature_product, finite_difference, unit
from core_models.errors import UserError


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


def test_a_finite_difference_is_the_same_direction_unless_its_step_is_lost_in_rounding():
    """Single precision: cosines with the exact direction."""
    torch.manual_seed(0)
    network, x = NormalisedNetwork(50, (100, 100), 10), torch.rand(100, 50)
    d = unit(torch.randn_like(x))

    def logits_of(rows):
        return network.encode(rows, (len(rows),), [None] * 4).logits

    exact, logits = curvature_product(logits_of, x, d)
    near, same = finite_difference(logits_of, x, d, 1e-4)
    assert torch.equal(logits, same) and not near.requires_grad
    assert torch.allclose(near.norm(dim=1), exact.norm(dim=1), rtol=0.05)
    cosine = torch.cosine_similarity
    assert cosine(near, exact).min() > 0.999 and cosine(finite_difference(logits_of, x, d, 1e-6)[0], exact).mean() < 0.9


def test_the_loss_takes_the_finite_difference_that_it_is_given():
    network, rows = shaken(NormalisedNetwork(5, (4,), 3)), batch()

    def loss(xi):
        torch.manual_seed(0)
        generator = torch.Generator().manual_seed(0)
        return VirtualAdversarialLoss(network, eps=0.5, finite_difference=xi)(rows, generator)[0].item()

    assert loss(1e-5) == pytest.approx(loss(None), rel=1e-4) and loss(5.0) != pytest.approx(loss(None), rel=1e-3)


@pytest.mark.parametrize("xi", [0.0, -1e-6, float("nan"), "small"])
def test_a_step_width_is_positive(xi, digits):
    X, _, shown = digits
    with pytest.raises(UserError, match="finite_difference: expected"):
        VAT(hidden=(5,), finite_difference=xi, epochs=1, device="cpu").fit(X, shown)


def test_vat_without_normalised_logits_learns_and_is_saved(digits, tmp_path):
    X, y, shown = digits
    model = clone(QUICK[0]).set_params(normalise_logits=False, finite_difference=1e-3, epochs=3).fit(X, shown)
    assert model.score(X, y) > 0.7
    model.save(tmp_path / "vat")
    assert (VAT.load(tmp_path / "vat").predict_proba(X) == model.predict_proba(X)).all()


def test_power_iterations_find_where_predictions_change_most():
    """Without hidden layers' noise the divergence along r is larger than along any of many random directions."""
    torch.manual_seed(0)  # the initial weights count too: at a kink of a ReLU there is no second derivative
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
