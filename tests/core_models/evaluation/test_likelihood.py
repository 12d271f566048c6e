"""Averages of likelihoods and bounds over a data set."""

from math import log

import pytest
import torch
from torch import nn
from torch.distributions import Normal

from core_models.base import ExactLikelihood, GenerativeModel
from core_models.errors import UserError
from core_models.evaluation import bits_per_dim, evaluate, per_event, summarise
from core_models.latent import VAE, ConditionalVAE, ConditionalVAEConfig, VAEConfig, iwae

TINY = {"event_shape": (1, 2, 2), "latent": 2, "hidden": (4,)}


class Bits(GenerativeModel, ExactLikelihood):
    """Four independent bits, whose probability depends on the class; it insists on evaluation mode."""

    event_shape = torch.Size((1, 2, 2))

    def __init__(self):
        super().__init__()
        self.probabilities = nn.Parameter(torch.tensor([0.5, 0.25]))
        self.frozen = nn.Dropout().eval()

    def log_prob(self, x, y=None):
        assert not self.training
        assert not torch.is_grad_enabled()
        p = self.probabilities[0] if y is None else self.probabilities[y].view(-1, 1)
        return torch.where(x.flatten(1) > 0, p, 1 - p).log().sum(1)

    def sample(self, n, y=None, *, generator=None):
        raise NotImplementedError


X = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0.0]]).view(3, 1, 2, 2)
Y = torch.tensor([0, 1, 1])
EXPECTED = [4 * log(2), 2 * log(4) + 2 * log(4 / 3), 4 * log(4 / 3)]


@pytest.mark.parametrize("batch_size", [1, 2, 500])
def test_exact_likelihoods_with_their_mean_and_standard_error(batch_size):
    model = Bits()
    seen = []
    estimate = evaluate(
        model, X, Y, estimator="exact", batch_size=batch_size, on_batch=lambda done, nats: seen.append((done, nats))
    )
    mean = sum(EXPECTED) / 3
    variance = sum((value - mean) ** 2 for value in EXPECTED) / 2
    assert estimate.nats == pytest.approx(mean, rel=1e-6)
    assert estimate.standard_error == pytest.approx((variance / 3) ** 0.5, rel=1e-6)
    assert (estimate.n, estimate.estimator, estimate.event_shape) == (3, "exact", (1, 2, 2))
    assert estimate.bits_per_dim == pytest.approx(mean / log(2) / 4)
    assert seen[-1] == (3, estimate.nats)
    assert len(seen) == -(-3 // batch_size)
    assert seen[0][1] == pytest.approx(sum(EXPECTED[:batch_size]) / min(3, batch_size), rel=1e-6)
    # every part of the model is in the mode it was in
    assert model.training
    assert not model.frozen.training


def test_values_of_each_event_in_order():
    values = per_event(Bits(), X, Y, estimator="exact", batch_size=2)
    torch.testing.assert_close(values, torch.tensor(EXPECTED, dtype=torch.float64), rtol=1e-6, atol=0)
    assert summarise(values, "exact", torch.Size((1, 2, 2))).nats == pytest.approx(sum(EXPECTED) / 3)


def test_one_event_has_no_spread():
    estimate = evaluate(Bits(), X[:1], estimator="exact")
    assert estimate.nats == pytest.approx(4 * log(2), rel=1e-6)
    assert estimate.standard_error == 0


def test_bits_per_dim():
    assert bits_per_dim(8 * log(2), torch.Size((2, 4))) == pytest.approx(1)


def test_bounds_are_those_of_the_model_with_noise_from_the_generator():
    torch.manual_seed(0)
    model = VAE(VAEConfig(**TINY))
    x = X.repeat(100, 1, 1, 1)
    found = evaluate(model, x, estimator="elbo", generator=torch.Generator().manual_seed(1))
    again = evaluate(model, x, estimator="elbo", generator=torch.Generator().manual_seed(1))
    bound = model.elbo(x, generator=torch.Generator().manual_seed(1))
    assert found == again
    assert found.nats == pytest.approx(-bound.mean().item(), rel=1e-5)
    tighter = evaluate(model, x, estimator="iwae-7", generator=torch.Generator().manual_seed(1))
    bound = iwae(model, x, k=7, generator=torch.Generator().manual_seed(1))
    assert tighter.nats == pytest.approx(-bound.mean().item(), rel=1e-5)
    assert tighter.estimator == "iwae-7"


def test_labels_go_with_their_events():
    torch.manual_seed(0)
    model = ConditionalVAE(ConditionalVAEConfig(**TINY, classes=3))
    with torch.no_grad():
        model.decoder.rows.mul_(20)
    x, y = X.repeat(40, 1, 1, 1), torch.arange(3).repeat(40)
    noise = lambda: torch.Generator().manual_seed(0)  # noqa: E731
    right = per_event(model, x, y, estimator="elbo", generator=noise(), batch_size=7)
    parts = [-model.elbo(x[s : s + 7], y[s : s + 7], generator=g) for g in [noise()] for s in range(0, len(x), 7)]
    torch.testing.assert_close(right, torch.cat(parts).detach().double())


class Sampler(GenerativeModel):
    event_shape = torch.Size((1,))

    def sample(self, n, y=None, *, generator=None):
        return Normal(0.0, 1.0).sample((n, 1))


@pytest.mark.parametrize(
    ("model", "estimator", "why"),
    [
        (Bits, "elbo", "Bits has no variational bound: use exact"),
        (Bits, "iwae-5", "Bits has no variational bound: use exact"),
        (lambda: VAE(VAEConfig(**TINY)), "exact", "VAE has no exact likelihood: use elbo or iwae-5000"),
        (Sampler, "exact", "Sampler has no exact likelihood"),
        *(
            (Bits, bad, "expected an estimator exact, elbo or iwae-k")
            for bad in ("iwae", "iwae-0", "iwae--3", "ELBO", "")
        ),
    ],
)
def test_estimators_that_a_model_cannot_answer(model, estimator, why):
    with pytest.raises(UserError, match=why):
        evaluate(model(), X, estimator=estimator)


def test_nothing_to_evaluate():
    with pytest.raises(UserError, match="expected at least one event to evaluate, got none"):
        evaluate(Bits(), X[:0], estimator="exact")
    with pytest.raises(UserError, match="expected a batch size of at least 1, got 0"):
        evaluate(Bits(), X, estimator="exact", batch_size=0)


def test_a_likelihood_is_taken_without_tf32(monkeypatch):
    seen = []

    def log_prob(self, x, y=None):
        seen.append(torch.get_float32_matmul_precision())
        return x.flatten(1).sum(1)

    monkeypatch.setattr(Bits, "log_prob", log_prob)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        per_event(Bits(), X, estimator="exact")
        assert seen == ["highest"] and torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)


def test_values_that_the_likelihood_is_not_of_are_refused():
    with pytest.raises(UserError, match=r"expected values in \[0, 1\] for the likelihood bernoulli, got 0 to 255"):
        per_event(VAE(VAEConfig(**TINY)), X * 255, estimator="elbo")
    model = VAE(VAEConfig(**TINY, likelihood="discretised-logistic", levels=5))
    per_event(model, X * 0.75, estimator="elbo")
    with pytest.raises(UserError, match=r"on the 5 levels .* \(multiples of 1/4\), got values between them"):
        per_event(model, X * 0.7, estimator="iwae-2")
