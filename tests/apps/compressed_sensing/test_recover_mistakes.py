"""What a user may get wrong with `acquire` and `recover`: one clear line each, and nothing lost."""

import hashlib
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from verb_targets import SHAPE

from apps.compressed_sensing.operators import build_operator

RECOVER = ["recover", "--out", "out", "--input"]
LASSO = ["--method", "LASSO"]


def written(path, m=5, n=4, **changes):
    """A file of measurements, of which something is changed or, by None, left out."""
    operator = build_operator("gaussian", SHAPE, m)
    arrays = {"y": np.ones((n, m), np.float32), "A": operator.matrix().numpy(), "noise": np.array(0.1)} | changes
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})


def test_measurements_and_operators_that_do_not_fit(tmp_path, refused, vae):
    csgm = ["--method", "CSGM", "--prior", vae]
    bits = np.eye(4, 64, dtype=np.int64)
    np.savez(tmp_path / "bits.npz", x=bits)
    acquire = ["acquire", "--input", "bits.npz", "--operator", "gaussian", "--m", 5, "--out", "new.npz"]
    assert "got only 0 and 1: store them as booleans" in refused(*acquire)
    written(tmp_path / "y.npz", x=bits)
    assert "got only 0 and 1: store them as booleans" in refused(*RECOVER, "y.npz", *LASSO)
    written(tmp_path / "y.npz", y=np.ones((4, 6), np.float32))
    error = refused(*RECOVER, "y.npz", *LASSO)
    assert "expected y with 5 measurements a row, as many as A has rows, got 6" in error
    written(tmp_path / "y.npz", A=np.ones((5, 63)))
    assert "expected a matrix with 64 columns" in refused(*RECOVER, "y.npz", *csgm)
    written(tmp_path / "y.npz", A=np.ones((5, 63)), signal_shape=np.array([1, 9, 7]))
    assert "expected measurements of signals (1, 8, 8)" in refused(*RECOVER, "y.npz", *csgm)
    written(tmp_path / "y.npz", A=np.zeros((5, 64)))
    assert "got all zeros" in refused(*RECOVER, "y.npz", *LASSO)
    written(tmp_path / "y.npz", A=np.full((5, 64), np.nan))
    assert "expected a matrix of finite numbers" in refused(*RECOVER, "y.npz", *LASSO)
    written(tmp_path / "y.npz", A=np.ones((5, 64), complex))
    assert "expected a real matrix" in refused(*RECOVER, "y.npz", *LASSO)
    written(tmp_path / "y.npz", A=None)
    assert "give --matrix FILE or --operator NAME" in refused(*RECOVER, "y.npz", *LASSO)
    written(tmp_path / "y.npz", A=None, operator=np.array("gausian"), signal_shape=np.array(SHAPE), m=np.array(5))
    assert "did you mean gaussian?" in refused(*RECOVER, "y.npz", *LASSO)
    written(tmp_path / "y.npz")
    assert "holds A: expected no other" in refused(*RECOVER, "y.npz", *LASSO, "--operator", "gaussian", "--m", 5)
    assert not (tmp_path / "out").exists()


def test_values_that_are_no_measurements(tmp_path, refused, vae):
    y = np.ones((4, 5), np.float32)
    y[2, 1] = np.nan
    written(tmp_path / "y.npz", y=y)
    assert "got NaN or infinity in row 2 of y" in refused(*RECOVER, "y.npz", *LASSO)
    written(tmp_path / "y.npz", y=np.array([["a"]]))
    assert "expected measurements y of shape (signals, m)" in refused(*RECOVER, "y.npz", *LASSO)
    written(tmp_path / "y.npz", noise=np.array(-0.1))
    assert "as noise, got -0.1" in refused(*RECOVER, "y.npz", *LASSO)
    written(tmp_path / "y.npz", x=np.full((4, 64), 1.5))
    assert "expected floats in [0, 1], got 1.5 in signal 0" in refused(*RECOVER, "y.npz", *LASSO)
    written(tmp_path / "y.npz", x=np.zeros((3, 64)))
    assert "expected true signals x of shape (4, 64)" in refused(*RECOVER, "y.npz", *LASSO)
    written(tmp_path / "y.npz")
    assert "--noise: expected 0 or more, got -1.0" in refused(*RECOVER, "y.npz", *LASSO, "--noise", -1)
    assert "--diagnose: expected a number of signals, 0 for none, got -1" in refused(
        *RECOVER, "y.npz", *LASSO, "--diagnose", -1
    )
    learns = ["--fit_data", "digits", "--noise", 0, "--method"]
    for method in (["Wiener"], ["GuidedLASSO"], ["PriorGuidedLASSO", "--prior", vae]):
        assert "above 0, got 0: give --noise" in refused(*RECOVER, "y.npz", *learns, *method)
    assert not list((tmp_path / "out").glob("fitted*"))
    assert "--number: expected 1 to 4" in refused(*RECOVER, "y.npz", *LASSO, "--number", 5)


