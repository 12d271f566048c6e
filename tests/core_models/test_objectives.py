"""Maximum likelihood."""

import pytest
import torch
from torch import nn

from core_models.base import ExactLikelihood
from core_models.errors import UserError
from core_models.objectives import NegativeLogLikelihood


class Bits(nn.Module, ExactLikelihood):
    """Independent bits of one probability for each class."""

    def __init__(self):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(2))

    def log_prob(self, x, y=None):
        logits = self.logits[0] if y is None else self.logits[y].view(-1, 1)
        return (x.flatten(1) * logits - nn.functional.softplus(logits)).sum(1)


def test_it_finds_the_frequency_of_each_class():
    model = Bits()
    objective = NegativeLogLikelihood(model, binarisation="dynamic")
    y = torch.arange(2).repeat(200)
    x = torch.tensor([0.2, 0.9])[y].view(-1, 1).expand(-1, 8)
    optimizer = torch.optim.Adam(objective.parameters(), lr=0.2)
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        loss, metrics = objective({"x": x, "y": y}, generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert metrics["negative_log_likelihood_nats"].item() == loss.item()
    torch.testing.assert_close(torch.sigmoid(model.logits.detach()), torch.tensor([0.2, 0.9]), atol=0.03, rtol=0)


def test_a_static_draw_is_not_made_of_batches():
    with pytest.raises(UserError, match="got static: binarise the whole split"):
        NegativeLogLikelihood(Bits(), binarisation="static")


class Seen(nn.Module, ExactLikelihood):
    """Remembers what it was shown."""

    def log_prob(self, x, y=None):
        self.x = x
        return x.flatten(1).sum(1)


def test_levels_are_spread_over_their_shares_for_a_continuous_density():
    model = Seen()
    x = torch.tensor([0.0, 1 / 3, 2 / 3, 1.0]).expand(500, 4)
    NegativeLogLikelihood(model, dequantise=4)({"x": x}, torch.Generator().manual_seed(0))
    below = torch.tensor([0.0, 0.25, 0.5, 0.75])
    assert bool((model.x >= below).all()) and bool((model.x < below + 0.25).all())
    torch.testing.assert_close(model.x.mean(0), below + 0.125, rtol=0, atol=0.01)
    NegativeLogLikelihood(model)({"x": x}, None)
    assert torch.equal(model.x, x)
    with pytest.raises(UserError, match="got both"):
        NegativeLogLikelihood(model, dequantise=4, binarisation="dynamic")
