"""`genapps imitation train`, `expert` and `benchmark` through the command line, tiny."""

import json
import re
import shlex
from dataclasses import replace

import numpy as np
import pytest
import yaml
from sb3_contrib import TRPO
from stable_baselines3 import PPO, SAC
from tiny_environments import Line, demonstrate

from apps.common.cells import read_cells
from apps.common.presets import find_config, preset_names
from apps.imitation.__main__ import main
from apps.imitation.demonstrations import Demonstrations
from apps.imitation.tables import gail as table
from core_models.errors import UserError

QUICK = ["--evaluation_episodes", "2", "--environments", "2"]
PRESETS = [name for name in preset_names() if re.match(r"imitation/(bc|gail|dac|info_gail)_", name)]


@pytest.fixture
def call(capsys, monkeypatch):
    monkeypatch.setattr("apps.imitation.evaluation.RANDOM_EPISODES", 3)
    monkeypatch.setattr("apps.imitation.learners.bc.MOST_EPOCHS", 20)

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
    status, told, _ = call(*given, "--subsample", 2, "--trajectories", 3, "--resume")
    assert status == 0 and "has ended" in told
    status, _, error = call(*given, "--trajectories", 3, "--resume")
    assert status == 2 and "has ended, and its subsample was another" in error


def test_progress_counts_the_steps_that_are_taken(line, tmp_path, call):
    given = ["train", "--learner", "GAIL", "--learner.steps", 80, "--learner.hidden", "[8]", "--demonstrations", line]
    status, _, error = call(*given, "--out", tmp_path / "run", "--steps", 100, *QUICK)
    assert status == 0 and "gail: step 160 of 160 (100 %)" in error, error  # iterations are taken whole


def test_what_looks_odd_in_demonstrations_is_said_before_learning(line, tmp_path, call):
    seen = Demonstrations.load(line)
    replace(seen, actions=seen.actions + 100.0).save(tmp_path / "odd.npz")
    status, _, error = call("train", "--learner", "BC", "--demonstrations", tmp_path / "odd.npz", "--out",
                            tmp_path / "run", *QUICK)  # fmt: skip
    assert status == 0 and "warning: 100.00% of the numbers in actions lie beyond the bounds" in error


@pytest.mark.parametrize(("value", "shown"), [("nan", "'nan'"), ("[1, 2]", "'[1, 2]'")])
def test_a_setting_of_the_wrong_type_is_named_with_its_value_alone(line, tmp_path, call, value, shown):
    status, _, error = call("train", "--learner", "DAC", "--learner.absorbing_distance", value, "--demonstrations",
                            line, "--out", tmp_path / "run")  # fmt: skip
    assert status == 2
    assert error == f"genapps: error: --learner.absorbing_distance of DAC: expected float, got {shown}\n"


BARE = dict.fromkeys(("rewards", "returns", "terminated", "final_observations"))


def test_observations_and_actions_alone_are_learnt_from(line, tmp_path, call):
    replace(Demonstrations.load(line), **BARE).save(tmp_path / "bare.npz")

    def trained(name, learner, *more):
        given = ["train", "--demonstrations", tmp_path / name, "--learner", learner, *more, "--steps", 80]
        return call(*given, "--out", tmp_path / f"{learner} of {name}", *QUICK)

    for learner, more in (("BC", []), ("GAIL", ["--learner.steps", 80, "--learner.hidden", "[8]"])):
        found = []
        for name in ("bare.npz", "line.npz"):
            status, told, error = trained(name, learner, *more)
            assert status == 0, error
            found.append(json.loads((tmp_path / f"{learner} of {name}" / "summary.json").read_text()))
        bare, whole = found
        assert bare["returns"] == whole["returns"]  # nothing that was left out is learnt from
        assert bare["expert"]["mean"] is None and bare["fraction_of_expert"] is None
        assert call("report", "--run", tmp_path / f"{learner} of bare.npz")[0] == 0
    status, told, error = call("evaluate", "--policy", tmp_path / "GAIL of bare.npz", "--episodes", 1)
    assert status == 0, error
    assert "of the way" not in told and "95 %" not in told and "1 episode\n" in told
    given = ["evaluate", "--policy", tmp_path / "GAIL of bare.npz", "--demonstrations", tmp_path / "bare.npz"]
    status, _, error = call(*given)
    assert status == 2 and "expected returns in the demonstrations of TinyLine-v0, which the fraction" in error
    status, _, error = trained("bare.npz", "DAC")
    assert status == 2 and "expected terminated in the demonstrations of TinyLine-v0, which the reward" in error
    status, _, error = trained("bare.npz", "AIRL")
    assert status == 2 and "expected final_observations in the demonstrations of TinyLine-v0" in error


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
    for name, since in (("whole", None), ("killed", 160)):  # the seconds are not those of the whole run
        assert json.loads((tmp_path / name / "summary.json").read_text()).get("seconds_since_step") == since
        assert (
            "s since step 160, where the run was gone on with" in (tmp_path / name / "report.html").read_text()
        ) == (since is not None)


