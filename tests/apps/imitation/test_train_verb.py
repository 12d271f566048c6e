"""`genapps imitation train`, `expert` and `benchmark` through the command line, tiny."""

import json

import numpy as np
import pytest
from sb3_contrib import TRPO
from stable_baselines3 import PPO, SAC
from tiny_environments import Line, demonstrate

from apps.common.cells import read_cells
from apps.imitation import benchmark as table
from apps.imitation.__main__ import main

QUICK = ["--evaluation_episodes", "2", "--environments", "2"]


@pytest.fixture
def call(capsys, monkeypatch):
    monkeypatch.setattr("apps.imitation.train.RANDOM_EPISODES", 3)

    def run(*argv):
        status = main(list(map(str, argv)))
        out, error = capsys.readouterr()
        return status, out, error

    return run


@pytest.fixture
def line(tmp_path):
    demonstrate(Line(), trajectories=4).save(tmp_path / "line.npz")
    return tmp_path / "line.npz"


@pytest.mark.parametrize(
    ("learner", "more", "plain"),
    [
        ("BC", [], TRPO),
        ("GAIL", ["--learner.steps", "80", "--learner.hidden", "[8]"], TRPO),
        ("DAC", ["--learner.hidden", "[8,8]", "--learner.learning_starts", "40"], SAC),
    ],
)
def test_a_run_folder_has_all_that_belongs_there(learner, more, plain, line, tmp_path, call):
    out = tmp_path / "run"
    given = ["train", "--learner", learner, *more, "--demonstrations", line, "--out", out, "--steps", 160, *QUICK]
    status, told, error = call(*given, "--subsample", 2, "--trajectories", 3)
    assert status == 0, error
    summary = json.loads((out / "summary.json").read_text())
    assert summary["demonstrations"] == {"trajectories": 3, "rows": 30, "subsample": 2}
    assert summary["steps"] == (0 if learner == "BC" else 160)
    scale = summary["expert"]["mean"] - summary["random"]["mean"]
    expected = (summary["returns"]["mean"] - summary["random"]["mean"]) / scale
    assert summary["fraction_of_expert"] == pytest.approx(expected)
    assert "of the way" in told and "no film" in error  # the tiny environment can't be drawn
    action, _ = plain.load(out / "policy.zip").predict(np.zeros((1, 2), np.float32))
    assert action.shape == (1, 1)
    assert (out / "report.html").is_file() and (out / "figures" / "learning.png").is_file()
    assert call("report", "--run", out)[0] == 0
    status, _, error = call(*given)
    assert status == 2 and "already holds a run" in error
    status, told, _ = call(*given, "--resume")
    assert status == 0 and "has ended" in told


def test_a_killed_run_goes_on_with_the_same_numbers(line, tmp_path, call, monkeypatch):
    def given(name):
        some = ["train", "--learner", "GAIL", "--learner.steps", 80, "--learner.hidden", "[8]", "--learner.seed", 1]
        return [
            *some,
            "--demonstrations",
            line,
            "--out",
            tmp_path / name,
            "--steps",
            320,
            "--checkpoint_every",
            160,
            *QUICK,
        ]

    assert call(*given("whole"))[0] == 0
    from apps.imitation import train

    whole = train.save_state

    def killed(learner, path):
        whole(learner, path)
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "save_state", killed)
    status, _, error = call(*given("killed"))
    assert status == 130 and "interrupted at 160 steps: the same command with --resume goes on" in error
    monkeypatch.setattr(train, "save_state", whole)
    assert call(*given("killed"), "--resume")[0] == 0
    told = [json.loads((tmp_path / name / "summary.json").read_text())["returns"] for name in ("whole", "killed")]
    assert told[0] == told[1]
    assert (tmp_path / "whole" / "metrics.jsonl").read_text() == (tmp_path / "killed" / "metrics.jsonl").read_text()


