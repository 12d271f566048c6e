"""`recover` through the command line: what it writes, and going on where it was stopped."""

import hashlib
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from planted_priors import LinearPrior
from verb_targets import SHAPE, column, files_of, rows_of, summary_of

import core_models
from apps.common.streaming import Records
from apps.compressed_sensing import recover as recover_module
from apps.compressed_sensing.diagnosis import coverage
from apps.compressed_sensing.gaussian import Wiener
from apps.compressed_sensing.generative.csgm import CSGM
from apps.compressed_sensing.generative.sparse_gen import SparseGen
from apps.compressed_sensing.generative.uncertainty_autoencoder import (
    UAEConfig,
    UncertaintyAutoencoder,
    UncertaintyAutoencoderModel,
)
from apps.compressed_sensing.lasso import LASSO
from apps.compressed_sensing.methods import METHODS, find_method
from apps.compressed_sensing.metrics import errors as metrics_of
from apps.compressed_sensing.operators import Matrix, build_operator
from core_models.data import load
from core_models.errors import UserError


def digits(n=None, split="test"):
    return load("digits").images(split)[:n]


def own_file(path, n=7, m=20, noise=0.1, truth=False, **more):
    """A user's file of measurements of digits, and what it was made of."""
    operator = build_operator("gaussian", SHAPE, m, seed=3)
    x = digits(n)
    y = operator(x) + noise * torch.randn(n, m, generator=torch.Generator().manual_seed(4))
    arrays = {"y": y.numpy(), "A": operator.matrix().numpy(), "noise": np.array(noise), **more}
    np.savez(path, **(arrays | ({"x": x.numpy()} if truth else {})))
    return operator, x, y


def test_a_users_measurements_are_recovered_as_by_the_class(tmp_path, call):
    operator, _, y = own_file(tmp_path / "y.npz", signal_shape=np.array(SHAPE))
    status, out, error = call(
        "recover", "--input", "y.npz", "--method", "LASSO", "--method.alpha", 0.03, "--out", "out"
    )
    assert status == 0, error
    found = LASSO(operator, alpha=0.03).recover(y)
    with np.load(tmp_path / "out" / "recovered.npz") as loaded:
        assert loaded.files == ["x"] and loaded["x"].dtype == np.float32
        np.testing.assert_allclose(loaded["x"], found.x, atol=1e-5)
    rows = rows_of(tmp_path / "out")
    assert [row["image"] for row in rows] == [str(i) for i in range(7)] and "mse" not in rows[0]
    np.testing.assert_allclose(column(rows, "objective"), found.details["objective"], rtol=1e-5)
    np.testing.assert_allclose(column(rows, "measurement_error"), (operator(found.x) - y).norm(dim=1), rtol=1e-4)
    np.testing.assert_allclose(column(rows, "noise_norm"), 0.1 * 20**0.5, rtol=1e-6)
    for i in range(7):
        picture = np.asarray(Image.open(tmp_path / "out" / "recovered" / f"{i:06}.png"))
        np.testing.assert_array_equal(picture, (found.x[i, 0] * 255).round())
    told = summary_of(tmp_path / "out")
    assert told["operator"]["rank"] == 20 and told["operator"]["dot_test"] == "passed" and told["coverage"] is None
    assert told["means"]["measurement_error"]["n"] == 7 and told["signals_per_second"] > 0
    assert "rank 20" in out and "signals/s" in out and "mean measurement error" in error


