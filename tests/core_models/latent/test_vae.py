"""The parts of the variational auto-encoders that the laws do not see."""

import jaxtyping
import pytest
import torch

from core_models.errors import UserError
from core_models.latent import VAE, ConditionalVAE, ConditionalVAEConfig, VAEConfig, iwae

TINY = {"event_shape": (1, 4, 4), "latent": 2, "hidden": (8,), "channels": (3, 4)}


@pytest.mark.parametrize("network", ["mlp", "conv"])
@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian", "discretised-logistic"])
def test_the_bound_of_every_class_at_once_is_that_of_each_in_turn(network, likelihood):
    torch.manual_seed(0)
    config = ConditionalVAEConfig(**TINY, classes=3, network=network, likelihood=likelihood)
    model = ConditionalVAE(config).double()
    generator = torch.Generator().manual_seed(0)
    x = torch.bernoulli(torch.full((5, 1, 4, 4), 0.3, dtype=torch.float64), generator=generator)
    noise = torch.randn(3, 5, 2, generator=generator, dtype=torch.float64)
    together, apart = model.elbo_every_class(x, noise=noise), model.elbo_class_by_class(x, noise=noise)
    torch.testing.assert_close(together, apart, rtol=1e-12, atol=1e-12)
    assert (apart.std(0) > 1e-3).all()  # the classes differ
    weight = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    gradients = [torch.autograd.grad((weight * b).sum(), list(model.parameters())) for b in (together, apart)]
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-10, atol=1e-12)


