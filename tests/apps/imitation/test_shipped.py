"""Demonstrations that ship: each loads, is what its card says, and is found by its name."""

import hashlib
import json
import tomllib

import gymnasium
import numpy as np
import pytest

from apps.common import presets
from apps.imitation import shipped
from apps.imitation.__main__ import main
from apps.imitation.demonstrations import Demonstrations, check_spaces, summary
from apps.imitation.environments.making import make_env
from core_models.errors import UserError

LIMIT = 8 * 2**20
"""Of all together [bytes]."""
FROM_AFAR = ("HalfCheetah-v4", "Hopper-v4", "Reacher-v4", "Walker2d-v4")
"""Of MuJoCo: chaotic, so that another processor's rounding leads elsewhere."""


@pytest.fixture
def call(capsys):
    def run(*argv):
        status = main(list(map(str, argv)))
        return status, *capsys.readouterr()

    return run


def test_some_ship_and_are_small():
    assert {"CartPole-v1", "Acrobot-v1", "MountainCar-v0", "Reacher-v4", "Hopper-v4", "HalfCheetah-v4"} <= set(
        shipped.names()
    )
    files = list(shipped.FOLDER.iterdir())
    assert sum(path.stat().st_size for path in files) <= LIMIT
    # nothing that is neither demonstrations nor their card
    assert {path.name for path in files} == {f"{name}{end}" for name in shipped.names() for end in (".npz", ".json")}


