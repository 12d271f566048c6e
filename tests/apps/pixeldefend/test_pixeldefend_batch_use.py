"""The verbs detect and purify over folders and .npz files, through the command line: what they write, and resuming."""

import gc
import json

import numpy as np
import pytest
import torch
from batch_targets import SHAPE, Bright, Smooth, attacked, column, draws, files_of, png_folder, rows_of
from PIL import Image

import core_models
from apps.common.streaming import Records
from apps.pixeldefend import purifying as purify_module
from apps.pixeldefend.detection import Calibration, bits_per_dim, p_value, scores_of, threshold_at
from apps.pixeldefend.purification import purify


def test_detect_writes_what_the_functions_give_and_says_what_it_was_calibrated_with(tmp_path, call, models):
    x, levels = attacked(10)
    np.savez(tmp_path / "in.npz", x=levels)
    status, out, error = call(
        "detect", tmp_path / "in.npz", tmp_path / "out", "--classifier", models / "classifier", "--batch_size", 4
    )
    assert status == 0, error
    calibration = Calibration.load(models / "density" / "calibration.npz")
    scores = scores_of(Smooth(), x, codecs=calibration.codecs)
    rows = rows_of(tmp_path / "out")
    assert [row["image"] for row in rows] == [str(i) for i in range(10)]
    for name, test in (("p_value", "likelihood"), ("p_typicality", "typicality"), ("p_complexity", "complexity")):
        np.testing.assert_allclose(column(rows, name), p_value(test, scores, calibration), rtol=1e-5)
    np.testing.assert_allclose(column(rows, "bits_per_dim"), scores["bits_per_dim"], atol=1e-5)
    np.testing.assert_allclose(column(rows, "complexity"), scores["complexity"], atol=1e-5)
    np.testing.assert_array_equal(column(rows, "prediction", int), Bright()(x).argmax(1))
    np.testing.assert_array_equal(column(rows, "suspicious", int), column(rows, "p_value") <= 0.05)
    suspicious = column(rows, "suspicious", int).sum()
    assert suspicious > 5 and {row["ratio"] for row in rows} == {""}
    assert "calibration: 99 held-out images (test split) of toy" in out
    cut = threshold_at(0.05, calibration.scores["bits_per_dim"])
    assert f"{suspicious} of 10 images are suspicious" in out and f"bits_per_dim above {cut:.4f} bits/dim" in out
    assert "images/s" in out and "detecting: image 10 of 10" in error and "images/s" in error
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["images"], summary["unreadable"], summary["suspicious"]) == (10, 0, suspicious)


def test_detect_takes_its_decision_from_the_test_that_is_named(tmp_path, call, models, refused):
    np.savez(tmp_path / "in.npz", x=np.full((3, 5, 4), 128, np.uint8))  # likelier than anything drawn
    np.savez(tmp_path / "clean.npz", x=(draws(300, 2) * 255).round().byte().numpy())
    core_models.save(Smooth(0.01), tmp_path / "background")
    for test, alarms in (("likelihood", "0"), ("typicality", "1")):
        assert call("detect", tmp_path / "in.npz", tmp_path / test, "--test", test)[0] == 0
        assert {row["suspicious"] for row in rows_of(tmp_path / test)} == {alarms}
    given = ["--background", tmp_path / "background"]
    assert "made without one" in refused("detect", tmp_path / "in.npz", tmp_path / "no", *given)
    given += ["--calibration_data", tmp_path / "clean.npz", "--calibration_split", "train", "--test", "ratio"]
    status, out, _ = call("detect", tmp_path / "in.npz", tmp_path / "ratio", *given, "--calibration_images", 50)
    assert status == 0 and "calibration: 50 training images of clean" in out and "overfitted" in out
    rows = rows_of(tmp_path / "ratio")
    x = torch.full((3, *SHAPE), 128) / 255
    np.testing.assert_allclose(
        column(rows, "ratio"), bits_per_dim(Smooth(), x) - bits_per_dim(Smooth(0.01), x), atol=1e-5
    )
    assert len(Calibration.load(tmp_path / "ratio" / "calibration.npz")) == 50
    # gone on with, the calibration is read and not computed again
    (tmp_path / "ratio" / "summary.json").unlink()
    before = (tmp_path / "ratio" / "calibration.npz").stat().st_mtime_ns
    assert (
        call("detect", tmp_path / "in.npz", tmp_path / "ratio", *given, "--calibration_images", 50, "--resume")[0] == 0
    )
    assert (tmp_path / "ratio" / "calibration.npz").stat().st_mtime_ns == before