def test_the_noise_of_every_class_comes_from_the_generator():
    model = ConditionalVAE(ConditionalVAEConfig(**TINY, classes=3))
    x = torch.zeros(5, 1, 4, 4)
    bounds = [model.elbo_every_class(x, generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(bounds[0], bounds[1])
    assert not torch.equal(bounds[0], bounds[2])


def test_a_decoder_started_at_the_mean_decodes_to_it():
    model = VAE(VAEConfig(**TINY))
    mean = torch.linspace(0, 1, 16).view(1, 4, 4)
    model.set_output_mean(mean)
    with torch.no_grad():
        model.decoder.head[-1].weight.zero_()
    torch.testing.assert_close(model.decode(torch.randn(1, 2))[0], mean.clamp(1e-3, 1 - 1e-3))


@pytest.mark.parametrize("changes", [{"likelihood": "gaussian"}, {"network": "conv"}])
def test_other_decoders_are_left_as_they_are(changes):
    model = VAE(VAEConfig(**TINY, **changes))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.set_output_mean(torch.rand(1, 4, 4))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_noise_may_be_given_and_the_kl_weighted():
    model = VAE(VAEConfig(**TINY)).double()
    x, noise = torch.zeros(3, 1, 4, 4).double(), torch.randn(3, 2).double()
    full, none, half = (model.elbo(x, noise=noise, kl_weight=weight) for weight in (1.0, 0.0, torch.tensor(0.5)))
    torch.testing.assert_close(half, (full + none) / 2)
    posterior = model.encode(x)
    z = posterior.mean + posterior.stddev * noise
    torch.testing.assert_close(none, model.likelihood(z).log_prob(x))
    assert (full < none).all()


def test_samples_may_be_means():
    model = VAE(VAEConfig(**TINY))
    draws, means = (model.sample(9, generator=torch.Generator().manual_seed(0), mean=mean) for mean in (False, True))
    assert torch.isin(draws, torch.tensor([0.0, 1.0])).all()
    assert ((means > 0) & (means < 1)).all()
    z = torch.empty(9, 2).normal_(generator=torch.Generator().manual_seed(0))
    assert torch.equal(means, model.decode(z))


def test_labels_mean_nothing_to_a_model_without_classes():
    model = VAE(VAEConfig(**TINY))
    assert model.classes == 0
    x = torch.zeros(3, 1, 4, 4)
    bounds = [model.elbo(x, y, generator=torch.Generator().manual_seed(0)) for y in (None, torch.tensor([0, 1, 2]))]
    assert torch.equal(*bounds)


@pytest.mark.parametrize(
    ("cls", "changes", "why"),
    [
        (VAE, {"latent": 0}, "expected at least one latent dimension, got latent = 0"),
        (VAE, {"levels": 1}, "expected at least two pixel levels, got levels = 1"),
        (VAE, {"classes": -1}, r"expected no classes \(0\) or some, got classes = -1"),
        (VAE, {"event_shape": (1, 0)}, r"expected an event_shape of at least one value, got \(1, 0\)"),
        (VAE, {"hidden": ()}, "expected at least one hidden layer"),
        (VAE, {"hidden": (4, 0)}, "expected at least one hidden layer of at least one unit"),
        (
            VAE,
            {"network": "conv", "event_shape": (16,)},
            r"expected events of shape \(channels, height, width\), got \(16,\)",
        ),
        (VAE, {"network": "conv", "event_shape": (1, 6, 6)}, "expected image sides divisible by 4 for 2 convolutional"),
        (VAE, {"network": "conv", "channels": ()}, "expected at least one stage of at least one channel"),
        (VAE, {"network": "conv", "channels": (4, 0)}, "expected at least one stage of at least one channel"),
        (VAE, {"network": "conv", "hidden": ()}, "expected at least one hidden layer"),
        (VAE, {"network": "conv", "hidden": (0,)}, "expected a hidden layer of at least one unit, got 0"),
        (ConditionalVAE, {"classes": 1}, "expected at least two classes, got classes = 1"),
    ],
)
def test_sizes_that_make_no_model_are_refused(cls, changes, why):
    config = (ConditionalVAEConfig if cls is ConditionalVAE else VAEConfig)(**{**TINY, **changes})
    with pytest.raises(UserError, match=why):
        cls(config)


def test_every_class_needs_classes():
    model = VAE(VAEConfig(**TINY))
    with pytest.raises(UserError, match="expected a class-conditional network"):
        model.encoder.every_class(torch.zeros(1, 1, 4, 4))


@pytest.fixture
def conditional(monkeypatch):
    """A model of three classes, outside of the tests' own check of shapes, which would speak first."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    return ConditionalVAE(ConditionalVAEConfig(**TINY, classes=3))


@pytest.mark.parametrize(
    ("y", "got"),
    [([0, -1, 2], "y from -1 to 2"), ([0, 3, 2], "y from 0 to 3"), ([1], r"y of shape \(1,\)")],
)
def test_labels_that_are_not_one_class_for_each_event_are_refused(conditional, y, got):
    """-1, which stands for no label, would be the last class, and a single label that of all."""
    x, z, labels = torch.zeros(3, 1, 4, 4), torch.zeros(3, 2), torch.tensor(y)
    calls = (
        lambda: conditional.elbo(x, labels),
        lambda: conditional.encode(x, labels),
        lambda: conditional.likelihood(z, labels),
        lambda: conditional.decode(z, labels),
        lambda: conditional.sample(3, labels),
    )
    for call in calls:
        with pytest.raises(UserError, match=f"expected 3 classes from 0 to 2, got {got}: give each event its class"):
            call()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_cast_to_half_precision_has_bounds_in_single(dtype):
    torch.manual_seed(0)
    model = VAE(VAEConfig((1, 2, 2), latent=2, hidden=(8,)))
    x, noise = torch.ones(5, 1, 2, 2), torch.randn(5, 2)
    full = model.elbo(x, noise=noise)
    half = model.to(dtype).elbo(x.to(dtype), noise=noise)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, full, rtol=0.05, atol=0.1)
    assert iwae(model, x.to(dtype), k=3).dtype == torch.float32
    classes = ConditionalVAE(ConditionalVAEConfig((1, 2, 2), latent=2, hidden=(8,), classes=3)).to(dtype)
    assert classes.elbo_every_class(x.to(dtype)).shape == (3, 5)


def test_a_model_without_classes_draws_of_none():
    with pytest.raises(UserError, match="expected no y, since VAE has no classes to draw from"):
        VAE(VAEConfig((1, 2, 2), latent=2, hidden=(8,))).sample(3, torch.tensor([0, 1, 2]))
