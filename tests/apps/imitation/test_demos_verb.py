"""`genapps imitation demos`, through the command line."""

import json
import shutil
import subprocess
import sys
import zipfile

import gymnasium
import minari
import numpy as np
import pytest
from demonstrations_made import counted
from gymnasium import spaces
from sb3_contrib import TRPO
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.vec_env import DummyVecEnv

from apps.common import presets
from apps.imitation.__main__ import main
from apps.imitation.demonstrations import Demonstrations
from apps.imitation.environments.demonstrating import expert_demonstrations


@pytest.fixture
def demos(capsys):
    """Runs `genapps imitation demos ...`; returns the status and what was printed."""

    def run(*argv):
        status = main(["demos", *map(str, argv)])
        return status, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def policies(tmp_path_factory):
    """Untrained policies, as stable-baselines3 saves them."""
    folder = tmp_path_factory.mktemp("policies")
    for name, kind, environment in (
        ("trpo", TRPO, "CartPole-v1"),
        ("ppo", PPO, "CartPole-v1"),
        ("sac", SAC, "Pendulum-v1"),
    ):
        kind("MlpPolicy", environment, seed=0, device="cpu").save(folder / f"{name}.zip")
    return folder


@pytest.mark.parametrize(
    ("algorithm", "environment", "steps"),
    [("trpo", "CartPole-v1", 12), ("ppo", "CartPole-v1", 12), ("sac", "Pendulum-v1", 5)],
)
def test_a_saved_policy_is_recorded(demos, policies, tmp_path, algorithm, environment, steps):
    out = tmp_path / "new" / "made.npz"
    status, said, _ = demos(
        "record", "--policy", policies / f"{algorithm}.zip", "--algorithm", algorithm, "--environment", environment,
        "--environment_kwargs.max_episode_steps", steps, "--trajectories", 3, "--seed", 5, "--out", out,
    )  # fmt: skip
    assert status == 0
    made = Demonstrations.load(out)
    assert (made.environment, made.environment_kwargs) == (environment, {"max_episode_steps": steps})
    assert made.trajectories == 3 and made.lengths.max() == steps and made.subsample == 1
    assert made.card["who"] == f"{algorithm.upper()}, {algorithm}.zip"
    assert made.card["mean_return"] == pytest.approx(made.returns.mean())
    assert made.card["std_return"] == pytest.approx(made.returns.std())
    assert (made.card["seed"], made.card["episodes"], made.card["deterministic"]) == (5, 3, False)
    assert made.card["command"].startswith("genapps imitation demos record --policy path/to/")
    assert "3 of " in said and f"wrote {out}" in said and "card: who:" in said


def test_the_algorithm_of_a_policy_is_found_in_its_file(demos, policies, tmp_path):
    given = ("--policy", policies / "ppo.zip", "--environment", "CartPole-v1", "--trajectories", 1)
    assert demos("record", *given, "--out", tmp_path / "made.npz")[0] == 0
    assert Demonstrations.load(tmp_path / "made.npz").card["who"] == "PPO, ppo.zip"


def test_a_run_folder_is_recorded_by_the_policy_in_it(demos, policies, tmp_path):
    (tmp_path / "run").mkdir()
    shutil.copy(policies / "ppo.zip", tmp_path / "run" / "policy.zip")
    given = ("--policy", tmp_path / "run", "--environment", "CartPole-v1", "--trajectories", 1)
    assert demos("record", *given, "--out", tmp_path / "made.npz")[0] == 0
    assert Demonstrations.load(tmp_path / "made.npz").card["who"] == "PPO, policy.zip"


def test_a_scripted_expert_is_recorded(demos, tmp_path):
    out = tmp_path / "circles.npz"
    given = ("--policy", "expert", "--environment", "Circles-v0", "--trajectories", 3, "--seed", 2, "--out", out)
    status, _, error = demos("record", *given)
    assert status == 0, error
    made = Demonstrations.load(out)
    assert made.codes.tolist() == [0, 1, 2] and made.card["who"] == "scripted experts"
    assert np.array_equal(made.actions, expert_demonstrations("Circles-v0", trajectories=3, seed=2).actions)


