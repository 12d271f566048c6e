"""`genapps imitation evaluate` through the command line, tiny, and the statistics behind it."""

import json
import shutil
import zipfile
from typing import ClassVar

import numpy as np
import pytest
from gymnasium.envs.classic_control import CartPoleEnv
from stable_baselines3 import A2C, PPO, SAC, TD3
from stable_baselines3.common.vec_env import DummyVecEnv
from tiny_environments import Line, Sides, Signs, demonstrate

from apps.imitation import demonstrations
from apps.imitation.__main__ import main
from apps.imitation.codes import CodedVecEnv
from apps.imitation.environments.making import vector_env
from apps.imitation.evaluate import Scale, group_words, over_runs
from apps.imitation.evaluation import Returns, film, random_returns, returns_of
from apps.imitation.learners import GAIL, InfoGAIL
from apps.imitation.statistics import bootstrap, interquartile_mean, stratified_bootstrap
from apps.imitation.trained import open_policy
from core_models.errors import UserError

QUICK = ["--evaluation_episodes", "2", "--environments", "2", "--learner.steps", "80", "--learner.hidden", "[8]"]


@pytest.fixture
def call(capsys, monkeypatch):
    monkeypatch.setattr("apps.imitation.evaluation.RANDOM_EPISODES", 3)

    def run(*argv):
        status = main(list(map(str, argv)))
        out, error = capsys.readouterr()
        return status, out, error

    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Demonstrations, and two seeds of one learner trained from them."""
    folder = tmp_path_factory.mktemp("module")
    demonstrate(Line(), trajectories=4).save(folder / "line.npz")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("apps.imitation.evaluation.RANDOM_EPISODES", 3)
        for seed in range(2):
            given = ["train", "--learner", "GAIL", "--demonstrations", folder / "line.npz", "--steps", 80, *QUICK]
            given += ["--out", folder / "runs" / f"seed_{seed}", "--learner.seed", seed]
            assert main(list(map(str, given))) == 0
    return folder


@pytest.fixture
def line(folder):
    return folder / "line.npz"


@pytest.fixture
def runs(folder):
    return folder / "runs"


@pytest.mark.parametrize(("episodes", "environments"), [(4, 4), (13, 10)])
def test_returns_are_those_of_the_episodes_that_would_be_recorded(episodes, environments):
    """Of a policy that draws, in episodes of many lengths: by mistakes they end early."""
    kwargs, policy = {"patience": 3}, lambda: demonstrations.RandomPolicy(Signs().action_space, 1)
    found = returns_of(policy(), "TinySigns-v0", kwargs, episodes=episodes, seed=5, deterministic=False)
    envs = vector_env("TinySigns-v0", kwargs, environments=environments, seed=5)
    made = demonstrations.record(policy(), envs, episodes, seed=5)
    np.testing.assert_array_equal(found.values, made.returns)
    np.testing.assert_array_equal(found.lengths, made.lengths)
    assert (found.values.dtype, found.lengths.dtype) == (np.float64, np.int64) and len(set(found.lengths)) > 2


def test_environments_are_given_by_their_class_or_as_they_are_too():
    def policy():
        return demonstrations.RandomPolicy(Signs().action_space, 1)

    kwargs = {"patience": 3}
    expected = returns_of(policy(), "TinySigns-v0", kwargs, episodes=13, seed=5)
    for made, more in ((Signs, kwargs), (lambda: Signs(patience=3), None)):
        found = returns_of(policy(), made, more, episodes=13, seed=5)
        np.testing.assert_array_equal(found.values, expected.values)
        np.testing.assert_array_equal(found.lengths, expected.lengths)
    env = Signs(patience=3)
    env.close = lambda: pytest.fail("whoever made it closes it")
    one_by_one = demonstrations.record(policy(), Signs(patience=3), 5, seed=5, environment="TinySigns-v0")
    for own in (env, DummyVecEnv([lambda: env])):
        np.testing.assert_array_equal(returns_of(policy(), own, episodes=5, seed=5).values, one_by_one.returns)
    np.testing.assert_array_equal(random_returns(Signs).values, random_returns("TinySigns-v0").values)


def test_a_film_of_an_environment_that_has_no_id(tmp_path):
    film(demonstrations.RandomPolicy(CartPoleEnv().action_space, 0), tmp_path / "own.gif", CartPoleEnv, frames=2)
    assert (tmp_path / "own.gif").read_bytes()[:3] == b"GIF"
    with pytest.raises(UserError, match="Line can't be drawn: it has no render mode rgb_array"):
        film(demonstrations.RandomPolicy(Line().action_space, 0), tmp_path / "line.gif", Line)


class Told(Line):
    """Is drawn, and keeps what was done in it; what is right doesn't matter."""

    metadata: ClassVar[dict] = {"render_modes": ["rgb_array"], "render_fps": 10}
    done: ClassVar[list] = []

    def __init__(self, render_mode=None):
        super().__init__()
        self.render_mode = render_mode

    def render(self):
        return np.zeros((16, 16, 3), np.uint8)

    def step(self, action):
        self.done.append(float(action[0]))
        return super().step(action)


