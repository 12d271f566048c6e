"""Laws that every latent-variable model obeys, on models small enough to integrate over their latents."""

from collections.abc import Callable
from itertools import product
from math import e, log, pi

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Independent, Normal

import core_models
from core_models.base import GenerativeModel, Variational
from core_models.errors import UserError
from core_models.latent import (
    VAE,
    ConditionalVAE,
    ConditionalVAEConfig,
    DiscretisedLogistic,
    NegativeELBO,
    VAEConfig,
    iwae,
)

SHAPE = (1, 2, 2)
TINY = {"event_shape": SHAPE, "latent": 1, "hidden": (6,), "activation": "tanh", "levels": 3, "channels": (4,)}
CONDITIONAL = {**TINY, "classes": 3}
LOGISTIC = {"likelihood": "discretised-logistic"}
CHANNEL_SCALE = {"learned_scale": False}

MODELS: dict[str, Callable[[], GenerativeModel]] = {  # a new model adds one line here
    "vae-bernoulli": lambda: VAE(VAEConfig(**TINY)),
    "vae-bernoulli-two-latents": lambda: VAE(VAEConfig(**{**TINY, "latent": 2, "hidden": (6, 6)})),
    "vae-bernoulli-conv": lambda: VAE(VAEConfig(**TINY, network="conv")),
    "vae-gaussian": lambda: VAE(VAEConfig(**TINY, likelihood="gaussian")),
    "vae-gaussian-channel-scale-conv": lambda: VAE(
        VAEConfig(**TINY, likelihood="gaussian", network="conv", **CHANNEL_SCALE)
    ),
    "vae-logistic": lambda: VAE(VAEConfig(**TINY, **LOGISTIC)),
    "vae-logistic-conv": lambda: VAE(VAEConfig(**TINY, **LOGISTIC, network="conv")),
    "conditional-bernoulli": lambda: ConditionalVAE(ConditionalVAEConfig(**CONDITIONAL)),
    "conditional-bernoulli-conv": lambda: ConditionalVAE(ConditionalVAEConfig(**CONDITIONAL, network="conv")),
    "conditional-gaussian": lambda: ConditionalVAE(ConditionalVAEConfig(**CONDITIONAL, likelihood="gaussian")),
    "conditional-logistic": lambda: ConditionalVAE(ConditionalVAEConfig(**CONDITIONAL, **LOGISTIC, **CHANNEL_SCALE)),
}
"""One or two latents, four pixels; activations that are smooth, so that quadrature is exact to many digits."""


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny tensors: a second thread only waits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=MODELS)
def model(request) -> GenerativeModel:
    """A model in double precision."""
    torch.manual_seed(1)
    made = MODELS[request.param]().double()
    if levels(made) == 2:  # four bits say little of z: larger weights, for a posterior farther from q(z | x)
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.mul_(1.5)
    return made.eval()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def classes(model: GenerativeModel) -> int:
    return getattr(model, "classes", 0)


def levels(model: GenerativeModel) -> int | None:
    """How many values a pixel takes; None for a density over real numbers."""
    y = torch.zeros(1, dtype=torch.long) if classes(model) else None
    base = model.likelihood(torch.zeros(1, *model.latent_shape, dtype=torch.float64), y).base_dist
    if isinstance(base, Bernoulli):
        return 2
    return base.levels if isinstance(base, DiscretisedLogistic) else None


def every_event(model: GenerativeModel) -> Tensor:
    """All events of a discrete model, float64."""
    k = levels(model)
    values = [i / (k - 1) for i in range(k)]
    return torch.tensor(list(product(values, repeat=model.event_shape.numel())), dtype=torch.float64).view(
        -1, *model.event_shape
    )