def test_a_rate_too_small_for_the_calibration_is_said(tmp_path, call):
    np.savez(tmp_path / "in.npz", x=np.tile(np.array([0, 255], np.uint8), (2, 5, 2)))
    out = call("detect", tmp_path / "in.npz", tmp_path / "out", "--false_positive_rate", 0.001)[1]
    assert "no p-value can be as small as 0.001: 99 images give 0.01 at the least" in out
    assert "0 of 2 images are suspicious" in out
    # the smallest p-value there is, at the rate that it is
    assert "2 of 2 images" in call("detect", tmp_path / "in.npz", tmp_path / "at", "--false_positive_rate", 0.01)[1]


@pytest.mark.parametrize("form", ["png", "npz"])
def test_purify_writes_what_the_function_gives_under_the_names_of_the_input(tmp_path, call, models, form):
    x, levels = attacked(7)
    folder = png_folder(tmp_path / "in", levels)
    status, out, error = call(
        "purify", folder, tmp_path / "out", "--classifier", models / "classifier", "--eps", 20, "--format", form,
        "--batch_size", 3,
    )  # fmt: skip
    assert status == 0, error
    order = [0, 2, 4, 6, 1, 3, 5]
    expected = purify(Smooth().eval(), x, 20)
    names = [f"{'even' if i % 2 == 0 else 'odd'}/{i}.png" for i in order]
    if form == "png":
        read = np.stack([np.asarray(Image.open(tmp_path / "out" / "purified" / name)) for name in names])[:, None]
        assert len(list((tmp_path / "out" / "purified").rglob("*.*"))) == 7
    else:
        with np.load(tmp_path / "out" / "purified.npz") as loaded:
            read = loaded["x"]
            assert loaded["names"].tolist() == names
    np.testing.assert_array_equal(read, (expected[order] * 255).round())
    rows = rows_of(tmp_path / "out")
    change = np.abs(read.astype(int) - levels[order].astype(int)).reshape(7, -1)
    assert [row["image"] for row in rows] == names and {row["status"] for row in rows} == {"purified"}
    np.testing.assert_array_equal(column(rows, "largest_change", int), change.max(1))
    np.testing.assert_array_equal(column(rows, "pixels_changed", int), (change > 0).sum(1))
    assert 0 < change.max() <= 20 and {row["eps"] for row in rows} == {"20"}
    calibration = Calibration.load(models / "density" / "calibration.npz")
    for images, suffix in ((x, ""), (expected, "_after")):
        bits = bits_per_dim(Smooth(), images[order])
        np.testing.assert_allclose(column(rows, f"bits_per_dim{suffix}"), bits, atol=1e-5)
        p = p_value("likelihood", {"bits_per_dim": bits}, calibration)
        np.testing.assert_allclose(column(rows, f"p_value{suffix}"), p, rtol=1e-5)
        np.testing.assert_array_equal(column(rows, f"prediction{suffix}", int), Bright()(images[order]).argmax(1))
    assert "9 % accuracy under BPDA" in out and "7 images purified within 20 levels" in out


def test_pixels_of_three_channels_count_once(tmp_path, call):
    levels = np.random.default_rng(0).integers(0, 256, (4, 5, 4, 3), dtype=np.uint8)
    np.savez(tmp_path / "in.npz", x=levels)
    core_models.save(Smooth(channels=3), tmp_path / "colour")
    status, _, error = call(
        "purify", tmp_path / "in.npz", tmp_path / "out", "--density", tmp_path / "colour", "--eps", 1, "--format", "png"
    )
    assert status == 0, error
    paths = [tmp_path / "out" / "purified" / f"00000{i}.png" for i in range(4)]
    read = np.stack([np.asarray(Image.open(path)) for path in paths])
    x = torch.from_numpy(levels).permute(0, 3, 1, 2) / 255
    np.testing.assert_array_equal(read, (purify(Smooth(channels=3).eval(), x, 1) * 255).round().permute(0, 2, 3, 1))
    changed = (read != levels).any(3).reshape(4, -1).sum(1)
    np.testing.assert_array_equal(column(rows_of(tmp_path / "out"), "pixels_changed", int), changed)
    assert (read != levels).reshape(4, -1).sum(1).min() > changed.max()


