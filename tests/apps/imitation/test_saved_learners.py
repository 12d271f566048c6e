"""A saved learner opens with plain SB3, acts the same, and goes on as if it had never stopped."""

import zipfile
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch
from sb3_contrib import TRPO
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import configure
from tiny_environments import Colours, Line, Sides, Signs, demonstrate

from apps.imitation.environments.making import vector_env
from apps.imitation.learners import AIRL, BC, FEM, GAIL, GTAL, InfoGAIL
from apps.imitation.learners.resuming import UPDATES, identity, restore_state, save_state
from apps.imitation.spaces_as_json import space_from_json, space_to_json
from core_models.errors import UserError
from core_models.training.checkpoint import load_checkpoint, save_checkpoint

SMALL = {"steps": 80, "hidden": (8,), "seed": 3}
FEW = {"judge_hidden": (8,), "critic_steps": 2, "posterior_steps": 2, "judge_batch": 20, "cloning_epochs": 1}


def made(kind, env=Line, **more):
    if kind is BC:
        return BC(env(), demonstrate(env()), hidden=(8,))
    return kind(make_vec_env(env, n_envs=2, seed=3), demonstrate(env()), **{**SMALL, **more})


@pytest.mark.parametrize(
    ("kind", "env", "more"),
    [
        (BC, Line, {}),
        (GAIL, Line, {}),
        (GAIL, Signs, {"algorithm": "ppo"}),
        (GAIL, Signs, {"hidden": ()}),
        (GAIL, Line, {"normalise": False}),
        (AIRL, Line, {}),
        (FEM, Signs, {}),
        (GTAL, Line, {}),
    ],
)
def test_plain_sb3_opens_it_and_it_acts_the_same(kind, env, more, tmp_path):
    learner = made(kind, env, **more)
    learner.learn(epochs=2) if kind is BC else learner.learn(160)
    learner.save(tmp_path / "policy")
    plain = (PPO if more.get("algorithm") == "ppo" else TRPO).load(tmp_path / "policy.zip")
    again = kind.load(tmp_path / "policy.zip")
    seen = np.random.default_rng(0).uniform(-4, 4, (200, 2)).astype(np.float32)
    expected, _ = learner.predict(seen, deterministic=True)
    np.testing.assert_allclose(plain.predict(seen, deterministic=True)[0], expected, atol=1e-5)
    np.testing.assert_array_equal(again.predict(seen, deterministic=True)[0], expected)
    with torch.no_grad():
        values = [policy.predict_values(torch.as_tensor(seen)) for policy in (plain.policy, learner.policy)]
    torch.testing.assert_close(values[0], values[1], atol=1e-4, rtol=1e-4)
    with zipfile.ZipFile(tmp_path / "policy.zip") as archive:
        data = archive.read("data").decode()
        weights = archive.read("policy.pth")
    assert "imitation" not in data and "NormalisedVector" not in data and b"apps." not in weights


def test_pictures_and_codes_are_saved_too(tmp_path):
    learner = BC(Colours(), demonstrate(Colours(), trajectories=1), hidden=(4,)).learn(epochs=1)
    learner.save(tmp_path / "pictures.zip")
    seen = demonstrate(Colours(), trajectories=1, seed=5).observations
    told = [policy.predict(seen, deterministic=True)[0] for policy in (learner, TRPO.load(tmp_path / "pictures.zip"))]
    np.testing.assert_array_equal(*told)
    learner = made(InfoGAIL, Sides, **FEW).learn(80)
    learner.save(tmp_path / "codes.zip")
    again, plain = InfoGAIL.load(tmp_path / "codes.zip"), TRPO.load(tmp_path / "codes.zip")
    for code in range(2):
        expected, _ = learner.predict(np.array([0.3], np.float32), deterministic=True, code=code)
        np.testing.assert_array_equal(
            again.predict(np.array([0.3], np.float32), deterministic=True, code=code)[0], expected
        )
        shown = np.array([0.3, code == 0, code == 1], np.float32)
        np.testing.assert_allclose(plain.predict(shown, deterministic=True)[0], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "env", "more"),
    [(GAIL, Line, {}), (GAIL, Signs, {"algorithm": "ppo"}), (AIRL, Line, {}), (FEM, Line, {}), (InfoGAIL, Sides, FEW)],
)
def test_killed_and_resumed_is_never_killed(kind, env, more, tmp_path):
    whole = made(kind, env, reseed_every=160, **more).learn(480)
    first = made(kind, env, reseed_every=160, **more).learn(
        320,
        after_iteration=lambda learner: (
            save_state(learner, tmp_path / "state.safetensors") if learner.num_timesteps == 160 else None
        ),
    )
    assert first.num_timesteps == 320
    torch.manual_seed(99)
    second = made(kind, env, reseed_every=160, **more)
    restore_state(second, tmp_path / "state.safetensors")
    assert second.num_timesteps == 160
    second.learn(320, reset_num_timesteps=False)
    assert second.num_timesteps == whole.num_timesteps == 480
    for name, tensor in whole._weights().items():
        assert torch.equal(tensor, second._weights()[name]), name
    assert second.history == whole.history