def test_a_wheel_carries_them():
    given = tomllib.loads((presets.ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    folder = shipped.FOLDER.parent
    carried = {path for pattern in given["apps.imitation"] for path in folder.glob(pattern)}
    assert set(shipped.FOLDER.iterdir()) <= carried


@pytest.mark.parametrize("name", shipped.names())
def test_a_file_is_what_its_card_says_and_fits_its_environment(name):
    path, told = shipped.located(name), shipped.card(name)
    made = Demonstrations.load(path)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == told["sha256"]
    assert (made.environment, made.environment_kwargs) == (name, told["environment_kwargs"])
    assert (made.trajectories, int(made.steps.sum())) == (told["trajectories"], told["steps"])
    found = made.returns.mean(), made.returns.std(), made.returns.min()
    assert found == pytest.approx((told["mean_return"], told["std_return"], told["least_return"]))
    np.testing.assert_allclose(
        np.add.reduceat(made.rewards.astype(np.float64), made.row_starts()), made.returns, rtol=1e-5, atol=1e-3
    )
    assert made.subsample == 1 and made.codes is None
    assert made.observations.dtype == np.float32 and made.rewards.dtype == np.float32
    env = make_env(name, made.environment_kwargs)
    check_spaces(made, env.observation_space, env.action_space, name)
    assert not [line for line in summary(made, env.observation_space, env.action_space)["oddities"] if "return" in line]
    env.close()


@pytest.mark.parametrize("name", shipped.names())
def test_a_card_says_who_how_and_what_it_is_worth_and_nothing_of_a_machine(name):
    told = shipped.card(name)
    assert told["expert"]["command"].startswith("genapps imitation expert --config imitation/expert_")
    assert told["command"].startswith("genapps imitation demos record --policy runs/imitation/experts/")
    assert f"--environment {name} " in told["command"] and f"--seed {told['seed']}" in told["command"]
    assert told["command"].count("--deterministic") == told["deterministic"]
    assert told["licence"] == "MIT" and told["who"].startswith(told["expert"]["algorithm"].upper())
    # recorded and evaluated deterministically alike, from other starts: four standard errors of both
    worth = told["expert"]["returns"]
    spread = np.hypot(
        worth["standard_deviation"] / worth["episodes"] ** 0.5, told["std_return"] / told["trajectories"] ** 0.5
    )
    assert abs(worth["mean"] - told["mean_return"]) <= 4 * spread + 1e-6
    assert "/work" not in json.dumps(told) and "/tmp" not in json.dumps(told) and "/home" not in json.dumps(told)


@pytest.mark.parametrize("name", sorted({*shipped.names()} - {*FROM_AFAR}))
def test_the_recorded_actions_bring_the_recorded_returns_again(name):
    """From the recording's own seed, episode after episode, as `record` runs them."""
    made, told = Demonstrations.load(shipped.located(name)), shipped.card(name)
    env = make_env(name, made.environment_kwargs)
    rows = iter(zip(made.observations, made.actions, strict=True))
    for i in range(made.trajectories):
        seen, _ = env.reset(seed=told["seed"] if i == 0 else None)
        total, over = 0.0, False
        while not over:
            expected, action = next(rows)
            np.testing.assert_allclose(seen, expected, rtol=1e-4, atol=1e-4)
            seen, reward, terminated, truncated, _ = env.step(action)
            total, over = total + float(reward), terminated or truncated
        assert total == pytest.approx(made.returns[i]) and terminated == made.terminated[i]
    assert next(rows, None) is None
    env.close()


def test_list_says_what_ships(call):
    status, told, _ = call("demos", "list")
    assert status == 0
    lines = {line.split()[0]: line for line in told.splitlines()[1:]}
    assert list(lines) == shipped.names()
    for name, line in lines.items():
        card = shipped.card(name)
        assert f" {card['trajectories']} " in line and f"{card['mean_return']:.1f} ± " in line and card["who"] in line
    assert json.loads(call("demos", "list", "--as_json")[1]) == {name: shipped.card(name) for name in shipped.names()}


def test_one_is_used_by_its_name(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "CartPole-v1").mkdir()  # a folder that happens to be called so
    status, told, error = call("demos", "inspect", "--demonstrations", "CartPole-v1")
    assert status == 0 and "checked: they fit the spaces of CartPole-v1" in told, error
    out = tmp_path / "few.npz"
    assert call("demos", "export", "--demonstrations", "CartPole-v1", "--trajectories", "2", "--out", out)[0] == 0
    assert Demonstrations.load(shipped.located(str(out))).trajectories == 2
    status, _, error = call("demos", "inspect", "--demonstrations", "CartPol-v1")
    assert status == 2 and "did you mean CartPole-v1?" in error and error.count("\n") == 1
    with pytest.raises(UserError, match=r"found none at none\.npz"):
        shipped.located("none.npz")
    with pytest.raises(UserError, match=r"expected demonstrations that ship .*, got 'Ant-v9'"):
        shipped.card("Ant-v9")


def test_what_was_recorded_is_put_among_them(tmp_path, capsys):
    name = "CartPole-v1"
    told = shipped.card(name)
    expert = {"environment": name, "environment_kwargs": {}, **told["expert"]}
    (tmp_path / "expert.json").write_text(json.dumps(expert))
    given = ["--expert", tmp_path / "expert.json", "--demonstrations", shipped.located(name), "--folder", tmp_path]
    assert shipped.main(list(map(str, given))) == 0
    assert (tmp_path / f"{name}.npz").read_bytes() == shipped.located(name).read_bytes()
    again = json.loads((tmp_path / f"{name}.json").read_text())
    assert {**again, "versions": told["versions"]} == told
    (tmp_path / "expert.json").write_text(json.dumps({**expert, "environment": "Acrobot-v1"}))
    assert shipped.main(list(map(str, given))) == 2
    assert (
        "expected demonstrations of the expert's environment, Acrobot-v1 {}, got CartPole-v1" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    "path", sorted((presets.ROOT / "configs" / "imitation").glob("expert_*.yaml")), ids=lambda p: p.stem
)
def test_a_preset_is_of_an_environment_that_ships(path, call):
    status, told, error = call("expert", "--config", f"imitation/{path.stem}", "--out", "x.zip", "--print_config")
    assert status == 0, error
    named = [line.split(": ")[1] for line in told.splitlines() if line.startswith("environment: ")]
    assert named[0] in gymnasium.registry and f"imitation/{path.stem} " in shipped.card(named[0])["expert"]["command"]
