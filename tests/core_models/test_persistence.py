"""Models to and from folders."""

import errno
import hashlib
import json
import os
import struct
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

import core_models
from core_models.base import Classifier, GenerativeModel
from core_models.classifiers import ResNet, ResNetConfig
from core_models.errors import UserError
from core_models.latent import VAE, VAEConfig
from core_models.persistence import fingerprint

SMALL = VAEConfig(event_shape=(1, 2, 2), latent=2, hidden=(3,))


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    core_models.save(VAE(SMALL), tmp_path / "run")
    return tmp_path / "run"


def edit(folder, **changes):
    path = folder / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_folder_holds_two_files_and_no_pickle(folder):
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "model.safetensors"]
    assert json.loads((folder / "model.json").read_text())["class_path"] == "core_models.latent.vae.VAE"
    assert set(load_file(folder / "model.safetensors")) == set(VAE(SMALL).state_dict())
    model = core_models.load(str(folder))
    assert (type(model), model.config, model.training) == (VAE, SMALL, False)


def test_tied_weights_are_saved_and_loaded(tmp_path):
    model = VAE(SMALL)
    first, second = (part for part in model.modules() if isinstance(part, torch.nn.Linear) and part.in_features == 3)
    second.bias = first.bias = torch.nn.Parameter(torch.ones(4))
    first.weight = second.weight = torch.nn.Parameter(torch.randn(4, 3))
    core_models.save(model, tmp_path)
    found, wanted = core_models.load(tmp_path).state_dict(), model.state_dict()
    assert found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_saving_again_replaces_the_model(folder):
    torch.manual_seed(1)
    other = VAE(SMALL)
    core_models.save(other, folder)
    assert all(
        torch.equal(a, b) for a, b in zip(core_models.load(folder).parameters(), other.parameters(), strict=True)
    )


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float32, torch.float64])
def test_weights_are_single_precision_or_stay_double(kind, tmp_path):
    core_models.save(VAE(SMALL).to(kind), tmp_path / "run")
    kept = torch.float64 if kind == torch.float64 else torch.float32
    for keep_double, expected in ((False, torch.float32), (True, kept)):
        model = core_models.load(tmp_path / "run", keep_double=keep_double)
        assert {parameter.dtype for parameter in model.parameters()} == {expected}


def test_a_classifier_comes_back_and_is_told_from_a_generative_model(folder, tmp_path):
    torch.manual_seed(0)
    net = ResNet(ResNetConfig((1, 5, 5), classes=3, widths=(2, 4), units=1))
    net(torch.rand(8, 1, 5, 5))  # running statistics of its own
    core_models.save(net, tmp_path / "net")
    again = core_models.load(tmp_path / "net")
    assert (type(again), again.config, again.training) == (ResNet, net.config, False)
    x = torch.rand(4, 1, 5, 5)
    assert torch.equal(again(x), net.eval()(x))
    assert torch.equal(core_models.load(tmp_path / "net", Classifier)(x), net(x))
    with pytest.raises(UserError, match=r"expected a subclass of core_models.base.GenerativeModel, got '.*ResNet'"):
        core_models.load(tmp_path / "net", GenerativeModel)
    with pytest.raises(UserError, match=r"expected a subclass of core_models.base.Classifier, got '.*VAE'"):
        core_models.load(folder, Classifier)


def test_what_load_would_not_take_is_not_saved(tmp_path):
    net = torch.nn.Linear(2, 2)
    net.config = {"in_features": 2, "out_features": 2}
    with pytest.raises(UserError, match=r"Linear can't be saved: .*base.GenerativeModel or core_models.base.Classif"):
        core_models.save(net, tmp_path / "net")
    assert not (tmp_path / "net").exists()


def test_a_full_disk_leaves_the_model_that_was_there(folder, monkeypatch):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="the disk is full: free some space; what was there before is unchanged"):
        core_models.save(VAE(SMALL), folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_no_model_in_the_folder(tmp_path):
    with pytest.raises(UserError, match=r"expected a model in .* \(model.json and model.safetensors\), found none"):
        core_models.load(tmp_path)


def test_weights_that_are_missing(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"expected weights at .*model.safetensors, found none"):
        core_models.load(folder)


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_weights_cut_short(folder, keep):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"is no whole safetensors file .* it was cut short or altered"):
        core_models.load(folder)


def test_weights_that_are_something_else(folder):
    (folder / "model.safetensors").write_bytes(b"\x80\x04 a pickle, for instance" * 10)
    with pytest.raises(UserError, match="is no whole safetensors file"):
        core_models.load(folder)


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (VAEConfig(event_shape=(1, 2, 2), latent=3, hidden=(3,)), "decoder.stem.1.weight was expected with shape"),
        (VAEConfig(event_shape=(1, 2, 2), latent=2, hidden=(3, 3)), "was expected with shape"),
    ],
)
def test_weights_of_another_model(folder, config, name):
    save_file(VAE(config).state_dict(), folder / "model.safetensors")
    with pytest.raises(UserError, match=f"are of another model than core_models.latent.vae.VAE: .*{name}"):
        core_models.load(folder)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        (
            {"class_path": "collections.OrderedDict"},
            "expected a subclass of core_models.base.GenerativeModel or core_models.base.Classifier, got 'coll",
        ),
        ({"class_path": "gone.Model"}, "expected a class path that can be imported, got 'gone.Model'"),
        ({"class_path": 3}, "names no class_path: it is not a model's description"),
        ({"config": {"latnt": 2}}, "VAEConfig has no field 'latnt'"),
        ({"config": {"latent": None}}, "VAEConfig.latent: expected a whole number, got None"),
        ({"config": [1]}, r"expected a mapping of settings as config, got \[1\]"),
    ],
)
def test_an_altered_description(folder, changes, why):
    edit(folder, **changes)
    with pytest.raises(UserError, match=why):
        core_models.load(folder)


@pytest.mark.parametrize("text", ["{", "[]", "\x00\xff"])
def test_a_description_that_is_none(folder, text):
    (folder / "model.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"model.json"):
        core_models.load(folder)


def test_a_fingerprint_is_of_names_types_shapes_and_bytes_after_what_is_put_before_them():
    net = torch.nn.Linear(1, 1)
    with torch.no_grad():
        net.weight.fill_(1.0)
        net.bias.fill_(-2.0)
    parts = [b'["bias", "torch.float32", [1]]', struct.pack("<f", -2), b'["weight", "torch.float32", [1, 1]]']
    said = b"".join([*parts, struct.pack("<f", 1)])
    assert fingerprint(net) == hashlib.sha256(said).hexdigest()
    assert fingerprint(net, "Linear") == hashlib.sha256(b"Linear" + said).hexdigest()


def test_weights_are_not_loaded_with_the_description_of_others(folder, monkeypatch):
    """A kill between the two files leaves the new weights beside the old description, of the same shapes."""
    other = VAE(replace(SMALL, activation="tanh"))

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("core_models.persistence.write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            core_models.save(other, folder)
    with pytest.raises(UserError, match=r"weights that were saved with another model.json: .* save the model again"):
        core_models.load(folder)
    core_models.save(other, folder)
    assert core_models.load(folder).config.activation == "tanh"


def test_weights_that_say_nothing_of_their_description_are_loaded(folder):
    """As those that were saved before they did."""
    save_file(load_file(folder / "model.safetensors"), folder / "model.safetensors")
    assert core_models.load(folder).config == SMALL
