"""Laws that every flow obeys: it inverts, and its log-determinant is that of its Jacobian."""

from collections.abc import Callable

import pytest
import torch

import core_models
from core_models.errors import UserError
from core_models.flows import RealNVP, RealNVPConfig

TINY = {"couplings": 3, "hidden": (7,)}
MODELS: dict[str, Callable[[], RealNVP]] = {  # a new model adds one line here
    "real-nvp-image": lambda: RealNVP(RealNVPConfig(event_shape=(1, 2, 3), **TINY)),
    "real-nvp-colour": lambda: RealNVP(RealNVPConfig(event_shape=(2, 2, 2), **TINY)),
    "real-nvp-vector": lambda: RealNVP(RealNVPConfig(event_shape=(5,), margin=0.0, **TINY)),
}


@pytest.fixture(params=MODELS)
def model(request):
    """A flow in double precision whose weights are not those of the start."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = MODELS[request.param]().double().eval()
        for parameter in made.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return made


def events(model, n=4):
    generator = torch.Generator().manual_seed(1)
    return 0.02 + 0.96 * torch.rand(n, *model.event_shape, generator=generator, dtype=torch.float64)


def test_decoding_undoes_encoding(model):
    x = events(model)
    z, _ = model.encode_exactly(x)
    torch.testing.assert_close(model.decode(z), x)


def test_the_log_determinant_is_that_of_the_jacobian(model):
    x = events(model, 2)
    _, log_det = model.encode_exactly(x)
    for row in range(2):
        jacobian = torch.autograd.functional.jacobian(
            lambda flat: model.encode_exactly(flat.reshape(1, *model.event_shape))[0][0], x[row].flatten()
        )
        torch.testing.assert_close(log_det[row], torch.linalg.slogdet(jacobian).logabsdet)


def test_the_density_is_the_priors_through_the_map(model):
    x = events(model)
    z, log_det = model.encode_exactly(x)
    torch.testing.assert_close(model.log_prob(x), model.prior().log_prob(z) + log_det)


def test_every_parameter_gets_a_gradient_and_half_of_the_values_never_decides_alone(model):
    model.log_prob(events(model)).sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in model.parameters())


def test_saved_and_loaded_it_is_the_same(model, tmp_path):
    core_models.save(model.float(), tmp_path)
    x = events(model).float()
    torch.testing.assert_close(core_models.load(tmp_path).log_prob(x), model.log_prob(x))


def test_samples_follow_the_density():
    """Two values: the density, integrated over a grid, is 1, and its mean and covariance are those of samples."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = RealNVP(RealNVPConfig(event_shape=(2,), couplings=2, hidden=(6,), margin=0.0)).double().eval()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    line = torch.linspace(-12, 12, 601, dtype=torch.float64)
    grid = torch.cartesian_prod(line, line)
    with torch.no_grad():
        mass = model.log_prob(grid).exp() * 0.04**2
        assert float(mass.sum()) == pytest.approx(1, abs=1e-3)
        samples = model.sample(40_000, generator=torch.Generator().manual_seed(2))
    mean = (mass[:, None] * grid).sum(0)
    torch.testing.assert_close(samples.mean(0), mean, rtol=0, atol=0.03)
    away = grid - mean
    torch.testing.assert_close(samples.T.cov(), (mass[:, None] * away).T @ away, rtol=0.03, atol=0.03)


def test_samples_are_what_draws_from_the_prior_decode_to(model):
    z = torch.empty(5, model.event_shape.numel(), dtype=torch.float64)
    z.normal_(generator=torch.Generator().manual_seed(3))
    wanted = model.decode(z).detach()
    wanted = wanted.clamp(0, 1) if model.config.margin else wanted
    torch.testing.assert_close(model.sample(5, generator=torch.Generator().manual_seed(3)), wanted)