def test_recording_is_the_same_by_the_seed_and_can_be_thinned(demos, policies, tmp_path):
    def record(name, *more):
        out = tmp_path / f"{name}.npz"
        given = ("--policy", policies / "trpo.zip", "--environment", "CartPole-v1", "--trajectories", 4)
        assert demos("record", *given, "--out", out, *more)[0] == 0
        return Demonstrations.load(out)

    one, two, other = record("one"), record("two"), record("other", "--seed", 1)
    assert np.array_equal(one.observations, two.observations) and np.array_equal(one.actions, two.actions)
    assert not np.array_equal(one.observations[:5], other.observations[:5])
    thin = record("thin", "--subsample", 4)
    assert np.array_equal(thin.observations, one.subsampled(4, seed=0).observations)
    assert thin.steps.tolist() == one.lengths.tolist() and thin.returns.tolist() == one.returns.tolist()
    model = TRPO.load(policies / "trpo.zip", device="cpu")
    sure = record("sure", "--deterministic")
    assert np.array_equal(sure.actions, model.predict(sure.observations, deterministic=True)[0])
    assert sure.card["deterministic"] is True


def test_random_actions_are_recorded(demos, tmp_path):
    out = tmp_path / "random.npz"
    status, said, _ = demos(
        "record", "--policy", "random", "--environment", "CartPole-v1", "--trajectories", 100, "--out", out
    )
    assert status == 0 and "random actions" in said
    assert Demonstrations.load(out).returns.mean() == pytest.approx(22, abs=5)


def test_codes_are_kept_unless_left_out(demos, tmp_path):
    class Labelled(gymnasium.Env):
        observation_space, action_space = spaces.Box(-1, 1, (1,)), spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return np.zeros(1, np.float32), {}

        def step(self, action):
            return np.zeros(1, np.float32), 0.0, False, False, {"code": 1}

    gymnasium.register("Labelled-v0", Labelled, max_episode_steps=2)
    try:
        for more, codes in (((), [1, 1]), (("--codes", "false"), None)):
            given = ("--policy", "random", "--environment", "Labelled-v0", "--trajectories", 2)
            out = tmp_path / f"made{len(more)}.npz"
            assert demos("record", *given, "--out", out, *more)[0] == 0
            made = Demonstrations.load(out)
            assert (None if made.codes is None else made.codes.tolist()) == codes
    finally:
        gymnasium.registry.pop("Labelled-v0")


def test_minari_there_and_back(demos, tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "sets"))
    one, two = tmp_path / "one.npz", tmp_path / "two.npz"
    demos("record", "--policy", "random", "--environment", "CartPole-v1", "--trajectories", 5, "--out", one)
    status, said, _ = demos("export", "--demonstrations", one, "--minari", "CartPole/random-v0", "--author", "somebody")
    assert (status, said) == (0, f"wrote {tmp_path / 'sets' / 'CartPole' / 'random-v0'}\n")
    assert minari.load_dataset("CartPole/random-v0").storage.metadata["author"] == {"somebody"}
    status, said, _ = demos(
        "import", "--minari", "CartPole/random-v0", "--trajectories", 3, "--subsample", 4, "--seed", 2, "--out", two
    )
    assert status == 0 and f"wrote {two}" in said
    first, second = Demonstrations.load(one), Demonstrations.load(two)
    assert np.array_equal(second.observations, first.take(3).subsampled(4, seed=2).observations)
    assert second.card["who"] == "random actions" and second.card["minari"] == "CartPole/random-v0"
    assert second.card["imported_by"].startswith("genapps imitation demos import --minari CartPole/random-v0 ")
    assert demos("export", "--demonstrations", two, "--minari", "x-v0")[2] == (
        "genapps: error: expected complete trajectories, as Minari keeps them, got one row in 4: export demonstrations "
        "that are not subsampled\n"
    )
    elsewhere = tmp_path / "elsewhere"
    assert demos("export", "--demonstrations", one, "--minari", "x-v0", "--folder", elsewhere)[0] == 0
    assert demos("import", "--minari", elsewhere / "x-v0", "--out", tmp_path / "three.npz")[0] == 0
    assert len(Demonstrations.load(tmp_path / "three.npz")) == len(first)


def test_a_smaller_file_is_exported(demos, tmp_path):
    counted([30, 20, 10]).save(tmp_path / "all.npz")
    given = ("--demonstrations", tmp_path / "all.npz", "--out")
    assert demos("export", *given, tmp_path / "few.npz", "--trajectories", 2, "--subsample", 5, "--seed", 1)[0] == 0
    few = Demonstrations.load(tmp_path / "few.npz")
    assert np.array_equal(few.observations, counted([30, 20]).subsampled(5, seed=1).observations)
    assert few.codes.tolist() == [0, 1]
    assert demos("export", *given, tmp_path / "bare.npz", "--codes", "false")[0] == 0
    assert Demonstrations.load(tmp_path / "bare.npz").codes is None
    card = few.card  # of what is in the file, and how it came there
    assert (card["episodes"], card["mean_return"]) == (2, pytest.approx(few.returns.mean()))
    assert card["exported_by"].startswith("genapps imitation demos export")
    assert "expected --minari NAME or --out FILE, got neither" in demos("export", *given[:2])[2]


