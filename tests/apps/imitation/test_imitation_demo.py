"""`genapps imitation demo`, tiny: its section on the page, and what it says of itself."""

import json
from dataclasses import replace

import numpy as np
import pytest

from apps.common.report import write_report
from apps.imitation import demo, shipped
from apps.imitation.__main__ import main
from apps.imitation.demonstrations import Demonstrations, record
from apps.imitation.environments.making import make_env


class Balance:
    """A control of the pole by hand: pushes to where it leans and turns."""

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return (observation[:, 2] + observation[:, 3] > 0).astype(np.int64), state


@pytest.fixture
def cartpole(tmp_path, monkeypatch):
    """What ships, in a small form."""
    folder = tmp_path / "experts"
    folder.mkdir()
    env = make_env("CartPole-v1", {"max_episode_steps": 30})
    record(Balance(), env, 3, seed=0, environment="CartPole-v1", environment_kwargs={}).save(folder / "CartPole-v1.npz")
    monkeypatch.setattr(shipped, "FOLDER", folder)
    for name, value in (("EPISODES", 2), ("STEPS", 100)):
        monkeypatch.setattr(demo, name, value)
    monkeypatch.setattr("apps.imitation.evaluation.RANDOM_EPISODES", 3)
    monkeypatch.setattr("apps.imitation.learners.bc.MOST_EPOCHS", 20)
    return folder / "CartPole-v1.npz"


def test_it_adds_its_section_and_says_what_it_is_worth(cartpole, tmp_path, capsys):
    out = tmp_path / "demo"
    write_report(out / "report.html", title="Of another app")
    assert main(["demo", "--out", str(out), "--steps", "200"]) == 0
    told = capsys.readouterr().out
    summary = json.loads((out / "imitation" / "summary.json").read_text())
    assert summary["steps"] == 200 and summary["demonstrations"] == {"trajectories": 1, "rows": 3, "subsample": 10}
    assert [row["policy"] for row in summary["demo"]] == ["GAIL", "BC", "GAIL, no demonstrations"]
    assert summary["demo"][0]["mean"] == summary["returns"]["mean"]
    page = (out / "report.html").read_text()
    assert "Of another app" in page and page.count('<section id="imitation">') == 1
    assert demo.CAUTION[:40] in page and "data:image/gif" in page and page.count("data:image/png") == 2
    assert "chooses as the expert in" in told and "report: " in told
    assert main(["demo", "--out", str(out), "--steps", "100", "--control", "false"]) == 0
    summary = json.loads((out / "imitation" / "summary.json").read_text())
    assert summary["steps"] == 100 and [row["policy"] for row in summary["demo"]] == ["GAIL", "BC"]
    assert (out / "report.html").read_text().count('<section id="imitation">') == 1


def test_what_is_like_the_expert_is_measured_where_it_was_not_shown(cartpole):
    expert = Demonstrations.load(cartpole)
    first = np.arange(len(expert)) < expert.lengths[0]
    expert = replace(expert, actions=np.where(first, 1 - expert.actions, expert.actions))  # was shown: not looked at
    assert demo.agreement(Balance(), expert) == 100

    class Opposite(Balance):
        def predict(self, *given, **named):
            return 1 - super().predict(*given, **named)[0], None

    assert demo.agreement(Opposite(), expert) == 0
    assert demo.agreement(Balance(), expert.take(1)) is None


def test_a_file_of_demonstrations_imports_no_module(cartpole, tmp_path, capsys, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "module_of_the_file.py").write_text("raise SystemExit('imported')")
    foreign = replace(Demonstrations.load(cartpole), environment="module_of_the_file:CartPole-v1")
    foreign.save(tmp_path / "foreign.npz")
    given = ["demo", "--demonstrations", str(tmp_path / "foreign.npz"), "--out", str(tmp_path / "demo")]
    assert main([*given, "--steps", "100"]) == 2
    error = capsys.readouterr().err
    assert "--demonstrations: expected an environment's plain id, got module_of_the_file:CartPole-v1" in error
    assert error.count("\n") == 1 and not (tmp_path / "demo").exists()


def test_a_negative_seed_is_one_line(cartpole, tmp_path, capsys):
    assert main(["demo", "--seed", "-1", "--steps", "100", "--out", str(tmp_path / "demo")]) == 2
    assert capsys.readouterr().err == "genapps: error: --seed: expected 0 or more, got -1\n"
    assert not (tmp_path / "demo").exists()


def test_without_the_file_that_ships_it_is_one_line(cartpole, tmp_path, capsys):
    cartpole.unlink()
    assert main(["demo", "--out", str(tmp_path / "demo")]) == 2
    error = capsys.readouterr().err
    assert "'CartPole-v1'" in error and error.count("\n") == 1 and not (tmp_path / "demo").exists()
