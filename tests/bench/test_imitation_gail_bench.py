"""What the comparison of GAIL loops rests on: equal work, parts that are timed once each; no test looks at a clock."""

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from stable_baselines3 import SAC as PlainSAC

from apps.imitation.demonstrations import Demonstrations
from apps.imitation.environments.making import make_env
from apps.imitation.learners.off_policy.sac import SAC
from apps.imitation.learners.on_policy import rollouts
from bench import imitation, imitation_gail, imitation_peer, timed, venvs
from bench.imitation_gail import Loop, Ours, against_the_peer, parts_timed, same_work, share
from bench.imitation_worker import COUNTED
from core_models.errors import UserError

LOOP = Loop("CartPole-v1", "trpo", 2, steps=40, batch=20, discriminator_batch=10, discriminator_steps=3, hidden=(8,))
WORK = dict(zip(COUNTED, (40, 3, 60, 10, 11), strict=True))
STUB = """
import json, sys
given = json.loads(sys.stdin.readline())
assert given["batch"] == 20 and given["demonstrations"].endswith(".npz"), given
print(json.dumps({"versions": {"imitation": "0"}, "environment step": 1e-6}), flush=True)
for line in sys.stdin:
    print(json.dumps({"seconds": 1e9 * json.loads(line)["steps"], "work": WORK}), flush=True)
"""


@pytest.fixture(autouse=True)
def cart_pole(monkeypatch) -> Demonstrations:
    rng = np.random.default_rng(0)
    found = Demonstrations(
        observations=rng.normal(size=(30, 4)).astype(np.float32), actions=rng.integers(0, 2, 30), rewards=np.ones(30),
        lengths=np.array([30]), returns=np.full(1, 30.0), terminated=np.array([True]),
        final_observations=np.zeros((1, 4), dtype=np.float32), environment="CartPole-v1",
    )  # fmt: skip
    monkeypatch.setattr(imitation_gail, "experts_of", lambda loop: found)
    monkeypatch.setattr(imitation_gail, "steps_alone", lambda env, clock: 1e-6)
    return found


@pytest.fixture
def stub(tmp_path, monkeypatch):
    def write(work):
        file = tmp_path / "worker.py"
        file.write_text(STUB.replace("WORK", repr(work)), encoding="utf-8")
        monkeypatch.setattr(imitation_peer, "WORKER", file)

    return write


def test_our_work_is_counted(cart_pole):
    found = Ours(LOOP, cart_pole, "wall").turn(40)["work"]
    assert {what: found[what] for what in COUNTED[:4]} == {what: WORK[what] for what in COUNTED[:4]}
    assert 1 < found["Fisher products"] <= 12
    by_ppo = Ours(Loop(**{**vars(LOOP), "algorithm": "ppo"}), cart_pole, "wall").turn(80)["work"]
    assert tuple(by_ppo.values()) == (80, 6, 120, 40, 0)  # ten epochs of two batches, twice


def test_the_ratio_is_that_of_the_peers_time_and_ours(stub):
    stub(WORK)
    (measure,) = against_the_peer(LOOP, Path(sys.executable), iterations=1, repeats=3, threads=1, clock="wall")
    assert measure.target == 2 and len(measure.values) == 3 and "CartPole-v1, TRPO, 2 environments" in measure.what
    rates = measure.extra["steps a second"]
    assert rates["imitation"] == pytest.approx(1e-9) and measure.value == pytest.approx(rates["ours"] * 1e9, rel=1e-6)
    assert measure.extra["work of a turn"]["imitation"] == WORK


def test_a_peer_that_does_other_work_is_not_compared(stub):
    stub({**WORK, "steps of D": 1})
    with pytest.raises(RuntimeError, match=r"did not do the same work.*'steps of D': \(3, 1\)"):
        list(against_the_peer(LOOP, Path(sys.executable), iterations=1, repeats=1, threads=1, clock="wall"))


def test_only_the_products_with_the_fisher_matrix_may_differ():
    same_work([WORK], [{**WORK, "Fisher products": 9}])
    for what in COUNTED[:4]:
        with pytest.raises(RuntimeError, match=what):
            same_work([WORK], [{**WORK, what: 1}])


def test_a_peer_that_ends_is_told_with_its_last_words(tmp_path, monkeypatch):
    (tmp_path / "worker.py").write_text("raise SystemExit('no such module')", encoding="utf-8")
    monkeypatch.setattr(imitation_peer, "WORKER", tmp_path / "worker.py")
    with pytest.raises(RuntimeError, match="ended with status 1: no such module"):
        imitation_peer.Peer(Path(sys.executable), {"threads": 1})


