"""The importance-weighted bound: its blocks, and draws from posteriors of any kind."""

import sys
from math import log

import pytest
import torch
from torch.distributions import Independent, Laplace, Normal, Poisson

from core_models.base import GenerativeModel, Variational
from core_models.errors import UserError
from core_models.latent import draw, iwae

MODULE = sys.modules["core_models.latent.iwae"]  # the package has a function of that name


class Line(GenerativeModel, Variational):
    """x = z + noise, with a posterior that is off: its weights are a known function of its draws."""

    event_shape = torch.Size((1,))
    latent_shape = torch.Size((1,))

    def __init__(self, family=Normal):
        super().__init__()
        self.family = family

    def prior(self, y=None):
        return Independent(Normal(torch.zeros(1), torch.ones(1)), 1)

    def likelihood(self, z, y=None):
        shift = 0 if y is None else y.unsqueeze(1)
        return Independent(Normal(z + shift, 1.0), 1)

    def encode(self, x, y=None):
        return Independent(self.family(0.3 * x, torch.full_like(x, 0.9)), 1)

    def decode(self, z, y=None):
        return self.likelihood(z, y).mean

    def elbo(self, x, y=None, *, generator=None):
        raise NotImplementedError

    def sample(self, n, y=None, *, generator=None):
        raise NotImplementedError


def exact(x: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
    return Normal(0.0, 2**0.5).log_prob((x if y is None else x - y.unsqueeze(1)).squeeze(1))


@pytest.mark.parametrize(("at_once", "k", "tolerance"), [(1, 100, 0.4), (50, 2000, 0.1), (2**20, 2000, 0.1)])
@pytest.mark.parametrize("family", [Normal, Laplace])
def test_the_bound_is_the_same_in_blocks_of_any_size(monkeypatch, at_once, k, tolerance, family):
    monkeypatch.setitem(MODULE.VALUES_AT_ONCE, "cpu", at_once)
    x, y = torch.tensor([[-1.0], [0.0], [2.0]]), torch.tensor([0, 3, 1])
    found = iwae(Line(family), x, y, k=k, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(found, exact(x, y), atol=tolerance, rtol=0)


@pytest.mark.parametrize(
    ("at_once", "shapes"), [(10, [(2, 5), (2, 5), (2, 5)]), (4, [(1, 4), (1, 1)] * 6), (60, [(6, 5)])]
)
def test_blocks_hold_no_more_than_they_may(monkeypatch, at_once, shapes):
    monkeypatch.setitem(MODULE.VALUES_AT_ONCE, "cpu", at_once)
    seen = []

    def log_weights(model, x, y=None, *, k, generator=None):
        seen.append((len(x), k))
        assert y is None
        return x.squeeze(1).expand(k, -1)  # every weight of an event is the event itself

    monkeypatch.setattr(MODULE, "log_weights", log_weights)
    x = torch.arange(6.0).unsqueeze(1)
    torch.testing.assert_close(iwae(Line(), x, k=5), x.squeeze(1))  # the mean of equal weights, in the events' order
    assert seen == shapes


def test_weights_are_those_of_the_draws():
    x = torch.tensor([[0.5], [-2.0]])
    model = Line()
    found = MODULE.log_weights(model, x, k=4, generator=torch.Generator().manual_seed(3))
    z = draw(model.encode(x), 4, torch.Generator().manual_seed(3))
    expected = (Normal(z, 1.0).log_prob(x) + Normal(0.0, 1.0).log_prob(z) - Normal(0.3 * x, 0.9).log_prob(z)).squeeze(
        -1
    )
    torch.testing.assert_close(found, expected)
    bound = iwae(model, x, k=4, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(bound, expected.logsumexp(0) - log(4))


def test_k_must_be_one_or_more():
    with pytest.raises(UserError, match="expected k of at least 1, got 0"):
        iwae(Line(), torch.zeros(1, 1), k=0)


@pytest.mark.parametrize("family", [Normal, Laplace])
def test_draws_follow_the_distribution_and_the_generator_alone(family):
    loc = torch.tensor([[0.0, 5.0]], requires_grad=True)
    distribution = Independent(family(loc, torch.tensor([[1.0, 2.0]])), 1)
    state = torch.get_rng_state()
    z = draw(distribution, 20_000, torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), state)
    assert z.shape == (20_000, 1, 2)
    assert torch.equal(z, draw(distribution, 20_000, torch.Generator().manual_seed(0)))
    assert not torch.equal(z, draw(distribution, 20_000, torch.Generator().manual_seed(1)))
    torch.testing.assert_close(z.mean(0), loc.detach(), atol=0.08, rtol=0)
    torch.testing.assert_close(z.std(0), distribution.stddev.detach(), atol=0, rtol=0.03)
    z.mean().backward()  # reparameterised
    torch.testing.assert_close(loc.grad, torch.full((1, 2), 0.5))


def test_what_cannot_be_reparameterised_is_drawn_all_the_same():
    counts = draw(Poisson(torch.tensor([3.0])), 5000, torch.Generator().manual_seed(0))
    assert counts.mean().item() == pytest.approx(3, abs=0.15)
    assert draw(Poisson(torch.tensor([3.0])), 2).shape == (2, 1)