def test_adaptive_purification_leaves_likely_images_alone(tmp_path, call, models):
    x = torch.cat([attacked(6)[0], draws(6, 9)])
    np.savez(tmp_path / "in.npz", x=x.numpy(), y=np.arange(12))
    cut = threshold_at(0.1, Calibration.load(models / "density" / "calibration.npz").scores["bits_per_dim"])
    high = bits_per_dim(Smooth(), x) > cut
    assert 3 < high.sum() < 12
    out = call("purify", tmp_path / "in.npz", tmp_path / "rate", "--false_positive_rate", 0.1)[1]
    assert f"adaptive: images of at most {cut:.4f} bits/dim are left as they are, exceeded by 0.1 of clean" in out
    assert call("purify", tmp_path / "in.npz", tmp_path / "cut", "--threshold", repr(cut))[0] == 0
    rows = rows_of(tmp_path / "rate")
    assert rows == rows_of(tmp_path / "cut")
    assert [row["status"] for row in rows] == ["purified" if own else "kept" for own in high]
    assert [row["eps"] for row in rows] == ["32" if own else "0" for own in high]
    with np.load(tmp_path / "rate" / "purified.npz") as loaded:
        assert loaded["x"].dtype == np.float32 and loaded["y"].tolist() == list(range(12))
        np.testing.assert_array_equal(loaded["x"][~high], x[~high])
        np.testing.assert_array_equal(loaded["x"][high], purify(Smooth().eval(), x[high], 32))


