"""A prior straight from its training: searches take it in evaluation mode and hand it back as it was."""

import pytest
import torch
from planted_priors import LinearPrior
from torch import nn

from apps.compressed_sensing import diagnosis
from apps.compressed_sensing.diagnosis import diagnose, s_rec
from apps.compressed_sensing.generative.csgm import CSGM
from apps.compressed_sensing.generative.flow_prior import FlowPrior
from apps.compressed_sensing.generative.intermediate_layers import IntermediateLayers
from apps.compressed_sensing.generative.posterior_sampling import PosteriorSampling
from apps.compressed_sensing.generative.residual_covariance import ResidualCovariance
from apps.compressed_sensing.generative.sparse_gen import SparseGen
from apps.compressed_sensing.operators import gaussian

SHAPE = (1, 4, 4)


class Normed(LinearPrior):
    """As a DCGAN has it: batch norm before the last map, dropout at its end; in two stages."""

    def __init__(self):
        super().__init__()
        self.norm, self.dropped = nn.BatchNorm1d(3), nn.Dropout(0.2)
        self.stages = [self.norm, self.last]

    def last(self, h):
        return self.dropped(super().decode(h))

    def decode(self, z, y=None):
        return self.last(self.norm(z))

    def latents_of(self, z, stage):
        return z if stage == 0 else self.norm(z)

    def decode_from(self, h, stage):
        return self.decode(h) if stage == 0 else self.last(h)


STEPS = {"steps": 6, "restarts": 2}
METHODS = {
    CSGM: STEPS,
    FlowPrior: {"steps": 6},
    IntermediateLayers: {**STEPS, "stage_steps": 4, "radii": (0.1,)},
    SparseGen: {**STEPS, "steps_alone": 3},
    ResidualCovariance: {**STEPS, "noise": 0.1},
    PosteriorSampling: {"noise": 0.1, "particles": 8},
}


def told_by(prior, kind):
    """Returns what a method recovers, and what diagnosis says of it."""
    operator = gaussian(SHAPE, 6)
    x = torch.rand(30, *SHAPE, generator=torch.Generator().manual_seed(0))
    method = kind(operator, prior, **METHODS[kind])
    method.fit(x)
    y = method.acquire(x[:3], generator=torch.Generator().manual_seed(1))
    found = method.recover(y)
    return {"x": found.x, **diagnose(method, x[:3], y, found)}


@pytest.mark.parametrize("kind", METHODS, ids=lambda kind: kind.__name__)
def test_a_prior_in_training_mode_is_searched_as_one_in_evaluation_mode_and_stays_as_it_was(kind, monkeypatch):
    for name in ("LIKELY", "NEAREST"):
        monkeypatch.setattr(diagnosis, name, (5, 0.1))
    wanted = told_by(Normed().eval(), kind)
    prior = Normed().train()
    prior.bias.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in prior.state_dict().items()}
    found = told_by(prior, kind)
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        torch.testing.assert_close(found[name], values, msg=lambda words, name=name: f"{name}: {words}")
    assert all(torch.equal(tensor, before[name]) for name, tensor in prior.state_dict().items())
    assert prior.training and prior.norm.training and prior.dropped.training
    assert not prior.bias.requires_grad and prior.weight.requires_grad


def test_s_rec_is_of_the_prior_in_evaluation_mode():
    operator = gaussian(SHAPE, 6)
    found = [
        s_rec(prior, operator, pairs=50, generator=torch.Generator().manual_seed(0))
        for prior in (Normed().train(), Normed().eval())
    ]
    assert found[0] == pytest.approx(found[1])
