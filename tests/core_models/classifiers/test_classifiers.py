"""What every classifier obeys: pixels in [0, 1] outside, its own standardisation inside, shapes checked by name."""

from itertools import pairwise

import pytest
import torch

from core_models.classifiers import VGG, ResNet, ResNetConfig, VGGConfig, standardise
from core_models.errors import UserError

NETWORKS = {
    "resnet": lambda shape: ResNet(ResNetConfig(shape, classes=3, widths=(2, 2, 4), units=1)),
    "vgg": lambda shape: VGG(VGGConfig(shape, classes=3, widths=(2, 4), depths=(1, 2), hidden=4, last_pool=False)),
}


def built(name, shape=(1, 6, 6)):
    torch.manual_seed(0)
    return NETWORKS[name](shape)


def test_the_papers_sizes():
    """Parameters counted by hand, with two per channel for each norm."""
    resnet = ResNet(ResNetConfig())
    convolutions = 9 * (3 * 16 + 10 * 16 * 16 + 16 * 32 + 9 * 32 * 32 + 32 * 64 + 9 * 64 * 64)
    norms = 2 * (11 * 16 + 10 * 32 + 10 * 64)  # each unit has one of its inputs and one of its outputs
    assert sum(p.numel() for p in resnet.parameters()) == convolutions + norms + 64 * 10 + 10
    assert sum(p.dim() == 4 for p in resnet.parameters()) == 31  # and a linear layer: 32
    vgg = VGG(VGGConfig())
    widths = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    convolutions = 9 * sum(a * b for a, b in pairwise(widths))
    linear = 512 * 512 + 512 + 512 * 10 + 10
    assert sum(p.numel() for p in vgg.parameters()) == convolutions + 2 * sum(widths[1:]) + linear
    assert sum(p.dim() in (2, 4) for p in vgg.parameters()) == 15  # its two linear layers of 4,096 are one of 512


def test_standardised_images_have_mean_0_and_deviation_1():
    x = torch.rand(3, 2, 5, 4) * 0.3
    z = standardise(x)
    assert torch.allclose(z.mean((1, 2, 3)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(z.flatten(1).std(1, correction=0), torch.ones(3), atol=1e-5)
    assert torch.allclose(standardise(0.5 * x + 0.2), z, atol=1e-4)


def test_nearly_constant_images_are_divided_by_the_smallest_deviation():
    x = torch.full((1, 1, 4, 4), 0.5)
    x[0, 0, 0, 0] += 0.16 / 255
    z = standardise(x)[0, 0]  # 0.16 levels over 16 pixels deviate by 0.0387, less than 1/4
    assert torch.allclose(z[0, 0], torch.tensor(0.15 * 4), atol=1e-3)
    constant = torch.full((1, 1, 4, 4), 0.5, requires_grad=True)
    standardise(constant).square().sum().backward()
    assert torch.equal(constant.grad, torch.zeros_like(constant))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("shape", [(1, 6, 6), (3, 7, 9)])
def test_logits_and_a_gradient_for_every_parameter(name, shape):
    net = built(name, shape)
    logits = net(torch.rand(5, *shape))
    assert logits.shape == (5, 3)
    assert (net.event_shape, net.classes) == (shape, 3)
    logits.square().sum().backward()
    for parameter in net.parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any()


@pytest.mark.parametrize("name", NETWORKS)
def test_standardisation_is_inside(name):
    net = built(name).eval()
    x = torch.rand(4, 1, 6, 6)
    assert torch.allclose(net(x), net.network(standardise(x)))
    assert torch.allclose(net(0.5 * x + 0.1), net(x), atol=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_in_evaluation_an_image_is_judged_alone(name):
    net = built(name)
    x = torch.rand(6, 1, 6, 6)
    net(x)
    net.eval()
    assert torch.allclose(net(x), torch.cat([net(image[None]) for image in x]), atol=1e-5)
    assert torch.equal(net(x), net(x))


def test_a_unit_that_adds_nothing_is_its_shortcut():
    """With convolutions of 0, the features of a stage are averages, and channels of zeros on either side."""
    net = ResNet(ResNetConfig((1, 5, 5), classes=3, widths=(2, 4, 8), units=1))
    units = list(net.units)
    for unit in units:
        torch.nn.init.zeros_(unit.conv2.weight)
    net.eval()
    x = torch.randn(2, 2, 5, 5)
    first = units[0](x)
    active = torch.nn.functional.leaky_relu(x / (1 + 1e-5) ** 0.5, 0.1)  # the norm's statistics are still 0 and 1
    assert torch.allclose(first[:, 1:3], active, atol=1e-6)  # the shortcut of the first unit is activated
    assert not first[:, [0, 3]].any()
    second = units[1](first)
    assert second.shape == (2, 8, 3, 3)
    assert torch.allclose(second[:, 2:6, 0, 0], first[:, :, :2, :2].mean((2, 3)), atol=1e-6)
    assert torch.allclose(second[:, 2:6, 2, 2], first[:, :, 4, 4], atol=1e-6)  # the corner's window has one pixel
    assert not second[:, [0, 1, 6, 7]].any()


@pytest.mark.parametrize("name", NETWORKS)
def test_it_learns_two_patterns(name):
    net = built(name)
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(32) % 2
    x = torch.rand(32, 1, 6, 6, generator=generator) * 0.2
    x[y == 1, :, :3] += 0.7
    x[y == 0, :, :, :3] += 0.7
    optimizer = torch.optim.SGD(net.parameters(), 0.05, momentum=0.9)
    for _ in range(40):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    assert (net.eval()(x).argmax(1) == y).float().mean() > 0.95


@pytest.mark.parametrize("name", NETWORKS)
def test_images_of_another_shape_are_refused(name):
    with pytest.raises(UserError, match=r"expected images of shape \(1, 6, 6\), as \w+ was made for, got \(1, 6, 7\)"):
        built(name)(torch.rand(2, 1, 6, 7))
    with pytest.raises(UserError, match=r"got \(6, 6, 1\): reshape them to \(n, 1, 6, 6\)"):
        built(name)(torch.rand(2, 6, 6, 1))


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (
            lambda: ResNet(ResNetConfig((28, 28))),
            r"expected an event_shape of channels, height and width, got \(28, 28",
        ),
        (lambda: ResNet(ResNetConfig(classes=1)), "expected at least two classes, got classes = 1"),
        (lambda: ResNet(ResNetConfig(widths=(8, 4))), r"expected ascending widths .*, got \(8, 4\)"),
        (lambda: ResNet(ResNetConfig(units=0)), "expected at least one unit a stage, got units = 0"),
        (lambda: VGG(VGGConfig(depths=(1,))), r"expected a width and a depth for each group, got .* and \(1,\)"),
        (lambda: VGG(VGGConfig(dropout=1.0)), r"a dropout in \[0, 1\), got"),
        (lambda: VGG(VGGConfig((1, 28, 28))), "expected images of at least 32 x 32 for 5 maxima .*, got 28 x 28"),
    ],
)
def test_impossible_networks_are_refused(make, why):
    with pytest.raises(UserError, match=why):
        make()