def test_errors_and_coverage_are_told_where_the_truth_is_known(tmp_path, call):
    operator, x, y = own_file(tmp_path / "y.npz", truth=True)
    options = ["--method", "Wiener", "--fit_data", "digits", "--fit_number", 2000, "--batch_size", 3]
    assert call("recover", "--input", "y.npz", *options, "--out", "out")[0] == 0
    found = Wiener(operator, noise=0.1).fit(digits(split="train")).recover(y)
    rows, told = rows_of(tmp_path / "out"), summary_of(tmp_path / "out")
    for name, values in metrics_of(found.x.flatten(1), x.flatten(1)).items():
        np.testing.assert_allclose(column(rows, name), values, rtol=1e-3, atol=1e-5)
        half = 1.96 * values.std() / 7**0.5
        np.testing.assert_allclose(told["means"][name]["mean"], values.mean(), rtol=1e-3)
        np.testing.assert_allclose(told["means"][name]["half_width"], half, rtol=1e-2)
    assert "ssim" not in rows[0]  # the images are smaller than its window
    for level, share in coverage(found, x).items():
        assert told["coverage"][f"{level}"] == pytest.approx(share, abs=0.01)
    with np.load(tmp_path / "out" / "recovered.npz") as loaded:
        np.testing.assert_allclose(loaded["std"], found.std, atol=1e-4)
    picture = np.asarray(Image.open(tmp_path / "out" / "std" / "000002.png"))
    np.testing.assert_allclose(picture, (found.std[2, 0] * 2 * 255).clamp(max=255), atol=1.1)


def test_the_first_signals_are_asked_where_their_error_comes_from(tmp_path, call, vae):
    operator, x, y = own_file(tmp_path / "y.npz", truth=True)
    options = ["--input", "y.npz", "--prior", vae, "--method", "CSGM", "--method.steps", 8, "--method.restarts", 2]
    status, out, error = call("recover", *options, "--out", "out", "--diagnose", 4)
    assert status == 0, error
    told = summary_of(tmp_path / "out")["diagnosis"]
    rows = rows_of(tmp_path / "out")[:4]
    assert told["asked"] == told["signals"] == 4 and "where the error of 4 signals comes from" in error
    assert f"where the error comes from, 4 signals: {told['words']['verdict']}\n" in out
    for name in ("error", "representation", "search", "measurements", "bound", "S-REC"):
        assert f"\n  {name}: {told['words'][name]}\n" in out
    np.testing.assert_allclose(told["per_signal"]["error"], 8 * column(rows, "rmse"), rtol=1e-4)
    np.testing.assert_allclose(told["per_signal"]["measurement_error"], column(rows, "measurement_error"), rtol=1e-4)
    np.testing.assert_allclose(told["per_signal"]["noise_norm"], (operator(x) - y).norm(dim=1)[:4], rtol=1e-4)
    gap = column(rows, "loss") - told["per_signal"]["loss_at_nearest"]
    np.testing.assert_allclose(told["per_signal"]["optimisation_gap"], gap, rtol=1e-3, atol=1e-5)
    mean = np.mean(told["per_signal"]["error"])
    assert told["means"]["error"]["mean"] == pytest.approx(mean) and told["means"]["error"]["n"] == 4
    assert not told["bound"]["gaussian"]  # a matrix of the user's own


def test_a_finished_run_is_asked_again_only_for_another_number(tmp_path, call, vae, monkeypatch):
    own_file(tmp_path / "y.npz", truth=True)
    options = ["recover", "--input", "y.npz", "--prior", vae, "--method", "CSGM", "--method.steps", 2]
    assert call(*options, "--out", "whole", "--diagnose", 4)[0] == 0
    assert call(*options, "--out", "out", "--diagnose", 0)[0] == 0
    assert summary_of(tmp_path / "out")["diagnosis"] is None
    status, out, _ = call(*options, "--out", "out", "--diagnose", 4, "--resume")
    assert status == 0 and "where the error comes from, 4 signals" in out
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")
    before = (tmp_path / "out" / "summary.json").read_bytes()
    monkeypatch.setattr(recover_module, "account", None)
    for number in (4, 0):
        status, again, _ = call(*options, "--out", "out", "--diagnose", number, "--resume")
        assert status == 0 and "where the error comes from, 4 signals" in again
        assert (tmp_path / "out" / "summary.json").read_bytes() == before


