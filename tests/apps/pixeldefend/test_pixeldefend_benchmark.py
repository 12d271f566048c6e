"""The verbs that make the tables, through the command line, on a small density and classifiers of digits of 6 x 6."""

import json
import shutil

import numpy as np
import pytest
import torch
import torchattacks
import yaml
from sklearn.metrics import roc_auc_score

import core_models
from apps.__main__ import main
from apps.common.cells import read_cells
from apps.common.published import Published
from apps.pixeldefend.attacks import attack, correct, describe
from apps.pixeldefend.defended import Defended, Purifier
from apps.pixeldefend.detection import Calibration, bits_per_dim, compressed_bits, controls
from apps.pixeldefend.experiment import STORE_VERSIONS
from apps.pixeldefend.feature_squeezing import FeatureSqueezing
from apps.pixeldefend.knowing_columns import HIDING_WEIGHTS, variant
from apps.pixeldefend.purification import purify
from apps.pixeldefend.table import OBLIVIOUS
from core_models.base import Classifier
from core_models.data import load
from core_models.files import hash_of
from core_models.training import held_out

CPU = ["--training.device", "cpu", "--training.threads", "1"]
DENSITY = ["--model_config.filters", "8", "--model_config.blocks", "1", "--model_config.resolutions", "2"]
DENSITY += ["--model_config.dropout", "0", "--model_config.head", "softmax", "--training.epochs", "6"]
SMALL = ["--network_config.widths", "[6,12]", "--network_config.units", "1", "--training.epochs", "12"]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with data, a density and two classifiers, all made through the command line."""
    folder = tmp_path_factory.mktemp("work")
    digits = load("digits")
    inner = {split: digits.images(split)[..., 1:-1, 1:-1] for split in ("train", "test")}
    arrays = {f"{split}_x": (255 * x).round().to(torch.uint8).numpy() for split, x in inner.items()}
    labels = {f"{split}_y": digits.labels(split).numpy() for split in ("train", "test")}
    np.savez(folder / "tiny.npz", **arrays, **labels)
    data = ["--data", str(folder / "tiny.npz")]
    density = ["train-density", *data, "--out", str(folder / "density"), *DENSITY, *CPU]
    assert main(["pixeldefend", *density]) == 0
    for network, more in (("resnet", SMALL), ("resnet", [*SMALL, "--defence", "fgsm"])):
        out = folder / f"classifier_{network}_{'fgsm' if 'fgsm' in more else 'normal'}_tiny"
        train = ["train-classifier", *data, "--network", network, "--out", str(out), *more, *CPU]
        assert main(["pixeldefend", *train]) == 0
    return folder


@pytest.fixture
def call(capsys):
    def run(*argv):
        status = main(["pixeldefend", *map(str, argv)])
        out, error = capsys.readouterr()
        return status, out, error

    return run


def benchmark(work, results, *more):
    given = ["benchmark", "--data", work / "tiny.npz", "--density", work / "density", "--work", work]
    given += ["--results", results, "--images", 60, "--knowing_images", 6, "--bpda_steps", 4, "--square_queries", 4]
    return [*given, "--eps_defend", 48, "--eps", "[24]", "--device", "cpu", "--threads", 1, *more]


def test_a_density_run_holds_its_calibration_of_images_that_were_held_out(work):
    data, model = load(str(work / "tiny.npz")), core_models.load(work / "density")
    summary = json.loads((work / "density" / "summary.json").read_text())
    assert summary["test"]["n"] == len(data.test_x)
    test = bits_per_dim(model, data.images("test"))
    assert test.mean() == pytest.approx(summary["test"]["bits_per_dim"], rel=1e-5)
    assert test.mean() < 6.5, "nothing was learnt"
    calibration = Calibration.load(work / "density" / "calibration.npz")
    calibration.check(model)
    _, held = held_out(len(data.train_x), len(data.train_x) // 10, 0)
    found = bits_per_dim(model, data.images("train")[held])
    np.testing.assert_allclose(np.sort(found), calibration.scores["bits_per_dim"], rtol=1e-5)
    assert calibration.split == "valid"


def test_calibrate_gives_the_same_again(work, call, tmp_path):
    again = tmp_path / "density"
    core_models.save(core_models.load(work / "density"), again)
    n = len(load(str(work / "tiny.npz")).train_x) // 10
    status, out, _ = call("calibrate", "--density", again, "--data", work / "tiny.npz", "--validation", n)
    assert status == 0 and f"{n} held-out images" in out
    scores = [Calibration.load(folder / "calibration.npz").scores for folder in (again, work / "density")]
    np.testing.assert_allclose(scores[0]["bits_per_dim"], scores[1]["bits_per_dim"], rtol=1e-6)


def test_calibrate_takes_no_image_that_was_trained_on(work, call, tmp_path):
    shutil.copytree(work / "density", tmp_path / "all")
    config = yaml.safe_load((work / "density" / "config.yaml").read_text())
    (tmp_path / "all" / "config.yaml").write_text(yaml.safe_dump(config | {"validation": 0}))
    for density, more, words in (
        (work / "density", ["--validation", config["validation"] + 1], f"expected {config['validation']}"),
        (work / "density", ["--seed", 3], "--seed: expected 0"),
        (tmp_path / "all", [], "expected a run that held out training images"),
        ("zoo:pixel_cnn_fashion_mnist", [], "expected a run folder"),
    ):
        status, _, error = call("calibrate", "--data", work / "tiny.npz", "--density", density, *more)
        assert status == 2 and words in error and len(error.strip().splitlines()) == 1


def test_a_background_model_sees_mutated_images(work, call, tmp_path):
    given = ["train-density", "--data", work / "tiny.npz", "--out", tmp_path / "background", *DENSITY, *CPU]
    status, *_ = call(*given, "--mutation_rate", 0.5, "--training.epochs", 2)
    assert status == 0
    data = load(str(work / "tiny.npz"))
    noise = torch.randint(0, 256, (50, 1, 6, 6), generator=torch.Generator().manual_seed(0)) / 255
    background, density = core_models.load(tmp_path / "background"), core_models.load(work / "density")
    clean = data.images("test")[:50]
    gap = {m: bits_per_dim(m, noise).mean() - bits_per_dim(m, clean).mean() for m in (background, density)}
    assert gap[background] < 0.7 * gap[density]


def test_the_table_says_what_the_pieces_say(work, call, tmp_path):
    results = tmp_path / "results"
    titles = ["ResNet Normal", "ResNet Normal + PixelDefend (48)", "ResNet Normal + adaptive PixelDefend (48)"]
    status, out, error = call(*benchmark(work, results, "--rows", json.dumps(titles)))
    assert status == 0, error
    assert "9 % accuracy under BPDA" in out
    cells = {(c.row, c.column): c for c in read_cells(results, app="pixeldefend")}
    columns = [f"{c} 24" for c in ("Clean", "RAND", "FGSM", "BIM", "DeepFool", "CW", "Strongest", "Worst case")]
    assert set(cells) == {(row, column) for row in titles for column in columns}
    for row in titles:
        attacked = [cells[row, f"{a} 24"].value for a in ("RAND", "FGSM", "BIM", "DeepFool", "CW")]
        assert cells[row, "Strongest 24"].value == min(attacked)
        assert cells[row, "Worst case 24"].value <= min(attacked)
    data, model = load(str(work / "tiny.npz")), core_models.load(work / "density")
    net = core_models.load(work / "classifier_resnet_normal_tiny", Classifier)
    x, y = data.images("test")[:60], data.test_y[:60]
    with torch.no_grad():
        assert cells["ResNet Normal", "Clean 24"].value == pytest.approx(100 * (net(x).argmax(1) == y).double().mean())
        purified = purify(model, x, 48)
        assert cells[titles[1], "Clean 24"].value == pytest.approx(100 * (net(purified).argmax(1) == y).double().mean())
        threshold = np.quantile(Calibration.load(work / "density/calibration.npz").scores["bits_per_dim"], 0.9)
        kept = torch.from_numpy(bits_per_dim(model, x)) <= threshold
        shown = torch.where(kept.view(-1, 1, 1, 1), x, purified)
        assert cells[titles[2], "Clean 24"].value == pytest.approx(100 * (net(shown).argmax(1) == y).double().mean())
        for title, name in OBLIVIOUS.items():
            # a change made without a budget is clipped to it
            changed = attack(name, net, x, y, 255 if name in ("deepfool", "cw") else 24, seed=0, batch_size=250)
            changed = ((changed - x) * 255).round().clamp(-24, 24) / 255 + x
            value = 100 * (net(changed).argmax(1) == y).double().mean()
            assert cells["ResNet Normal", f"{title} 24"].value == pytest.approx(value), title
            value = 100 * (net(purify(model, changed, 48)).argmax(1) == y).double().mean()
            assert cells[titles[1], f"{title} 24"].value == pytest.approx(value), title
    assert cells["ResNet Normal", "BIM 24"].value < cells["ResNet Normal", "Clean 24"].value - 30
    # what stands is not measured again, and the command makes a cell again
    before = {path: path.read_text() for path in results.rglob("*.json")}
    status, out, _ = call(*benchmark(work, results, "--rows", json.dumps(titles)))
    assert status == 0 and "ResNet Normal, Clean 24: stands," in out and "%" not in out.split("2018)")[1]
    assert {path: path.read_text() for path in results.rglob("*.json")} == before
    assert "genapps pixeldefend benchmark" in cells["ResNet Normal", "BIM 24"].command
    assert "--rows '[\"ResNet Normal\"]'" in cells["ResNet Normal", "BIM 24"].command


def test_attacks_on_the_whole_defence_are_scored_on_it(work, call, tmp_path, monkeypatch):
    # what AutoAttack's 5,000 queries find is no matter of the table's, and takes a minute
    monkeypatch.setattr(torchattacks.AutoAttack, "forward", lambda own, *xy: torchattacks.FGSM(own.model, own.eps)(*xy))
    titles = [f"ResNet Normal + {purifying}PixelDefend (48)" for purifying in ("", "adaptive ")]
    titles += ["ResNet Adversarial FGSM + feature squeezing"]
    named = ["BPDA", "Square", "Detector-aware", "AutoAttack"]
    given = benchmark(work, tmp_path, "--rows", json.dumps(titles), "--attacks", json.dumps(named), "--images", 12)
    status, _, error = call(*given)
    assert status == 0, error
    cells = {(c.row, c.column): c for c in read_cells(tmp_path, app="pixeldefend")}
    assert set(cells) == {(row, f"{column} 24") for row in titles for column in [*named, "Worst case of all"]}
    assert cells[titles[0], "BPDA 24"].extra["images"] == 6
    assert cells[titles[0], "BPDA 24"].extra["settings"]["attack"]["steps"] == 4
    assert cells[titles[0], "BPDA 24"].extra["settings"]["defence"]["eps"] == 48
    assert cells[titles[0], "AutoAttack 24"].extra["images"] == 12
    hiding = cells[titles[1], "Detector-aware 24"]
    seen, default = hiding.extra["settings"], describe("detector-aware", 24, steps=4)
    variants = [variant(w) for w in HIDING_WEIGHTS]
    assert seen["attack"]["variants"] == variants == ["selective", "weight 0.2", "weight 1"]
    assert "weight" not in seen["attack"] and set(variants) <= set(hiding.extra)
    assert seen["attack"]["density"] == seen["defence"]["density"]
    assert hiding.config_hash == hash_of({**seen, "attack": default, "variants": variants})
    worst = cells[titles[1], "Worst case of all 24"]
    all_seen = worst.extra["settings"]
    assert "weight" not in all_seen["attacks"]["Detector-aware"]
    assert worst.config_hash == hash_of({**all_seen, "attacks": {**all_seen["attacks"], "Detector-aware": default}})
    assert cells[titles[0], "Detector-aware 24"].extra["settings"]["attack"] == default
    for row in titles:
        knowing = min(cells[row, f"{name} 24"].value for name in named[:3])
        assert cells[row, "Worst case of all 24"].value <= knowing
    data, model = load(str(work / "tiny.npz")), core_models.load(work / "density")
    nets = [core_models.load(work / f"classifier_resnet_{t}_tiny", Classifier).eval() for t in ("normal", "fgsm")]
    scores = Calibration.load(work / "density/calibration.npz").scores["bits_per_dim"]
    x, y = data.images("test")[:6], data.test_y[:6]
    rows = {
        titles[0]: Defended(Purifier(model, eps=48), nets[0]),
        titles[1]: Defended(Purifier(model, eps=48, threshold=float(np.quantile(scores, 0.9))), nets[0]),
        titles[2]: Defended(Purifier(model, eps=0), FeatureSqueezing(nets[1], 3)),
    }
    for title, target in rows.items():
        for name, told in (("BPDA", {"steps": 4}), ("Square", {"queries": 4})):
            changed = attack(name.lower(), target, x, y, 24, seed=0, batch_size=64, **told)
            kept = 100 * float(correct(target, changed, y).double().mean())
            assert cells[title, f"{name} 24"].value == pytest.approx(kept)
    withstands = torch.ones(6, dtype=torch.bool)
    for weight in HIDING_WEIGHTS:
        changed = attack("detector-aware", nets[0], x, y, 24, batch_size=50, density=model, weight=weight, steps=4)
        withstands &= correct(rows[titles[1]], changed, y)
    assert cells[titles[1], "Detector-aware 24"].value == pytest.approx(100 * float(withstands.double().mean()))


def test_the_store_tells_defences_and_seeds_apart(work, call, tmp_path):
    own = tmp_path / "work"
    shutil.copytree(work / "classifier_resnet_normal_tiny", own / "classifier_resnet_normal_tiny")
    given = benchmark(own, tmp_path / "results", "--attacks", '["Square"]', "--density", work / "density")
    given[given.index("--data") + 1] = work / "tiny.npz"
    kept = []
    for box, seed in ((48, 0), (16, 0), (48, 1)):
        row = json.dumps([f"ResNet Normal + PixelDefend ({box})"])
        status, _, error = call(*given, "--rows", row, "--eps_defend", box, "--seed", seed)
        assert status == 0, error
        found = [np.load(path)["key"] for path in (own / "store" / "attacked").iterdir()]
        kept.append(sum("knows the defence" in json.loads(str(key)) for key in found))
    assert kept == [1, 2, 3]


def test_the_likelihood_ratio_joins_the_tests_of_detection(work, call, tmp_path):
    out = tmp_path / "background"
    given = ["train-density", "--data", work / "tiny.npz", "--out", out, *DENSITY, *CPU, "--mutation_rate", "0.3"]
    assert call(*given, "--training.epochs", "2")[0] == 0
    asked = benchmark(work, tmp_path / "results", "--tables", "[detection]", "--knowing_images", 20)
    status, _, error = call(*asked, "--background", out)
    assert status == 0, error
    cells = {(c.row, c.column): c for c in read_cells(tmp_path / "results", app="pixeldefend")}
    assert f"--background {out}" in cells["ratio", "RAND 24"].command
    data = load(str(work / "tiny.npz"))
    density, background = core_models.load(work / "density"), core_models.load(out)
    clean = data.images("test")[:60]
    flipped = controls(clean, seed=0)["vertical flip"]
    ratio = [bits_per_dim(density, x) - bits_per_dim(background, x) for x in (clean, flipped)]
    expected = roc_auc_score([0] * 60 + [1] * 60, np.concatenate(ratio))
    assert cells["ratio", "vertical flip"].value == pytest.approx(expected)
    assert cells["ratio", "vertical flip"].value != cells["likelihood", "vertical flip"].value


def test_the_store_tells_versions_of_the_code_apart(work, call, tmp_path, monkeypatch):
    own = tmp_path / "work"
    shutil.copytree(work / "classifier_resnet_normal_tiny", own / "classifier_resnet_normal_tiny")
    row = json.dumps(["ResNet Normal + PixelDefend (48)"])
    given = benchmark(own, tmp_path / "results", "--attacks", '["FGSM"]', "--density", work / "density", "--rows", row)
    given[given.index("--data") + 1] = work / "tiny.npz"

    def kept(kind):
        return {path: path.stat().st_mtime_ns for path in (own / "store" / kind).iterdir()}

    assert call(*given)[0] == 0
    first = {kind: kept(kind) for kind in ("attacked", "purified")}
    for path in [*first["attacked"], *first["purified"]]:
        key = json.loads(str(np.load(path)["key"]))
        assert "version" not in key and path.stem == hash_of(key)
    # measured again from what is there, and from nothing that another version of an attack left
    assert call(*given, "--again", "true")[0] == 0
    assert {kind: kept(kind) for kind in first} == first
    monkeypatch.setitem(STORE_VERSIONS, "attacked", 2)
    assert call(*given, "--again", "true")[0] == 0
    (new,) = set(kept("attacked")) - set(first["attacked"])
    assert json.loads(str(np.load(new)["key"]))["version"] == 2
    assert first["attacked"].items() <= kept("attacked").items() and kept("purified") == first["purified"]


def test_the_tables_beside_it(work, call, tmp_path):
    asked = benchmark(work, tmp_path, "--tables", "[density,detection,sanity]", "--knowing_images", 40)
    status, _, error = call(*asked)
    assert status == 0, error
    cells = {(c.table, c.row, c.column): c for c in read_cells(tmp_path, app="pixeldefend")}
    density = cells["density", "PixelCNNPlusPlus", "tiny test"]
    assert density.unit == "bits/dim" and density.better == "lower"
    assert density.interval[0] < density.value < density.interval[1]
    assert cells["detection", "likelihood", "uniform noise"].value > 0.95
    assert cells["detection", "likelihood", "RAND 24"].value > 0.6
    assert {test for table, test, _ in cells if table == "detection"} == {"likelihood", "typicality", "complexity"}
    assert cells["detection", "typicality", "uniform noise"].value > 0.95
    data, model = load(str(work / "tiny.npz")), core_models.load(work / "density")
    clean = data.images("test")[:60]
    bits = [bits_per_dim(model, x) - compressed_bits(x) / 36 for x in (clean, controls(clean, seed=0)["uniform noise"])]
    expected = roc_auc_score([0] * 60 + [1] * 60, np.concatenate(bits))
    assert cells["detection", "complexity", "uniform noise"].value == pytest.approx(expected)
    hiding = [cell for (table, _, column), cell in cells.items() if table == "detection" and "Detector" in column]
    assert hiding and all(1 <= cell.extra["fooled"] <= cell.extra["attacked"] == 40 for cell in hiding)
    sanity = {column: c.value for (table, _, column), c in cells.items() if table == "sanity"}
    steps = [sanity[f"BPDA 24, {n} steps"] for n in (5, 20, 50)]
    assert steps == sorted(steps, reverse=True)
    assert sanity["BPDA 255, 50 steps"] == 0 and {"CW 24, carried over", "Detector-aware 24, selective"} <= set(sanity)


def test_attack_writes_8_bit_images_in_the_box(work, call, tmp_path):
    given = ["attack", "--data", work / "tiny.npz", "--classifier", work / "classifier_resnet_normal_tiny"]
    given += ["--eps", 24, "--images", 20, "--device", "cpu", "--threads", 1]
    status, out, error = call(*given, "--attack", "bim", "--out", tmp_path / "bim.npz")
    assert status == 0, error
    with np.load(tmp_path / "bim.npz") as found:
        assert found["x"].dtype == np.uint8 and found["x"].shape == (20, 1, 6, 6)
        assert np.abs(found["x"].astype(int) - found["clean"]).max() == 24
    summary = json.loads((tmp_path / "bim.json").read_text())
    assert summary["steps"] == 28 and summary["accuracy_under_attack_percent"] < summary["accuracy_percent"]
    more = ["--attack", "bpda", "--parameters", '{"steps": 2}', "--out", tmp_path / "bpda.npz"]
    status, out, error = call(*given, *more, "--density", work / "density")
    assert status == 0 and "9 % accuracy" in out
    status, _, error = call(*given, *more)
    assert status == 2 and "--density" in error and len(error.strip().splitlines()) == 1


def test_attack_takes_labels_as_the_classifier_counts_its_classes(work, call, tmp_path):
    """A file of two of ten classes numbers them 0 and 1."""
    with np.load(work / "tiny.npz") as found:
        own = np.isin(found["test_y"], (3, 8))
        x, y = found["test_x"][own], found["test_y"][own]
    np.savez(tmp_path / "some.npz", test_x=x, test_y=y, train_x=x, train_y=y)
    given = ["--classifier", work / "classifier_resnet_normal_tiny", "--data", tmp_path / "some.npz", "--device", "cpu"]
    assert call("attack", *given, "--attack", "rand", "--eps", 1, "--out", tmp_path / "out.npz")[0] == 0
    net = core_models.load(work / "classifier_resnet_normal_tiny")
    right = net(torch.from_numpy(x).float() / 255).argmax(1).numpy() == y
    assert right.mean() > 0.3  # of two classes numbered 0 and 1 none would be right
    assert json.loads((tmp_path / "out.json").read_text())["accuracy_percent"] == pytest.approx(100 * right.mean())
    with np.load(tmp_path / "out.npz") as found:
        assert found["y"].tolist() == y.tolist()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--rows", '["ResNet Norml"]'], "did you mean ResNet Normal"),
        (["--attacks", '["FGMS"]'], "did you mean FGSM"),
        (["--eps", "[300]"], "from 1 to 255 levels, got 300"),
        (["--eps", "8/255"], "budgets are in 8-bit levels, write [8]"),
        (["--images", "100000"], "test images, got 100000"),
        (["--knowing_images", "61"], "from 1 to the 60 images"),
        (["--adaptive_quantile", "1.5"], "between 0 and 1"),
        (["--rows", '["VGG Normal"]'], "genapps pixeldefend train-classifier --config pixeldefend/classifier_vgg"),
        (["--density", "nowhere"], "expected a model in nowhere"),
    ],
)
def test_mistakes_are_one_line(work, call, tmp_path, more, message):
    status, _, error = call(*benchmark(work, tmp_path, *more))
    assert (status, len(error.strip().splitlines())) == (2, 1)
    assert message in error


def test_a_cell_of_other_settings_is_replaced_only_by_again(work, call, tmp_path):
    given = benchmark(work, tmp_path, "--rows", '["ResNet Normal"]', "--attacks", '["FGSM"]')
    assert call(*given)[0] == 0
    (before,) = read_cells(tmp_path, app="pixeldefend")
    status, out, error = call(*given, "--images", 20)
    assert status == 0, error
    assert "ResNet Normal, FGSM 24: one of other settings stands" in out and "--again true" in out
    assert read_cells(tmp_path, app="pixeldefend") == [before]
    assert call(*given, "--images", 20, "--again", "true")[0] == 0
    (cell,) = read_cells(tmp_path, app="pixeldefend")
    assert cell.extra["images"] == 20


def test_an_attack_that_cannot_be_written_is_not_begun(work, call, tmp_path):
    (tmp_path / "file").touch()
    given = ["attack", "--data", work / "tiny.npz", "--classifier", work / "classifier_resnet_normal_tiny"]
    status, out, error = call(*given, "--out", tmp_path / "file" / "x.npz")
    assert status == 2 and "could not write" in error and len(error.strip().splitlines()) == 1
    assert "levels, on" not in out
    status, _, error = call("demo", "--out", tmp_path / "file")
    assert status == 2 and "could not write" in error and len(error.strip().splitlines()) == 1


def test_a_model_that_cannot_classify_is_refused(work, call, tmp_path):
    np.savez(tmp_path / "images.npz", x=np.zeros((2, 1, 6, 6), dtype=np.uint8))
    given = ["purify", "--input", tmp_path / "images.npz", "--density", work / "density", "--out", tmp_path / "out"]
    status, _, error = call(*given, "--classifier", "zoo:vae_mnist")
    assert status == 2 and "expected a classifier, got VAE" in error
    assert not (tmp_path / "out").exists()


def test_a_cell_counts_where_the_attack_was_as_strong_as_published(work, call, tmp_path, monkeypatch):
    def cells_with(theirs):
        facts = [
            Published("pixeldefend", "tiny", "ResNet Normal", f"{t} 24", theirs, None, "%", "higher", "run", "")
            for t in OBLIVIOUS
        ]
        monkeypatch.setattr("apps.pixeldefend.measuring.published", lambda app: facts)
        results = tmp_path / str(theirs)
        status, _, error = call(*benchmark(work, results, "--rows", '["ResNet Normal + PixelDefend (48)"]'))
        assert status == 0, error
        return {cell.column.removesuffix(" 24"): cell.extra for cell in read_cells(results, app="pixeldefend")}

    low, high = cells_with(-1.0), cells_with(100.0)
    for title in (*OBLIVIOUS, "Strongest"):
        assert low[title]["counts"] is False and high[title]["counts"] is True, title
    assert low["Strongest"]["undefended"] == min(low[title]["undefended"] for title in OBLIVIOUS)
    assert "counts" not in low["Clean"]