def test_inspect_says_what_is_there_and_what_was_checked(demos, tmp_path):
    path = tmp_path / "made.npz"
    demos("record", "--policy", "random", "--environment", "CartPole-v1", "--trajectories", 3, "--out", path)
    status, said, err = demos("inspect", "--demonstrations", path)
    assert (status, err) == (0, "")
    assert said.splitlines()[-1] == "checked: they fit the spaces of CartPole-v1"
    status, said, _ = demos("inspect", "--demonstrations", path, "--trajectories", 2, "--subsample", 3, "--as_json")
    found = json.loads(said)
    assert status == 0 and (found["trajectories"], found["subsample"]) == (2, 3)
    assert found["checked"] == "they fit the spaces of CartPole-v1"
    assert demos("inspect", "--demonstrations", path, "--environment", "CartPole-v0")[0] == 0
    status, said, err = demos("inspect", "--demonstrations", path, "--environment", "Acrobot-v1")
    assert (status, said) == (2, "")
    assert err == (
        f"genapps: error: {path}: expected observations of shape (6,) each, as Acrobot-v1 has them (Box(6, float32)), "
        "got (4,): these demonstrations are of CartPole-v1\n"
    )
    counted([3], returns=np.array([9.0])).save(path)
    status, said, _ = demos("inspect", "--demonstrations", path)
    assert status == 0
    assert "warning: returns differ from the sum of rewards in 1 of 1 trajectories: 9 and 3" in said
    assert "checked: not against the spaces of Counted-v0: expected the id of a gymnasium environment" in said


def test_a_file_does_not_choose_what_is_imported(demos, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "module_of_the_file.py").write_text("raise SystemExit('imported')")
    counted([3], environment="module_of_the_file:Mine-v0").save(tmp_path / "made.npz")
    status, said, _ = demos("inspect", "--demonstrations", tmp_path / "made.npz")
    assert status == 0 and "it names a module to import, which a file doesn't choose; give --environment" in said
    given = ("export", "--demonstrations", tmp_path / "made.npz", "--minari", "mine-v0", "--folder", tmp_path / "sets")
    status, _, err = demos(*given)
    assert status == 2 and "it names a module to import" in err and not (tmp_path / "sets").exists()
    with pytest.raises(SystemExit, match="imported"):  # whoever names it on the command line trusts it
        demos("inspect", "--demonstrations", tmp_path / "made.npz", "--environment", "module_of_the_file:Mine-v0")
    with pytest.raises(SystemExit, match="imported"):
        demos(*given, "--environment", "module_of_the_file:Mine-v0")


