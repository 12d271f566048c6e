"""Feature squeezing against loops and scipy."""

import numpy as np
import pytest
import torch
from scipy.ndimage import median_filter
from torch import nn

from apps.pixeldefend.feature_squeezing import FeatureSqueezing, median_2x2, reduce_bits
from core_models.classifiers import ResNet, ResNetConfig
from core_models.errors import UserError


def test_bits_are_the_nearest_of_even_levels():
    x = torch.arange(256) / 255
    squeezed = reduce_bits(x.view(1, 1, 16, 16), 3).flatten()
    levels = [min(range(8), key=lambda k: abs(k / 7 - float(pixel))) / 7 for pixel in x]
    assert torch.allclose(squeezed, torch.tensor(levels), atol=1e-6)
    assert torch.equal(reduce_bits(x.view(1, 1, 16, 16), 1).unique(), torch.tensor([0.0, 1.0]))
    assert torch.allclose(reduce_bits(x.view(1, 1, 16, 16), 8).flatten(), x, atol=1e-6)


@pytest.mark.parametrize("shape", [(5, 6), (5, 1), (1, 4), (1, 1)])
def test_the_median_is_scipys(shape):
    """Its window of 2 x 2 reaches up and to the left; its `reflect`, the authors', repeats the border."""
    x = torch.rand(2, 3, *shape, generator=torch.Generator().manual_seed(0))
    expected = np.stack([[median_filter(c, size=2, mode="reflect") for c in image] for image in x.numpy()])
    assert torch.equal(median_2x2(x), torch.from_numpy(expected))


def test_the_rounding_passes_gradients_on():
    x = torch.rand(2, 1, 4, 4, requires_grad=True)
    weights = torch.rand(2, 1, 4, 4)
    (reduce_bits(x, 3) * weights).sum().backward()
    assert torch.equal(x.grad, weights)


def test_it_is_a_classifier_of_squeezed_images():
    torch.manual_seed(0)
    net = ResNet(ResNetConfig((1, 6, 6), classes=3, widths=(2, 4), units=1)).eval()
    squeezing = FeatureSqueezing(net, bits=3)
    x = torch.rand(4, 1, 6, 6)
    assert torch.equal(squeezing(x), net(median_2x2(reduce_bits(x, 3))))
    assert (squeezing.event_shape, squeezing.classes) == (net.event_shape, 3)
    assert torch.equal(squeezing(squeezing.squeeze(x)).isfinite(), torch.ones(4, 3, dtype=torch.bool))
    x.requires_grad_()
    squeezing(x).square().sum().backward()
    assert x.grad.any()


def test_any_module_will_do():
    plain = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    assert FeatureSqueezing(plain, 5)(torch.rand(3, 1, 4, 4)).shape == (3, 2)


@pytest.mark.parametrize("bits", [0, 9])
def test_bits_out_of_range_are_refused(bits):
    with pytest.raises(UserError, match=f"expected bits from 1 to 8, got {bits}"):
        FeatureSqueezing(nn.Flatten(), bits)
