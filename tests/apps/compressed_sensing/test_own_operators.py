"""Operators of the user's own: through numpy, masks of pixels and of frequencies, kernels; and what is complex."""

import re

import numpy as np
import pytest
import torch
from planted_priors import LinearPrior
from torch.overrides import TorchFunctionMode
from verb_targets import rows_of, summary_of

from apps.compressed_sensing import CSGM, LASSO, Callables, LinearOperator, Matrix, SubsampledFourier, build_operator
from apps.compressed_sensing.measurements import Stored
from apps.compressed_sensing.measuring import channels_first, recipe_of
from apps.compressed_sensing.operators import Blur, Mask
from core_models.data import load
from core_models.errors import UserError

SHAPE = (1, 4, 4)


def through_numpy(m=8, **options):
    """A matrix, applied by numpy, and the same as an operator of PyTorch."""
    A = np.random.default_rng(0).normal(size=(m, 16)).astype(np.float32)
    own = Callables(
        lambda x: torch.from_numpy(x.numpy().reshape(len(x), -1) @ A.T),
        lambda y: torch.from_numpy((y.numpy() @ A).reshape(-1, *SHAPE)),
        signal_shape=SHAPE,
        **options,
    )
    return own, Matrix(torch.from_numpy(A), SHAPE)


def through_torch(m=8):
    """The same matrix by products of torch, which autocast would make bfloat16."""
    same = through_numpy(m)[1]
    A = same.matrix()
    return Callables(lambda x: x.flatten(1) @ A.T, lambda y: (y @ A).reshape(-1, *SHAPE), signal_shape=SHAPE), same


@pytest.mark.parametrize("made", [through_numpy, through_torch])
@pytest.mark.parametrize("low_precision", [False, True])
def test_a_prior_is_searched_through_functions_as_through_their_matrix(low_precision, made):
    own, same = made()
    prior = LinearPrior()
    x = prior.sample(3, generator=torch.Generator().manual_seed(1))
    settings = {"penalty": 0.01, "steps": 60, "restarts": 2, "learning_rate": 0.1, "low_precision": low_precision}
    found, wanted = (CSGM(operator, prior, **settings).recover(same(x)) for operator in (own, same))
    torch.testing.assert_close(found.x, wanted.x, rtol=0, atol=0.02 if low_precision else 1e-4)
    away = (wanted.x - prior.decode(torch.zeros(3, 3)).detach()).flatten(1).norm(dim=1)
    assert bool((away > 0.3).all())  # which is all that a search without a gradient of y finds


