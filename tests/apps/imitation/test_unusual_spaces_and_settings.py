"""Spaces, settings and environments that are unusual: they work, or are one clear line before training begins."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib import TRPO
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from tiny_environments import Line, Signs, demonstrate
from torch import nn

from apps.imitation.__main__ import main
from apps.imitation.codes import coded_space
from apps.imitation.demonstrations import Demonstrations, RandomPolicy, record
from apps.imitation.demonstrations.identity import plain_id
from apps.imitation.demonstrations.saved_policy import algorithm_of, load_policy
from apps.imitation.learners import AIRL, BC, GAIL, InfoGAIL
from apps.imitation.learners.over_sb3 import constructor_settings
from apps.imitation.spaces_as_json import Spaces
from apps.imitation.tables.modes import default_settings
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


class Shrunk(BaseFeaturesExtractor):
    """What a user may see small images by."""

    def __init__(self, observation_space):
        super().__init__(observation_space, 5)
        self.layer = nn.Linear(int(np.prod(observation_space.shape)), 5)

    def forward(self, observations):
        return self.layer(observations.flatten(1))


OWN = {"features_extractor_class": Shrunk}


@pytest.mark.parametrize("side", [7, 32])
def test_images_that_are_too_small_are_one_line_and_can_be_seen_by_layers_of_the_users_own(side, tmp_path):
    small = Seen(spaces.Box(0, 255, (side, side, 3), np.uint8), spaces.Discrete(3))
    rows = shown(small)
    for kind in (BC, GAIL):
        with pytest.raises(UserError, match=f"36 x 36 pixels.* got {side} x {side}.*, or give policy_kwargs a feat"):
            kind(small, rows, hidden=(4,))
    found = [BC(small, rows, hidden=(4,), policy_kwargs=OWN).learn(epochs=1)]
    more = {**SMALL, "generator_settings": {"policy_kwargs": OWN}}
    if side == 7:
        with pytest.raises(UserError, match="8 x 8 pixels or more for what judges steps, got 7 x 7"):
            GAIL(small, rows, **more)
    else:
        found.append(GAIL(small, rows, discriminator_hidden=(4,), **more).learn(40))
    for learner in found:
        assert type(learner.policy.features_extractor) is Shrunk
        assert learner.policy.mlp_extractor.policy_net[0].out_features == 4  # of `hidden`
        learner.save(tmp_path / "own.zip")
        with pytest.raises(UserError, match="expected a class as features_extractor_class, got the text"):
            type(learner).load(tmp_path / "own.zip")
        again = {"policy_kwargs": OWN} if isinstance(learner, BC) else {"generator_settings": {"policy_kwargs": OWN}}
        learner, seen = type(learner).load(tmp_path / "own.zip", **again), rows.observations.transpose(0, 3, 1, 2)
        expected, _ = learner.predict(seen, deterministic=True)
        np.testing.assert_array_equal(TRPO.load(tmp_path / "own.zip").predict(seen, deterministic=True)[0], expected)


def test_arguments_of_the_policy_are_added_to_those_of_here():
    learner = GAIL(Line(), demonstrate(Line(), 2), steps=40, generator_settings={"policy_kwargs": {"net_arch": [3]}})
    assert learner.policy.mlp_extractor.policy_net[0].out_features == 3 and learner.normaliser is not None
    apart = {"share_features_extractor": False}
    for made in (
        lambda: BC(Line(), None, policy_kwargs=apart),
        lambda: GAIL(Line(), None, generator_settings={"policy_kwargs": apart}),
    ):
        with pytest.raises(UserError, match="share_features_extractor to be true where observations are normalised"):
            made()
    assert BC(Line(), None, policy_kwargs=apart, normalise=False).policy.share_features_extractor is False


@pytest.mark.parametrize("algorithm", ["trpo", "ppo"])
def test_another_optimiser_has_none_of_adams_settings_and_what_is_saved_none_of_either(algorithm, tmp_path):
    own = {"optimizer_class": torch.optim.SGD, "optimizer_kwargs": {"momentum": 0.5}}
    rows = demonstrate(Line(), 2)
    for given, momentum in (({"optimizer_class": torch.optim.SGD}, 0), (own, 0.5)):
        learner = GAIL(Line(), rows, **SMALL, algorithm=algorithm, generator_settings={"policy_kwargs": given}).learn(
            40
        )
        assert learner.policy.optimizer.defaults["momentum"] == momentum
    learner.save(tmp_path / "own.zip")
    opened = {"trpo": TRPO, "ppo": PPO}[algorithm].load(tmp_path / "own.zip")
    assert type(opened.policy.optimizer) is torch.optim.Adam


def test_a_setting_that_cells_were_hashed_without_is_told_only_where_it_is_given():
    assert "policy_kwargs" not in constructor_settings(BC(Line(), None)) | default_settings(BC)
    assert constructor_settings(BC(Line(), None, policy_kwargs={"net_arch": [3]}))["policy_kwargs"] == {"net_arch": [3]}


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(0, 1, (12, 10, 3), np.float32),
        spaces.Box(0, 255, (4, 12, 10, 3), np.uint8),
        spaces.Dict({"view": spaces.Box(0, 1, (12, 10, 3), np.float32)}),
    ],
)
def test_images_that_are_not_seen_as_images_are_warned_of(space):
    env = Seen(space, spaces.Discrete(2))
    rows = shown(env)
    for kind in (BC, GAIL):
        with pytest.warns(UserWarning, match=r"are taken for vectors of [\d,]+ numbers; for images, make") as told:
            kind(env, rows, hidden=(4,))
        assert len(told) == 1 and "\n" not in str(told[0].message)
    BC(Spaces(space, env.action_space), None, hidden=(4,))  # what is opened again was warned of


def test_layers_of_the_users_own_leave_the_warning_to_what_judges_steps():
    env = Seen(spaces.Box(0, 1, (12, 10, 3), np.float32), spaces.Discrete(2))
    with pytest.warns(UserWarning, match="taken for vectors of 360 numbers by what judges steps; for images"):
        GAIL(env, shown(env), hidden=(4,), generator_settings={"policy_kwargs": OWN})


def test_spaces_that_no_policy_can_be_built_for_are_one_line():
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