def test_each_part_of_the_loop_is_timed_once_and_is_put_back(cart_pole, monkeypatch):
    class Ticks:
        """Every call takes one second."""

        def __init__(self, *_):
            pass

        def start(self):
            pass

        def stop(self):
            return 1.0

    monkeypatch.setattr(timed, "Stopwatch", Ticks)
    learner, sampler, evaluate = LOOP.ours(cart_pole), rollouts.sampler, rollouts.evaluate
    with parts_timed(learner, "wall") as seconds:
        learner.learn(40, log_interval=None)
        found = seconds()
    episodes = found.pop("environment's own step and reset") - 40
    assert found == {
        "environment": 20, "policy's answers": 20,  # two environments a step
        "values and log-densities": 2, "discriminator": 3,  # one pass each; D's steps, and its answers to both
        "update of policy and values": 0,  # a second, less the one of what comes after the iteration
    }  # fmt: skip
    assert episodes >= 2  # the first reset of each, and more where one ended
    places = (learner, learner.generator, learner.generator.env, *(env.env for env in learner.generator.env.envs))
    assert not any(isinstance(value, timed.Timed) for place in places for value in vars(place).values())
    assert rollouts.sampler is sampler and rollouts.evaluate is evaluate


def test_the_share_of_all_else_with_and_without_the_vectors_own_time():
    narrow, wide = share(LOOP, iterations=1, repeats=3, clock="wall")
    assert narrow.target == wide.target == 15 and narrow.better == wide.better == "lower"
    parts = narrow.extra["where the time goes [%]"]
    assert len(parts) == 6 and all(0 < part < 100 for part in parts.values())
    assert all(0 < a < b < 100 for a, b in zip(narrow.values, wide.values, strict=True))


def test_the_worker_imports_nothing_of_ours():
    tree = ast.parse(imitation_peer.WORKER.read_text(encoding="utf-8"))
    names = [n.name for node in ast.walk(tree) if isinstance(node, ast.Import) for n in node.names]
    names += ["." * n.level + (n.module or "") for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
    assert "imitation.algorithms.adversarial.gail" in names
    assert not [name for name in names if name.split(".")[0] in ("", "apps", "core_models", "bench")]


def test_the_peer_gets_the_torch_that_runs_here_from_where_it_is_and_then_all_else(tmp_path, monkeypatch):
    asked = []

    def pip(python, *arguments):
        asked.append(arguments)
        if len(asked) == 1:
            raise subprocess.CalledProcessError(1, "pip")

    monkeypatch.setattr(venvs, "call", lambda *command: "")
    monkeypatch.setattr(venvs, "pip", pip)
    (tmp_path / "peer").mkdir()
    imitation_peer.peer_python(tmp_path / "peer")
    torch_here, mujoco_here = imitation_peer.SHARED
    first, second, third = asked
    assert first == (torch_here,) and second[:2] == (torch_here, "--index-url")
    assert {torch_here, mujoco_here, "imitation==1.0.1"} <= set(third)


def test_learners_of_other_settings_are_not_compared():
    env = make_env("Pendulum-v1")
    plain = PlainSAC("MlpPolicy", env, device="cpu")
    told = imitation.same_settings({"plain": plain, "SAC": SAC(env)})
    assert told["hidden"] == [256, 256] and told["critics"] == [[256, 256]] * 2 and told["batch"] == 256
    for other in ({"hidden": (256, 128)}, {"batch_size": 128}, {"tau": 0.01}, {"gamma": 0.9}, {"learning_rate": 1e-3}):
        with pytest.raises(RuntimeError, match="expected the same settings"):
            imitation.same_settings({"plain": plain, "SAC": SAC(env, **other)})


def test_a_loop_needs_as_many_rows_as_its_discriminator_takes(cart_pole, monkeypatch, tmp_path):
    monkeypatch.undo()
    cart_pole.save(tmp_path / "CartPole-v1.npz")
    monkeypatch.setattr(imitation_gail, "find_demonstrations", lambda name, own=False: tmp_path / f"{name}.npz")
    with pytest.raises(UserError, match="expected 1000 rows of CartPole-v1 or more, got 30"):
        imitation_gail.experts_of(Loop("CartPole-v1"))
    monkeypatch.setattr(imitation_gail, "find_demonstrations", lambda name, own=False: None)
    with pytest.raises(UserError, match="expected demonstrations of CartPole-v1"):
        imitation_gail.experts_of(Loop("CartPole-v1"))