def test_the_adjoint_is_the_gradient_of_what_torch_differentiates_too():
    own, same = through_numpy()
    x = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    target = torch.ones(2, 8)
    gradients = [torch.autograd.grad((operator(x) - target).square().sum(), x)[0] for operator in (own, same)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("detached", [lambda x: x.detach().numpy(), lambda x: x.numpy()])
def test_a_function_without_gradient_and_adjoint_is_refused(detached):
    with pytest.raises(UserError, match=r"measurements carry no gradient: give its adjoint beside it"):
        Callables(lambda x: torch.from_numpy(detached(x)[:, :2].copy()), signal_shape=(4,))


def test_a_search_through_an_operator_that_loses_the_gradient_is_refused():
    class Lost(LinearOperator):
        def _apply_to(self, x):
            return x.detach().flatten(1)[:, : self.m]

        def _adjoint_of(self, y):
            return torch.cat([y, y.new_zeros(len(y), 16 - self.m)], 1).unflatten(1, SHAPE)

    operator = Lost(SHAPE, 5)
    operator.check_adjoint()
    y = operator(LinearPrior().sample(2, generator=torch.Generator().manual_seed(0)))
    assert bool(LASSO(operator).recover(y).details["converged"].all())  # which needs no gradient
    with pytest.raises(UserError, match=r"Lost: .* their gradient is lost: use Callables\(function, adjoint"):
        CSGM(operator, LinearPrior(), steps=2).recover(y)


@pytest.mark.parametrize("shape", [(1, 4, 4), (2, 5, 4)])
def test_a_mask_of_frequencies_keeps_them_and_their_negatives(shape):
    mask = torch.rand(shape[1:], generator=torch.Generator().manual_seed(3)) < 0.25
    operator = SubsampledFourier.of_frequencies(shape, mask, dtype=torch.float64)
    x = torch.randn(3, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    negative = torch.zeros_like(mask)
    for row, column in mask.nonzero().tolist():
        negative[-row % shape[1], -column % shape[2]] = True
    seen = torch.fft.fft2(x, norm="ortho") * (mask | negative)
    # an orthonormal transform of what the mask leaves: A^T A is the projection on it
    torch.testing.assert_close(operator.adjoint(operator(x)), torch.fft.ifft2(seen, norm="ortho").real)
    assert operator.m == shape[0] * int((mask | negative).sum())


def test_masks_of_pixels_hold_for_all_channels_or_value_by_value():
    plane = torch.tensor([[True, False], [False, True]])
    x = torch.arange(8.0).reshape(1, 2, 2, 2)
    assert Mask.of_pixels((2, 2, 2), plane)(x).tolist() == [[0, 3, 4, 7]]
    assert Mask.of_pixels((2, 2, 2), torch.stack([plane, ~plane]))(x).tolist() == [[0, 3, 5, 6]]
    with pytest.raises(UserError, match=r"expected a mask of shape \(2, 2, 2\) or \(2, 2\)"):
        Mask.of_pixels((2, 2, 2), plane[:1])


def test_a_mask_of_frequencies_of_lines_is_one_of_as_many():
    assert SubsampledFourier.of_frequencies((16,), torch.arange(16) < 2).m == 3
    with pytest.raises(UserError, match=r"expected a mask of frequencies, true or false, of shape \(16,\)"):
        SubsampledFourier.of_frequencies((16,), torch.ones(1, 16, dtype=torch.bool))


def test_arrays_of_the_users_own_beside_another_operator_are_left_alone(tmp_path):
    own = {"mask": np.array([0.5, 2.0]), "kernel": np.arange(3)}
    for name, wanted in (("gaussian", []), ("mask", ["mask"]), ("blur", ["kernel"])):
        arrays = {"operator": np.array(name), "m": np.array(5), **own}
        arrays |= {"mask": np.eye(4)} if name == "mask" else {"kernel": np.ones((3, 3))} if name == "blur" else {}
        recipe = recipe_of(arrays, tmp_path / "y.npz")
        assert [option for option in own if getattr(recipe, option) is not None] == wanted


OWN = {
    "mask": ("mask", np.arange(64).reshape(8, 8) % 3 > 0),
    "fourier": ("mask", (np.arange(64).reshape(8, 8) % 5 == 0).astype(np.uint8)),
    "blur": ("kernel", np.array([[0.0, 0.2, 0.0], [0.1, 0.5, 0.1], [0.0, 0.1, 0.0]])),
}


@pytest.mark.parametrize("name", OWN)
def test_files_of_masks_and_kernels_measure_and_are_kept_with_the_measurements(tmp_path, call, name):
    option, array = OWN[name]
    np.save(tmp_path / "own.npy", array)
    shown = ["--operator", name, f"--{option}", "own.npy", "--number", 3]
    status, _, error = call("acquire", "--input", "digits", *shown, "--keep_signals", "--out", "y.npz")
    assert status == 0, error
    x = load("digits").images("test")[:3]
    wanted = {
        "mask": lambda: Mask(torch.from_numpy(array)[None]),
        "fourier": lambda: SubsampledFourier.of_frequencies((1, 8, 8), torch.from_numpy(array.astype(bool))),
        "blur": lambda: Blur((1, 8, 8), torch.from_numpy(array).float()),
    }[name]()
    with np.load(tmp_path / "y.npz") as loaded:
        np.testing.assert_allclose(loaded["y"], wanted(x), atol=1e-6)
    quick = ["--method", "LASSO", "--method.alpha", 1e-3, "--diagnose", 0]
    (tmp_path / "own.npy").rename(tmp_path / "moved.npy")  # what measured is in the file
    assert call("recover", "--input", "y.npz", *quick, "--out", "stored")[0] == 0
    shown[3] = "moved.npy"
    assert call("recover", "--input", "digits", *shown, *quick, "--out", "direct")[0] == 0
    assert rows_of(tmp_path / "stored") == rows_of(tmp_path / "direct")
    assert summary_of(tmp_path / "stored")["operator"]["m"] == wanted.m


def test_masks_and_kernels_that_do_not_fit_are_named(tmp_path, refused):
    np.save(tmp_path / "own.npy", np.full((8, 8), 2.0))
    acquire = ["acquire", "--input", "digits", "--out", "y.npz", "--operator"]
    assert "expected a mask of true and false" in refused(*acquire, "mask", "--mask", "own.npy")
    assert "expected a mask at none.npy, found nothing: check --mask" in refused(*acquire, "mask", "--mask", "none.npy")
    assert "expected a kernel of two odd sides" in refused(*acquire, "blur", "--kernel", "own.npy")
    assert "--kernel: expected --operator blur" in refused(*acquire, "mask", "--m", 5, "--kernel", "own.npy")
    np.save(tmp_path / "own.npy", np.ones((4, 4), bool))
    assert "--mask: expected --operator mask or fourier" in refused(*acquire, "dct", "--m", 5, "--mask", "own.npy")
    assert "expected a mask of frequencies" in refused(*acquire, "fourier", "--mask", "own.npy")
    np.save(tmp_path / "own.npy", np.ones((8, 8), bool))
    assert "it makes 64 measurements" in refused(*acquire, "mask", "--m", 5, "--mask", "own.npy")


def test_what_is_complex_is_to_be_stacked(tmp_path, refused):
    recover = ["recover", "--input", "y.npz", "--method", "LASSO", "--out", "out"]
    A = np.exp(2j * np.pi * np.outer([0, 1, 5], np.arange(64)) / 64)
    x = load("digits").images("test")[:2].flatten(1).numpy()
    y = x @ A.T
    np.savez(tmp_path / "y.npz", y=y, A=A)
    assert "expected real measurements y, got complex128: stack real and imaginary parts" in refused(*recover)
    np.savez(tmp_path / "y.npz", y=np.concatenate([y.real, y.imag], 1), A=A)
    assert "expected a real matrix (m, n), got complex128" in refused(*recover)
    with pytest.raises(UserError, match="stack both parts"):
        Matrix(torch.from_numpy(A))
    with pytest.raises(UserError, match="stack both parts"):
        Callables(lambda x: x.to(torch.complex64), signal_shape=(4,))
    with pytest.raises(UserError, match="stack both parts"):
        LASSO(build_operator("gaussian", (64,), 3)).recover(torch.from_numpy(y))


def test_channels_last_in_signal_shape_are_refused(tmp_path, refused):
    np.savez(tmp_path / "y.npz", y=np.ones((2, 5)), A=np.ones((5, 192)), signal_shape=np.array([8, 8, 3]))
    recover = ["recover", "--input", "y.npz", "--method", "LASSO", "--method.basis", "dct", "--out", "out"]
    assert "signal_shape: expected (channels, height, width), got (8, 8, 3)" in refused(*recover)
    np.savez(tmp_path / "y.npz", y=np.ones((2, 5)), A=np.ones((5, 192)))
    error = refused(*recover, "--signal_shape", "[8,8,3]")
    assert "--signal_shape: expected" in error and "give [3,8,8]" in error and "[192] for signals that are no" in error
    error = refused(*recover, "--signal_shape", "[16,12,1]")
    assert "give [1,16,12], which orders values alike, or [192]" in error


def test_signals_of_shape_n_1_1_are_taken(tmp_path):
    assert channels_first((100, 1, 1), "--signal_shape") == (100, 1, 1)
    np.savez(tmp_path / "y.npz", y=np.ones((2, 5)), A=np.ones((5, 100)), x=np.ones((2, 100, 1, 1)))
    assert Stored(tmp_path / "y.npz").signal_shape == (100, 1, 1)


@pytest.mark.parametrize(("channels", "told"), [(1, "[1,8,8]"), (3, "[192] if they are no images")])
def test_channels_last_in_stored_signals_are_refused_with_a_shape_that_is_taken(tmp_path, channels, told):
    arrays = {"y": np.ones((2, 5)), "A": np.ones((5, 64 * channels)), "x": np.ones((2, 8, 8, channels))}
    np.savez(tmp_path / "y.npz", **arrays)
    with pytest.raises(UserError, match=re.escape(f"or add signal_shape {told}")):
        Stored(tmp_path / "y.npz")
    shape = [int(side) for side in told.split("]")[0][1:].split(",")]
    np.savez(tmp_path / "y.npz", **arrays, signal_shape=np.array(shape))
    batch = next(Stored(tmp_path / "y.npz").batches(2))
    assert batch.truth is not None and tuple(batch.truth.shape[1:]) == tuple(shape)


class AskedFor(TorchFunctionMode):
    """Notes what is made on the device meta, or moved there, and does it on the CPU."""

    def __init__(self):
        super().__init__()
        self.made = []

    def __torch_function__(self, function, types, arguments=(), options=None):
        options = dict(options or {})
        if str(options.get("device")) == "meta":
            self.made.append(function.__name__)
            options["device"] = "cpu"
        return function(*arguments, **options)


def test_a_function_is_asked_by_tensors_on_its_device():
    seen = []

    def function(x):
        seen.append(x.device.type)
        return x[:, :2] * 0.5

    with AskedFor() as asked:
        own = Callables(function, signal_shape=(4,), device="meta")
    assert asked.made == ["zeros", "zeros"]  # what it is asked by first, and what says where it works
    own._buffers["_precision"] = torch.zeros((), device="meta")
    seen.clear()
    with pytest.raises((NotImplementedError, RuntimeError)):  # which has no numbers to compare
        own._check_linear()
    own._check_differentiable()
    assert set(seen) == {"meta"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_functions_on_the_gpu_are_asked_there():
    A = torch.randn(3, 16, generator=torch.Generator().manual_seed(0)).cuda()
    for adjoint in (None, lambda y: (y @ A).unflatten(1, SHAPE)):
        own = Callables(lambda x: x.flatten(1) @ A.T, adjoint, signal_shape=SHAPE, device="cuda")
        torch.testing.assert_close(own.matrix(), A)
        assert own.mean_square() == pytest.approx(float(A.square().mean()))