def coded_learner():
    """Returns a learner whose action is its code: -0.5 or 0.5."""
    learner = InfoGAIL(Told(), demonstrate(Line(), 2), steps=40, hidden=(4,), cloning_epochs=0)

    def predict(observation, state=None, episode_start=None, deterministic=False):
        return observation[..., -1:] - 0.5, state

    learner.generator.predict = predict
    return learner


def test_a_policy_with_codes_is_given_them(tmp_path):
    learner = coded_learner()

    def codes(**more):
        Told.done.clear()
        returns_of(learner, *more.pop("env", (Told,)), episodes=8, **more)
        return np.array(Told.done) > 0

    assert codes(code=1).all() and not codes(code=0).any()
    drawn = codes(seed=1)
    assert 0 < drawn.mean() < 1 and np.array_equal(drawn, codes(seed=1)) and not np.array_equal(drawn, codes(seed=2))
    rounds = codes(wrap=lambda envs: CodedVecEnv(envs, 2))
    assert rounds.mean() == 0.5
    assert np.array_equal(rounds, codes(env=(CodedVecEnv(vector_env(Told, environments=8, seed=0), 2),)))
    assert len(codes(env=(Told(),), code=1)) == 8 * 20
    film(learner, tmp_path / "one.gif", Told, code=1)
    assert (np.array(Told.done[-20:]) > 0).all()
    film(learner, tmp_path / "drawn.gif", Told, seed=3)
    assert len(set(Told.done[-20:])) == 1
    with pytest.raises(UserError, match="code: expected 0 to 1, got 2"):
        returns_of(learner, Told, code=2)
    with pytest.raises(UserError, match="expected none beside environments that show one themselves, got 1"):
        returns_of(learner, Told, code=1, wrap=lambda envs: CodedVecEnv(envs, 2))
    with pytest.raises(UserError, match="expected none, RandomPolicy has no codes, got 0"):
        returns_of(demonstrations.RandomPolicy(Line().action_space, 0), Line, code=0)


@pytest.mark.parametrize("bare", [np.zeros(2, np.float32), np.zeros((3, 2), np.float32)])
def test_a_code_that_is_missing_is_asked_for(bare):
    learner = InfoGAIL(Line(), demonstrate(Line(), 2), steps=40, hidden=(4,), cloning_epochs=0)
    with pytest.raises(UserError, match="one of 2 codes, got none: give code="):
        learner.predict(bare)
    with pytest.raises(UserError, match="code: expected 0 to 1, got 2"):
        learner.predict(bare, code=2)
    assert len(learner.predict(bare, code=1)[0]) == (len(bare) if bare.ndim == 2 else 1)


