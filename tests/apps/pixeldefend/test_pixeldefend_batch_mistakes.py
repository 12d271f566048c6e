"""The verbs detect and purify, given what they can't work on: each mistake is one line."""

import json
import math
import re

import numpy as np
import pytest
import torch
from batch_targets import SHAPE, Bright, Smooth, attacked, draws, png_folder, rows_of
from PIL import Image

import core_models
from apps.pixeldefend.detection import calibrate


def test_unreadable_files_are_named_skipped_and_counted_and_the_status_is_1(tmp_path, call):
    folder = png_folder(tmp_path / "in", attacked(9)[1])
    data = (folder / "even" / "4.png").read_bytes()
    (folder / "even" / "4.png").write_bytes(data[:50])
    (folder / "odd" / "1.png").write_bytes(b"no image at all")
    for verb in ("detect", "purify"):
        status, _, error = call(verb, folder, tmp_path / verb, "--batch_size", 2)
        assert status == 1
        assert "skipped 'even/4.png'" in error and "skipped 'odd/1.png'" in error
        assert "2 of 9 images could not be read or don't fit the model, the first is even/4.png" in error
        rows = rows_of(tmp_path / verb)
        assert len(rows) == 9
        assert [row["image"] for row in rows if row["status"] == "unreadable"] == ["even/4.png", "odd/1.png"]
        assert json.loads((tmp_path / verb / "summary.json").read_text())["unreadable"] == 2
    assert len(list((tmp_path / "purify" / "purified").rglob("*.png"))) == 7
    for path in folder.rglob("*.png"):
        path.write_bytes(b"")
    assert call("purify", folder, tmp_path / "none", "--format", "npz")[0] == 1
    with np.load(tmp_path / "none" / "purified.npz") as loaded:
        assert loaded["x"].shape == (0, *SHAPE)


def test_a_few_images_that_do_not_fit_are_named_skipped_and_counted(tmp_path, call, refused):
    levels = attacked(9)[1]
    folder = png_folder(tmp_path / "in", levels)
    odd = {
        "even/0": (levels[0, 0].astype(np.uint16) << 8, "expected 8 bits per channel"),
        "even/6": (np.stack([levels[6, 0]] * 3, -1), "expected a grey image"),
        "odd/1": (levels[1, 0][:, :3], "expected an image of 5 x 4 pixels, as the model was trained on, got 5 x 3"),
    }
    for name, (array, _) in odd.items():
        Image.fromarray(array).save(folder / f"{name}.png")
    (folder / "odd" / "3.png").write_bytes(b"")
    for verb in ("detect", "purify"):
        status, _, error = call(verb, folder, tmp_path / verb, "--batch_size", 2)
        assert status == 1
        for name, (_, why) in odd.items():
            assert any(f"skipped '{name}.png'" in line and why in line for line in error.splitlines()), name
        assert "4 of 9 images could not be read or don't fit the model, the first is even/0.png" in error
        skipped = [row["image"] for row in rows_of(tmp_path / verb) if row["status"] == "unreadable"]
        assert skipped == ["even/0.png", "even/6.png", "odd/1.png", "odd/3.png"]
        assert json.loads((tmp_path / verb / "summary.json").read_text())["unreadable"] == 4
    fits = sorted(path.name for path in (tmp_path / "purify" / "purified").rglob("*.png"))
    assert fits == ["2.png", "4.png", "5.png", "7.png", "8.png"]
    # once the others are no more than they, the folder is of other images
    for name in ("odd/5", "odd/7"):
        (folder / f"{name}.png").unlink()
    for verb in ("detect", "purify"):
        message = refused(verb, folder, tmp_path / f"{verb} again")
        assert "3 of the 6 images in" in message and "even/0.png: expected 8 bits per channel" in message
        assert not (tmp_path / f"{verb} again").exists()