def some_events(model: GenerativeModel, n: int = 6) -> tuple[Tensor, Tensor | None]:
    """A few events and, for a model of classes, their classes."""
    if levels(model) is None:
        x = torch.randn(n, *model.event_shape, generator=generator(5), dtype=torch.float64)
    else:
        x = every_event(model)[:: max(1, levels(model) ** 4 // n)][:n]
    return x, torch.arange(len(x)) % classes(model) if classes(model) else None


def grid(model: GenerativeModel, width: float = 8.0) -> tuple[Tensor, Tensor]:
    """Nodes z and the log of prior mass at each: the trapezoid rule, exact to rounding for smooth integrands."""
    points = 401 if model.latent_shape.numel() == 1 else 121
    line = torch.linspace(-width, width, points, dtype=torch.float64)
    z = torch.cartesian_prod(*[line] * model.latent_shape.numel()).view(-1, *model.latent_shape)
    log_density = Normal(0.0, 1.0).log_prob(z).sum(-1)
    return z, log_density + model.latent_shape.numel() * log(2 * width / (points - 1))


@torch.no_grad()
def exact_log_prob(model: GenerativeModel, x: Tensor, y: Tensor | None = None) -> Tensor:
    """log p(x | y) [nats], by integrating over z."""
    z, log_mass = grid(model)
    found = torch.empty(len(x), dtype=torch.float64)
    for label in range(max(1, classes(model))):
        chosen = torch.ones(len(x), dtype=torch.bool) if y is None else y == label
        if not chosen.any():
            continue
        likelihood = model.likelihood(z, None if y is None else torch.full((len(z),), label))
        found[chosen] = (likelihood.log_prob(x[chosen].unsqueeze(1)) + log_mass).logsumexp(1)
    return found


@torch.no_grad()
def many(bound: Callable[..., Tensor], x: Tensor, y: Tensor | None, n: int) -> tuple[Tensor, Tensor]:
    """Mean and standard error of a bound over n evaluations, for each event."""
    values = bound(x.repeat(n, *[1] * (x.dim() - 1)), None if y is None else y.repeat(n)).view(n, -1)
    return values.mean(0), values.std(0) / n**0.5


def test_exact_probabilities_sum_to_one(model):
    if levels(model) is None:
        pytest.skip("a density over real numbers")
    x = every_event(model)
    for label in range(max(1, classes(model))):
        y = torch.full((len(x),), label) if classes(model) else None
        assert exact_log_prob(model, x, y).logsumexp(0).item() == pytest.approx(0, abs=1e-9)


def test_elbo_falls_short_of_log_prob_by_the_divergence_of_the_posteriors(model):
    x, y = some_events(model)
    z, log_mass = grid(model)
    q = model.encode(x, y)
    expected = []
    for i in range(len(x)):
        labels = None if y is None else y[i].expand(len(z))
        log_joint = model.likelihood(z, labels).log_prob(x[i].unsqueeze(0)) + log_mass  # log p(x, z) dz
        posterior = log_joint - log_joint.logsumexp(0)
        log_q = Independent(Normal(q.mean[i], q.stddev[i]), 1).log_prob(z) + (
            log_mass - Normal(0, 1).log_prob(z).sum(-1)
        )
        divergence = (log_q.exp() * (log_q - posterior)).sum()
        expected.append(log_joint.logsumexp(0) - divergence)
    mean, error = many(lambda x, y: model.elbo(x, y, generator=generator()), x, y, 4000)
    assert ((mean - torch.stack(expected)).abs() < 4.5 * error).all()
    assert (error < 0.06).all()


def test_bounds_rise_to_log_prob(model):
    x, y = some_events(model)
    exact = exact_log_prob(model, x, y)
    elbo, elbo_error = many(lambda x, y: model.elbo(x, y, generator=generator(1)), x, y, 2000)
    one, one_error = many(lambda x, y: iwae(model, x, y, k=1, generator=generator(2)), x, y, 2000)
    assert ((one - elbo).abs() < 4.5 * (one_error**2 + elbo_error**2).sqrt()).all()
    five, five_error = many(lambda x, y: iwae(model, x, y, k=5, generator=generator(3)), x, y, 2000)
    assert (elbo < five + 4.5 * (elbo_error**2 + five_error**2).sqrt()).all()
    assert (five < exact + 4.5 * five_error).all()
    assert elbo.mean() < five.mean() < exact.mean()
    with torch.no_grad():
        close = iwae(model, x, y, k=20_000, generator=generator(4))
    torch.testing.assert_close(close, exact, atol=0.05, rtol=0)


def test_samples_follow_log_prob(model):
    n = 30_000
    for label in range(max(1, classes(model))):
        y = torch.full((n,), label) if classes(model) else None
        samples = model.sample(n, y, generator=generator(label))
        assert samples.shape == (n, *model.event_shape)
        if levels(model) is None:
            z, log_mass = grid(model)
            likelihood = model.likelihood(z, None if y is None else torch.full((len(z),), label))
            weight = log_mass.exp().view(-1, *[1] * len(model.event_shape))
            mean = (weight * likelihood.mean).sum(0)
            square = (weight * (likelihood.mean**2 + likelihood.variance)).sum(0)
            spread = (square - mean**2).sqrt()
            assert ((samples.mean(0) - mean).abs() < 4.5 * spread / n**0.5).all()
            torch.testing.assert_close((samples**2).mean(0), square, rtol=0.08, atol=0)
        else:
            x, k = every_event(model), levels(model)
            places = k ** torch.arange(model.event_shape.numel() - 1, -1, -1)
            codes = ((samples.flatten(1) * (k - 1)).round().long() * places).sum(1)
            frequency = torch.bincount(codes, minlength=len(x)).double() / n
            p = exact_log_prob(model, x, None if y is None else y[: len(x)]).exp()
            assert ((frequency - p).abs() < 4.5 * (p * (1 - p) / n).sqrt() + 1e-4).all()


def test_without_a_label_classes_are_drawn_evenly(model):
    if not classes(model) or levels(model) is None:
        pytest.skip("needs classes, and events to count")
    n, x, k = 30_000, every_event(model), levels(model)
    samples = model.sample(n, generator=generator())
    places = k ** torch.arange(model.event_shape.numel() - 1, -1, -1)
    frequency = torch.bincount(((samples.flatten(1) * (k - 1)).round().long() * places).sum(1), minlength=len(x)) / n
    p = torch.stack([exact_log_prob(model, x, torch.full((len(x),), y)).exp() for y in range(classes(model))]).mean(0)
    assert ((frequency - p).abs() < 4.5 * (p * (1 - p) / n).sqrt() + 1e-4).all()


def best_elbo_of_two_images() -> float:
    """The lowest -ELBO [nats] of two images of four equal bits, either as likely, under one Gaussian latent.

    With q(z | x) = N(m, s^2) for one image and N(-m, s^2) for the other, the best decoder gives each pixel its
    probability under the mixture, so that the reconstruction costs four times the entropy of the image given z.
    """
    m = torch.linspace(0, 2, 41, dtype=torch.float64).view(-1, 1, 1)
    s = torch.linspace(0.2, 1, 41, dtype=torch.float64).view(1, -1, 1)
    z = torch.linspace(-8, 8, 401, dtype=torch.float64)
    one, other = Normal(m, s).log_prob(z), Normal(-m, s).log_prob(z)
    entropy = (one.exp() * (torch.logaddexp(one, other) - one)).sum(-1) * (16 / 400)
    divergence = 0.5 * (m**2 + s**2 - 1).squeeze(-1) - s.log().squeeze(-1)
    return (divergence + 4 * entropy).min().item()


@pytest.mark.parametrize("name", MODELS)
def test_training_reaches_the_known_optimum(name):
    torch.manual_seed(2)
    model, noise = MODELS[name](), generator()
    k = classes(model)
    discrete = levels(model.double()) is not None
    model.float()
    w = torch.tensor([1.0, -1.0, 0.5, 0.0])

    def batch(n: int) -> dict[str, Tensor]:
        y = torch.arange(n) % k if k else torch.full((n,), 2)
        if discrete:  # class 0 is black, 1 is white, 2 is either
            either = torch.arange(n) // max(1, k) % 2
            x = torch.where(y == 2, either, y).float().view(n, 1, 1, 1).expand(n, *SHAPE)
        else:  # normal numbers with one common factor, about a centre for each class
            z, own = torch.randn(n, 1, generator=noise), torch.randn(n, 4, generator=noise)
            x = (y.unsqueeze(1) - 1 + z * w + 0.5 * own).view(n, *SHAPE)
        return {"x": x, "y": y} if k else {"x": x}

    if discrete:
        optimum = best_elbo_of_two_images() / (k or 1)
    else:  # q(z | x) can be the posterior: the entropy of the data
        optimum = 0.5 * torch.logdet(2 * pi * e * (torch.outer(w, w) + 0.25 * torch.eye(4))).item()
    steps, rate = 300, 0.05
    objective = NegativeELBO(model, kl_warmup_steps=steps // 2)  # without it, some switch their latents off
    optimizer = torch.optim.Adam(objective.parameters())
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * min(1, 2 * (1 - step / steps))
        loss, _ = objective(batch(48), noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        loss, _ = objective.eval()(batch(20_000), noise)
    assert optimum - 0.03 < loss.item() < optimum + 0.1


def test_every_parameter_has_a_gradient(model):
    x, y = some_events(model)
    (-model.elbo(x, y, generator=generator())).mean().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []
    assert list(model.parameters())


def test_a_saved_model_is_the_same(model, tmp_path):
    model = model.float()
    core_models.save(model, tmp_path)
    again = core_models.load(tmp_path)
    assert type(again) is type(model)
    assert again.config == model.config
    assert not again.training
    x, y = some_events(model.double())
    x, model = x.float(), model.float()
    assert torch.equal(again.elbo(x, y, generator=generator()), model.elbo(x, y, generator=generator()))
    assert torch.equal(again.sample(5, None, generator=generator()), model.sample(5, None, generator=generator()))
    assert {name: t.tolist() for name, t in again.state_dict().items()} == {
        name: t.tolist() for name, t in model.state_dict().items()
    }


def test_what_is_drawn_follows_from_the_generator_alone(model):
    x, y = some_events(model)
    calls = {
        "elbo": lambda g: model.elbo(x, y, generator=g),
        "iwae": lambda g: iwae(model, x, y, k=3, generator=g),
        "sample": lambda g: model.sample(20, generator=g),
    }
    for name, call in calls.items():
        torch.manual_seed(1)
        state = torch.get_rng_state()
        first = call(generator(7))
        assert torch.equal(torch.get_rng_state(), state), name
        torch.manual_seed(2)
        assert torch.equal(first, call(generator(7))), name
        assert not torch.equal(first, call(generator(8))), name


def test_wrong_shapes_are_refused_by_name(model):
    _, y = some_events(model, 2)
    x = torch.zeros(2, 1, 3, 3, dtype=torch.float64)
    y = None if y is None else y[:2]
    for call in (model.elbo, model.encode, lambda x, y: iwae(model, x, y, k=2)):
        with pytest.raises(UserError, match=r"expected events of shape \(n, 1, 2, 2\), got \(2, 1, 3, 3\)"):
            call(x, y)


def test_a_model_of_classes_asks_for_labels(model):
    x, y = some_events(model)
    if y is None:
        assert torch.isfinite(model.elbo(x, torch.zeros(len(x), dtype=torch.long), generator=generator())).all()
    else:
        with pytest.raises(UserError, match="expected a label for each input"):
            model.elbo(x)
        bounds = [model.elbo(x, torch.full_like(y, label), generator=generator()) for label in range(classes(model))]
        assert not torch.allclose(bounds[0], bounds[1])


def test_decode_is_the_mean_and_differentiable(model):
    z = torch.randn(5, *model.latent_shape, generator=generator(), dtype=torch.float64).div_(4).requires_grad_()
    y = torch.arange(5) % classes(model) if classes(model) else None
    assert isinstance(model, Variational)
    x = model.decode(z, y)
    assert x.shape == (5, *model.event_shape)
    assert torch.equal(x, model.likelihood(z, y).mean)
    (slope,) = torch.autograd.grad(x.sum(), z)
    assert (slope != 0).any(1).all()
    prior = model.prior(y)
    assert prior.event_shape == model.latent_shape


def test_bf16_stays_near_full_precision(model):
    x, y = some_events(model)
    model, x = model.float(), x.float()
    full = model.elbo(x, y, generator=generator())
    with torch.autocast("cpu", torch.bfloat16):
        half = model.elbo(x, y, generator=generator())
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, full, rtol=0.05, atol=0.15)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_gives_the_same_numbers(model):
    x, y = some_events(model)
    noise = torch.randn(len(x), *model.latent_shape, generator=generator(), dtype=torch.float64)
    here = model.elbo(x, y, noise=noise)
    model.cuda()
    there = model.elbo(x.cuda(), None if y is None else y.cuda(), noise=noise.cuda())
    torch.testing.assert_close(there.cpu(), here)
    assert model.sample(3, generator=torch.Generator("cuda").manual_seed(0)).device.type == "cuda"