def test_runs_one_by_one_and_together(runs, tmp_path, call):
    out = tmp_path / "told.json"
    status, told, error = call("evaluate", "--policy", runs, "--episodes", 4, "--seed", 5, "--out", out)
    assert status == 0, error
    found = json.loads(out.read_text())
    assert len(found["policies"]) == 2 and found["episodes"] == 4 and found["deterministic"]
    for seed, record in enumerate(found["policies"]):
        learner = GAIL.load(runs / f"seed_{seed}" / "policy.zip")
        expected = returns_of(learner, "TinyLine-v0", episodes=4, seed=5)
        assert record["returns"] == json.loads(json.dumps(expected.summary()))
        assert record["returns"]["episode_length"] == 20
        run = json.loads((runs / f"seed_{seed}" / "summary.json").read_text())
        chance, best = run["random"]["mean"], run["expert"]["mean"]
        assert record["fraction_of_expert"] == pytest.approx((expected.values.mean() - chance) / (best - chance))
        low, high = record["fraction_of_expert_interval"]
        assert low <= record["fraction_of_expert"] <= high and low < high
    means = [record["returns"]["mean"] for record in found["policies"]]
    (group,) = found["over_runs"]
    assert group["runs"] == 2 and group["returns"]["mean"] == pytest.approx(np.mean(means))
    assert group["returns"]["interval"] == pytest.approx([min(means), max(means)])
    assert "GAIL, 2 runs on TinyLine-v0: return" in told and "of the way to the expert" in told


def test_drawn_actions_differ_and_a_named_expert_is_the_scale(runs, line, call, tmp_path):
    one = runs / "seed_0"
    given = ["evaluate", "--policy", one, "--episodes", 3, "--out", tmp_path / "told.json"]
    assert call(*given)[0] == 0
    likeliest = json.loads((tmp_path / "told.json").read_text())["policies"][0]
    better = demonstrate(Line(), trajectories=2, at_random=True)
    better.save(tmp_path / "other.npz")
    assert call(*given, "--stochastic", "--demonstrations", tmp_path / "other.npz")[0] == 0
    drawn = json.loads((tmp_path / "told.json").read_text())["policies"][0]
    assert drawn["returns"]["mean"] != likeliest["returns"]["mean"]
    assert drawn["expert"] == pytest.approx(float(better.returns.mean())) != likeliest["expert"]
    assert drawn["random"] == likeliest["random"]


@pytest.mark.parametrize("kind", [PPO, A2C, SAC, TD3])
def test_policies_of_plain_stable_baselines3(kind, tmp_path, call, line):
    more = {"buffer_size": 10} if kind in (SAC, TD3) else {}
    model = kind("MlpPolicy", Line(), policy_kwargs={"net_arch": [4]}, seed=0, device="cpu", **more)
    model.save(tmp_path / "plain.zip")
    given = ["evaluate", "--policy", tmp_path / "plain", "--episodes", 2]
    status, told, error = call(*given, "--environment", "TinyLine-v0", "--demonstrations", line)
    assert status == 0, error
    expected = returns_of(model, "TinyLine-v0", episodes=2)
    assert f"{kind.__name__}, " in told and f"return {expected.values.mean():.1f} (95 %" in told
    chance, best = random_returns("TinyLine-v0").values.mean(), demonstrate(Line(), 4).returns.mean()
    assert f"{Scale(chance, best).fraction(expected.values.mean()):.3f} (95 %" in told
    assert "of the way" not in call(*given, "--environment", "TinyLine-v0")[1]


