"""What a decoder's outputs mean, and what is done to them."""

import pytest
import torch
from torch import Size
from torch.distributions import Independent, Normal, kl_divergence

from core_models.latent import DiscretisedLogistic, Likelihood
from core_models.latent.vae import diagonal_gaussian, kl_to_standard_normal

LOCS = [-3.0, -0.2, 0.0, 0.3333, 0.5, 1.0, 1.4, 4.0]
LOG_SCALES = [-7.0, -4.0, -2.0, 0.0, 3.0, 5.2, 6.3, 7.0]


def logistic(levels: int, dtype: torch.dtype) -> tuple[DiscretisedLogistic, torch.Tensor]:
    """Every centre with every scale (64, 1), and every level (levels,)."""
    loc, log_scale = torch.cartesian_prod(
        torch.tensor(LOCS, dtype=dtype), torch.tensor(LOG_SCALES, dtype=dtype)
    ).unbind(1)
    values = torch.arange(levels, dtype=dtype) / (levels - 1)
    return DiscretisedLogistic(loc.unsqueeze(1), log_scale.unsqueeze(1), levels), values


@pytest.mark.parametrize("levels", [2, 3, 17, 256])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 2e-4)])
def test_masses_of_all_levels_sum_to_one(levels, dtype, tolerance):
    distribution, values = logistic(levels, dtype)
    total = distribution.log_prob(values).logsumexp(1)
    torch.testing.assert_close(total, torch.zeros_like(total), atol=tolerance, rtol=0)


def test_mass_is_that_of_the_logistic_in_the_bin():
    loc, scale, levels = 0.4, 0.1, 5
    x = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0], dtype=torch.float64)
    edges = torch.tensor([0.125, 0.375, 0.625, 0.875], dtype=torch.float64)
    below = torch.sigmoid((edges - loc) / scale)
    expected = torch.cat([below[:1], below[1:] - below[:-1], 1 - below[-1:]])
    distribution = DiscretisedLogistic(torch.tensor(loc).double(), torch.tensor(scale).double().log(), levels)
    torch.testing.assert_close(distribution.log_prob(x).exp(), expected)


def test_tails_are_stable_in_single_precision():
    double, values = logistic(256, torch.float64)
    single, _ = logistic(256, torch.float32)
    expected, found = double.log_prob(values), single.log_prob(values.float())
    assert torch.isfinite(found).all()
    assert expected.min() < -2000  # far in the tails, where sigmoid(upper) - sigmoid(lower) is 0 - 0
    # a centre of 4 in single precision is off by 2e-7, and the steepest slope is e^7
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-3)


def test_gradients_are_finite_in_the_tails():
    _, values = logistic(256, torch.float32)
    loc = torch.tensor(LOCS).view(-1, 1, 1).requires_grad_()
    log_scale = torch.tensor(LOG_SCALES).view(1, -1, 1).requires_grad_()
    distribution = DiscretisedLogistic(loc + 0 * log_scale, log_scale + 0 * loc)
    distribution.log_prob(values.view(1, 1, -1)).sum().backward()
    assert torch.isfinite(loc.grad).all()
    assert torch.isfinite(log_scale.grad).all()
    assert (loc.grad != 0).any()


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_quantise_gives_each_level_its_mass(levels):
    distribution, values = logistic(levels, torch.float64)
    n = 20_000
    u = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    x = distribution.quantise(u)
    codes = (x * (levels - 1)).round().long()
    torch.testing.assert_close(x, values[codes])
    share = torch.stack([torch.bincount(row, minlength=levels) for row in codes]).double() / n
    torch.testing.assert_close(share, distribution.log_prob(values).exp(), atol=1.5 / n, rtol=0)


def test_quantise_survives_the_ends_of_the_unit_interval():
    distribution, _ = logistic(256, torch.float32)
    ends = torch.tensor([0.0, torch.finfo(torch.float32).tiny, 1 - 2**-24])
    x = distribution.quantise(ends)
    assert torch.isfinite(x).all()
    assert (x[:, 0] == 0).all()
    assert x.min() >= 0
    assert x.max() <= 1


def test_a_logistic_is_sampled_from_torchs_own_generator_and_not_reparameterised():
    distribution, values = logistic(17, torch.float32)
    torch.manual_seed(0)
    first = distribution.sample((3,))
    torch.manual_seed(0)
    assert torch.equal(first, distribution.sample(torch.Size((3,))))
    assert torch.isin(first, values).all()
    assert distribution.mean.min() >= 0
    assert distribution.mean.max() <= 1
    with pytest.raises(NotImplementedError):
        distribution.rsample()


def test_kl_to_the_standard_normal():
    generator = torch.Generator().manual_seed(0)
    mean, log_variance = torch.randn(2, 5, 3, generator=generator, dtype=torch.float64).unbind(0)
    found = kl_to_standard_normal(mean, log_variance)
    q, p = Normal(mean, (0.5 * log_variance).exp()), Normal(torch.zeros(3).double(), torch.ones(3).double())
    torch.testing.assert_close(found, kl_divergence(q, p).sum(-1))
    z = mean + q.stddev * torch.randn(100_000, 5, 3, generator=generator, dtype=torch.float64)
    drawn = (q.log_prob(z) - p.log_prob(z)).sum(-1)
    assert ((drawn.mean(0) - found).abs() < 4.5 * drawn.std(0) / 100_000**0.5).all()


def test_an_encoders_extremes_stay_finite_and_in_full_precision():
    raw = torch.tensor([[0.0, 1.0, -1e4, 1e4]], dtype=torch.bfloat16)
    mean, log_variance = diagonal_gaussian(raw)
    assert mean.dtype == log_variance.dtype == torch.float32
    assert mean.tolist() == [[0.0, 1.0]]
    assert torch.isfinite(kl_to_standard_normal(mean, log_variance)).all()