def test_several_seeds_run_in_processes_of_their_own_and_one_that_fails_leaves_the_others(line, tmp_path, call):
    out = tmp_path / "seeds"
    # a process of its own learns of the tiny environment from the module that is named
    given = ["train", "--learner", "GAIL", "--learner.steps", 80, "--learner.hidden", "[8]", "--demonstrations", line]
    given += ["--environment", "tiny_environments:TinyLine-v0", "--steps", 80, *QUICK]
    broken = out / "seed_1" / "checkpoint" / "state.safetensors"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"cut short")
    several = [*given, "--out", out, "--seeds", "[0, 1]", "--jobs", 2]
    status, _, error = call(*several)
    assert status == 2 and "seed_1 already holds a run: add --resume" in error and not (out / "seed_0").exists()
    status, told, error = call(*several, "--resume")
    assert status == 1, error
    assert "genapps: error: seed 1 failed: " in error and str(out / "seed_1.log") in error
    assert "seed 0: GAIL on tiny_environments:TinyLine-v0: return" in told
    broken.unlink()
    for seed, place in ((0, tmp_path / "single"), (1, out / "seed_1")):
        assert call(*given, "--out", place, "--learner.seed", seed)[0] == 0
    status, told, error = call(*several, "--resume")  # all have ended: no process is started
    assert status == 0, error
    assert "GAIL, 2 runs on tiny_environments:TinyLine-v0: return" in told
    found = json.loads((out / "seeds.json").read_text())
    assert [run["seed"] for run in found["runs"]] == [0, 1] and found["failed"] == []
    assert found["runs"][0]["returns"] == json.loads((tmp_path / "single" / "summary.json").read_text())["returns"]
    for more, words in ((("--subsample", 2), "subsample was another"), (("--steps", 160), "steps was another")):
        status, _, error = call(*several, "--resume", *more)  # no mean over runs of different settings
        assert status == 2 and f"seed_0: its {words}" in error
    means = [run["returns"]["mean"] for run in found["runs"]]
    assert means[0] != means[1] and found["over_runs"][0]["returns"]["mean"] == pytest.approx(np.mean(means))
    page = (out / "report.html").read_text()
    assert all(f"{mean:.1f}" in page for mean in (*means, np.mean(means)))
    assert (out / "figures" / "returns.png").is_file()
    (out / "report.html").unlink()
    assert call("report", "--run", out)[0] == 0 and (out / "report.html").read_text() == page


def test_mistaken_seeds_are_one_line(line, tmp_path, call):
    given = ["train", "--learner", "BC", "--demonstrations", line, "--out", tmp_path / "bad", *QUICK]
    for more, words in (
        (["--seeds", "[1, 1]"], "one or more that differ, got [1, 1]"),
        (["--seeds", "[]"], "one or more that differ"),
        (["--seeds", "[0]", "--jobs", 0], "--jobs: expected 1 or more"),
        (["--seeds", "[0, -1]"], "--seeds: expected 0 or more, got -1"),
        (["--steps", 0], "--steps: expected 1 or more, got 0"),
        (["--checkpoint_every", 0], "--checkpoint_every: expected 1 or more, got 0"),
        (["--evaluation_episodes", 0], "--evaluation_episodes: expected 1 or more, got 0"),
        (["--learner.seed", -1], "--learner.seed: expected 0 or more, got -1"),
    ):
        status, _, error = call(*given, *more)
        assert status == 2 and words in error and error.count("\n") == 1, error