def test_mistakes_are_one_line(line, tmp_path, call):
    for more, words in (
        (["--learner", "GALE", "--demonstrations", line], "one of AIRL, BC, DAC, FEM, GAIL, GTAL, InfoGAIL"),
        (["--learner", "SAC", "--demonstrations", line], "got 'SAC'"),
        (["--learner", "GAIL", "--learner.rewrd", "x", "--demonstrations", line], "has no setting 'rewrd'"),
        (["--learner", "GAIL", "--demonstrations", tmp_path / "none.npz"], "found none at"),
        (["--learner", "GAIL", "--demonstrations", line, "--environment", "CartPole-v1"], "CartPole-v1"),
        (["--learner", "GAIL", "--demonstrations", line, "--environment", "NoSuch-v0"], "NoSuch-v0"),
        (["--learner", "InfoGAIL", "--learner.codes", "1", "--demonstrations", line], "2 values or more"),
    ):
        status, _, error = call("train", *more, "--out", tmp_path / "bad", *QUICK)
        assert status == 2 and words in error and error.count("\n") == 1, error
    status, _, error = call("benchmark", "--environments", "[CartPol]")
    assert status == 2 and "did you mean 'CartPole'" in error


def test_an_expert_is_trained_and_opens_without_its_normalisation(tmp_path, call):
    out = tmp_path / "expert.zip"
    given = ["expert", "--environment", "TinyLine-v0", "--out", out, "--steps", 256, "--environments", 2]
    status, told, error = call(*given, "--settings", "{n_steps: 64, batch_size: 64}", "--evaluation_episodes", 2)
    assert status == 0, error
    assert "ppo on TinyLine-v0: return" in told
    assert json.loads((tmp_path / "expert.json").read_text())["steps"] == 256
    assert PPO.load(out).get_vec_normalize_env() is None


def test_the_table_of_gail_is_filled_and_goes_on(line, tmp_path, call, monkeypatch):
    monkeypatch.setitem(table.TASKS, "Line", table.Task("TinyLine-v0", 2, 10_000, trajectories=(2,)))
    monkeypatch.setattr(table, "random_return", lambda env_id, kwargs: -10.0)
    (tmp_path / "demos").mkdir()
    line.rename(tmp_path / "demos" / "TinyLine-v0.npz")
    given = ["benchmark", "--environments", "[Line]", "--methods", '["BC", "GAIL"]', "--steps", 10_000, "--episodes", 2]
    given += ["--demonstrations", tmp_path / "demos", "--results", tmp_path / "results"]
    monkeypatch.setitem(table.METHODS, "GAIL", (table.GAIL, {"hidden": [8], "steps": 5000}))
    assert call(*given)[0] == 0
    cells = {cell.row: cell for cell in read_cells(tmp_path / "results", app="imitation")}
    assert set(cells) == {"BC", "GAIL"} and cells["BC"].extra["steps"] == 0 and cells["GAIL"].extra["steps"] == 10_000
    for cell in cells.values():
        told = cell.extra
        assert cell.value == pytest.approx((told["return"]["mean"] + 10) / (told["expert"] + 10))
        assert cell.column == "Line 2" and told["rows"] == 20
    status, told, _ = call(*given)
    assert status == 0 and told.count("stands") == 2
    assert call(*given, "--no_demonstrations", "true", "--whole", "true")[0] == 0
    cells = {(cell.row, cell.column) for cell in read_cells(tmp_path / "results", app="imitation")}
    assert ("BC, no demonstrations", "Line 2, whole") in cells


def test_the_control_keeps_the_size_of_the_numbers_and_nothing_of_what_they_mean():
    rows = demonstrate(Line(), trajectories=4)
    shuffled = table.without_meaning(rows, 0)
    for ours, theirs in ((shuffled.observations, rows.observations), (shuffled.actions, rows.actions)):
        np.testing.assert_array_equal(np.sort(ours, axis=0), np.sort(theirs, axis=0))
        assert (ours != theirs).any(axis=1).mean() > 0.9
    told = [np.abs(r.actions[:, 0] - r.observations @ Line.WEIGHTS).mean() for r in (rows, shuffled)]
    assert told[0] < 0.1 and told[1] > 0.25
