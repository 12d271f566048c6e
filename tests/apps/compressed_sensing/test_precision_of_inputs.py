"""What methods take: real numbers of either precision, and at least one signal."""

import pytest
import torch
from planted_priors import LinearPrior

from apps.compressed_sensing import LASSO
from apps.compressed_sensing.generative.csgm import CSGM
from apps.compressed_sensing.generative.flow_prior import FlowPrior
from apps.compressed_sensing.generative.intermediate_layers import IntermediateLayers
from apps.compressed_sensing.generative.posterior_sampling import PosteriorSampling
from apps.compressed_sensing.generative.residual_covariance import ResidualCovariance
from apps.compressed_sensing.generative.sparse_gen import SparseGen
from apps.compressed_sensing.operators import Matrix, gaussian
from core_models.adversarial import WGANGP, WGANGPConfig
from core_models.errors import UserError

SHAPE = (1, 4, 4)
SETTINGS = {
    CSGM: {"steps": 30, "restarts": 2},
    FlowPrior: {"steps": 10},
    SparseGen: {"steps": 30, "steps_alone": 15, "restarts": 2},
    IntermediateLayers: {"steps": 30, "stage_steps": 10, "radii": (0.1,), "restarts": 2},
    ResidualCovariance: {"steps": 30, "restarts": 3},
    PosteriorSampling: {"particles": 20},
}


def made(kind, dtype):
    """A method under a prior in single precision, the operator's numbers being the same in either precision."""
    operator = Matrix(gaussian(SHAPE, 6).matrix().to(dtype), SHAPE)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        prior = WGANGP(WGANGPConfig(event_shape=SHAPE, latent=2, hidden=(6,))).eval()
    method = kind(operator, prior if kind is IntermediateLayers else LinearPrior(), **SETTINGS[kind])
    if isinstance(method, ResidualCovariance):
        method.fit_residuals(0.1 * torch.randn(200, 16, generator=torch.Generator().manual_seed(2)))
    return method


@pytest.mark.parametrize("kind", SETTINGS)
def test_measurements_and_operators_in_double_precision_are_recovered_from_as_in_single(kind):
    x = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(1))
    single, double = made(kind, torch.float32), made(kind, torch.float64)
    y = single.operator(x)
    found, wide = single.recover(y), single.recover(y.double())
    assert torch.equal(wide.x, found.x) and wide.x.dtype == torch.float32
    for measured in (y, y.double(), double.operator(x)):
        torch.testing.assert_close(double.reconstruct(measured), found.x, rtol=0, atol=1e-3)


@pytest.mark.parametrize("own", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", [CSGM, ResidualCovariance, PosteriorSampling])
def test_losses_and_samples_of_measurements_in_double_precision_are_those_of_single(kind, own):
    method = made(kind, own)
    x, z = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(1)), torch.zeros(3, 3)
    y = method.operator(x).float()
    torch.testing.assert_close(method.loss_at(y.double(), z).float(), method.loss_at(y, z).float())
    if kind is PosteriorSampling:
        torch.testing.assert_close(method.sample(y.double()), method.sample(y))


@pytest.mark.parametrize("own", [torch.float32, torch.float64])
def test_signals_are_acquired_in_the_precision_of_the_operator(own):
    method = LASSO(Matrix(gaussian(SHAPE, 6).matrix().to(own), SHAPE), noise=0.1)
    x = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(1))
    one, other = (method.acquire(given, generator=torch.Generator().manual_seed(0)) for given in (x, x.double()))
    assert torch.equal(one, other) and one.dtype == own


@pytest.mark.parametrize("kind", [LASSO, CSGM, FlowPrior, SparseGen])
@pytest.mark.parametrize(
    ("y", "words"),
    [
        (torch.ones(2, 6, dtype=torch.int64), r"measurements of real numbers, got torch\.int64: convert them to float"),
        (torch.ones(2, 6, dtype=torch.complex64), r"measurements of real numbers, got torch\.complex64"),
        (torch.ones(0, 6), "measurements of one signal or more, got none"),
    ],
)
def test_whole_complex_or_no_measurements_are_refused(kind, y, words):
    method = LASSO(gaussian(SHAPE, 6)) if kind is LASSO else made(kind, torch.float32)
    with pytest.raises(UserError, match=words):
        method.recover(y)


def test_signals_of_whole_numbers_are_not_measured():
    with pytest.raises(UserError, match=r"signals of real numbers, got torch\.uint8: scale them"):
        LASSO(gaussian(SHAPE, 6)).acquire(torch.ones(2, *SHAPE, dtype=torch.uint8))