def test_mistakes_are_one_line(line, tmp_path, call):
    for more, words in (
        (["--learner", "GALE", "--demonstrations", line], "one of AIRL, BC, DAC, FEM, GAIL, GTAL, InfoGAIL"),
        (["--learner", "SAC", "--demonstrations", line], "got 'SAC'"),
        (["--learner", "GAIL", "--learner.rewrd", "x", "--demonstrations", line], "has no setting 'rewrd'"),
        # of its base; and what the verb gives it is no setting
        (["--learner", "GAIL", "--learner.gama", "1", "--demonstrations", line], "'gama'; did you mean gamma?"),
        (["--learner", "DAC", "--learner.zzz", "1", "--demonstrations", line], "'zzz'; it takes seed, reward, "),
        (["--learner", "GAIL", "--demonstrations", tmp_path / "none.npz"], "found none at"),
        (["--learner", "GAIL", "--demonstrations", line, "--environment", "CartPole-v1"], "CartPole-v1"),
        (["--learner", "GAIL", "--demonstrations", line, "--environment", "NoSuch-v0"], "NoSuch-v0"),
        (["--learner", "InfoGAIL", "--learner.codes", "1", "--demonstrations", line], "2 values or more"),
        (["--learner", "GAIL", "--learner.gamma", "2", "--demonstrations", line], "gamma: expected a number from 0 to"),
        (["--learner", "DAC", "--learner.gamma", "2", "--demonstrations", line], "gamma: expected a number from 0 to"),
        (["--learner", "BC", "--learner.device", "gpu", "--demonstrations", line], "--learner.device: expected auto"),
    ):
        status, _, error = call("train", *more, "--out", tmp_path / "bad", *QUICK)
        assert status == 2 and words in error and error.count("\n") == 1, error
    status, _, error = call("benchmark", "--environments", "[CartPol]")
    assert status == 2 and "did you mean CartPole" in error


@pytest.mark.parametrize("verb", ["train", "evaluate"])
def test_a_file_of_demonstrations_imports_no_module(line, tmp_path, call, verb):
    foreign = replace(Demonstrations.load(line), environment="os:TinyLine-v0")
    foreign.save(tmp_path / "foreign.npz")
    given = ["--demonstrations", tmp_path / "foreign.npz"]
    more = ["--learner", "BC", "--out", tmp_path / "run"] if verb == "train" else ["--policy", tmp_path / "p.zip"]
    if verb == "evaluate":
        PPO("MlpPolicy", "CartPole-v1", n_steps=8, batch_size=8).save(tmp_path / "p.zip")
    status, _, error = call(verb, *given, *more)
    assert status == 2 and "names a module to import" in error and error.count("\n") == 1


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
    for cell in cells.values():  # a cell's own command is of the same settings
        status, told, error = call(*shlex.split(cell.command)[2:], "--results", tmp_path / "results")
        assert status == 0 and f"{cell.row}, Line 2, seed 0: stands" in told, error
    status, told, _ = call(*given, "--episodes", 3)  # what was measured otherwise is not written over unasked
    assert status == 0 and told.count("one of other settings stands") == 2
    assert {cell.row: cell for cell in read_cells(tmp_path / "results", app="imitation")} == cells
    for wrong, words in ((("--steps", -1), "--steps: expected 0"), (("--seeds", "[-1]"), "--seeds: expected 0")):
        status, _, error = call(*given, *wrong)
        assert status == 2 and words in error
    assert call(*given, "--no_demonstrations", "true", "--whole", "true")[0] == 0
    cells = {(cell.row, cell.column) for cell in read_cells(tmp_path / "results", app="imitation")}
    assert ("BC, no demonstrations", "Line 2, whole") in cells
    assert call(*given, "--no_demonstrations", "true", "--random_signs", "true")[0] == 0
    signed = {cell.row: cell for cell in read_cells(tmp_path / "results", app="imitation")}
    assert "--random_signs true" in signed["BC, no demonstrations, random signs"].command
    status, _, error = call(*given, "--random_signs", "true")
    assert status == 2 and "expected --no_demonstrations true beside it" in error


def test_a_file_that_is_thinned_already_is_thinned_to_the_protocol_and_no_further(line, tmp_path, call, monkeypatch):
    monkeypatch.setattr(table, "random_return", lambda env_id, kwargs: -10.0)
    monkeypatch.setitem(table.TASKS, "Line", table.Task("TinyLine-v0", 4, 10_000, trajectories=(2,)))
    (tmp_path / "thin").mkdir()
    Demonstrations.load(line).subsampled(2, seed=3).save(tmp_path / "thin" / "TinyLine-v0.npz")
    given = ["benchmark", "--environments", "[Line]", "--methods", '["BC"]', "--episodes", 2]
    given += ["--results", tmp_path / "results", "--demonstrations", tmp_path / "thin"]
    assert call(*given)[0] == 0
    (cell,) = read_cells(tmp_path / "results", app="imitation")
    assert cell.extra["settings"]["subsample"] == 4 and cell.extra["rows"] == 2 * 5
    status, _, error = call(*given, "--whole", "true")
    assert status == 2 and "keeps one in 2: record it anew" in error


