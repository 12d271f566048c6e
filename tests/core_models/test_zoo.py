"""Every model of the zoo loads, has a card, and is worth on real data about what its card says."""

import os
from math import log

import pytest
import torch

import core_models
from core_models import zoo
from core_models.base import Classifier, GenerativeModel
from core_models.data import load
from core_models.errors import UserError
from core_models.evaluation import per_event


@pytest.mark.parametrize("name", zoo.names())
def test_a_shipped_model_loads_by_its_name_and_by_its_folder_and_has_a_card(name):
    model = zoo.load(name)
    assert isinstance(model, (GenerativeModel, Classifier)) and not model.training
    assert core_models.load(f"zoo:{name}").state_dict().keys() == model.state_dict().keys()
    assert zoo.card(name).startswith(f"# {name}\n")
    assert "sha256" in zoo.card(name)
    size = sum(path.stat().st_size for path in zoo.folder(name).iterdir())
    assert size < 16 * 2**20


def test_weights_that_the_card_does_not_speak_of_are_refused(tmp_path):
    for path in zoo.folder("vae_mnist").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    core_models.load(tmp_path)
    altered = bytearray((tmp_path / "model.safetensors").read_bytes())
    altered[-1] ^= 1
    (tmp_path / "model.safetensors").write_bytes(altered)
    with pytest.raises(UserError, match=r"expected the weights of .*card\.md .* got others"):
        core_models.load(tmp_path)


def test_a_name_that_is_not_there_is_refused():
    with pytest.raises(UserError, match=r"vae_mnist, .*got 'vae_mnits'; did you mean vae_mnist\?"):
        core_models.load("zoo:vae_mnits")


@pytest.mark.data
@pytest.mark.skipif(not os.environ.get("GENAPPS_DATA"), reason="needs MNIST in $GENAPPS_DATA")
def test_the_vae_of_mnist_has_the_bound_of_its_card():
    x = load("mnist", download=False).images("test")[:1000].bernoulli(generator=torch.Generator().manual_seed(0))
    nats = per_event(zoo.load("vae_mnist"), x, estimator="iwae-20", generator=torch.Generator().manual_seed(0))
    # IWAE-20 lies about a nat above the IWAE-5000 of the card; of 1,000 images the standard error is 0.73 nats
    assert float(nats.mean()) == pytest.approx(84.72, abs=2.2)


@pytest.mark.data
@pytest.mark.skipif(not os.environ.get("GENAPPS_DATA"), reason="needs Fashion-MNIST in $GENAPPS_DATA")
def test_the_density_and_the_classifier_of_fashion_mnist_are_worth_what_their_cards_say():
    data = load("fashion-mnist", download=False)
    x, y = data.images("test")[:400], data.test_y[:400]
    density, classifier = zoo.load("pixel_cnn_fashion_mnist"), zoo.load("resnet_fashion_mnist")
    with torch.no_grad():
        bits = -density.log_prob(x) / (784 * log(2))
        right = (classifier(x).argmax(1) == y).double().mean()
    # 2.751 and 92.51 % on all 10,000; of 400 images the standard errors are 0.05 and 1.3 %
    assert bits.mean().item() == pytest.approx(2.751, abs=0.15)
    assert right.item() == pytest.approx(0.925, abs=0.04)


@pytest.mark.data
@pytest.mark.skipif(not os.environ.get("GENAPPS_DATA"), reason="needs MNIST in $GENAPPS_DATA")
@pytest.mark.parametrize(("name", "mse"), [("uae_mnist_25", 0.00604), ("uae_mnist_100", 0.00165)])
def test_the_autoencoders_of_measurements_recover_as_their_cards_say(name, mse):
    x = load("mnist", download=False).images("test")[:1000]
    model = zoo.load(name)
    with torch.no_grad():
        y = model.measure(x, torch.Generator().manual_seed(0))
        found = model.decode_measurements(y).clamp(0, 1)
    assert y.shape[1] == model.config.measurements
    assert float(model.encoder().detach().square().mean()) == pytest.approx(1.0, rel=1e-3)  # a Gaussian matrix's norm
    # of 1,000 images the standard errors are 2 %
    assert float((found - x).square().mean()) == pytest.approx(mse, rel=0.1)
