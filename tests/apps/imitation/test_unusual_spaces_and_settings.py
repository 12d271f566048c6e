"""Spaces, settings and environments that are unusual: they work, or are one clear line before training begins."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3 import A2C
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from tiny_environments import Line, Signs, demonstrate

from apps.imitation.__main__ import main
from apps.imitation.codes import coded_space
from apps.imitation.demonstrations import Demonstrations, RandomPolicy, record
from apps.imitation.demonstrations.identity import plain_id
from apps.imitation.demonstrations.saved_policy import algorithm_of, load_policy
from apps.imitation.learners import AIRL, BC, GAIL, InfoGAIL
from apps.imitation.spaces_as_json import Spaces
from core_models.errors import UserError

SMALL = {"steps": 40, "hidden": (4,)}


class Seen(gymnasium.Env):
    """Something is seen, something is done, for five steps."""

    def __init__(self, seen: spaces.Space, done: spaces.Space) -> None:
        self.observation_space, self.action_space = seen, done

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        self.t += 1
        return self.observation_space.sample(), 0.0, False, self.t >= 5, {}


def shown(env, trajectories=2) -> Demonstrations:
    return record(RandomPolicy(env.action_space, 0), env, trajectories, seed=0, environment="Seen-v0")


@pytest.mark.parametrize("kind", [GAIL, BC])
def test_environments_that_normalise_are_refused(kind):
    env = VecNormalize(DummyVecEnv([Line]))
    with pytest.raises(UserError, match="without VecNormalize"):
        kind(env, demonstrate(Line()), hidden=(4,))


def test_state_dependent_noise_and_unknown_settings_are_refused():
    for settings, words in (({"use_sde": True}, "use_sde is not supported"), ({"n_epochs": 3}, "n_epochs")):
        with pytest.raises(UserError, match=words):
            GAIL(Line(), demonstrate(Line()), **SMALL, generator_settings=settings)


def test_airl_takes_discrete_observations():
    env = Seen(spaces.Discrete(5), spaces.Discrete(3))
    learner = AIRL(env, shown(env), **SMALL).learn(40)
    assert np.isfinite([record["true_return"] for record in learner.history]).all()


def test_spaces_that_no_policy_can_be_built_for_are_one_line():
    small = Seen(spaces.Box(0, 255, (7, 7, 3), np.uint8), spaces.Discrete(3))
    with pytest.raises(UserError, match=r"BC refuses these settings: .*[Kk]ernel size"):
        BC(small, shown(small))
    bits = Seen(spaces.MultiBinary(4), spaces.Discrete(2))
    with pytest.raises(UserError, match="kind Box, Discrete or Dict, got MultiBinary"):
        BC(bits, shown(bits))
    later = Seen(spaces.Box(0, 1, (2,), np.float32), spaces.Discrete(3, start=1))
    for kind in (BC, GAIL):
        with pytest.raises(UserError, match="expected actions from 0 on"):
            kind(later, shown(later), hidden=(4,))


@pytest.mark.parametrize("parts", [False, True])
def test_infogail_predicts_for_one_image_and_for_several(parts):
    image = spaces.Box(0, 255, (3, 36, 36), np.uint8)
    space = spaces.Dict({"view": image, "speed": spaces.Box(0, 1, (2,), np.float32)}) if parts else image
    learner = InfoGAIL(Spaces(coded_space(space, 3), spaces.Box(-1, 1, (2,), np.float32)), None, codes=3, hidden=(4,))
    seen = space.sample()
    several = {key: np.stack([part] * 4) for key, part in seen.items()} if parts else np.stack([seen] * 4)
    one, four = (learner.predict(own, deterministic=True, code=1)[0] for own in (seen, several))
    assert one.shape == (2,) and four.shape == (4, 2)
    np.testing.assert_allclose(four, [one] * 4, rtol=1e-5, atol=1e-6)


def test_what_a_callback_saves_leaves_the_learner_out(tmp_path):
    learner = GAIL(Signs(), demonstrate(Signs()), **SMALL, tensorboard_log=str(tmp_path / "tb")).learn(40)
    learner.generator.save(tmp_path / "checkpoint.zip")
    assert {"learner", "judge"} <= set(learner.generator._excluded_save_params())


def test_every_algorithm_of_sb3_is_recorded_under_its_own_name(tmp_path):
    A2C("MlpPolicy", "CartPole-v1", policy_kwargs={"net_arch": [4]}).save(tmp_path / "policy.zip")
    assert algorithm_of(tmp_path / "policy.zip") == "a2c"
    assert type(load_policy(tmp_path / "policy.zip", "a2c")) is A2C


def test_an_environment_in_the_working_folder_is_found(tmp_path, monkeypatch, capsys):
    (tmp_path / "own_package_of_mine.py").write_text(
        "import gymnasium\n"
        "gymnasium.register('OwnCart-v0', 'gymnasium.envs.classic_control.cartpole:CartPoleEnv', max_episode_steps=9)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [entry for entry in __import__("sys").path if entry])
    given = ["demos", "record", "--policy", "random", "--environment", "own_package_of_mine:OwnCart-v0"]
    status = main([*given, "--trajectories", "1", "--out", "own.npz"])
    assert status == 0, capsys.readouterr().err


def test_scripted_experts_refuse_other_settings_of_the_environment(tmp_path, capsys):
    given = ["demos", "record", "--policy", "expert", "--environment", "Circles-v0", "--trajectories", "1"]
    status = main([*given, "--environment_kwargs", "{max_episode_steps: 30}", "--out", str(tmp_path / "own.npz")])
    error = capsys.readouterr().err
    assert status == 2 and "got max_episode_steps" in error and not (tmp_path / "own.npz").exists()


def test_an_environment_is_the_same_with_and_without_its_package():
    assert plain_id("my.package:Mine-v0") == plain_id("Mine-v0") == "Mine-v0"