def test_experts_trained_here_have_columns_of_their_own(line, tmp_path, call, monkeypatch):
    monkeypatch.setattr(table, "random_return", lambda env_id, kwargs: -10.0)
    monkeypatch.setattr(table, "FOLDER", tmp_path)
    monkeypatch.delenv("GENAPPS_DATA", raising=False)
    line.rename(tmp_path / "TinyLine-v0.npz")
    given = ["benchmark", "--environments", "[Line]", "--methods", '["BC"]', "--episodes", 2]
    given += ["--results", tmp_path / "results"]
    monkeypatch.setitem(table.TASKS, "Line", table.Task("TinyLine-v0", 2, 10_000, trajectories=(2,)))
    status, told, _ = call(*given)  # what ships never takes the place of the authors' demonstrations
    assert status == 1 and "no demonstrations of TinyLine-v0 by the published expert" in told
    assert call(*given, "--expert", "own")[0] == 0
    alone = table.Task("TinyLine-v0", 2, 10_000, trajectories=(3,), published_expert=False)
    monkeypatch.setitem(table.TASKS, "Line", alone)
    assert call(*given)[0] == 0  # but where the authors' are not to be had
    cells = {cell.column: cell for cell in read_cells(tmp_path / "results", app="imitation")}
    assert set(cells) == {"Line 2, own expert", "Line 3"}
    assert "--expert own" in cells["Line 2, own expert"].command
    assert {cell.extra["demonstrations"] for cell in cells.values()} == {"own expert"}
    # a folder that the user names comes before both, and is not passed over in silence
    (tmp_path / "theirs").mkdir()
    status, told, _ = call(*given, "--demonstrations", tmp_path / "theirs", "--again", "true")
    assert status == 1 and f"no TinyLine-v0.npz in {tmp_path / 'theirs'}" in told
    (tmp_path / "TinyLine-v0.npz").rename(tmp_path / "theirs" / "TinyLine-v0.npz")
    assert call(*given, "--demonstrations", tmp_path / "theirs", "--again", "true")[0] == 0
    (cell,) = [own for own in read_cells(tmp_path / "results", app="imitation") if own.column == "Line 3"]
    assert cell.extra["demonstrations"] == str(tmp_path / "theirs") and "--demonstrations" in cell.command
    status, _, error = call(*given, "--demonstrations", tmp_path / "theirs", "--expert", "own")
    assert status == 2 and "expected no folder beside --expert own" in error


def test_the_control_keeps_the_size_of_the_numbers_and_nothing_of_what_they_mean():
    rows = demonstrate(Line(), trajectories=4)
    shuffled = table.without_meaning(rows, 0)
    for ours, theirs in ((shuffled.observations, rows.observations), (shuffled.actions, rows.actions)):
        np.testing.assert_array_equal(np.sort(ours, axis=0), np.sort(theirs, axis=0))
        assert (ours != theirs).any(axis=1).mean() > 0.9
    told = [np.abs(r.actions[:, 0] - r.observations @ Line.WEIGHTS).mean() for r in (rows, shuffled)]
    assert told[0] < 0.1 and told[1] > 0.25


def test_random_signs_leave_the_size_of_the_numbers_alone_and_nothing_else():
    rows = demonstrate(Line(), trajectories=4)
    rows = replace(rows, observations=rows.observations + 3)
    drawn = table.without_meaning(rows, 0, signs=True)
    for ours, theirs in ((drawn.observations, rows.observations), (drawn.actions, rows.actions)):
        np.testing.assert_array_equal(np.sort(np.abs(ours), axis=0), np.sort(np.abs(theirs), axis=0))
    assert (rows.observations.mean(0) > 2).all() and (np.abs(drawn.observations.mean(0)) < 1.5).all()
    with pytest.raises(UserError, match="got whole numbers"):
        table.without_meaning(replace(rows, actions=np.zeros(len(rows), np.int64)), 0, signs=True)


def test_there_are_presets_of_each_kind():
    assert {name.split("/")[1].split("_")[0] for name in PRESETS} >= {"bc", "gail", "dac"}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_says_what_train_can_do(name, call, tmp_path):
    given = ["train", "--config", name, "--out", tmp_path / "run", "--print_config"]
    named = "\ndemonstrations:" in find_config(name).read_text()
    status, told, error = call(*given, *([] if named else ["--demonstrations", "some.npz"]))
    assert status == 0, error
    settings = yaml.safe_load(told)
    kind = settings["learner"]["class_path"].rsplit(".", 1)[1]
    if kind == "InfoGAIL":
        assert settings["learner"]["init_args"]["codes"] > 1
        return
    # what the table of GAIL measures is what the preset trains
    (task,) = [own for own in table.TASKS.values() if own.env_id == settings["demonstrations"]]
    assert settings["subsample"] == task.subsample and settings["trajectories"] in task.trajectories
    if kind != "BC":
        assert settings["steps"] == (task.off_policy_steps if kind == "DAC" else task.steps)
        assert settings["learner"]["init_args"]["reward"] == ("logit" if kind == "DAC" else task.reward)
