"""Solvers that stop before their tolerance say so: one warning a call, one line a run."""

import warnings

import numpy as np
import pytest
import torch
from planted_priors import LinearPrior
from sklearn.exceptions import ConvergenceWarning
from verb_targets import column, rows_of

from apps.compressed_sensing import BPDN, LASSO, GuidedLASSO, PriorGuidedLASSO, ReweightedLASSO, build_operator
from apps.compressed_sensing.convergence import NotSolved, Unsolved, gathered
from apps.compressed_sensing.operators import gaussian
from core_models.data import load

SHAPE = (1, 4, 4)


@pytest.mark.parametrize("kind", [LASSO, ReweightedLASSO, BPDN, GuidedLASSO, PriorGuidedLASSO])
def test_signals_that_are_not_solved_are_counted_in_one_warning(kind):
    x = torch.rand(40, *SHAPE, generator=torch.Generator().manual_seed(0))
    prior = (LinearPrior(),) if kind is PriorGuidedLASSO else ()
    more = {"steps": 3, "restarts": 1, "drop": ()} if prior else {}
    more |= {"rounds": 1} if kind is ReweightedLASSO else {}
    method = kind(gaussian(SHAPE, 8), *prior, noise=0.1, tolerance=1e-13, max_steps=1, **more).fit(x)
    y = method.acquire(x[:5], generator=torch.Generator().manual_seed(1))
    y[0] = 0.0  # which is solved by 0
    with pytest.warns(ConvergenceWarning) as told:
        found = method.recover(y)
    left = int((found.details["converged"] == 0).sum())
    assert 0 < left < 5 or kind is BPDN
    share = found.details["gap"].abs() / found.details["objective"].abs().clamp(min=1e-300)
    largest = float(share[found.details["converged"] == 0].max())
    words = f"{kind.__name__}: {left} of 5 signals are not solved to the tolerance, largest gap {largest:.2g} times the"
    assert len(told) == 1 and str(told[0].message).startswith(words)
    assert str(told[0].message).endswith("raise max_steps or tolerance")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kind(gaussian(SHAPE, 8), *prior, noise=0.1, tolerance=1e-3, **more).fit(x).recover(y)


def test_basis_pursuit_of_noisy_measurements_asks_for_their_noise():
    x = torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    operator = gaussian(SHAPE, 24)
    y = BPDN(operator, noise=0.5).acquire(x, generator=torch.Generator().manual_seed(1))
    with pytest.warns(NotSolved, match=r"largest violation of epsilon .*: of noisy measurements give noise or epsilon"):
        BPDN(operator, max_steps=100).recover(y)
    with pytest.warns(NotSolved, match="times the objective, largest violation of epsilon .*: raise max_steps or tole"):
        BPDN(operator, noise=0.5, max_steps=1, tolerance=1e-13).recover(y)


def test_a_run_says_it_in_one_line_of_all_its_batches_and_again_when_it_is_resumed(tmp_path, call):
    x = load("digits").images("test")[:5]
    operator = build_operator("gaussian", (1, 8, 8), 20)
    np.savez(tmp_path / "y.npz", y=operator(x).numpy(), A=operator.matrix().numpy(), signal_shape=np.array([1, 8, 8]))
    options = ["--input", "y.npz", "--method", "BPDN", "--method.max_steps", 50, "--batch_size", 2, "--diagnose", 0]
    for more in ([], ["--resume"]):
        status, _, error = call("recover", *options, "--out", "out", *more)
        told = [line for line in error.splitlines() if line.startswith("warning: ")]
        rows = rows_of(tmp_path / "out")
        left = int((column(rows, "converged") == 0).sum())
        assert status == 0 and left and len(told) == 1, error
        assert told[0].startswith(f"warning: {left} of 5 signals are not solved to the tolerance, largest gap ")
        assert "give noise or epsilon" in told[0]


def test_warnings_of_others_go_on():
    with pytest.warns(RuntimeWarning, match="mine"), gathered() as told:
        warnings.warn("mine", RuntimeWarning, stacklevel=1)
        warnings.warn("gathered", NotSolved, stacklevel=1)
    assert told == [] and Unsolved().add({"loss": torch.ones(2)}).words("") is None