@pytest.mark.parametrize("name", ["y", "A", "signal_shape"])
def test_pickled_arrays_are_not_read(tmp_path, refused, name):
    written(tmp_path / "y.npz", **{name: np.array([{}], dtype=object)})
    assert "Python objects" in refused(*RECOVER, "y.npz", *LASSO)


def test_a_pickled_matrix_or_none(tmp_path, refused):
    written(tmp_path / "y.npz", A=None)
    np.save(tmp_path / "A.npy", np.array([[{}]], dtype=object), allow_pickle=True)
    assert "Python objects" in refused(*RECOVER, "y.npz", *LASSO, "--matrix", "A.npy")
    assert "expected a matrix at B.npy" in refused(*RECOVER, "y.npz", *LASSO, "--matrix", "B.npy")
    (tmp_path / "C.npz").write_bytes(b"torn")
    assert "expected a whole .npy or .npz" in refused(*RECOVER, "y.npz", *LASSO, "--matrix", "C.npz")


def test_images_outside_their_range_or_of_several_sizes(tmp_path, refused, call):
    measured = [*LASSO, "--operator", "gaussian", "--m", 5]
    x = np.zeros((3, 8, 8), np.float32)
    x[1, 0, 0] = 7
    np.savez(tmp_path / "x.npz", x=x)
    assert "expected floats in [0, 1], got 7.0 in signal 1" in refused(*RECOVER, "x.npz", *measured)
    assert "give --operator NAME and --m" in refused(*RECOVER, "x.npz", *LASSO)
    (tmp_path / "in").mkdir()
    for i, side in enumerate((8, 10, 10)):
        Image.fromarray(np.zeros((side, side), np.uint8)).save(tmp_path / "in" / f"{i}.png")
    error = refused(*RECOVER, "in", *measured)
    assert "expected an image of 8 x 8 pixels, as 0.png is, got 10 x 10" in error and "model" not in error
    (tmp_path / "in" / "2.png").unlink()
    (tmp_path / "in" / "1.png").unlink()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "in" / "1.png")
    assert "grey" in refused(*RECOVER, "in", *measured)
    (tmp_path / "empty").mkdir()
    assert "expected PNG, JPEG or WebP images, found none" in refused(*RECOVER, "empty", *measured)
    assert "did you mean digits?" in refused(*RECOVER, "digit", *measured)


def test_a_prior_that_is_missing_needless_of_another_shape_or_not_its_cards(tmp_path, refused, vae):
    written(tmp_path / "y.npz")
    csgm = ["--method", "CSGM"]
    assert "CSGM searches a generative prior, got none: give --prior" in refused(*RECOVER, "y.npz", *csgm)
    assert "LASSO has no use for one" in refused(*RECOVER, "y.npz", *LASSO, "--prior", vae)
    assert "give --prior" in refused(*RECOVER, "y.npz", *csgm, "--method.prior", vae)
    assert "give --noise" in refused(*RECOVER, "y.npz", *LASSO, "--method.noise", 1)
    assert "did you mean vae_mnist?" in refused(*RECOVER, "y.npz", *csgm, "--prior", "zoo:vae_mnis")
    assert "expected a model in nowhere" in refused(*RECOVER, "y.npz", *csgm, "--prior", "nowhere")
    error = refused(*RECOVER, "y.npz", *csgm, "--prior", "zoo:resnet_fashion_mnist")
    assert "expected a model that decodes latents" in error
    error = refused(*RECOVER, "digits", *csgm, "--prior", "zoo:vae_mnist", "--operator", "gaussian", "--m", 5)
    assert "expected a prior of signals (1, 8, 8)" in error
    shutil.copytree(vae, tmp_path / "altered")
    (tmp_path / "altered" / "card.md").write_text(f"sha256 {hashlib.sha256(b'others').hexdigest()}")
    assert "the card is of another model" in refused(*RECOVER, "y.npz", *csgm, "--prior", "altered")
    error = refused(*RECOVER, "y.npz", "--method", "UncertaintyAutoencoder", "--prior", vae)
    assert "expected an uncertainty autoencoder, got VAE" in error