def test_updates_are_counted_on_from_where_they_were_and_in_older_files_too(tmp_path):
    learner = made(GAIL, Signs, algorithm="ppo", reseed_every=80).learn(80)
    save_state(learner, tmp_path / "state.safetensors")
    found = load_checkpoint(tmp_path / "state.safetensors")
    assert found.state.ema_updates == 0  # there is no moving average
    again = made(GAIL, Signs, algorithm="ppo", reseed_every=80)
    restore_state(again, tmp_path / "state.safetensors")
    assert again.generator._n_updates == learner.generator._n_updates > 0
    tensors = {name: tensor for name, tensor in found.tensors.items() if name != UPDATES}
    older = replace(found, state=replace(found.state, ema_updates=7), tensors=tensors)
    save_checkpoint(tmp_path / "state.safetensors", older)
    restore_state(again, tmp_path / "state.safetensors")
    assert again.generator._n_updates == 7


def test_without_the_steps_to_begin_anew_at_nothing_is_restored(tmp_path):
    save_state(made(GAIL).learn(80), tmp_path / "state.safetensors")
    learner = made(GAIL)
    before = learner._weights()
    with pytest.raises(UserError, match="expected reseed_every to be set"):
        restore_state(learner, tmp_path / "state.safetensors")
    assert all(torch.equal(tensor, before[name]) for name, tensor in learner._weights().items())
    assert learner.num_timesteps == 0 and not learner.history


def test_a_state_of_another_run_is_refused(tmp_path):
    learner = made(GAIL, reseed_every=80).learn(80)
    save_state(learner, tmp_path / "state.safetensors")
    with pytest.raises(UserError, match="entropy"):
        restore_state(made(GAIL, reseed_every=80, entropy=0.5), tmp_path / "state.safetensors")
    with pytest.raises(UserError, match=r"of other data: demonstrations"):
        other = GAIL(make_vec_env(Line, n_envs=2, seed=3), demonstrate(Line(), seed=8), reseed_every=80, **SMALL)
        restore_state(other, tmp_path / "state.safetensors")


def test_runs_in_other_environments_and_on_other_observations_are_others(tmp_path, monkeypatch):
    monkeypatch.setitem(gymnasium.registry, "Other-v0", replace(gymnasium.spec("TinySigns-v0"), id="Other-v0"))
    rows = demonstrate(Signs(), 2)

    def run(env_id="TinySigns-v0", observations=rows.observations, **kwargs):
        env = vector_env(env_id, kwargs, environments=2, seed=0)
        return GAIL(env, replace(rows, observations=observations), **SMALL)

    seen = rows.observations.copy()
    seen[7, 1] += 0.5
    own = run()
    assert identity(own) == identity(run())
    others = [run("Other-v0"), run(patience=3), run(max_episode_steps=9), run(observations=seen)]
    found = [identity(other) for other in (own, *others)]
    assert all(a != b for i, a in enumerate(found) for b in found[:i])
    assert all(one["config"] == found[0]["config"] for one in found)
    save_state(own, tmp_path / "state.safetensors")
    for other, words in zip(others, ("environment ", "arguments ", "arguments ", "demonstrations "), strict=True):
        with pytest.raises(UserError, match=f"of other data: {words}"):
            restore_state(other, tmp_path / "state.safetensors")