@pytest.mark.parametrize("form", ["png", "npz"])
@pytest.mark.parametrize("stop", ["in the middle of a batch", "in the middle of a row", "after the last row"])
def test_a_stopped_purify_goes_on_to_the_files_of_one_that_was_not(tmp_path, call, monkeypatch, form, stop):
    folder = png_folder(tmp_path / "in", attacked(11)[1])
    (folder / "odd" / "3.png").write_bytes(b"torn")
    options = ["--eps", 16, "--format", form, "--batch_size", 3]
    assert call("purify", folder, tmp_path / "whole", *options)[0] == 1
    done, append, calls = [], Records.append, [0]

    def counted(model, x, *rest, **more):
        if stop == "in the middle of a batch" and len(done) == calls[0]:
            raise KeyboardInterrupt
        done.append(len(x))
        return purify(model, x, *rest, **more)

    def torn(records, rows):
        append(records, rows)
        if stop == "in the middle of a row" and len(done) > calls[0]:
            data = records.path.read_bytes()
            records.path.write_bytes(data[: len(data) - 9])
            raise KeyboardInterrupt

    def last(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(purify_module, "purify", counted)
    monkeypatch.setattr(Records, "append", torn)
    for calls[0] in (1, 2):  # stopped twice
        with monkeypatch.context() as patch:
            if stop == "after the last row":
                patch.setattr(purify_module, "write_json", last)
            again = ["--resume"] if calls[0] == 2 else []
            status, _, error = call("purify", folder, tmp_path / "out", *options, *again)
        assert status == 130, error
        if stop == "in the middle of a batch":
            assert f"interrupted at image {3 * calls[0]} of 11" in error and "--resume goes on" in error
        assert not (tmp_path / "out" / "summary.json").exists()
    stop = ""
    if form == "png":  # as a kill in the middle of a file leaves it
        (tmp_path / "out" / "purified" / "even" / ".8.png.x1y2z3.png").write_bytes(b"half")
    assert call("purify", folder, tmp_path / "out", *options, "--resume")[0] == 1
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")
    # rows that stood were not computed again
    assert sum(done) <= 10 + 3 * 2
    before = files_of(tmp_path / "out")
    status, out, _ = call("purify", folder, tmp_path / "out", *options, "--resume")
    assert status == 1 and "nothing left to do" in out
    assert files_of(tmp_path / "out") == before


def test_a_pass_stopped_in_its_first_batch_speaks_of_no_rows(tmp_path, call, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    np.savez(tmp_path / "in.npz", x=attacked(3)[1])
    with monkeypatch.context() as patch:
        patch.setattr(purify_module, "purify", stopped)
        status, _, error = call("purify", tmp_path / "in.npz", tmp_path / "out")
    assert status == 130 and "interrupted in the first batch, of which nothing is kept" in error
    assert "images.csv" not in error and not (tmp_path / "out" / "images.csv").exists()
    assert call("purify", tmp_path / "in.npz", tmp_path / "out", "--resume")[0] == 0


def test_a_row_torn_by_hand_is_mended(tmp_path, call):
    np.savez(tmp_path / "in.npz", x=attacked(8)[1])
    assert call("detect", tmp_path / "in.npz", tmp_path / "out", "--batch_size", 3)[0] == 0
    whole = files_of(tmp_path / "out")
    path = tmp_path / "out" / "images.csv"
    for cut in range(0, path.stat().st_size, 90):
        path.write_bytes(path.read_bytes()[:cut])
        (tmp_path / "out" / "summary.json").unlink()
        assert call("detect", tmp_path / "in.npz", tmp_path / "out", "--batch_size", 3, "--resume")[0] == 0
        assert files_of(tmp_path / "out") == whole


@pytest.mark.parametrize("ended", [True, False])
def test_images_that_have_gone_or_were_damaged_are_made_again(tmp_path, call, monkeypatch, ended):
    folder, out = png_folder(tmp_path / "in", attacked(11)[1]), tmp_path / "out"
    (folder / "odd" / "3.png").write_bytes(b"torn")
    assert call("purify", folder, out, "--batch_size", 3)[0] == 1
    whole, computed = files_of(out), []

    def counted(model, x, *rest, **more):
        computed.append(len(x))
        return purify(model, x, *rest, **more)

    monkeypatch.setattr(purify_module, "purify", counted)
    paths = sorted((out / "purified").rglob("*.png"))
    data = {path: path.read_bytes() for path in paths}
    spoiled = data[paths[5]][:50] + b"?" + data[paths[5]][51:]
    # emptied, cut short, altered inside, and gone: of two batches, the others are left alone
    for torn in ({0: b""}, {0: data[paths[0]][:-5], 5: spoiled}, {1: data[paths[1]][:40]}, {5: None}):
        computed.clear()
        for place, content in torn.items():
            paths[place].unlink()
            if content is not None:
                paths[place].write_bytes(content)
        if not ended:
            (out / "summary.json").unlink()
        status, text, error = call("purify", folder, out, "--batch_size", 3, "--resume")
        assert status == 1 and "missing or damaged, and are made again" in error
        assert computed == [3] * len(torn) and f"{3 * len(torn)} images in" in text
        assert files_of(out) == whole
    assert "nothing left to do" in call("purify", folder, out, "--batch_size", 3, "--resume")[1]


def test_an_npz_that_has_gone_or_was_damaged_is_made_again(tmp_path, call):
    source, out = tmp_path / "in.npz", tmp_path / "out"
    np.savez(source, x=attacked(7)[1])
    given = ["purify", source, out, "--batch_size", 3]
    assert call(*given)[0] == 0
    whole, path = files_of(out), out / "purified.npz"
    other = tmp_path / "other.npz"
    np.savez(other, x=attacked(6)[1])
    for content in (b"", whole["purified.npz"][:-9], other.read_bytes(), None):
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        status, _, error = call(*given, "--resume")
        assert status == 0 and "made again" in error
        assert files_of(out) == whole


def test_rows_that_have_gone_are_made_again(tmp_path, call):
    np.savez(tmp_path / "in.npz", x=attacked(7)[1])
    for verb in ("detect", "purify"):
        given = [verb, tmp_path / "in.npz", tmp_path / verb, "--batch_size", 3]
        assert call(*given)[0] == 0
        whole, path = files_of(tmp_path / verb), tmp_path / verb / "images.csv"
        for content in (b"", path.read_bytes()[:-9]):
            path.write_bytes(content)
            assert call(*given, "--resume")[0] == 0
            assert files_of(tmp_path / verb) == whole


def test_a_folder_of_other_settings_or_images_is_not_gone_on_with(tmp_path, call, refused, models):
    source = tmp_path / "in.npz"
    np.savez(source, x=attacked(4)[1])
    assert call("purify", source, tmp_path / "out")[0] == 0
    assert "already holds a run: add --resume" in refused("purify", source, tmp_path / "out")
    resume = [source, tmp_path / "out", "--resume"]
    assert "begun with eps 32, now it is 8" in refused("purify", *resume, "--eps", 8)
    assert "begun with verb purify, now it is detect" in refused("detect", *resume)
    assert "begun with batch_size 64" in refused("purify", *resume, "--batch_size", 2)
    assert "begun with classifier None" in refused("purify", *resume, "--classifier", models / "classifier")
    np.savez(source, x=attacked(4, 6)[1])
    assert "begun with crc" in refused("purify", *resume)


@pytest.mark.parametrize("verb", ["detect", "purify"])
def test_no_more_tensors_live_at_the_last_batch_than_at_the_first(tmp_path, call, monkeypatch, models, verb):
    alive, log_prob = [], Smooth.log_prob

    def watched(self, x, y=None):
        alive.append(sum(t.nbytes for t in gc.get_objects() if issubclass(type(t), torch.Tensor)))
        return log_prob(self, x)

    monkeypatch.setattr(Smooth, "log_prob", watched)
    np.savez(tmp_path / "in.npz", x=attacked(90)[1])
    given = ["--batch_size", 10, "--classifier", models / "classifier"]
    alive.clear()
    assert call(verb, tmp_path / "in.npz", tmp_path / "out", *given)[0] == 0
    step = len(alive) // 9
    assert len(alive) == 9 * step and alive[-step:] == alive[step : 2 * step]
