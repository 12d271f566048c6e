"""The distribution of a pixel, against direct sums."""

from itertools import product

import pytest
import torch

from core_models.autoregressive import PixelCNNPlusPlus, PixelCNNPlusPlusConfig
from core_models.autoregressive.heads import LogisticMixtureHead, SoftmaxHead
from core_models.errors import UserError

LEVELS, K = 5, 3


@pytest.fixture
def logistic() -> LogisticMixtureHead:
    torch.manual_seed(0)
    head = LogisticMixtureHead(4, 3, LEVELS, K).double()
    torch.nn.init.normal_(head.output.weight)
    return head


def by_hand(parameters: torch.Tensor, pixel: tuple[int, ...]) -> float:
    """p(R, G, B) of Salimans et al. 2017, equations 2 and 3: one component, means shifted by the channels before."""
    logits, means, scales, couplings = parameters.split([K, 3 * K, 3 * K, 3 * K])
    weights, a = logits.softmax(0), couplings.tanh().view(3, K)
    means, scales = means.view(3, K), scales.view(3, K).clamp(min=-7)
    x = [2 * level / (LEVELS - 1) - 1 for level in pixel]
    mu = [means[0], means[1] + a[0] * x[0], means[2] + a[1] * x[0] + a[2] * x[1]]
    p = weights
    for channel in range(3):
        s, half = scales[channel].exp(), 1 / (LEVELS - 1)
        upper = torch.sigmoid((x[channel] + half - mu[channel]) / s)
        lower = torch.sigmoid((x[channel] - half - mu[channel]) / s)
        if pixel[channel] == 0:
            lower = torch.zeros(K, dtype=torch.float64)
        if pixel[channel] == LEVELS - 1:
            upper = torch.ones(K, dtype=torch.float64)
        p = p * (upper - lower)
    return float(p.sum())


@torch.no_grad()
def test_a_mixture_of_logistics_is_that_of_the_paper(logistic):
    parameters = logistic.output(torch.randn(4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))
    values = [by_hand(parameters, pixel) for pixel in product(range(LEVELS), repeat=3)]
    joint = torch.tensor(values, dtype=torch.float64).view(LEVELS, LEVELS, LEVELS)
    assert joint.sum().item() == pytest.approx(1, abs=1e-12)
    for r, g in product(range(LEVELS), repeat=2):
        of_r = logistic.channel(parameters, torch.tensor([], dtype=torch.long)).exp()
        of_g = logistic.channel(parameters, torch.tensor([r])).exp()
        of_b = logistic.channel(parameters, torch.tensor([r, g])).exp()
        torch.testing.assert_close(of_r, joint.sum((1, 2)))
        # the components' weights are those after R was seen: without, this fails
        torch.testing.assert_close(of_g, joint[r].sum(1) / joint[r].sum())
        torch.testing.assert_close(of_b, joint[r, g] / joint[r, g].sum())


@torch.no_grad()
def test_the_most_likely_green_depends_on_red(logistic):
    """The coupling of channels decides argmaxes; a head that forgets it would purify to other colours."""
    h = torch.randn(200, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    parameters = logistic.output(h)
    best = [logistic.channel(parameters, torch.full((200, 1), r)).argmax(-1) for r in (0, LEVELS - 1)]
    assert (best[0] != best[1]).any()


@torch.no_grad()
@pytest.mark.parametrize("log_scale", [-30.0, -7.0, 0.0, 8.0])
def test_narrow_and_wide_logistics_are_finite_and_sum_to_one(log_scale):
    head = LogisticMixtureHead(1, 1, 256, 2)
    parameters = torch.tensor([[0.3, -0.3, -0.98, 1.4, log_scale, log_scale]])
    found = head.channel(parameters, torch.zeros(1, 0, dtype=torch.long))
    assert torch.isfinite(found).all()
    assert found.logsumexp(-1).item() == pytest.approx(0, abs=1e-4)
    parameters.requires_grad_()
    with torch.enable_grad():
        head.channel(parameters, torch.zeros(1, 0, dtype=torch.long))[0, ::17].sum().backward()
    assert torch.isfinite(parameters.grad).all()


@torch.no_grad()
def test_a_softmax_lets_later_channels_see_earlier_ones():
    torch.manual_seed(0)
    head = SoftmaxHead(6, 3, LEVELS).double()
    parameters = head.parameters_of(torch.randn(6, dtype=torch.float64))
    of_b = {p: head.channel(parameters, torch.tensor(p)) for p in product(range(LEVELS), repeat=2)}
    assert (of_b[0, 0] - of_b[0, 1]).abs().max() > 1e-3 and (of_b[0, 0] - of_b[1, 0]).abs().max() > 1e-3
    for before in ([], [2], [2, 3]):
        scores, found = (f(parameters, torch.tensor(before).long()) for f in (head.scores, head.channel))
        torch.testing.assert_close(scores - scores[0], found - found[0])


@pytest.mark.parametrize("make", [LogisticMixtureHead, SoftmaxHead])
def test_some_levels_have_the_probabilities_that_they_have_among_all(make):
    torch.manual_seed(0)
    head = make(4, 3, LEVELS).double()
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter)
    parameters = head.parameters_of(torch.randn(6, 4, dtype=torch.float64)).detach().requires_grad_()
    before, levels = torch.randint(LEVELS, (6, 2)), torch.tensor([[0, LEVELS - 1, 2]]).repeat(6, 1)
    found, wanted = head.channel_at(parameters, before, levels), head.channel(parameters, before).gather(-1, levels)
    torch.testing.assert_close(found, wanted)
    weight = torch.randn(6, 3, dtype=torch.float64)
    slopes = [torch.autograd.grad((values * weight).sum(), parameters)[0] for values in (found, wanted)]
    torch.testing.assert_close(*slopes)


@pytest.mark.parametrize("name", ["softmax", "logistic"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_cast_to_half_precision_has_likelihoods_in_single(name, dtype):
    torch.manual_seed(0)
    config = PixelCNNPlusPlusConfig((3, 4, 4), levels=5, filters=4, blocks=1, resolutions=1, head=name)
    model = PixelCNNPlusPlus(config).eval()
    x = torch.randint(0, 5, (2, 3, 4, 4)) / 4
    full = model.log_prob(x)
    half = model.to(dtype).log_prob(x.to(dtype))
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, full, rtol=0.02, atol=0)
    assert model.conditionals(x).logits.dtype == torch.float32
    assert model.sample(2, generator=torch.Generator().manual_seed(0)).shape == (2, 3, 4, 4)
    with pytest.raises(UserError, match="PixelCNNPlusPlus has no classes"):
        model.sample(2, torch.tensor([0, 1]))