def test_policies_of_info_gail_are_shown_by_code(tmp_path, call, monkeypatch):
    sides = demonstrate(Sides(), 4)
    few = {"judge_hidden": (8,), "critic_steps": 1, "posterior_steps": 1, "judge_batch": 20, "cloning_epochs": 1}
    learner = InfoGAIL(Sides(), sides, steps=20, hidden=(8,), seed=1, **few)
    learner.save(tmp_path / "policy.zip")
    filmed = []
    monkeypatch.setattr("apps.imitation.evaluate.write_film", lambda policy, path, *_, **__: filmed.append(path.name))
    monkeypatch.setattr("apps.imitation.evaluate.check_drawn", lambda *_: None)
    given = ["evaluate", "--policy", tmp_path / "policy.zip", "--environment", "TinySides-v0", "--episodes", 3]
    status, told, error = call(*given, "--out", tmp_path / "told.json", "--film", tmp_path / "film.gif")
    assert status == 0, error
    (record,) = json.loads((tmp_path / "told.json").read_text())["policies"]
    assert [own["episodes"] for own in record["codes"]] == [3, 3] and record["returns"]["episodes"] == 6
    assert "  code 0: return" in told and "  code 1: return" in told
    assert filmed == ["film_code_0.gif", "film_code_1.gif"]
    seen = np.array([[0.3]], np.float32)
    for code, policy in enumerate(open_policy(tmp_path / "policy.zip").by_code()):
        expected, _ = learner.predict(seen, deterministic=True, code=code)
        np.testing.assert_array_equal(policy.predict(seen, deterministic=True)[0], expected)


def test_a_film_of_an_environment_that_can_be_drawn(tmp_path, call):
    PPO("MlpPolicy", "CartPole-v1", n_steps=8, batch_size=8, device="cpu").save(tmp_path / "plain.zip")
    given = ["evaluate", "--policy", tmp_path / "plain.zip", "--environment", "CartPole-v1", "--episodes", 1]
    status, told, error = call(*given, "--film", tmp_path / "rollout.gif", "--film_frames", 3)
    assert status == 0, error
    assert (tmp_path / "rollout.gif").read_bytes()[:3] == b"GIF" and "wrote" in told


def test_mistakes_are_one_line(runs, line, tmp_path, call):
    (tmp_path / "empty").mkdir()
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "config.yaml").write_text("steps: 1\n")
    (tmp_path / "text.zip").write_text("no zip")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme.txt", "no policy")
    with zipfile.ZipFile(tmp_path / "strange.zip", "w") as archive:
        archive.writestr("data", "{}")
    PPO("MlpPolicy", Line(), n_steps=8, batch_size=8, device="cpu").save(tmp_path / "plain.zip")
    run = runs / "seed_0"
    for policy, more, words in (
        (tmp_path / "none", [], "found nothing at"),
        (tmp_path / "empty", [], "it is no run of genapps imitation train"),
        (tmp_path / "begun", [], "has not ended"),
        (tmp_path / "text.zip", [], "is none, or is cut short"),
        (tmp_path / "other.zip", [], "saved by a learner of genapps imitation or by stable-baselines3"),
        (tmp_path / "strange.zip", [], "another algorithm"),
        (tmp_path / "plain.zip", [], "does not say where it was trained"),
        (run, ["--environment", "CartPole-v1"], "policy for the observations of CartPole-v1"),
        (run, ["--environment", "NoSuch-v0"], "NoSuch-v0"),
        (run, ["--episodes", 0], "--episodes: expected 1 or more"),
        (run, ["--film", tmp_path / "film.avi"], ".gif or .mp4"),
        (run, ["--demonstrations", tmp_path / "none.npz"], "found none at"),
        ("[]", [], "an empty list"),
    ):
        status, told, error = call("evaluate", "--policy", policy, *more)
        assert status == 2 and words in error and error.count("\n") == 1, error
        assert not told
    demonstrate(Sides(), 1).save(tmp_path / "sides.npz")
    status, _, error = call("evaluate", "--policy", run, "--demonstrations", tmp_path / "sides.npz")
    assert status == 2 and "expected those of TinyLine-v0, got those of TinySides-v0" in error


def record_of(learner, environment, value, fraction):
    returns = {"mean": value}
    return {"learner": learner, "environment": environment, "environment_kwargs": {}, "returns": returns,
            "fraction_of_expert": fraction}  # fmt: skip


