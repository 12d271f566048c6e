"""The objective of latent-variable models."""

import pytest
import torch
from torch import nn

from core_models.base import Variational
from core_models.errors import UserError
from core_models.latent import VAE, NegativeELBO, VAEConfig
from core_models.training.checkpoint import describe

TINY = {"event_shape": (1, 2, 2), "latent": 2, "hidden": (8,)}


class Spy(nn.Module, Variational):
    """Notes what it is asked, and answers with a bound of 3 nats."""

    latent_shape = torch.Size((1,))

    def __init__(self):
        super().__init__()
        self.asked = []

    def elbo(self, x, y=None, *, generator=None, kl_weight=1.0):
        self.asked.append((x, y, float(kl_weight)))
        return torch.full((len(x),), 3.0)

    prior = encode = likelihood = decode = None


class Stiff(Spy):
    def elbo(self, x, y=None, *, generator=None):
        return super().elbo(x, y, generator=generator)


def test_the_loss_is_minus_the_mean_bound():
    loss, metrics = NegativeELBO(Spy())({"x": torch.rand(4, 1, 2, 2)})
    assert loss.item() == -3
    assert {name: value.item() for name, value in metrics.items()} == {"negative_bound_nats": -3}


def test_pixels_are_drawn_anew_at_every_step():
    spy = Spy()
    objective, generator = NegativeELBO(spy, binarisation="dynamic"), torch.Generator().manual_seed(0)
    grey = torch.full((500, 1, 2, 2), 0.25)
    for _ in range(2):
        objective({"x": grey, "y": torch.zeros(500, dtype=torch.long)}, generator)
    (first, y, _), (second, _, _) = spy.asked
    assert torch.isin(first, torch.tensor([0.0, 1.0])).all()
    assert not torch.equal(first, second)
    assert first.mean().item() == pytest.approx(0.25, abs=0.04)
    assert y is not None


def test_the_weight_of_the_kl_rises_while_training_and_goes_on_after_a_pause():
    spy = Spy()
    objective = NegativeELBO(spy, kl_warmup_steps=4)
    batch = {"x": torch.zeros(1, 1, 2, 2)}
    for _ in range(2):
        objective(batch)
    again = NegativeELBO(spy, kl_warmup_steps=4)
    again.load_state_dict(objective.state_dict())
    for _ in range(4):
        again(batch)
    again.eval()(batch)
    assert [weight for _, _, weight in spy.asked] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0]
    objective.eval()(batch)  # a validation is of the whole bound, however early
    assert spy.asked[-1][2] == 1.0
    assert objective.step.item() == 2


def test_more_samples_make_a_tighter_bound():
    torch.manual_seed(0)
    model = VAE(VAEConfig(**TINY))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    batch = {"x": torch.bernoulli(torch.full((2000, 1, 2, 2), 0.5))}
    losses = [
        NegativeELBO(model, importance_samples=k)(batch, torch.Generator().manual_seed(0))[0].item() for k in (1, 20)
    ]
    assert losses[1] < losses[0] - 0.1


@pytest.mark.parametrize(
    ("model", "settings", "why"),
    [
        (Spy, {"binarisation": "static"}, "got static: binarise the whole split"),
        (Spy, {"importance_samples": 0}, "expected importance_samples of at least 1, got 0"),
        (Spy, {"kl_warmup_steps": -1}, "expected a KL warm-up of 0 steps or more, got -1"),
        (Spy, {"importance_samples": 5, "kl_warmup_steps": 3}, "the importance-weighted bound has none"),
        (Stiff, {"kl_warmup_steps": 3}, "expected Stiff.elbo to take kl_weight"),
        (Stiff, {"kl_weight": 2.0}, "expected Stiff.elbo to take kl_weight, which kl_weight sets"),
        (Spy, {"kl_weight": -1.0}, "expected a kl_weight of 0 or more, got -1"),
        (Spy, {"kl_weight": 2.0, "importance_samples": 5}, "a KL term to weigh"),
    ],
)
def test_settings_that_contradict_one_another_are_refused(model, settings, why):
    with pytest.raises(UserError, match=why):
        NegativeELBO(model(), **settings)


def test_beta_weighs_the_kl_in_training_alone():
    spy, batch = Spy(), {"x": torch.zeros(1, 1, 2, 2)}
    objective = NegativeELBO(spy, kl_weight=4.0)
    objective(batch)
    objective.eval()(batch)
    rising = NegativeELBO(spy, kl_weight=4.0, kl_warmup_steps=2)
    for _ in range(3):
        rising(batch)
    assert [weight for _, _, weight in spy.asked] == [4, 1, 2, 4, 4]


def test_checkpoints_of_before_have_the_settings_of_an_objective_that_uses_none_of_the_later_ones():
    assert {"kl_weight", "dequantise"}.isdisjoint(describe(NegativeELBO(Spy())))
    told = describe(NegativeELBO(Spy(), kl_weight=0.5, dequantise=4))
    assert (told["kl_weight"], told["dequantise"]) == ("0.5", "4")


def test_levels_are_spread_for_a_likelihood_over_continuous_values():
    spy = Spy()
    NegativeELBO(spy, dequantise=4)({"x": torch.ones(500, 1, 2, 2)}, torch.Generator().manual_seed(0))
    ((x, _, _),) = spy.asked
    assert bool(((x >= 0.75) & (x < 1)).all()) and x.mean().item() == pytest.approx(0.875, abs=0.01)
    with pytest.raises(UserError, match="got both"):
        NegativeELBO(spy, dequantise=4, binarisation="dynamic")


@pytest.mark.parametrize(
    ("likelihood", "x", "why"),
    [
        ("bernoulli", 255.0, r"expected values in \[0, 1\] for the likelihood bernoulli, got 255 to 255"),
        ("bernoulli", float("nan"), r"expected values in \[0, 1\]"),
        ("discretised-logistic", 1.5, r"expected values in \[0, 1\] for the likelihood discretised-logistic"),
    ],
)
def test_the_first_batch_is_of_values_that_the_likelihood_is_of(likelihood, x, why):
    objective = NegativeELBO(VAE(VAEConfig(**TINY, likelihood=likelihood)))
    with pytest.raises(UserError, match=why):
        objective({"x": torch.full((3, 1, 2, 2), x)})
    objective({"x": torch.full((3, 1, 2, 2), 0.3)})
    objective({"x": torch.full((3, 1, 2, 2), x)})  # later ones aren't looked at: a GPU would wait at every step
