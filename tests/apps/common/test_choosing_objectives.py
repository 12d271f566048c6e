"""What a model's density is over, and what follows for its pixels."""

import pytest
import torch
from torch import nn

from apps.common.objectives import build_objective, choose_binarisation, density_over
from core_models.autoregressive import PixelCNN, PixelCNNConfig
from core_models.data import load
from core_models.errors import UserError
from core_models.flows import RealNVP, RealNVPConfig
from core_models.latent import VAE, ConditionalVAE, ConditionalVAEConfig, VAEConfig

DIGITS = load("digits")
SHAPE = {"event_shape": (1, 8, 8), "latent": 2, "hidden": (4,)}


@pytest.mark.parametrize(
    ("likelihood", "kind"), [("bernoulli", "binary"), ("gaussian", "continuous"), ("discretised-logistic", "levels")]
)
def test_a_model_tells_by_its_likelihood_what_its_density_is_over(likelihood, kind):
    assert density_over(VAE(VAEConfig(**SHAPE, likelihood=likelihood))) == kind
    assert density_over(ConditionalVAE(ConditionalVAEConfig(**SHAPE, likelihood=likelihood))) == kind


def test_a_model_with_batch_norm_is_asked_without_leaving_a_trace():
    model = VAE(VAEConfig(**SHAPE))
    model.decoder = nn.Sequential(nn.Linear(2, 64), nn.BatchNorm1d(64))
    model.likelihood = lambda z, y=None: model.output(model.decoder(z))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert density_over(model) == "binary"
    assert model.training and all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_binarisation_follows_the_density_where_it_is_not_given():
    assert choose_binarisation(None, "binary", DIGITS) == "dynamic"
    assert choose_binarisation(None, "levels", DIGITS) == "none"
    assert choose_binarisation("static", "binary", DIGITS) == "static"
    assert choose_binarisation("none", "unknown", DIGITS) == "none"
    with pytest.raises(UserError, match="which is not over zeros and ones, got binarisation threshold"):
        choose_binarisation("threshold", "continuous", DIGITS)


def test_an_autoregressive_model_is_over_its_levels():
    small = {"event_shape": (1, 8, 8), "filters": 4, "blocks": 1}
    assert density_over(PixelCNN(PixelCNNConfig(**small))) == "levels"
    assert density_over(PixelCNN(PixelCNNConfig(**small, levels=2))) == "binary"


def test_a_gaussian_likelihood_is_dequantised_where_that_is_asked_for():
    model = VAE(VAEConfig(**SHAPE, likelihood="gaussian"))
    assert build_objective(model, "none", levels=17).dequantise == 0
    assert build_objective(model, "none", levels=17, spread=True).dequantise == 17
    flow = RealNVP(RealNVPConfig((1, 8, 8), couplings=1, hidden=(4,)))
    assert build_objective(flow, "none", levels=17).dequantise == 17
    with pytest.raises(UserError, match="kl_weight 1; leave them out"):
        build_objective(flow, "none", kl_weight=2.0)
