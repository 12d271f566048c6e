"""The parts of the benchmark that decide what its figures mean; no test looks at a clock."""

import numpy as np
import pytest

from apps.imitation.demonstrations import Demonstrations
from apps.imitation.environments.making import make_env
from apps.imitation.learners.off_policy.dac import DAC
from apps.imitation.learners.off_policy.stacked_mlp import StackedMLP
from bench import imitation
from core_models.errors import UserError


@pytest.fixture(scope="module")
def pendulum() -> Demonstrations:
    rng = np.random.default_rng(0)
    return Demonstrations(
        observations=rng.normal(size=(40, 3)), actions=rng.uniform(-2, 2, (40, 1)), rewards=np.zeros(40),
        lengths=np.array([40]), returns=np.zeros(1), terminated=np.array([False]), final_observations=np.zeros((1, 3)),
        environment="Pendulum-v1",
    )  # fmt: skip


def test_all_take_the_same_steps_and_the_shares_of_dacs_time_make_one(pendulum, monkeypatch):
    monkeypatch.setattr(imitation, "WARM_UP", 10)
    sac, dac = imitation.Runs(pendulum, steps=5, repeats=1, threads=1, clock="cpu").dac()
    assert sac.what.startswith("SAC's") and sac.target is None and dac.target == 1.2
    assert set(dac.extra["steps a second"]) == {"stable-baselines3", "SAC", "DAC"}
    shares = dac.extra["where DAC's time goes"]
    assert sum(shares.values()) == pytest.approx(1) and min(shares.values()) > -0.5 and len(shares) == 4


def test_an_update_with_other_gradients_is_not_timed(pendulum, monkeypatch):
    learner = DAC(make_env("Pendulum-v1"), pendulum, learning_starts=50, hidden=(16, 16)).learn(80)
    before = {name: tensor.clone() for name, tensor in learner._tensors().items()}
    imitation.check_update(learner)
    assert all((tensor == before[name]).all() for name, tensor in learner._tensors().items())
    right = StackedMLP.backward

    def wrong(self, layers, grad, columns=None, *, parameters=True):
        return right(self, layers, 1.01 * grad, columns, parameters=parameters)

    monkeypatch.setattr(StackedMLP, "backward", wrong)
    with pytest.raises(RuntimeError, match="other gradients than automatic differentiation"):
        imitation.check_update(learner)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"steps": 0}, "--steps: expected 1 or more, got 0"),
        ({"clock": "cpu", "threads": 2}, "expected wall unless one CPU thread"),
        ({"write": True, "repeats": 2}, "at least 3 for cells to be written, got 2"),
    ],
)
def test_mistakes_are_one_line(given, words):
    with pytest.raises(UserError, match=words):
        imitation.bench(**given)
