"""A classifier of normalised images as one of images in [0, 1]."""

import numpy as np
import pytest
import torch
from attack_targets import LeftNeighbour, classifier, digits
from torch import nn

from apps.pixeldefend import Defended, Normalised, Purifier, attack
from core_models.base import Classifier
from core_models.errors import UserError

MEAN, STD = [0.2, 0.4, 0.6], [0.5, 0.25, 2.0]


def test_each_channel_is_normalised_by_its_own_mean_and_deviation():
    x = torch.rand(4, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    by_hand = np.stack([(x[:, c].numpy() - MEAN[c]) / STD[c] for c in range(3)], 1)
    for mean, std in ((MEAN, STD), (torch.tensor(MEAN), np.array(STD))):
        np.testing.assert_allclose(Normalised(nn.Identity(), mean, std)(x), by_hand, rtol=1e-5)
    torch.testing.assert_close(Normalised(nn.Identity(), 0.5, 0.25)(x), (x - 0.5) * 4)


def test_it_is_a_classifier_that_tells_what_the_wrapped_one_tells():
    own = nn.Flatten()
    assert not hasattr(Normalised(own, 0.5, 0.5), "classes")
    own.event_shape, own.classes = (1, 2, 2), 4
    net = Normalised(own, 0.5, 0.5)
    assert isinstance(net, Classifier) and (net.event_shape, net.classes) == ((1, 2, 2), 4)
    assert set(net.state_dict()) == {"mean", "std"}


def test_an_attack_on_it_keeps_to_the_levels_of_the_image():
    """Undone before a network of plain images, normalisation changes nothing: not even an attack."""
    undone = nn.Sequential(Normalised(nn.Identity(), -0.5 / 0.25, 1 / 0.25), classifier())
    x, y = digits(n=12)
    net = Normalised(undone, 0.5, 0.25)
    torch.testing.assert_close(net(x), classifier()(x))
    found = attack("fgsm", net, x, y, 9)
    assert float((found != attack("fgsm", classifier(), x, y, 9)).float().mean()) < 1e-2
    torch.testing.assert_close(
        Defended(Purifier(LeftNeighbour(), eps=8), net)(x), Defended(Purifier(LeftNeighbour(), eps=8), classifier())(x)
    )


def test_normalised_images_are_told_from_images_by_what_is_below_0():
    x, y = digits(n=3)
    normalised = (x - 0.5) / 0.25
    at = Defended(Purifier(LeftNeighbour()), classifier())
    for called in (lambda: attack("pgd", classifier(), normalised, y, 8), lambda: at(normalised)):
        with pytest.raises(UserError, match=r"from -2 to 2: .* apps.pixeldefend.Normalised\(classifier, mean, std\)"):
            called()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Normalised(lambda x: x, 0.5, 0.5), "torch.nn.Module, got function"),
        (lambda: Normalised(nn.Identity(), 0.5, 0.0), "std as a number above 0 of each channel, got 0.0"),
        (lambda: Normalised(nn.Identity(), 0.5, [0.5, -1.0]), "std as a number above 0"),
        (lambda: Normalised(nn.Identity(), [float("nan")], 0.5), "mean as a number of each channel"),
        (lambda: Normalised(nn.Identity(), "0.5", 0.5), "mean as a number of each channel, got '0.5'"),
        (lambda: Normalised(nn.Identity(), 0.5, None), "std as a number above 0 of each channel, got None"),
        (lambda: Normalised(nn.Identity(), torch.ones(3, 2), 0.5), "mean as a number of each channel"),
        (lambda: Normalised(nn.Identity(), [], 0.5), "mean as a number of each channel"),
        (lambda: Normalised(nn.Identity(), MEAN, STD)(torch.zeros(2, 1, 4, 4)), "images of 3 channels, .*, got 1"),
        (lambda: Normalised(nn.Identity(), 0.5, STD)(torch.zeros(2, 1, 4, 4)), "images of 3 channels, .*, got 1"),
    ],
)
def test_mistakes_are_named(make, words):
    with pytest.raises(UserError, match=words):
        make()
