"""Uncertainty autoencoders: what measures, what recovers, and the loss of both."""

import pytest
import torch

import core_models
from core_models.errors import UserError
from core_models.latent import SquaredRecoveryError, UAEConfig, UncertaintyAutoencoderModel
from core_models.seeding import seeded
from core_models.training.checkpoint import describe

SHAPE, N, M = (1, 3, 4), 12, 5


def made(**settings):
    with seeded(0):
        return UncertaintyAutoencoderModel(UAEConfig(SHAPE, M, (7,), **settings))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def signals(n):
    return torch.rand(n, *SHAPE, generator=generator(9))


def test_measurements_are_products_with_w_and_noise_of_the_deviation_that_is_said():
    model, x = made(noise=0.3), signals(4000)
    noise = (model.measure(x, generator()) - x.flatten(1) @ model.encoder().T).detach()
    assert float(noise.std()) == pytest.approx(0.3, rel=0.015)  # three standard errors of 20,000 draws
    assert float(noise.mean()) == pytest.approx(0, abs=0.0065)
    assert torch.equal(model.measure(x, generator()), model.measure(x, generator()))
    assert not torch.allclose(model.measure(x, generator()), model.measure(x, generator(1)))
    exact = made(noise=0.0)
    torch.testing.assert_close(exact.measure(x), x.flatten(1) @ exact.encoder().T)


def test_the_loss_is_the_squared_error_summed_over_pixels_with_noise_drawn_anew():
    model, x = made(noise=0.3), signals(6)
    objective, drawing = SquaredRecoveryError(model), generator()
    losses = []
    redrawn = generator()
    for _ in range(2):
        loss, told = objective({"x": x}, drawing)
        noise = torch.empty(6, M).normal_(generator=redrawn)
        y = x.flatten(1) @ model.encoder().T + 0.3 * noise
        away = model.network(y / N**0.5) + model.linear(y / N**0.5) - x.flatten(1)
        torch.testing.assert_close(loss, away.square().sum() / 6)
        torch.testing.assert_close(told["mse"], away.square().mean().detach())
        losses.append(float(loss.detach()))
    assert losses[0] != losses[1]
    loss.backward()
    assert all(parameter.grad is not None and bool(parameter.grad.any()) for parameter in model.parameters())


def test_norms_are_matched_whatever_the_weights_or_follow_them():
    matched, free = made(), made(norm_matched=False)
    torch.testing.assert_close(matched.encoder().norm(), torch.tensor(float(M * N)).sqrt())
    torch.testing.assert_close(free.encoder(), free.raw * N**0.5)
    before = [model.encoder().detach() for model in (matched, free)]
    with torch.no_grad():
        matched.raw.mul_(2)
        free.raw.mul_(2)
    torch.testing.assert_close(matched.encoder(), before[0])
    torch.testing.assert_close(free.encoder(), 2 * before[1])


@pytest.mark.parametrize("linear_path", [False, True])
def test_a_linear_path_is_added_where_asked_for_and_kept_in_a_folder(tmp_path, linear_path):
    model, y = made(linear_path=linear_path, norm_matched=False), torch.randn(3, M, generator=generator())
    added = sum(parameter.numel() for parameter in model.parameters()) - sum(
        parameter.numel() for parameter in made(linear_path=False).parameters()
    )
    assert added == linear_path * (M + 1) * N
    alone = model.network(y / N**0.5).unflatten(1, SHAPE)
    assert torch.equal(model.decode_measurements(y), alone) is not linear_path
    core_models.save(model, tmp_path)
    found = core_models.load(tmp_path)
    assert found.config == model.config
    torch.testing.assert_close(found.decode_measurements(y), model.decode_measurements(y))
    torch.testing.assert_close(found.encoder(), model.encoder())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"measurements": 0}, "at least one measurement, got measurements = 0"),
        ({"hidden": (3, 0)}, "at least one unit"),
        ({"noise": -0.1}, "a noise of 0 or more, got -0.1"),
    ],
)
def test_mistakes_are_named(settings, words):
    with pytest.raises(UserError, match=words):
        UncertaintyAutoencoderModel(UAEConfig(SHAPE, **settings))


def test_samples_are_the_ends_of_chains_that_measure_and_recover():
    model, start = made(noise=0.3), signals(4)
    found = model.sample(4, steps=3, start=start, deviation=0.1, generator=generator())
    drawing, x = generator(), start
    for _ in range(3):
        mean = model.decode_measurements(model.measure(x, drawing))
        x = (mean + 0.1 * torch.empty_like(mean).normal_(generator=drawing)).clamp(0, 1)
    torch.testing.assert_close(found, mean.detach().clamp(0, 1))
    assert not found.requires_grad
    drawn = model.sample(6, generator=generator(1))
    assert drawn.shape == (6, *SHAPE) and len(drawn.unique(dim=0)) == 6
    assert torch.equal(drawn, model.sample(6, generator=generator(1)))


def test_chains_end_in_the_distribution_of_the_signals_where_the_posterior_is_known():
    model = UncertaintyAutoencoderModel(UAEConfig((1,), 1, (), noise=0.5, linear_path=False)).double()
    prior_mean, prior_variance = 0.5, 0.01
    with torch.no_grad():  # x ~ N(0.5, 0.1^2) and y = x + e: g(y) is the mean of x | y, which is normal
        model.raw.fill_(1.0)
        gain = prior_variance / (prior_variance + 0.25)
        model.network[0].weight.fill_(gain)
        model.network[0].bias.fill_(prior_mean * (1 - gain))
    spread = (prior_variance * (1 - gain)) ** 0.5
    starts = torch.zeros(20_000, 1, dtype=torch.float64)
    means = model.sample(20_000, steps=30, start=starts, deviation=spread, generator=generator())
    assert float(means.mean()) == pytest.approx(prior_mean, abs=1e-3)
    assert float(means.var()) == pytest.approx(prior_variance * gain, rel=0.05)  # of g(y) under the stationary law


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"steps": 0}, "a step or more"),
        ({"y": torch.zeros(2, dtype=torch.long)}, "expected no y"),
        ({"deviation": -1.0}, "a deviation of 0 or more"),
        ({"start": torch.zeros(3, 12)}, r"starts of shape \(2, 1, 3, 4\), got \(3, 12\)"),
    ],
)
def test_chains_that_are_none_are_refused(settings, words):
    with pytest.raises(UserError, match=words):
        made().sample(2, **settings)


def test_checkpoints_know_the_loss_by_the_name_that_it_had():
    assert describe(SquaredRecoveryError(made()))["class"] == "RecoveryError"