def test_names_that_are_near_others(tmp_path, refused):
    written(tmp_path / "y.npz", A=None)
    assert "did you mean CSGM?" in refused(*RECOVER, "y.npz", "--method", "CSGN")
    assert "did you mean alpha?" in refused(*RECOVER, "y.npz", *LASSO, "--method.alhpa", 1)
    three = refused(*RECOVER, "y.npz", "--method", "CSGM", "--method.learning_rate", "[0.2, 0.1, 0.1]")
    assert three.rstrip().endswith("expected float or tuple[float, float], got '[0.2, 0.1, 0.1]'")
    shaped = ["--signal_shape", "[1,8,8]", "--m", 5]
    assert "did you mean fourier?" in refused(*RECOVER, "y.npz", *LASSO, *shaped, "--operator", "furier")
    assert "give m" in refused(*RECOVER, "y.npz", *LASSO, *shaped[:2], "--operator", "fourier")
    assert "give --signal_shape" in refused(*RECOVER, "y.npz", *LASSO, *shaped[2:], "--operator", "fourier")
    both = ["--operator", "fourier", "--matrix", "A.npy"]
    assert "--operator and --matrix: give one" in refused(*RECOVER, "y.npz", *LASSO, *shaped, *both)


def test_training_signals_that_are_missing_or_needless(tmp_path, refused):
    written(tmp_path / "y.npz")
    assert "GaussianMixture learns from training signals" in refused(*RECOVER, "y.npz", "--method", "GaussianMixture")
    assert "LASSO learns nothing from signals" in refused(*RECOVER, "y.npz", *LASSO, "--fit_data", "digits")
    np.savez(tmp_path / "x.npz", x=np.zeros((9, 7, 7), np.float32))
    written(tmp_path / "y.npz", signal_shape=np.array(SHAPE))
    assert "(1, 7, 7)" in refused(*RECOVER, "y.npz", "--method", "Wiener", "--fit_data", "x.npz")


def test_a_folder_that_holds_a_run_and_one_whose_settings_were_refused(tmp_path, call, refused):
    written(tmp_path / "y.npz")
    assert "basis" in refused(*RECOVER, "y.npz", *LASSO, "--method.basis", "pixls")
    assert call(*RECOVER, "y.npz", *LASSO)[0] == 0  # nothing was begun: the folder is free
    assert "already holds a run: add --resume" in refused(*RECOVER, "y.npz", *LASSO)
    error = refused(*RECOVER, "y.npz", *LASSO, "--method.alpha", 0.5, "--resume")
    assert re.search(r"was begun with settings\.alpha \S+, now it is 0\.5: give", error)
    written(tmp_path / "y.npz", y=np.zeros((4, 5), np.float32))
    assert "was begun with crc" in refused(*RECOVER, "y.npz", *LASSO, "--resume")
    (tmp_path / "file").write_text("")
    assert "is a file" in refused("recover", "--input", "y.npz", *LASSO, "--out", "file")


def test_acquire_refuses_too(tmp_path, refused, call):
    shown = ["acquire", "--input", "digits", "--out", "y.npz"]
    measured = ["--operator", "gaussian", "--m", 5]
    assert "--noise: expected 0 or more" in refused(*shown, *measured, "--noise", -0.5)
    assert "expected an operator, got none" in refused(*shown)
    assert "--m: expected the --operator" in refused(*shown, "--m", 5)
    assert "end it in .npz" in refused("acquire", "--input", "digits", "--out", "y", *measured)
    np.save(tmp_path / "A.npy", np.zeros((5, 64)))
    assert "got all zeros" in refused(*shown, "--matrix", "A.npy")
    np.save(tmp_path / "A.npy", np.ones((5, 60)))
    assert "expected a matrix with 64 columns" in refused(*shown, "--matrix", "A.npy")
    assert not (tmp_path / "y.npz").exists()
    assert call(*shown, *measured)[0] == 0
    assert "is there already" in refused(*shown, *measured)


def test_a_rank_deficient_operator_is_fine_and_its_rank_is_said(tmp_path, call):
    np.save(tmp_path / "A.npy", np.tile(np.random.default_rng(0).normal(size=(3, 64)), (2, 1)))
    assert "rank 3" in call("acquire", "--input", "digits", "--number", 3, "--matrix", "A.npy", "--out", "y.npz")[1]
    status, out, _ = call("recover", "--input", "y.npz", *LASSO, "--out", "out")
    assert status == 0 and "6 measurements, rank 3" in out


def test_unknown_kinds_of_file(tmp_path, refused):
    torch.save({}, tmp_path / "y.pt")
    assert "y.pt" in refused(*RECOVER, "y.pt", *LASSO, "--operator", "gaussian", "--m", 5)
    (tmp_path / "y.npz").write_bytes(b"torn")
    assert "expected a whole .npy or .npz" in refused(*RECOVER, "y.npz", *LASSO)
    np.savez(tmp_path / "y.npz", z=np.zeros(3))
    assert "expected measurements y or signals x, found the arrays z" in refused(*RECOVER, "y.npz", *LASSO)
    assert "found nothing at none.npz" in refused(*RECOVER, "none.npz", *LASSO)