@pytest.mark.parametrize("name", ["bernoulli", "gaussian", "discretised-logistic"])
@pytest.mark.parametrize("learned_scale", [True, False])
def test_a_likelihood_is_over_whole_events(name, learned_scale):
    output = Likelihood(name, Size((2, 3, 4)), levels=5, learned_scale=learned_scale)
    assert output.values == 24
    assert output.outputs == (2 if learned_scale and name != "bernoulli" else 1)
    generator = torch.Generator().manual_seed(0)
    raw = torch.randn(6, output.outputs * 24, generator=generator)
    distribution = output(raw)
    assert isinstance(distribution, Independent)
    assert distribution.batch_shape == (6,)
    assert distribution.event_shape == (2, 3, 4)
    first = output.draw(distribution, torch.Generator().manual_seed(1))
    assert torch.equal(first, output.draw(distribution, torch.Generator().manual_seed(1)))
    assert first.shape == (6, 2, 3, 4)
    log_prob = distribution.log_prob(first)
    assert log_prob.shape == (6,)
    torch.testing.assert_close(log_prob, distribution.base_dist.log_prob(first).flatten(1).sum(1))
    # the same numbers with more leading dimensions, and from half precision up to its rounding
    torch.testing.assert_close(output(raw.view(2, 3, -1)).log_prob(first.view(2, 3, 2, 3, 4)).flatten(), log_prob)
    half = output(raw.bfloat16()).log_prob(first)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, log_prob, rtol=0.02, atol=0.3)


def test_a_scale_a_channel_is_shared_by_its_pixels():
    output = Likelihood("gaussian", Size((2, 3, 4)), learned_scale=False)
    with torch.no_grad():
        output.log_scale.copy_(torch.tensor([0.0, 2.0]).view(2, 1, 1))
    scale = output(torch.zeros(1, 24)).base_dist.scale[0]
    torch.testing.assert_close(scale[0], torch.ones(3, 4))
    torch.testing.assert_close(scale[1], torch.full((3, 4), torch.e))


@pytest.mark.parametrize("shapes", [((2, 3, 4), (2, 3, 4)), ((2, 3, 4), (3, 4)), ((3, 4), (2, 3, 4))])
def test_the_bernoulli_log_likelihood_has_the_gradients_of_its_formula(shapes):
    generator = torch.Generator().manual_seed(0)
    logits, x = (torch.randn(s, generator=generator, dtype=torch.float64, requires_grad=True) for s in shapes)

    def ours(logits, x):
        likelihood = Likelihood("bernoulli", torch.Size([4]))
        return likelihood(logits).log_prob(x)

    plain = -torch.nn.functional.binary_cross_entropy_with_logits(
        *torch.broadcast_tensors(logits, x), reduction="none"
    ).sum(-1)
    torch.testing.assert_close(ours(logits, x), plain, rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(ours, (logits, x))
    assert torch.autograd.gradgradcheck(ours, (logits, x))  # a penalty on gradients goes through it


def test_the_bernoulli_log_likelihood_is_exact_to_rounding_at_large_logits():
    generator = torch.Generator().manual_seed(0)
    logits = 15 * torch.randn(50, 784, generator=generator)
    x = torch.rand(50, 784, generator=generator).round()
    likelihood = Likelihood("bernoulli", torch.Size([784]))
    exact = likelihood(logits.double()).log_prob(x.double())
    assert (likelihood(logits).log_prob(x) - exact).abs().max() < 1e-3  # of sums near 5000: single precision's own


def slope_of_scale(output, log_scale, x):
    """The gradient of minus the log-likelihood of a value x, centred on 0.5, in what the decoder says of its scale."""
    center = 0.5 if output.name == "gaussian" else 0.0
    raw = torch.tensor([[center, log_scale]], requires_grad=True)
    (-output(raw).log_prob(torch.tensor([[x]]))).sum().backward()
    return raw.grad[0, 1].item()


@pytest.mark.parametrize("name", ["gaussian", "discretised-logistic"])
def test_a_scale_that_was_pushed_past_its_bound_comes_back(name):
    output = Likelihood(name, Size((1,)), levels=5)
    # a step goes down the gradient: back up for a value far off, and not farther down for one at the centre
    assert slope_of_scale(output, -40.0, 1.0) < 0 == slope_of_scale(output, -40.0, 0.5)
    assert slope_of_scale(output, 40.0, 0.5) > 0
    if name == "gaussian":  # far above the bound a value can be farther off still
        assert slope_of_scale(output, 40.0, 1e5) == 0
    # what is searched and not trained may go up its gradient: there it is that of a clamp
    assert slope_of_scale(output.eval(), -40.0, 1.0) == 0


@pytest.mark.parametrize("name", ["gaussian", "discretised-logistic"])
def test_within_the_bounds_a_scale_has_the_gradient_of_a_clamp_to_the_bit(name):
    output = Likelihood(name, Size((3,)), levels=5)
    raw = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    raw[0, 3:] = 14.0 if name == "gaussian" else 9.0  # on the bound
    x = torch.randint(5, (50, 3), generator=torch.Generator().manual_seed(1)) / 4

    def slopes(raw, x):
        return torch.func.grad(lambda own: -output(own).log_prob(x).sum())(raw)

    trained = slopes(raw, x)
    over_rows = torch.func.vmap(slopes)(raw, x)
    assert torch.equal(trained, slopes(raw, x))
    torch.testing.assert_close(over_rows, trained)
    output.eval()
    assert torch.equal(trained, slopes(raw, x))
