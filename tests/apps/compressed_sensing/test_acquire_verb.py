"""`acquire` through the command line."""

import numpy as np
import pytest
import torch
from PIL import Image

from apps.compressed_sensing.measuring import recipe_of
from apps.compressed_sensing.operators import build_operator
from core_models.data import load


def arrays_of(path):
    with np.load(path, allow_pickle=False) as loaded:
        return {name: loaded[name] for name in loaded.files}


@pytest.mark.parametrize("name", ["gaussian", "bernoulli", "dct", "fourier", "mask", "blur", "super-resolution"])
def test_the_recipe_in_the_file_makes_the_operator_again(tmp_path, call, name):
    own = [] if name in ("blur", "super-resolution") else ["--m", 6]
    shown = ["--operator", name, *own, "--seed", 9, "--scaling", "isometric", "--width", 0.7, "--factor", 4]
    assert call("acquire", "--input", "digits", "--number", 5, "--out", "y.npz", *shown, "--keep_signals")[0] == 0
    found = arrays_of(tmp_path / "y.npz")
    x = load("digits").images("test")[:5]
    made = recipe_of(found, tmp_path / "y.npz").build(found["signal_shape"].tolist())
    wanted = build_operator(name, (1, 8, 8), made.m, seed=9, scaling="isometric", width=0.7, factor=4)
    np.testing.assert_allclose(found["y"], wanted(x), atol=1e-5)
    torch.testing.assert_close(made.matrix(), wanted.matrix())
    np.testing.assert_array_equal(found["x"], x)
    assert found["noise"] == 0 and found["m"] == found["y"].shape[1]


def test_noise_has_its_deviation_and_is_another_for_each_signal(tmp_path, call):
    shown = ["--input", "digits", "--operator", "gaussian", "--m", 40]
    assert call("acquire", *shown, "--out", "clean.npz")[0] == 0
    assert call("acquire", *shown, "--out", "noisy.npz", "--noise", 0.3, "--dense")[0] == 0
    assert call("acquire", *shown, "--out", "part.npz", "--noise", 0.3, "--number", 7)[0] == 0
    noisy = arrays_of(tmp_path / "noisy.npz")
    noise = noisy["y"] - arrays_of(tmp_path / "clean.npz")["y"]
    assert noise.std() == pytest.approx(0.3, rel=0.02) and abs(noise.mean()) < 0.01
    assert np.abs(np.corrcoef(noise[:20]) - np.eye(20)).max() < 0.7
    np.testing.assert_allclose(arrays_of(tmp_path / "part.npz")["y"], noisy["y"][:7], atol=1e-4)
    np.testing.assert_array_equal(noisy["A"], build_operator("gaussian", (1, 8, 8), 40).matrix())
    assert "operator" not in noisy and "x" not in noisy


def test_a_folder_is_measured_by_a_matrix_of_the_users(tmp_path, call):
    levels = np.random.default_rng(0).integers(0, 256, (3, 5, 4), dtype=np.uint8)
    (tmp_path / "in").mkdir()
    for i, image in enumerate(levels):
        Image.fromarray(image).save(tmp_path / "in" / f"{i}.png")
    A = np.random.default_rng(1).normal(size=(6, 20))
    np.savez(tmp_path / "A.npz", A=A, other=np.zeros(3))
    assert call("acquire", "--input", "in", "--matrix", "A.npz", "--out", "y.npz")[0] == 0
    found = arrays_of(tmp_path / "y.npz")
    np.testing.assert_allclose(found["y"], levels.reshape(3, 20) / 255 @ A.T, atol=1e-4)
    np.testing.assert_allclose(found["A"], A, rtol=1e-6)
    assert found["signal_shape"].tolist() == [1, 5, 4]