def test_a_run_stopped_while_it_is_asked_goes_on_to_the_same(tmp_path, call, vae, monkeypatch):
    own_file(tmp_path / "y.npz", truth=True)
    options = ["recover", "--input", "y.npz", "--prior", vae, "--method", "CSGM", "--method.steps", 2]
    assert call(*options, "--out", "whole")[0] == 0

    def stopped(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(recover_module, "account", stopped)
        assert call(*options, "--out", "out")[0] == 130
    stands = summary_of(tmp_path / "out")  # what took long is not lost where the diagnosis asks for too much
    assert stands["diagnosis"] is None and stands["means"] == summary_of(tmp_path / "whole")["means"]
    assert call(*options, "--out", "out", "--resume")[0] == 0
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


LINEAR = ["--prior", "planted_priors.LinearPrior", "--operator", "gaussian", "--m", 10, "--noise", 0.02,
          "--method", "CSGM", "--method.penalty", 1e-4]  # fmt: skip


@pytest.mark.parametrize(
    ("verdict", "words"), [("representation", "the prior can't make these signals"), ("search", "the search failed")]
)
def test_a_wrong_prior_and_a_search_of_one_step_are_told_apart(tmp_path, call, verdict, words):
    prior, g = LinearPrior(), torch.Generator().manual_seed(2)
    x = torch.rand(6, 1, 4, 4, generator=g) if verdict == "representation" else prior.sample(40, generator=g)
    x = x[((x >= 0) & (x <= 1)).flatten(1).all(1)][:6]
    np.savez(tmp_path / "x.npz", x=x.flatten(1))  # flat, as wide as the prior's signals
    steps = ["--method.optimiser", "lbfgs"] if verdict == "representation" else ["--method.steps", 1]
    status, out, error = call("recover", "--input", "x.npz", *LINEAR, *steps, "--method.restarts", 1, "--out", "out")
    assert status == 0, error
    told = summary_of(tmp_path / "out")["diagnosis"]
    assert told["verdict"] == verdict and f"{len(x)} signals: {words}" in out and told["bound"]["gaussian"]
    W, away = prior.weight.detach(), x.flatten(1) - 0.5
    near = (away - away @ torch.linalg.pinv(W).T @ W.T).norm(dim=1)
    np.testing.assert_allclose(told["per_signal"]["representation_error"], near, rtol=5e-3, atol=2e-3)
    with np.load(tmp_path / "out" / "recovered.npz") as loaded:
        found = loaded["x"].reshape(len(x), 16)
    np.testing.assert_allclose(told["per_signal"]["error"], np.linalg.norm(found - x.flatten(1).numpy(), axis=1), 1e-4)
    assert told["parts"][verdict] > 0.5


def test_what_cannot_be_known_is_not_said(tmp_path, call, vae):
    own_file(tmp_path / "y.npz")  # without the truth
    options = ["recover", "--input", "y.npz", "--prior", vae, "--method", "CSGM", "--method.steps", 2, "--out", "out"]
    status, out, _ = call(*options)
    told = summary_of(tmp_path / "out")["diagnosis"]
    assert status == 0 and set(told["means"]) == {"measurement_error"} and told["s_rec"] and not told["bound"]
    assert "the true signals are not known" in out
    shaped = ["--signal_shape", "[1,8,8]"]
    assert call("recover", "--input", "y.npz", "--method", "LASSO", *shaped, "--out", "lasso")[0] == 0
    told = summary_of(tmp_path / "lasso")["diagnosis"]
    assert told["s_rec"] is told["parts"] is told["bound"] is None


def test_what_is_recovered_from_is_in_the_summary(tmp_path, call):
    measured = ["--operator", "mask", "--m", 40, "--number", 3, "--seed", 8, "--method", "LASSO"]
    assert call("recover", "--input", "digits", "--split", "train", *measured, "--out", "out")[0] == 0
    own = summary_of(tmp_path / "out")["input"]
    levels = load("digits").train_x.numpy().tobytes()
    assert own == {"path": "digits", "images": 3, "data": "digits", "split": "train", "seed": 8,
                   "files": hashlib.sha256(levels).hexdigest()[:16]}  # fmt: skip
    own_file(tmp_path / "y.npz", truth=True, signal_shape=np.array(SHAPE))
    assert call("recover", "--input", "y.npz", "--method", "LASSO", "--out", "stored")[0] == 0
    own = summary_of(tmp_path / "stored")["input"]
    with zipfile.ZipFile(tmp_path / "y.npz") as archive:
        crc = {name: archive.getinfo(f"{name}.npy").CRC for name in ("x", "y")}
    assert own == {"path": "y.npz", "images": 7, "crc": crc["y"], "truth": crc["x"]}


def test_images_are_measured_as_acquire_measures_them(tmp_path, call):
    shown = ["--operator", "bernoulli", "--m", 12, "--noise", 0.2, "--seed", 5, "--number", 9]
    assert call("acquire", "--input", "digits", "--out", "y.npz", *shown, "--keep_signals")[0] == 0
    assert call("recover", "--input", "y.npz", "--method", "BPDN", "--out", "stored", "--batch_size", 4)[0] == 0
    measured = ["--method", "BPDN", "--batch_size", 4, *shown]
    assert call("recover", "--input", "digits", "--out", "direct", *measured)[0] == 0
    for row, other in zip(rows_of(tmp_path / "stored"), rows_of(tmp_path / "direct"), strict=True):
        assert float(row["mse"]) == pytest.approx(float(other["mse"]), abs=1e-4)
    assert len(rows_of(tmp_path / "direct")) == 9


@pytest.mark.parametrize("method", ["CSGM", "SparseGen"])
def test_a_signal_starts_from_the_same_latents_whatever_batch_it_is_in(tmp_path, call, vae, method):
    operator, _, y = own_file(tmp_path / "y.npz")
    options = ["--input", "y.npz", "--prior", vae, "--method", method, "--method.steps", 8, "--method.restarts", 2]
    options += ["--method.steps_alone", 4] if method == "SparseGen" else []
    for size in (3, 7):
        assert call("recover", *options, "--out", f"out{size}", "--batch_size", size)[0] == 0
    with np.load(tmp_path / "out3" / "recovered.npz") as a, np.load(tmp_path / "out7" / "recovered.npz") as b:
        np.testing.assert_allclose(a["x"], b["x"], atol=1e-5)
        x = b["x"]
    settings = {"steps": 8, "restarts": 2} | ({"steps_alone": 4} if method == "SparseGen" else {})
    operator = Matrix(operator.matrix(), SHAPE)  # as the file has it, which doesn't say how its entries were drawn
    own = {"CSGM": CSGM, "SparseGen": SparseGen}[method](operator, core_models.load(vae), noise=0.1, **settings)
    np.testing.assert_allclose(x, own.reconstruct(y), atol=1e-5)
    torch.testing.assert_close(own.recover(y[3:], first=3).x, own.recover(y).x[3:], rtol=0, atol=1e-5)


@pytest.mark.parametrize("stop", ["in the middle of a batch", "in the middle of a row", "after the last row"])
def test_a_stopped_recovery_goes_on_to_the_files_of_one_that_was_not(tmp_path, call, monkeypatch, vae, stop):
    own_file(tmp_path / "y.npz", n=8, truth=True)
    options = ["recover", "--input", "y.npz", "--prior", vae, "--method", "ResidualCovariance", "--method.steps", 4,
               "--method.restarts", 2, "--fit_data", "digits", "--fit_number", 50, "--batch_size", 3]  # fmt: skip
    assert call(*options, "--out", "whole")[0] == 0
    join, append, done, allowed = recover_module.join, Records.append, [], [0]

    def counted(parts):
        if stop == "in the middle of a batch" and len(done) == allowed[0]:
            raise KeyboardInterrupt
        done.append(1)
        return join(parts)

    def torn(records, rows):
        append(records, rows)
        if stop == "in the middle of a row" and len(done) > allowed[0]:
            data = records.path.read_bytes()
            records.path.write_bytes(data[: len(data) - 9])
            raise KeyboardInterrupt

    def last(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(recover_module, "join", counted)
    monkeypatch.setattr(Records, "append", torn)
    for allowed[0] in (1, 2):  # stopped twice
        with monkeypatch.context() as patch:
            if stop == "after the last row":
                patch.setattr(recover_module, "write_json", last)
            status, _, error = call(*options, "--out", "out", *(["--resume"] if allowed[0] == 2 else []))
        assert status == 130, error
        if stop == "in the middle of a batch":
            assert f"interrupted at image {3 * allowed[0]} of 8" in error and "--resume goes on" in error
        assert not (tmp_path / "out" / "summary.json").exists()
    stop = ""
    (tmp_path / "out" / "recovered" / ".000001.png.x1y2z3.png").write_bytes(b"half")  # as a kill leaves it
    assert call(*options, "--out", "out", "--resume")[0] == 0
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")
    assert len(done) <= 3 + 2  # batches that stood were not computed again
    before = files_of(tmp_path / "out")
    status, out, _ = call(*options, "--out", "out", "--resume")
    assert status == 0 and "nothing left to do" in out and files_of(tmp_path / "out") == before


def test_what_was_fitted_is_kept_and_read_again(tmp_path, call, monkeypatch):
    own_file(tmp_path / "y.npz")
    options = ["recover", "--input", "y.npz", "--method", "GaussianMixture", "--method.components", 2, "--out", "out",
               "--fit_data", "digits", "--fit_number", 100]  # fmt: skip
    assert call(*options)[0] == 0
    before = files_of(tmp_path / "out")
    (tmp_path / "out" / "summary.json").unlink()
    monkeypatch.setattr("apps.compressed_sensing.gaussian.GaussianMixture.fit", None)
    monkeypatch.setattr(METHODS["gmm"].cls, "fit", lambda *_: pytest.fail("fitted again"))
    assert call(*options, "--resume")[0] == 0
    assert files_of(tmp_path / "out") == before


def test_pictures_that_have_gone_are_made_again(tmp_path, call):
    own_file(tmp_path / "y.npz", n=8)
    options = ["recover", "--input", "y.npz", "--method", "LASSO", "--out", "out", "--batch_size", 3,
               "--signal_shape", "[1,8,8]"]  # fmt: skip
    assert call(*options)[0] == 0
    whole = files_of(tmp_path / "out")
    (tmp_path / "out" / "recovered" / "000004.png").unlink()
    assert "made again" in call(*options, "--resume")[2]
    assert files_of(tmp_path / "out") == whole
    (tmp_path / "out" / "recovered.npz").write_bytes(b"torn")
    assert call(*options, "--resume")[0] == 0
    assert files_of(tmp_path / "out") == whole


def test_a_folder_of_images_of_which_one_is_torn(tmp_path, call, vae):
    folder = tmp_path / "in"
    folder.mkdir()
    for i, image in enumerate((digits(6) * 255).round().byte().numpy()):
        Image.fromarray(image[0]).save(folder / f"{i}.png")
    (folder / "2.png").write_bytes(b"torn")
    options = ["--operator", "mask", "--m", 40, "--method", "CSGM", "--method.steps", 3, "--prior", vae]
    status, _, error = call("recover", "--input", "in", *options, "--out", "out", "--batch_size", 4)
    assert status == 1 and "1 of 6 images could not be read" in error
    rows = rows_of(tmp_path / "out")
    assert [row["status"] for row in rows] == ["recovered", "recovered", "unreadable", *["recovered"] * 3]
    with np.load(tmp_path / "out" / "recovered.npz") as loaded:
        assert np.isnan(loaded["x"]).all((1, 2, 3)).tolist() == [False, False, True, False, False, False]
        assert loaded["names"].tolist() == [f"{i}.png" for i in range(6)]
    assert summary_of(tmp_path / "out")["means"]["mse"]["n"] == 5
    told = summary_of(tmp_path / "out")["diagnosis"]
    assert told["signals"] == 5
    np.testing.assert_allclose(
        told["per_signal"]["error"], [8 * float(r["rmse"]) for r in rows if r["rmse"]], rtol=1e-3
    )


def test_signals_that_are_no_images_and_levels_and_layouts(tmp_path, call):
    x = np.random.default_rng(0).random((5, 16)).astype(np.float32) * (np.arange(16) < 3)
    np.savez(tmp_path / "flat.npz", x=x)
    measured = ["--operator", "gaussian", "--m", 16, "--method", "LASSO", "--method.alpha", 1e-6]
    assert call("recover", "--input", "flat.npz", *measured, "--out", "flat")[0] == 0
    assert not (tmp_path / "flat" / "recovered").exists()
    with np.load(tmp_path / "flat" / "recovered.npz") as loaded:
        np.testing.assert_allclose(loaded["x"], x, atol=1e-3)
    levels = np.random.default_rng(1).integers(0, 256, (4, 5, 6, 3), dtype=np.uint8)
    np.savez(tmp_path / "colour.npz", x=levels)
    measured = ["--operator", "mask", "--m", 90, "--method", "LASSO", "--method.alpha", 1e-6]
    assert call("recover", "--input", "colour.npz", *measured, "--out", "colour")[0] == 0
    picture = np.asarray(Image.open(tmp_path / "colour" / "recovered" / "000003.png"))
    np.testing.assert_allclose(picture, levels[3], atol=1.01)


def test_a_trained_autoencoder_measures_and_recovers(tmp_path, call, refused):
    torch.manual_seed(0)
    model = UncertaintyAutoencoderModel(UAEConfig(SHAPE, measurements=6, hidden=(8,), noise=0.3))
    core_models.save(model, tmp_path / "uae")
    uae = ["--method", "UncertaintyAutoencoder", "--prior", "uae"]
    assert call("recover", "--input", "digits", "--number", 5, *uae, "--out", "images")[0] == 0
    assert summary_of(tmp_path / "images")["noise"] == pytest.approx(0.3)
    assert call("acquire", "--input", "digits", "--number", 5, "--learned", "uae", "--out", "y.npz")[0] == 0
    assert call("recover", "--input", "y.npz", *uae, "--out", "stored")[0] == 0
    method = UncertaintyAutoencoder(model)
    with np.load(tmp_path / "stored" / "recovered.npz") as loaded:
        np.testing.assert_allclose(loaded["x"], method.reconstruct(method.operator(digits(5))), atol=1e-5)
    own_file(tmp_path / "other.npz", m=6)
    assert "by the autoencoder's own encoder" in refused("recover", "--input", "other.npz", *uae, "--out", "no")
    assert "needs a trained autoencoder" in refused("recover", "--input", "y.npz", *uae[:2], "--out", "no")


def test_a_method_and_a_prior_of_the_users_own_by_their_class_paths(tmp_path, call):
    x = LinearPrior().sample(4, generator=torch.Generator().manual_seed(0))
    A = torch.randn(9, 16, generator=torch.Generator().manual_seed(1))
    np.savez(tmp_path / "y.npz", y=x.flatten(1) @ A.T, A=A, signal_shape=np.array([1, 4, 4]))
    own = ["--method", "verb_targets.BackProjection", "--method.scale", 0.1]
    status, out, _ = call("recover", "--input", "y.npz", *own, "--out", "own")
    assert status == 0 and "neither the file nor --noise says it" in out
    with np.load(tmp_path / "own" / "recovered.npz") as loaded:
        np.testing.assert_allclose(loaded["x"].reshape(4, 16), 0.1 * x.flatten(1) @ A.T @ A, rtol=1e-4, atol=1e-5)
    own = ["--method", "CSGM", "--prior", "planted_priors.LinearPrior", "--method.penalty", 0, "--method.steps", 30]
    assert call("recover", "--input", "y.npz", *own, "--method.optimiser", "lbfgs", "--out", "prior")[0] == 0
    with np.load(tmp_path / "prior" / "recovered.npz") as loaded:
        np.testing.assert_allclose(loaded["x"], x, atol=1e-3)


def test_every_method_is_registered_with_what_it_says():
    assert {name: (m.needs_prior, m.needs_signals, m.needs_model) for name, m in METHODS.items()} == {
        "lasso": (False, False, False), "reweighted-lasso": (False, False, False), "guided-lasso": (False, True, False),
        "prior-guided-lasso": (True, True, False),
        "bpdn": (False, False, False), "csgm": (True, False, False),
        "sparse-gen": (True, False, False), "residual-covariance": (True, True, False), "gmm": (False, True, False),
        "wiener": (False, True, False), "uae": (False, False, True),
        "flow-prior": (True, False, False), "intermediate-layers": (True, False, False),
        "posterior-sampling": (True, True, False),
    }  # fmt: skip
    assert find_method("CSGM") is find_method("csgm") and "steps" in find_method("csgm").settings
    assert not {"operator", "prior", "noise"} & set(find_method("csgm").settings)
    with pytest.raises(UserError, match="did you mean wiener"):
        find_method("Weiner")
