"""The table of InfoGAIL: how codes are judged, that labels are for judging alone, and its verb, tiny."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

from apps.common.cells import read_cells
from apps.common.presets import find_config
from apps.imitation.__main__ import main
from apps.imitation.environments.circles import CENTRES, RADII, circle_expert
from apps.imitation.environments.demonstrating import expert_demonstrations
from apps.imitation.environments.difficulty import Difficulty
from apps.imitation.tables import modes as table
from apps.imitation.tables.mode_evaluation import (
    ModeRollout,
    code_accuracy,
    expert_rollouts,
    frame_accuracy,
    mutual_information,
    radial_error,
    roll_out,
)
from apps.imitation.tables.mode_figures import paths_as_text, paths_of_text
from core_models.errors import UserError

TINY = {"steps": 40, "hidden": (8,), "judge_hidden": (8,), "critic_steps": 2, "posterior_steps": 2, "cloning_epochs": 1}


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def tiny(scene):
    settings = {**scene.info_gail, **TINY}
    gail = {"steps": 40, "hidden": (8,)}
    features = None if scene.features is None else {"size": 3, "epochs": 1, "explored": 40}
    return replace(scene, trajectories=6, environments=2, each=2, info_gail=settings, gail=gail, features=features)


class Turned:
    """The expert of a circle that is chosen by where the point is: what a policy without a code can do at best."""

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return circle_expert(observation, np.full(len(observation), 2)), None


def rollouts(pairs):
    return [ModeRollout(code, np.zeros((2, 2)), mode, 0.0) for code, mode in pairs]


def test_accuracy_and_information_of_codes():
    swapped = rollouts([(0, 1), (0, 1), (1, 0), (1, 0)])
    assert code_accuracy(swapped) == 1.0 and mutual_information(swapped) == pytest.approx(1.0)
    merged = rollouts([(0, 1), (0, 1), (1, 1), (1, 1)])
    assert code_accuracy(merged) == 0.5 and mutual_information(merged) == pytest.approx(0.0)
    lost = rollouts([(0, 1), (0, None), (1, None), (1, None)])
    assert code_accuracy(lost) == 0.25
    # codes (2, 2), modes (1, 3), together 1, 1, 2 of 4: I / mean(H) by hand
    entropy = -(0.25 * np.log(0.25) + 0.75 * np.log(0.75))
    information = np.log(2) + entropy - (0.5 * np.log(4) + 0.5 * np.log(2))
    assert mutual_information(lost) == pytest.approx(information / ((np.log(2) + entropy) / 2))


def test_the_radial_error_is_that_of_the_nearest_circle():
    angle = np.linspace(0, 2 * np.pi, 50)
    around = np.stack([np.cos(angle), np.sin(angle)], 1)
    paths = [CENTRES[i] + (RADII[i] + off) * around for i, off in ((1, 0.1), (2, -0.02))]
    assert radial_error([ModeRollout(0, path, None, 0.0) for path in paths]) == pytest.approx(0.06)


def test_experts_follow_their_codes_and_a_policy_without_a_code_follows_none():
    found = expert_rollouts("Circles-v0", codes=3, each=2, seed=5)
    assert code_accuracy(found) == 1.0 and [r.code for r in found] == [0, 1, 2, 0, 1, 2]
    assert radial_error(found) < 0.05
    alike = roll_out(Turned(), "Circles-v0", codes=3, each=2, seed=0, deterministic=True)
    assert code_accuracy(alike) == pytest.approx(1 / 3) and {r.mode for r in alike} == {2}
    assert all(len(r.path) == 101 for r in alike)
    for task in ("turn", "pass"):
        driven = expert_rollouts("Driving-v0", {"task": task}, codes=2, each=1, seed=5)
        assert code_accuracy(driven) == 1.0 and all(r.total > 180 for r in driven)


def test_a_policy_of_info_gail_is_given_the_code_of_the_rollout():
    scene = tiny(table.SCENES["Circles"])
    learner, _ = table.trained(scene, "InfoGAIL", expert_demonstrations("Circles-v0", trajectories=6), 0, steps=0)
    seen = []
    own = learner.generator.predict

    def predict(observation, *rest):
        seen.append(observation)
        return own(observation, *rest)

    learner.generator.predict = predict
    learner.predict = lambda observation, **_: predict(observation, None, None, True)
    roll_out(learner, "Circles-v0", codes=3, each=2, seed=0, deterministic=True)
    assert (seen[0][:, -3:].argmax(1) == [0, 1, 2, 0, 1, 2]).all() and (seen[0][:, :10] == 0).all()


def test_every_code_is_driven_in_the_same_worlds():
    class Straight:
        def predict(self, observation, state=None, episode_start=None, deterministic=False):
            return np.tile(np.array([0.0, 0.2], np.float32), (len(observation["image"]), 1)), None

    found = roll_out(Straight(), "Driving-v0", {"task": "pass"}, codes=2, each=2, seed=3, deterministic=True)
    assert [r.total for r in found[::2]] == [r.total for r in found[1::2]] and found[0].total != found[2].total
    again = roll_out(Straight(), "Driving-v0", {"task": "pass"}, codes=2, each=1, seed=4, deterministic=True)
    assert again[0].total == found[2].total


@pytest.mark.parametrize("method", ["InfoGAIL", "GAIL", "BC"])
def test_labels_change_nothing_of_the_learner_and_its_value(method, tmp_path, monkeypatch):
    made = expert_demonstrations("Circles-v0", trajectories=6)
    kept, values = [], []
    own = table.trained

    def watched(scene, method, demonstrations, seed, *, steps, features):
        assert demonstrations.codes is None  # taken away before a learner sees them
        found = own(scene, method, demonstrations, seed, steps=steps, features=features)
        kept.append({name: value.clone() for name, value in found[0].policy.state_dict().items()})
        return found

    monkeypatch.setattr(table, "trained", watched)
    monkeypatch.setattr(table, "SCENES", {"Circles": tiny(table.SCENES["Circles"])})
    monkeypatch.setattr(table, "CLONING", 1)
    for i, codes in enumerate((made.codes, np.zeros(6, int))):
        monkeypatch.setattr(table, "expert_demonstrations", lambda *_, codes=codes, **__: replace(made, codes=codes))
        table.modes(methods=[method], steps=80, results=tmp_path / str(i))
        values.append({cell.column: cell.value for cell in read_cells(tmp_path / str(i))})
    assert values[0] == values[1] and len(values[0]) == 3
    assert all(torch.equal(value, kept[1][name]) for name, value in kept[0].items())
    # a learner that is given labels learns the same as without
    labelled, _ = own(tiny(table.SCENES["Circles"]), method, made, 0, steps=80)
    assert all(torch.equal(value, labelled.policy.state_dict()[name]) for name, value in kept[0].items())


def test_a_posterior_is_judged_by_frames():
    made = expert_demonstrations("Circles-v0", trajectories=6)
    learner, _ = table.trained(tiny(table.SCENES["Circles"]), "InfoGAIL", made, 0, steps=0)

    class Told(torch.nn.Module):
        def forward(self, observations, actions):
            code = torch.as_tensor(made.codes[made.trajectory_of_rows()])
            return torch.nn.functional.one_hot((code + 1) % 3, 3).float()

    learner.judges.posterior = Told()
    assert frame_accuracy(learner, made) == 1.0


def test_the_verb_fills_cells_once_and_draws_them(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(table, "SCENES", {"Circles": tiny(table.SCENES["Circles"])})
    given = ["modes", "--environments", "[Circles]", "--methods", "[BC, InfoGAIL]", "--steps", "80"]
    given += ["--results", str(tmp_path / "results"), "--figures", str(tmp_path / "figures")]
    assert main(given) == 0
    cells = read_cells(tmp_path / "results", "imitation", "infogail")
    assert sorted({cell.column for cell in cells}) == [
        "Circles NMI", "Circles matched accuracy", "Circles radial error",
    ]  # fmt: skip
    assert {(cell.row, cell.unit) for cell in cells} >= {("BC", "%"), ("InfoGAIL", "of 1")} and len(cells) == 6
    made = next(c for c in cells if c.row == "InfoGAIL" and c.column == "Circles matched accuracy")
    expected = (
        "genapps imitation modes --environments '[\"Circles\"]' --methods '[\"InfoGAIL\"]' --seeds '[0]' --steps 80"
    )
    assert made.command == expected
    assert made.extra["settings"]["settings"]["gamma"] == 0.99 and "seed" not in made.extra["settings"]["settings"]
    assert len(made.extra["paths"]) == 6 and "frame_accuracy" in made.extra
    assert (tmp_path / "figures" / "circles_modes.png").is_file()
    capsys.readouterr()
    written = [cell.written for cell in cells]
    assert main(given) == 0
    assert capsys.readouterr().out.count("stands") == 6
    assert [cell.written for cell in read_cells(tmp_path / "results")] == written
    calls = []
    monkeypatch.setattr(table, "trained", lambda *a, **k: calls.append(a[1]) or (Turned(), None))
    monkeypatch.setattr(Turned, "num_timesteps", 0, raising=False)
    assert main([*given, "--again", "true"]) == 0 and calls == ["BC", "InfoGAIL"]


def test_a_cell_of_other_settings_stands_and_is_told_of_unless_it_is_measured_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(table, "SCENES", {"Circles": tiny(table.SCENES["Circles"])})
    budgets = []
    monkeypatch.setattr(table, "trained", lambda *a, steps, **k: budgets.append(steps) or (Turned(), None))
    monkeypatch.setattr(Turned, "num_timesteps", 0, raising=False)
    table.modes(methods=["GAIL"], steps=80, results=tmp_path)
    before = read_cells(tmp_path)
    capsys.readouterr()
    table.modes(methods=["GAIL"], steps=40, results=tmp_path)
    told = capsys.readouterr().out
    assert budgets == [80] and read_cells(tmp_path) == before and len(before) == 3
    assert "seed 0: one of other settings stands, " in told and f"by {before[0].command}: replace it by" in told
    for path in tmp_path.rglob("*.json"):  # nor are those beside it that are missing filled from other settings
        whole = path.read_bytes()
        path.unlink()
        left = read_cells(tmp_path)
        table.modes(methods=["GAIL"], steps=40, results=tmp_path)
        assert budgets == [80] and read_cells(tmp_path) == left and len(left) == 2
        path.write_bytes(whole)
    table.modes(methods=["GAIL"], steps=40, results=tmp_path, again=True)
    assert budgets == [80, 40]
    assert ["--steps 40" in cell.command for cell in read_cells(tmp_path)] == [True] * 3


@pytest.mark.parametrize(
    ("given", "match"),
    [
        (["--environments", "[Circle]"], "did you mean Circles"),
        (["--methods", "[DAC]"], "expected some of BC, GAIL, InfoGAIL, got 'DAC'"),
        (["--seeds", "[]"], "--seeds: expected one or more, got none"),
        (["--seeds", "[0, -1]"], "--seeds: expected 0 or more, got -1"),
        (["--steps", "0"], "--steps: expected 1 or more, got 0"),
        (["--steps", "-5"], "--steps: expected 1 or more, got -5"),
    ],
)
def test_mistakes_are_one_line(given, match, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(table, "trained", lambda *a, **k: pytest.fail("it trains"))
    assert main(["modes", *given, "--results", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert match in error and error.count("\n") == 1


def test_a_figure_needs_cells_and_an_evaluation_modes(tmp_path):
    with pytest.raises(UserError, match="expected cells of BC or GAIL or InfoGAIL for Circles, found none"):
        table.draw_modes(tmp_path / "x.png", "Circles", "Circles-v0", {}, 3, tmp_path, "Circles NMI", [0])
    with pytest.raises(UserError, match="Circles-v0 or Driving-v0, got 'CartPole-v1'"):
        roll_out(Turned(), "CartPole-v1", codes=2, each=1, seed=0, deterministic=True)


def test_paths_are_read_as_they_are_written():
    path = np.array([[0.0, 0.004], [1.0, 1.0], [-12.345, 3.0]])
    found = paths_of_text(paths_as_text([ModeRollout(2, path, None, 0.0)] * 9))
    assert len(found) == 4 and found[0][0] == 2
    np.testing.assert_allclose(found[0][1], [[0.0, 0.0], [-12.35, 3.0]], atol=0.006)


def test_the_preset_is_the_settings_of_the_table():
    preset = yaml.safe_load(find_config("imitation/info_gail_circles").read_text())
    scene = table.SCENES["Circles"]
    assert preset["learner"] == {"class_path": "apps.imitation.learners.InfoGAIL", "init_args": scene.info_gail}
    assert (preset["steps"], preset["environments"]) == (scene.steps, scene.environments)


def test_rows_that_tell_modes_from_frames_are_judged_by_labels(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "SCENES", {"Driving turn": tiny(table.SCENES["Driving turn"])})
    seen = []

    def measured(demonstrations, *, seed):
        seen.append((demonstrations.codes.tolist(), seed))
        return Difficulty(frames=600, kmeans=0.55, pca=0.52, svm=0.9, cnn=0.95)

    monkeypatch.setattr(table, "measure_difficulty", measured)
    table.modes(["Driving turn"], ["k-means", "CNN, supervised"], seeds=[3], results=tmp_path)
    cells = {cell.row: cell for cell in read_cells(tmp_path)}
    assert cells["k-means"].value == pytest.approx(55) and cells["CNN, supervised"].value == pytest.approx(95)
    assert cells["k-means"].column == "Frames of Driving turn" and seen == [([0, 1] * 3, 3)]


def test_driving_is_seen_through_features_that_rows_of_a_seed_share(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "SCENES", {"Driving pass": tiny(table.SCENES["Driving pass"])})
    monkeypatch.setattr(table, "CLONING", 1)
    made = []
    own = table.train_features
    monkeypatch.setattr(table, "train_features", lambda *a, **k: made.append(own(*a, **k)) or made[-1])
    rows = ["BC", "GAIL", "InfoGAIL", "InfoGAIL, no Wasserstein critic"]
    table.modes(["Driving pass"], rows, steps=80, results=tmp_path / "a", figures=tmp_path)
    cells = {(cell.row, cell.column): cell for cell in read_cells(tmp_path / "a")}
    assert len(made) == 1 and len(cells) == 10 and (tmp_path / "driving_pass_modes.png").is_file()
    told = {row: cells[row, "Driving pass rollout distance"].extra["settings"] for row in rows}
    assert told["BC"]["steps"] == 0 and told["InfoGAIL"]["settings"]["survival"] == 3.0
    assert told["InfoGAIL, no Wasserstein critic"]["settings"]["critic"] == "gan"
    assert 0 < cells["BC", "Driving pass rollout distance"].value < 1.1
    frames = cells["InfoGAIL", "Frames of Driving pass"]
    assert frames.value == 100 * frames.extra["frame_accuracy"] and ("BC", "Frames of Driving pass") not in cells
    # a row by itself is measured the same
    table.modes(["Driving pass"], ["InfoGAIL"], steps=80, results=tmp_path / "b")
    for cell in read_cells(tmp_path / "b"):
        assert cell.value == cells[cell.row, cell.column].value
