"""Models by name and by class path."""

import sys
from dataclasses import dataclass, fields

import pytest
import torch
from torch import nn

from core_models import registry
from core_models.base import Classifier, GenerativeModel
from core_models.classifiers import ResNet, ResNetConfig
from core_models.errors import UserError
from core_models.latent import VAE, ConditionalVAE


class Plain(GenerativeModel):
    """A model of one's own with plain arguments."""

    def __init__(self, side: int = 2) -> None:
        super().__init__()
        self.event_shape = torch.Size((1, side, side))
        self.config = {"side": side}

    def sample(self, n, y=None, *, generator=None):
        return torch.zeros(n, *self.event_shape)


class Nameless(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.config = None


@dataclass(frozen=True)
class MineConfig:
    side: int = 3


class Mine(Plain):
    def __init__(self, config: MineConfig) -> None:
        super().__init__(config.side)
        self.config = config


PATH = __name__
NAMES = ", ".join(entry.name for entry in registry.entries())


def test_registered_models_are_listed_by_name_without_importing_them():
    entries = registry.entries()
    assert [entry.name for entry in entries] == sorted(entry.name for entry in entries)
    assert {"vae", "conditional-vae"} <= {entry.name for entry in entries}
    assert all(entry.summary for entry in entries)


def test_every_registered_model_builds_with_its_defaults_and_describes_itself():
    for entry in registry.entries(nn.Module):
        model_class = registry.model_class(entry.name, entry.capability)
        known = {field.name for field in fields(registry.config_class(model_class))}
        # small, where the defaults are for real images
        small = {"event_shape": [1, 4, 4], "hidden": [4], "filters": 8, "widths": [2, 4], "depths": [1, 1]}
        if entry.name == "vgg":
            small["hidden"] = 4
        config = {name: value for name, value in small.items() if name in known}
        model = registry.build(entry.name, config, entry.capability)
        again = registry.build(*registry.describe(model).values(), entry.capability)
        assert type(again) is type(model)
        assert again.config == model.config


def test_fields_reach_the_model():
    model = registry.build("vae", {"latent": 3, "hidden": [5], "event_shape": [1, 2, 2]})
    assert isinstance(model, VAE)
    assert (model.config.latent, model.config.hidden, model.event_shape) == (3, (5,), (1, 2, 2))
    assert registry.model_class("conditional-vae") is ConditionalVAE


def test_classifiers_are_asked_for_by_their_capability():
    assert {"resnet", "vgg"} == {entry.name for entry in registry.entries(Classifier)}
    assert not {"resnet", "vgg"} & {entry.name for entry in registry.entries()}
    assert registry.model_class("resnet", Classifier) is ResNet
    net = registry.build("resnet", {"event_shape": [1, 4, 4], "widths": [2, 4], "units": 1}, Classifier)
    assert net.config == ResNetConfig((1, 4, 4), widths=(2, 4), units=1)
    path = registry.describe(net)["class_path"]
    assert (registry.capability_of(path), registry.capability_of("vae")) == (Classifier, GenerativeModel)
    with pytest.raises(UserError, match=r"expected a model among resnet, vgg or a class path, got 'vae'"):
        registry.build("vae", {}, Classifier)
    with pytest.raises(UserError, match=rf"expected a model among {NAMES} or a class path, got 'resnet'"):
        registry.build("resnet")
    with pytest.raises(UserError, match=r"expected a subclass of core_models.base.GenerativeModel, got '.*ResNet'"):
        registry.build(path)
    with pytest.raises(UserError, match=r"expected a subclass of core_models.base.Classifier, got '.*VAE'"):
        registry.build("core_models.latent.VAE", {}, Classifier)


@pytest.mark.parametrize(("name", "field"), [("Plain", "side"), ("Mine", "side")])
def test_a_model_of_ones_own_by_class_path(name, field):
    model = registry.build(f"{PATH}.{name}", {field: 5})
    assert type(model) is getattr(sys.modules[PATH], name)
    assert model.event_shape == (1, 5, 5)
    assert registry.describe(model) == {"class_path": f"{PATH}.{name}", "config": {"side": 5}}


def test_a_new_name_can_be_registered(monkeypatch):
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))
    registry.register("mine", f"{PATH}.Mine", "my own")
    assert registry.build("mine").event_shape == (1, 3, 3)


@pytest.mark.parametrize(
    ("name", "config", "why"),
    [
        ("vea", {}, f"expected a model among {NAMES} or a class path, got 'vea'; did you mean vae?"),
        (
            "nowhere.Model",
            {},
            "expected a class path that can be imported, got 'nowhere.Model' (No module named 'nowhere')",
        ),
        ("./mine.Model", {}, "expected a class path that can be imported, got './mine.Model'"),
        (".mine.Model", {}, "expected a class path that can be imported, got '.mine.Model'"),
        (f"{PATH}.Missing", {}, f"expected a class path that can be imported, got '{PATH}.Missing'"),
        ("torch.nn.Linear", {}, "expected a subclass of core_models.base.GenerativeModel, got 'torch.nn.Linear'"),
        ("core_models.latent.VAE", {"latnt": 3}, "VAEConfig has no field 'latnt'; did you mean latent?"),
        ("vae", {"latent": "ten"}, "VAEConfig.latent: expected a whole number, got 'ten'"),
        (
            "vae",
            {"likelihood": "poisson"},
            "VAEConfig.likelihood: expected one of bernoulli, gaussian, discretised-logistic",
        ),
        ("real-nvp", {"hidden": [0]}, "expected hidden layers of at least one unit, got hidden = (0,)"),
        ("wgan-gp", {"hidden": [4, 0]}, "expected a latent dimension and a hidden stage of at least one unit"),
        ("vae", {"latent": 0}, "expected at least one latent dimension, got latent = 0"),
        (f"{PATH}.Plain", {"sid": 3}, "Plain has no field 'sid'; did you mean side?"),
    ],
)
def test_mistakes_are_named(name, config, why):
    with pytest.raises(UserError) as error:
        registry.build(name, config)
    assert str(error.value).startswith(why)
    assert "\n" not in str(error.value)


def test_a_model_without_a_config_says_what_it_lacks():
    with pytest.raises(UserError, match="Nameless can't be saved: it needs an attribute `config`"):
        registry.describe(Nameless())
