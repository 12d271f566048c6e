"""`genapps pixeldefend train-classifier`, through the command line, tiny."""

import json
import shutil

import numpy as np
import pytest
import torch
import yaml

import core_models
from apps.__main__ import main
from apps.common.presets import preset_names, presets_folder
from apps.pixeldefend.classifiers import accuracy, build_classifier, make_objective, splits
from core_models import registry
from core_models.base import Classifier
from core_models.data import DataSet, load
from core_models.errors import UserError
from core_models.training import PixelBatches, RunFolder, TensorBatches

SMALL = ["--network_config.widths", "[4,8]", "--network_config.units", "1", "--validation", "137"]
CPU = ["--training.device", "cpu", "--training.threads", "1"]
TINY = [*SMALL, *CPU, "--defence", "fgsm", "--eps", "4", "--batch_size", "100", "--training.epochs", "3"]


@pytest.fixture
def call(capsys):
    def run(*argv):
        status = main(["pixeldefend", "train-classifier", *map(str, argv)])
        out, error = capsys.readouterr()
        return status, out, error

    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A tiny network on the digits, in thirteen steps an epoch, trained on adversarial images drawn on the way."""
    out = tmp_path_factory.mktemp("pixeldefend") / "classifier"
    assert main(["pixeldefend", "train-classifier", "--data", "digits", "--out", str(out), *TINY]) == 0
    return out


def test_a_run_folder_holds_what_it_should(trained):
    summary = json.loads((trained / "summary.json").read_text())
    assert (summary["data"], summary["network"], summary["defence"]) == ("digits", "resnet", "fgsm")
    assert (summary["stopped"], summary["epochs"], summary["steps"]) == ("finished", 3, 39)
    assert summary["config"]["event_shape"] == [1, 8, 8] and summary["config"]["classes"] == 10
    assert summary["command"].startswith("genapps pixeldefend train-classifier --data digits")
    settings = RunFolder(trained).read_config()
    assert (settings["defence"], settings["validation"], settings["training"]["optimizer"]) == ("fgsm", 137, "sgd")
    lines = RunFolder(trained).read_metrics()
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert lines[-1]["validation_accuracy_percent"] == summary["validation"]["accuracy_percent"]


def test_the_accuracies_are_those_of_the_saved_weights(trained):
    summary = json.loads((trained / "summary.json").read_text())
    net, data = core_models.load(trained, Classifier), load("digits")
    right = (net(data.images("test")).argmax(1) == data.test_y).double().mean()
    assert summary["test"] == {"accuracy_percent": pytest.approx(100 * float(right)), "n": len(data.test_y)}
    assert summary["test"]["accuracy_percent"] > 15  # chance is 10
    _, held_out = splits(data, 137, 0)
    right = (net(held_out["x"] / 16).argmax(1) == held_out["y"]).double().mean()
    assert summary["validation"] == {"accuracy_percent": pytest.approx(100 * float(right)), "n": 137}


def test_a_run_that_was_stopped_and_resumed_ends_as_one_that_was_not(call, trained, tmp_path):
    out = tmp_path / "stopped"
    argv = ["--data", "digits", "--out", out, *TINY]
    status, said, _ = call(*argv, "--training.time_limit", "1e-9")
    assert status == 0 and "stopped by the time limit at step 1: the same command with --resume goes on" in said
    status, _, error = call(*argv)
    assert status == 2 and "already holds a run: add --resume to go on, or choose another folder" in error
    assert call(*argv, "--resume")[0] == 0
    there, here = core_models.load(trained).state_dict(), core_models.load(out).state_dict()
    assert all(torch.equal(there[name], here[name]) for name in there)
    summaries = [json.loads((path / "summary.json").read_text()) for path in (trained, out)]
    assert summaries[0]["test"] == summaries[1]["test"]
    assert "is finished: there is nothing left to do" in call(*argv, "--resume")[1]


def test_other_settings_are_not_resumed(call, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    argv = ["--data", "digits", "--out", tmp_path / "run", *TINY, "--resume"]
    status, _, error = call(*argv, "--defence", "normal")
    assert status == 2 and "is of another model: class (AdversarialFGSM there, CrossEntropy here)" in error
    assert "is of other data" in call(*argv, "--validation", "100")[2]


def test_images_held_out_are_not_trained_on():
    data = load("digits")
    train, held = splits(data, 200, seed=0)
    assert len(train["y"]) == len(data.train_y) - 200
    rows = {tuple(image.flatten().tolist()) for image in train["x"]} | {
        tuple(image.flatten().tolist()) for image in held["x"]
    }
    assert rows == {tuple(image.flatten().tolist()) for image in data.train_x}
    assert torch.equal(splits(data, 200, seed=0)[1]["x"], held["x"])
    assert not torch.equal(splits(data, 200, seed=1)[1]["x"], held["x"])
    whole, none = splits(data, 0, seed=0)
    assert none is None and len(whole["y"]) == len(data.train_y)


def test_batches_are_pixels_and_go_on_as_the_bytes_do():
    x, y = torch.arange(12, dtype=torch.uint8).view(6, 1, 1, 2), torch.arange(6)
    batches = PixelBatches(TensorBatches({"x": x, "y": y}, 3, seed=1), levels=16)
    batch = batches.batch(1, 0)
    assert torch.equal((batch["x"] * 15).round().to(torch.uint8), x[batch["y"]])
    assert batches.fingerprint != PixelBatches(batches.batches, 17).fingerprint
    assert torch.equal(batches.to("cpu").batch(1, 0)["x"], batch["x"])


def test_accuracy_counts_images():
    images = torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1)

    class First(torch.nn.Linear):
        def forward(self, x):
            return torch.cat([x.flatten(1) * 9, 4.5 - 0 * x.flatten(1)], 1)  # class 0 above level 4.5

    y = torch.zeros(10, dtype=torch.long)
    assert accuracy(First(1, 1), images, y, levels=10, batch_size=3) == 50.0


def test_presets_name_networks_and_defences_that_are_there():
    data = {"fashion-mnist": (1, 28, 28), "cifar10": (3, 32, 32)}
    names = [name for name in preset_names() if name.startswith("pixeldefend/classifier_")]
    assert len(names) >= 7
    for name in names:
        settings = yaml.safe_load((presets_folder() / f"{name}.yaml").read_text())
        shape = data[settings["data"]]
        x = torch.zeros(2, *shape, dtype=torch.uint8)
        y = torch.tensor([0, 9])
        tiny = DataSet(settings["data"], x, y, x, y, tuple("0123456789"), "")
        net = build_classifier(settings["network"], settings.get("network_config"), tiny, seed=0)
        defaults = {"eps": 8, "steps": 7, "step_size": 2, "smoothing": 0.9, "flip": True}
        make_objective({**defaults, **settings}, net)
        with torch.no_grad():
            assert net.eval()(x / 255).shape == (2, 10)


def test_print_config_reads_a_preset(call):
    status, out, _ = call("--config", "pixeldefend/classifier_resnet_cifar10", "--print_config")
    settings = yaml.safe_load(out)
    assert status == 0
    assert settings["training"]["schedule"] == "steps" and settings["training"]["step_at"] == [0.5, 0.75]
    assert settings["training"]["epochs"] * (50_000 // settings["batch_size"]) == pytest.approx(80_000, rel=1e-3)


def test_weights_follow_from_the_seed_alone():
    data = load("digits")
    config = {"widths": [2, 4], "units": 1}
    nets = []
    for seed, disturbed in ((0, 1), (0, 2), (1, 1)):
        torch.manual_seed(disturbed)
        before = torch.get_rng_state()
        nets.append(build_classifier("resnet", config, data, seed).first.weight)
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(nets[0], nets[1]) and not torch.equal(nets[0], nets[2])


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (["--network", "resnt"], "expected a model among resnet, vgg or a class path, got 'resnt'; did you mean res"),
        (["--network", "core_models.latent.VAE"], "expected a subclass of core_models.base.Classifier, got "),
        (["--network_config.width", "3"], "ResNetConfig has no field 'width'; did you mean widths?"),
        (["--network_config.classes", "3"], "expected a network for images of shape (1, 8, 8) and 10 classes, as dig"),
        (["--defence", "fgms"], "fgms"),
        (["--defence", "madry", "--eps", "300"], "expected eps and step_size from 1 to 255 levels"),
        (["--validation", "1437"], "expected a validation set smaller than the 1437 training images, got 1437"),
        (["--batch_size", "0"], "expected a batch size from 1"),
        (["--data", "binarized-mnist-"], "expected a data set out of"),
        (
            ["--validation", "0", "--training.early_stop.metric", "validation_accuracy_percent"],
            "early_stop watches 'validation_accuracy_percent', but there is no validation",
        ),
    ],
)
def test_mistakes_are_one_line(call, tmp_path, argv, why):
    status, out, error = call("--data", "digits", "--out", tmp_path / "run", *argv)
    assert (status, out) == (2, "") and error.count("\n") == 1, error
    assert why in error
    assert not (tmp_path / "run").exists()


def test_data_without_labels_is_refused(tmp_path):
    x = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
    y = torch.tensor([0, 1, -1, 1])
    with pytest.raises(UserError, match="expected a class for every train image of mine, 1 have none"):
        splits(DataSet("mine", x, y, x, y, ("a", "b"), ""), 0, 0)
    none = torch.full((4,), -1)
    with pytest.raises(UserError, match="expected images of at least two classes, mine has 0"):
        build_classifier("resnet", {}, DataSet("mine", x, none, x, none, (), ""), 0)


def test_a_users_own_images(call, tmp_path):
    rng = np.random.default_rng(0)
    y = np.arange(80) % 2
    x = rng.integers(0, 60, (80, 3, 6, 6), dtype=np.uint8)
    x[y == 1, 0] += 150
    np.savez(tmp_path / "mine.npz", x=x, y=y)
    argv = [
        "--data",
        tmp_path / "mine.npz",
        "--out",
        tmp_path / "run",
        *SMALL[:4],
        *CPU,
        "--defence",
        "bim",
        "--eps",
        "2",
    ]
    status, _, error = call(*argv, "--batch_size", "16", "--training.epochs", "6")
    assert status == 0, error
    assert registry.describe(core_models.load(tmp_path / "run"))["config"]["classes"] == 2
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["test"]["accuracy_percent"] > 90
    assert RunFolder(tmp_path / "run").read_config()["validation"] == 6  # a tenth of the 64 for training