def test_runs_in_several_environments_are_taken_together_on_one_scale():
    records = [record_of("GAIL", "A", 100.0 * i, 0.1 * i) for i in range(4)]
    records += [record_of("GAIL", "B", float(i), 0.9 + 0.02 * i) for i in range(4)]
    records += [record_of("BC", "A", 1.0, None), record_of("BC", "A", 3.0, None), record_of("DAC", "A", 1.0, 1.0)]
    gail, bc = over_runs(records)
    assert gail["environments"] == ["A", "B"] and gail["returns"] is None
    fractions = [r["fraction_of_expert"] for r in records[:8]]
    assert gail["fraction_of_expert"]["mean"] == pytest.approx(np.mean(fractions))
    assert gail["fraction_of_expert"]["interquartile_mean"] == pytest.approx(interquartile_mean(fractions))
    low, high = gail["fraction_of_expert"]["interval"]
    assert low > np.mean(fractions) - 0.3 / 2 and high < np.mean(fractions) + 0.3 / 2
    assert (bc["runs"], bc["returns"]["mean"], bc["fraction_of_expert"]) == (2, 2.0, None)
    single = over_runs([record_of("GAIL", "A", 1.0, 0.5), record_of("GAIL", "B", 2.0, 0.7)])
    assert single[0]["fraction_of_expert"]["interval"] is None and "0.600, inter" in group_words(single[0])
    apart = over_runs([record_of("GAIL", "A", 1.0, None), record_of("GAIL", "B", 2.0, None)])
    assert "no common scale" in group_words(apart[0])


def test_values_that_share_a_start_are_resampled_together():
    rng = np.random.default_rng(0)
    starts = rng.normal(size=40)
    copies = np.stack([starts] * 3)  # three codes that do the same
    assert bootstrap(copies) == pytest.approx(bootstrap(starts))
    low, high = bootstrap(copies)
    alone = bootstrap(copies.ravel())
    assert (high - low) / (alone[1] - alone[0]) == pytest.approx(3**0.5, rel=0.15)
    told = Returns(copies.ravel(), np.full(120, 7), shared=3).summary()
    assert told["interval"] == pytest.approx([low, high]) and told["episodes"] == 120


def test_a_statistic_that_takes_all_resamples_for_one_is_refused():
    with pytest.raises(UserError, match=r"over the last axis, \(50,\) of \(50, n\) values, got \(\): np.mean\(values"):
        bootstrap([1.0, 2.0, 3.0], np.mean, resamples=50)


def test_a_single_episode_has_no_interval():
    told = Returns(np.array([3.0]), np.array([7])).summary()
    assert told["interval"] is None and told["interquartile_mean_interval"] is None and told["mean"] == 3.0


def test_a_run_that_has_not_ended_is_left_out(runs, tmp_path, call):
    shutil.copytree(runs, tmp_path / "runs")
    (tmp_path / "runs" / "seed_1" / "summary.json").unlink()
    status, told, error = call("evaluate", "--policy", tmp_path / "runs", "--episodes", 2)
    assert status == 0 and "left out, since they have not ended: seed_1" in error
    assert "seed_0" in told and "seed_1" not in told


def test_strata_are_resampled_each_by_itself():
    apart = [[0.0, 0.0, 0.0], [10.0, 10.0, 10.0]]
    assert stratified_bootstrap(apart) == (5.0, 5.0)  # taken as one group this would be anything from 0 to 10
    low, high = bootstrap([0.0] * 3 + [10.0] * 3)
    assert low < 4 and high > 6
    values = np.random.default_rng(0).normal(3, 1, 100)
    low, high = stratified_bootstrap([values[:50], values[50:]])
    within = np.sqrt((values[:50].var() + values[50:].var()) / 2 / 100)
    assert (high - low) / 2 == pytest.approx(1.96 * within, rel=0.1)


def test_the_scale_of_an_environment_where_there_is_no_way_to_go():
    assert Scale(1.0, 1.0).fraction(3.0) is None
    assert Scale(-200.0, -75.0).fraction(-100.0) == 0.8


def test_a_policy_of_another_version_is_said(tmp_path):
    with zipfile.ZipFile(tmp_path / "newer.zip", "w") as archive:
        archive.writestr("genapps/learner.json", json.dumps({"learner": "nail"}))
    with pytest.raises(UserError, match="'nail' that isn't known here"):
        open_policy(tmp_path / "newer.zip")