def test_wrong_arguments_are_one_line_each(tmp_path, refused, models, call):
    source = tmp_path / "in.npz"
    np.savez(source, x=attacked(2)[1])
    given = [source, tmp_path / "out"]
    (tmp_path / "empty").mkdir()
    assert "found none" in refused("detect", tmp_path / "empty", tmp_path / "out")
    assert "found nothing at" in refused("purify", tmp_path / "gone", tmp_path / "out")
    for eps in (-1, 256):
        assert f"--eps: expected levels from 0 to 255, got {eps}" in refused("purify", *given, "--eps", eps)
    for eps in ("8/255", "0.0314"):
        assert f"--eps: expected int, got '{eps}': budgets are in 8-bit levels, write 8" in refused(
            "purify", *given, "--eps", eps
        )
    assert "got both: give one" in refused("purify", *given, "--threshold", 3, "--false_positive_rate", 0.1)
    assert "rate from 0 to 1, got 2" in refused("detect", *given, "--false_positive_rate", 2)
    assert "rate from 0 to 1, got 2" in refused("purify", *given, "--false_positive_rate", 2)
    assert "--test likelihood, got --test typicality" in refused(
        "detect", *given, "--threshold", 3, "--test", "typicality"
    )
    assert "give --background" in refused("detect", *given, "--test", "ratio")
    assert "batch_size: expected 1 or more" in refused("detect", *given, "--batch_size", 0)
    assert "--threads: expected 1 or more" in refused("detect", *given, "--threads", 0)
    assert "expected auto, cpu" in refused("detect", *given, "--device", "tpu")
    assert "expected a classifier, got the density" in refused("detect", *given, "--classifier", models / "density")
    core_models.save(Bright([3, 5, 4]), tmp_path / "colour")
    assert "got one of (3, 5, 4)" in refused("detect", *given, "--classifier", tmp_path / "colour")
    assert "exact likelihood, got Bright" in refused("detect", *given, "--density", models / "classifier")
    assert "autoregressive model, such as" in refused("purify", *given, "--density", models / "classifier")
    folder = png_folder(tmp_path / "pictures", attacked(2)[1])
    assert "expected --out outside of the images" in refused("purify", folder, folder / "out")
    np.savez(tmp_path / "bits.npz", x=attacked(2)[1] // 128)
    for verb in ("detect", "purify"):
        assert "x: expected integers 0..255, got only 0 and 1" in refused(verb, tmp_path / "bits.npz", tmp_path / "out")
    (tmp_path / "file").write_text("")
    assert "expected a folder for --out" in refused("detect", source, tmp_path / "file")
    assert not (tmp_path / "out" / "images.csv").exists()


def test_a_calibration_is_asked_for_and_one_of_other_weights_refused(tmp_path, refused, call):
    source, out = tmp_path / "in.npz", tmp_path / "out"
    np.savez(source, x=attacked(2)[1])
    core_models.save(Smooth(0.2), tmp_path / "other")
    other = ["--density", tmp_path / "other"]
    assert "found none beside the weights" in refused("detect", source, out, *other)
    assert "found none beside the weights" in refused("purify", source, out, *other, "--false_positive_rate", 0.1)
    calibrate(Smooth(), draws(9, 1), data="toy", split="test").save(tmp_path / "made.npz")
    assert "got one of others" in refused("detect", source, out, *other, "--calibration", tmp_path / "made.npz")
    both = ["--calibration", tmp_path / "made.npz", "--calibration_data", "digits"]
    assert "got both" in refused("detect", source, out, *both)
    assert "expected images of (1, 5, 4)" in refused("detect", source, out, "--calibration_data", "digits")
    status, text, _ = call("purify", source, out, *other)
    assert status == 0 and "calibration: none, so no p-values" in text
    assert {row["p_value"] for row in rows_of(out)} == {""}
    assert call("detect", source, tmp_path / "cut", *other, "--threshold", 0)[0] == 0
    assert {row["suspicious"] for row in rows_of(tmp_path / "cut")} == {"1"}


@pytest.mark.parametrize(
    "answer,message",
    [
        (lambda x: x[:, 0, 0, 0], r"returns logits \(2, classes\), got torch.float32 \(2,\)"),
        (lambda x: "cat", "got str"),
        (lambda x: torch.zeros(2, 5), "logits of 2 classes, as the classifier says, got 5"),
        (lambda x: torch.full((2, 2), math.nan), "got NaN"),
    ],
)
def test_a_classifier_that_returns_no_logits_is_refused(tmp_path, refused, models, monkeypatch, answer, message):
    np.savez(tmp_path / "in.npz", x=attacked(2)[1])
    monkeypatch.setattr(Bright, "forward", lambda self, x: answer(x))
    assert re.search(
        message, refused("detect", tmp_path / "in.npz", tmp_path / "out", "--classifier", models / "classifier")
    )