def test_what_is_no_saved_learner_is_one_clear_line(tmp_path):
    with pytest.raises(UserError, match="found none"):
        GAIL.load(tmp_path / "nothing.zip")
    learner = made(FEM)
    learner.save(tmp_path / "fem.zip")
    with pytest.raises(UserError, match=r"holds a fem, expected a gail"):
        GAIL.load(tmp_path / "fem.zip")
    learner.generator.learner = learner.generator.judge = None
    TRPO.load(tmp_path / "fem.zip").save(tmp_path / "plain.zip")
    with pytest.raises(UserError, match="what SB3 saved opens with its own load"):
        GAIL.load(tmp_path / "plain.zip")
    (tmp_path / "cut.zip").write_bytes((tmp_path / "fem.zip").read_bytes()[:500])
    with pytest.raises(UserError, match="cut short"):
        FEM.load(tmp_path / "cut.zip")
    with pytest.raises(UserError, match="was trained on"):
        FEM.load(tmp_path / "fem.zip", env=make_vec_env(Signs, n_envs=1))


def test_a_function_among_the_settings_is_left_out_and_asked_for_to_go_on(tmp_path):
    given = {"generator_settings": {"learning_rate": lambda left: 1e-3 * left, "target_kl": 0.02}}
    learner = made(GAIL, reseed_every=80, **given).learn(80)
    learner.save(tmp_path / "gail.zip")
    again, seen = GAIL.load(tmp_path / "gail.zip"), np.zeros((3, 2), np.float32)
    assert again.generator_settings == {"target_kl": 0.02} and again.generator.target_kl == 0.02
    np.testing.assert_array_equal(*(own.predict(seen, deterministic=True)[0] for own in (learner, again)))
    env, rows = make_vec_env(Line, n_envs=2, seed=3), demonstrate(Line())
    with pytest.raises(UserError, match=r"a function as generator_settings.learning_rate.* give generator_settings ag"):
        GAIL.load(tmp_path / "gail.zip", env, rows)
    again.save(tmp_path / "again.zip")  # nor does it forget that one is lacking
    with pytest.raises(UserError, match=r"a function as generator_settings.learning_rate"):
        GAIL.load(tmp_path / "again.zip", env, rows)
    GAIL.load(tmp_path / "gail.zip", env, rows, **given).learn(80)
    other = {"generator_settings": {**given["generator_settings"], "learning_rate": lambda left: 1e-3 * left}}
    assert identity(made(GAIL, reseed_every=80, **other)) == identity(learner)  # as in another process


def test_learners_are_given_other_environments_and_loggers(tmp_path):
    for kind, env, more in ((GAIL, Line, {}), (InfoGAIL, Sides, FEW)):
        learner = made(kind, env, **more).learn(80)
        before = learner.get_env()
        assert before.num_envs == 2 and before.observation_space == learner.observation_space
        learner.set_env(make_vec_env(env, n_envs=2, seed=7))
        assert learner.get_env() is not before and learner.get_env().observation_space == learner.observation_space
        learner.set_logger(configure(str(tmp_path / kind.name), ["csv"]))
        assert learner.learn(80, reset_num_timesteps=False).num_timesteps == 160
        assert learner.logger.get_dir() == str(tmp_path / kind.name)
        learner.logger.close()
        assert (tmp_path / kind.name / "progress.csv").stat().st_size
        with pytest.raises(UserError, match=f"the {kind.name} has"):
            learner.set_env(make_vec_env(Signs, n_envs=2))
        with pytest.raises(UserError, match="expected 2 environments, as before, got 3"):
            learner.set_env(make_vec_env(env, n_envs=3))
        learner.save(tmp_path / "own.zip")
        with pytest.raises(UserError, match="that has an environment: load"):
            kind.load(tmp_path / "own.zip").set_env(env())


@pytest.mark.parametrize("env", [Line, Signs, Colours, Sides])
def test_spaces_come_back_from_json(env):
    for space in (env().observation_space, env().action_space):
        assert space_from_json(space_to_json(space)) == space