def test_the_first_batch_starts_the_normalisation_once():
    model = RealNVP(RealNVPConfig(event_shape=(4,), couplings=1, hidden=(3,), margin=0.0))
    x = 5 + 3 * torch.randn(500, 4, generator=torch.Generator().manual_seed(0))
    z, _ = model.train().encode_exactly(x)
    torch.testing.assert_close(z.mean(0), torch.zeros(4), rtol=0, atol=1e-4)
    torch.testing.assert_close(z.std(0), torch.ones(4), rtol=0, atol=1e-3)
    before = model.steps[0].norm.shift.clone()
    model.encode_exactly(x + 1)
    assert torch.equal(before, model.steps[0].norm.shift)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: RealNVP(RealNVPConfig(event_shape=(1,))), "two values"),
        (lambda: RealNVP(RealNVPConfig(couplings=0)), "one coupling"),
        (lambda: RealNVP(RealNVPConfig(margin=0.5)), "margin"),
        (lambda: MODELS["real-nvp-vector"]().log_prob(torch.zeros(1, 4)), "shape"),
    ],
)
def test_mistakes_are_named(make, words):
    with pytest.raises(UserError, match=words):
        make()


def test_samples_of_pixels_are_pixels():
    """The inverse of the logit with a margin reaches beyond [0, 1]; what isn't pixels may be anything."""
    for margin in (0.05, 0.0):
        model = RealNVP(RealNVPConfig(event_shape=(1, 2, 2), couplings=1, hidden=(3,), margin=margin))
        with torch.no_grad():
            model.last.log_scale.fill_(-2.0)  # samples far out on the line
        drawn = model.sample(200, generator=torch.Generator().manual_seed(0))
        z = torch.empty(200, 4).normal_(generator=torch.Generator().manual_seed(0))
        decoded = model.decode(z).detach()
        assert decoded.min() < 0 and decoded.max() > 1
        assert torch.equal(drawn, decoded.clamp(0, 1) if margin else decoded)


def test_values_out_of_the_domain_are_refused_before_anything_is_started_by_them():
    model = RealNVP(RealNVPConfig(event_shape=(1, 2, 2), couplings=1, hidden=(3,))).train()
    x = torch.rand(6, 1, 2, 2)
    for wrong in (16 * x + 1, x - 1.5, x * float("nan")):
        with pytest.raises(UserError, match=r"expected pixels in \[0, 1\], got values from .* set margin 0"):
            model.log_prob(wrong)
    assert not bool(model.last.started)
    assert bool(model.log_prob(x).isfinite().all())
    values = RealNVP(RealNVPConfig(event_shape=(1, 2, 2), couplings=1, hidden=(3,), margin=0.0))
    assert bool(values.log_prob(16 * x + 1).isfinite().all())


def test_values_are_checked_when_asked_for_and_in_evaluation_mode_but_not_within_a_transform():
    model = RealNVP(RealNVPConfig(event_shape=(1, 2, 2), couplings=1, hidden=(3,))).eval()
    x = torch.rand(3, 1, 2, 2)
    model.check_values(x, between_levels=True)
    for refuses in (model.check_values, model.log_prob):
        with pytest.raises(UserError, match=r"expected pixels in \[0, 1\]"):
            refuses(16 * x + 1)
    each = torch.func.vmap(torch.func.grad(lambda one: model.log_prob(one[None]).sum()))(x)
    x.requires_grad_()
    torch.testing.assert_close(each, torch.autograd.grad(model.log_prob(x).sum(), x)[0])


def test_a_start_that_is_loaded_counts_and_one_that_is_taken_back_too():
    make = lambda: RealNVP(RealNVPConfig(event_shape=(4,), couplings=1, hidden=(3,), margin=0.0)).train()  # noqa: E731
    x = 5 + torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    model, fresh = make(), make()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.log_prob(x)
    shift = model.last.shift.clone()
    fresh.load_state_dict(model.state_dict())
    fresh.log_prob(x + 3)
    assert torch.equal(fresh.last.shift, shift) and fresh.last.running
    model.load_state_dict(before)
    model.log_prob(x + 3)
    assert not torch.equal(model.steps[0].norm.shift, fresh.steps[0].norm.shift)


def test_log_determinants_of_half_precision_are_summed_in_single():
    torch.manual_seed(0)
    model = RealNVP(RealNVPConfig(event_shape=(1, 8, 8), couplings=2, hidden=(8,))).eval()
    x = torch.rand(4, 1, 8, 8).bfloat16()
    full = model.log_prob(x.float())
    half = model.bfloat16().log_prob(x)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, full, rtol=5e-3, atol=0)


def test_a_flow_draws_of_no_class():
    with pytest.raises(UserError, match="RealNVP has no classes"):
        MODELS["real-nvp-vector"]().sample(2, torch.tensor([7, 99]))
