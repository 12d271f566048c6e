"""How `train` lets learners learn: how often a run is kept, what it had taken before, and where it was measured."""

from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3.common.env_util import make_vec_env
from tiny_environments import Line, Signs, demonstrate

from apps.imitation import train
from apps.imitation.__main__ import main
from apps.imitation.evaluation import Returns
from apps.imitation.learners import BC, DAC, GAIL
from core_models.training import RunFolder


def made(kind, **more):
    if kind is DAC:
        return DAC(Line(), demonstrate(Line(), 4), hidden=(8,), learning_starts=40, seed=3, **more)
    more = {} if kind is BC else {"steps": 40, "seed": 3, **more}
    return kind(make_vec_env(Line, n_envs=2, seed=3), demonstrate(Line(), 4), hidden=(8,), **more)


@pytest.mark.parametrize(
    ("kind", "own", "given", "kept"),
    [
        (DAC, {}, None, 25_000),
        (DAC, {"checkpoint_every": 60}, None, 60),
        (DAC, {"checkpoint_every": 60}, 100, 100),
        (GAIL, {}, None, 50_000),
        (GAIL, {"reseed_every": 80}, None, 80),
        (GAIL, {"reseed_every": 80}, 120, 120),
    ],
)
def test_a_learner_is_kept_as_often_as_is_asked_for_and_else_as_often_as_it_says(kind, own, given, kept, tmp_path):
    learner, run = made(kind, **own), RunFolder(tmp_path)
    train.fit(learner, run, 120, checkpoint_every=given)
    assert (learner.checkpoint_every if kind is DAC else learner.reseed_every) == kept
    if kind is DAC:
        assert learner.settings["checkpoint_every"] == kept
    assert run.checkpoint().exists() == (kept <= 120)


@pytest.mark.parametrize(("more", "kept"), [([], 25_000), (["--checkpoint_every", "40"], 40)])
def test_the_verb_leaves_dac_its_own_checkpoints(more, kept, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(train, "finish", lambda made, *rest: seen.append(made.checkpoint_every))
    demonstrate(Line(), 4).save(tmp_path / "line.npz")
    given = ["train", "--learner", "DAC", "--learner.hidden", "[8]", "--demonstrations", str(tmp_path / "line.npz")]
    assert main([*given, "--steps", "40", "--out", str(tmp_path / "run"), *more]) == 0
    assert seen == [kept]


def test_the_environment_is_made_with_what_is_given_and_else_as_the_demonstrations_were(tmp_path, monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(train, "finish", lambda made, run, expert, *place: seen.append(place[:2]))
    monkeypatch.setattr(train, "fit", lambda *_, **__: 0)
    monkeypatch.setitem(gymnasium.registry, "Other-v0", replace(gymnasium.spec("TinyLine-v0"), id="Other-v0"))
    replace(demonstrate(Signs(), 2), environment_kwargs={"patience": 3}).save(tmp_path / "signs.npz")
    replace(demonstrate(Line(), 2), environment_kwargs={"wind": 2}).save(tmp_path / "line.npz")

    def call(name, out, *more):
        given = ["train", "--learner", "BC", "--learner.hidden", "[4]", "--demonstrations", str(tmp_path / name)]
        return main([*given, "--out", str(tmp_path / out), *more])

    assert call("signs.npz", "a") == 0
    assert call("signs.npz", "b", "--environment", "tiny_environments:TinySigns-v0") == 0
    assert call("signs.npz", "c", "--environment_kwargs", "{patience: 2}") == 0
    assert "is made without" not in capsys.readouterr().err
    assert call("line.npz", "d", "--environment", "Other-v0") == 0  # the wind is none of its arguments
    error = capsys.readouterr().err
    assert 'warning: Other-v0 is made without {"wind": 2}, which' in error and "give --environment_kwargs" in error
    assert seen == [
        ("TinySigns-v0", {"patience": 3}), ("tiny_environments:TinySigns-v0", {"patience": 3}),
        ("TinySigns-v0", {"patience": 2}), ("Other-v0", {}),
    ]  # fmt: skip
    (tmp_path / "c" / "summary.json").write_text("{}")  # it has ended
    assert call("signs.npz", "c", "--environment_kwargs", "{patience: 2}", "--resume") == 0
    assert call("signs.npz", "c", "--environment_kwargs", "{patience: 4}", "--resume") == 2
    assert "its environment_kwargs was another" in capsys.readouterr().err


@pytest.mark.parametrize("kind", [DAC, GAIL])
def test_fitting_says_how_many_steps_a_run_had_taken(kind, tmp_path):
    run = RunFolder(tmp_path)
    assert train.fit(made(kind), run, 120, checkpoint_every=80) == 0
    learner = made(kind)
    assert train.fit(learner, run, 200, checkpoint_every=80, resume=True) == 80 and learner.num_timesteps == 200
    assert train.fit(made(kind), RunFolder(tmp_path / "new"), 40, resume=True) == 0  # nothing to go on with


@pytest.mark.parametrize("kind", [BC, GAIL, DAC])
def test_the_device_that_is_told_is_that_of_the_networks(kind, tmp_path, monkeypatch):
    returns = Returns(np.array([1.0]), np.array([20]))
    monkeypatch.setattr(train, "returns_of", lambda *given, **named: returns)
    monkeypatch.setattr(train, "random_returns", lambda *given: returns)
    monkeypatch.setattr(train, "device_words", lambda device: f"measured on {torch.device(device)}")
    monkeypatch.setattr("apps.imitation.report.draw", lambda *given, **named: None)
    learner, rows = made(kind), demonstrate(Line(), 4)
    if kind is not DAC:
        learner.policy.to("meta")
    summary = train.finish(learner, RunFolder(tmp_path), rows, "TinyLine-v0", {}, rows, 1, 0, 1.0)
    assert summary["device"] == ("measured on cpu" if kind is DAC else "measured on meta")