def test_environments_of_our_own_are_known(demos, tmp_path):
    out = tmp_path / "circles.npz"
    given = [
        "demos",
        "record",
        "--policy",
        "random",
        "--environment",
        "Circles-v0",
        "--trajectories",
        "2",
        "--out",
        out,
    ]
    # a process of its own, where nothing else has registered them
    command = [sys.executable, "-m", "apps.imitation", *map(str, given)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=presets.ROOT)
    assert done.returncode == 0, done.stderr
    assert "checked: they fit the spaces of Circles-v0" in demos("inspect", "--demonstrations", out)[1]
    status, _, err = demos("record", "--policy", "random", "--environment", "Circles-v1", "--out", tmp_path / "x.npz")
    assert status == 2 and "there is Circles-v0" in err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("inspect", "--demonstrations", "none.npz"), "found none at none.npz"),
        (("inspect", "--demonstrations", "made.npz", "--trajectories", "4"), "from 1 to 3"),
        (("inspect", "--demonstrations", "made.npz", "--subsample", "0"), "k of 1 or more, got 0"),
        (("inspect", "--demonstrations", "made.npz", "--environment", "Nowhere-v0"), "got 'Nowhere-v0'"),
        (("inspect", "--demonstrations", "cut.npz"), "cut.npz: expected a whole .npz file"),
        (("import", "--minari", "nothing-v0", "--out", "x.npz"), "expected a Minari data set, found none"),
        (("import", "--minari", "nothing-v0", "--out", "x.npz", "--seed", -1), "--seed: expected 0 or more, got -1"),
        (("import", "--minari", "nothing-v0", "--out", "x.npz", "--subsample", 0),
         "--subsample: expected 1 or more, got 0"),
        (("export", "--demonstrations", "made.npz", "--out", "x.csv"), "--out: expected a file name that ends in .npz"),
        (("record", "--policy", "random", "--environment", "Nowhere-v0", "--out", "x.npz"), "got 'Nowhere-v0'"),
        (("record", "--policy", "random", "--environment", "CartPole-v1", "--out", "x.npz", "--trajectories", "0"),
         "1 trajectory or more"),
        (("record", "--policy", "random", "--environment", "CartPole-v1", "--out", "x.npz",
          "--environment_kwargs.wind", "3"), "expected kwargs that CartPole-v1 takes"),
        (("record", "--policy", "none.zip", "--environment", "CartPole-v1", "--out", "x.npz"), "found nothing at none"),
        (("record", "--policy", "cut.npz", "--environment", "CartPole-v1", "--out", "x.npz"), "found something else"),
        (("record", "--policy", "other.zip", "--environment", "CartPole-v1", "--out", "x.npz"), "doesn't load"),
        (("record", "--policy", "trpo.zip", "--environment", "Acrobot-v1", "--out", "x.npz"),
         "expected a policy for the observations of Acrobot-v1"),
        (("record", "--policy", "trpo.zip", "--algorithm", "sac", "--environment", "CartPole-v1", "--out", "x.npz"),
         "--algorithm: expected trpo, which saved trpo.zip, got sac: leave it out"),
        (("record", "--policy", "trpo.zip", "--environment", "CartPole-v1", "--seed", -1, "--out", "x.npz"),
         "--seed: expected 0 or more, got -1"),
        (("record", "--policy", "expert", "--environment", "CartPole-v1", "--out", "x.npz"), "with scripted experts"),
        (("inspect", "--demonstrations", "Circles-v0"), "demos record --policy expert --environment Circles-v0"),
        (("record", "--policy", "trpo.zip", "--algorithm", "dqn", "--environment", "CartPole-v1", "--out", "x.npz"),
         "--algorithm"),
        (("record", "--policy", "random", "--environment", "CartPole-v1", "--out", "made.npz"), "is there already"),
        (("export", "--demonstrations", "made.npz", "--out", "made.npz"), "is there already"),
        (("record", "--policy", "random", "--environment", "Blackjack-v1", "--out", "x.npz"), "got a Tuple"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_leaves_no_file(demos, policies, tmp_path, monkeypatch, argv, message):
    monkeypatch.chdir(tmp_path)
    counted([3, 1, 2]).save("made.npz")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "made.npz").read_bytes()[:200])
    (tmp_path / "trpo.zip").write_bytes((policies / "trpo.zip").read_bytes())
    with zipfile.ZipFile("other.zip", "w") as archive:
        archive.writestr("data", "{}")
    before = sorted(tmp_path.iterdir())
    status, said, err = demos(*argv)
    assert (status, said) == (2, "")
    assert message in err and err.startswith("genapps: error: ") and err.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_a_policy_of_images_sees_its_channels_first(demos, tmp_path):
    class Pictures(gymnasium.Env):
        observation_space, action_space = spaces.Box(0, 255, (36, 40, 3), np.uint8), spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return self.observation_space.sample(), {}

        def step(self, action):
            return self.observation_space.sample(), 1.0, False, False, {}

    gymnasium.register("Pictures-v0", Pictures, max_episode_steps=3)
    try:
        settings = {"features_extractor_kwargs": {"features_dim": 8}}
        model = PPO("CnnPolicy", DummyVecEnv([Pictures]), policy_kwargs=settings, n_steps=8, batch_size=8, device="cpu")
        assert model.observation_space.shape == (3, 36, 40)  # as SB3 wraps it
        model.save(tmp_path / "pictures.zip")
        status, _, err = demos(
            "record", "--policy", tmp_path / "pictures.zip", "--algorithm", "ppo", "--environment", "Pictures-v0",
            "--trajectories", 2, "--out", tmp_path / "made.npz",
        )  # fmt: skip
    finally:
        gymnasium.registry.pop("Pictures-v0")
    assert status == 0, err
    assert Demonstrations.load(tmp_path / "made.npz").observations.shape == (6, 36, 40, 3)


def test_the_app_is_found_and_lists_its_verbs_without_torch():
    command = [sys.executable, "-X", "importtime", "-m", "apps", "imitation", "demos", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=presets.ROOT)
    assert done.returncode == 0
    for words in (
        "usage: genapps imitation demos VERB",
        "\n  list ",
        "\n  record ",
        "\n  import ",
        "\n  export ",
        "\n  inspect ",
    ):
        assert words in done.stdout
    assert "| torch" not in done.stderr and "gymnasium" not in done.stderr


def test_help_warns_of_zips(demos):
    status, said, _ = demos("record", "--help")
    assert status == 0 and "open only your own" in " ".join(said.split())
