"""`genapps imitation expert`: its presets, its activations, and the normalisation that goes into the policy."""

import json

import numpy as np
import pytest
import tiny_environments
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecNormalize
from torch import nn

from apps.imitation import expert
from apps.imitation.__main__ import main
from apps.imitation.environments.making import vector_env
from apps.imitation.evaluation import Returns
from apps.imitation.expert import _without_normalisation

QUICK = ("--environment", "TinyLine-v0", "--environments", "2", "--steps", "100", "--evaluation_episodes", "2")
PLACES = np.linspace(-1, 1, 20, dtype=np.float32).reshape(10, 2)
SETTINGS = ("--settings", "{n_steps: 32, batch_size: 64, n_epochs: 1}")


def test_activations_are_named_and_the_end_is_told_once(tmp_path, capsys):
    out = tmp_path / "expert.zip"
    given = [*QUICK, *SETTINGS, "--policy", "{activation_fn: relu, net_arch: [8]}", "--out", str(out)]
    assert main(["expert", *given]) == 0
    told = capsys.readouterr().err
    kinds = [type(layer) for layer in PPO.load(out).policy.mlp_extractor.policy_net]
    assert kinds == [nn.Linear, nn.ReLU]
    # 128 steps are made, whole rollouts, of the 100 that were asked for
    assert told.count("step 100 of 100 (100 %)") == 1


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--steps", "0"), "--steps: expected 1 or more, got 0"),
        (("--evaluation_episodes", "-1"), "--evaluation_episodes: expected 1 or more"),
        (("--settings", "{learning_rate: -5}"), "ppo refuses these settings: Invalid learning rate"),
        (("--settings", "{seed: 3}"), "--settings: expected no seed, give --seed"),
        (("--settings", "{device: cuda}"), "--settings: expected no device, experts learn on the CPU"),
        (("--settings", "{policy_kwargs: {net_arch: [4]}}"), "--settings: expected no policy_kwargs, give --policy"),
        (("--out", "there.zip"), "there.zip is there already"),
        (("--out", "told.zip"), "told.json is there already"),
        (("--out", "new.pt"), "--out: expected a .zip file, as stable-baselines3 opens, got new.pt: end it in .zip"),
    ],
)
def test_mistakes_are_one_line(tmp_path, capsys, monkeypatch, more, words):
    monkeypatch.chdir(tmp_path)
    for name in ("there.zip", "told.json"):
        (tmp_path / name).write_bytes(b"mine")
    given = [*QUICK, *SETTINGS, "--out", "new.zip", *more]
    assert main(["expert", *given]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"mine"] * 2


def test_an_unknown_activation_is_one_line(tmp_path, capsys):
    given = [*QUICK, "--policy.activation_fn", "reul", "--out", str(tmp_path / "expert.zip")]
    assert main(["expert", *given]) == 2
    error = capsys.readouterr().err
    assert "expected one of tanh, relu, elu, silu, got 'reul'" in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "layers"), [("TinyLine-v0", [8]), ("TinyLine-v0", []), ("TinyTable-v0", [8])])
def test_the_saved_policy_does_what_the_normalised_one_did(name, layers):
    env = VecNormalize(vector_env(name, environments=2, seed=0))
    model = PPO("MlpPolicy", env, n_steps=32, batch_size=64, seed=0, device="cpu", policy_kwargs={"net_arch": layers})
    model.learn(64)
    seen = np.random.default_rng(0).normal(size=(50, *env.observation_space.shape)).astype(np.float32)
    seen = (env.obs_rms.mean + seen * env.obs_rms.var**0.5).astype(np.float32)  # within its clipping
    before, _ = model.predict(env.normalize_obs(seen), deterministic=True)
    after, _ = _without_normalisation(model, env).predict(seen, deterministic=True)
    np.testing.assert_allclose(after, before, atol=1e-5)
    assert np.ptp(before) > 1e-3


def test_an_expert_that_sees_tables_of_numbers_is_saved_as_it_acted(tmp_path, capsys, monkeypatch):
    acted = []

    def told(policy, *args, **options):
        found = policy.predict(tables, deterministic=True)[0]
        acted.append((type(policy), found))
        return Returns(np.array([1.0]), np.array([5]))

    rng = np.random.default_rng(0)
    tables = np.stack([tiny_environments.Table.CENTRES + tiny_environments.Table.SPREADS * rng.uniform(-1, 1, (2, 3))
                       for _ in range(10)]).astype(np.float32)  # fmt: skip
    monkeypatch.setattr(expert, "returns_of", told)
    out = tmp_path / "expert.zip"
    given = [*QUICK, *SETTINGS, "--environment", "TinyTable-v0", "--keep_best_every", "64", "--out", str(out)]
    assert main(["expert", *given]) == 0, capsys.readouterr().err
    learning = next(found for kind, found in acted if kind is expert._Acting)  # of equal ones the first is kept
    np.testing.assert_allclose(PPO.load(out).predict(tables, deterministic=True)[0], learning, atol=1e-4)
    assert np.ptp(learning) > 1e-3


def test_the_best_policy_is_kept_with_its_normalisation(tmp_path, capsys, monkeypatch):
    """Evaluations that find the second of three the best: that one is saved, not the last."""
    found, seen = iter([1.0, 3.0, 2.0]), []
    honest = expert.returns_of

    def told(policy, *args, **options):
        if not isinstance(policy, expert._Acting):
            return honest(policy, *args, **options)
        seen.append(policy.predict(PLACES, deterministic=True)[0])
        return Returns(np.array([next(found)]), np.array([5]))

    monkeypatch.setattr(expert, "returns_of", told)
    out = tmp_path / "expert.zip"
    given = [*QUICK, *SETTINGS, "--steps", "192", "--settings.learning_rate", "0.02", "--keep_best_every", "64"]
    assert main(["expert", *given, "--out", str(out)]) == 0, capsys.readouterr().err
    kept = json.loads((tmp_path / "expert.json").read_text())["kept"]
    assert kept == {"at": 128, "of": {"64": 1.0, "128": 3.0, "192": 2.0}}
    acted = PPO.load(out).predict(PLACES, deterministic=True)[0]
    np.testing.assert_allclose(acted, seen[1], atol=1e-5)
    assert min(np.abs(seen[1] - other).max() for other in (seen[0], seen[2])) > 1e-3
