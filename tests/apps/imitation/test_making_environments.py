"""Environments made by id: clear words where it can't be, and quiet where it can."""

import dataclasses
import sys
import warnings

import gymnasium
import numpy as np
import pytest
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

from apps.imitation.environments import making
from apps.imitation.environments.demonstrating import expert_demonstrations
from apps.imitation.environments.making import make_env, vector_env
from core_models.errors import UserError


class Fussy(gymnasium.Env):
    """Fails in its constructor as told."""

    metadata = {"render_modes": []}  # noqa: RUF012
    action_space = observation_space = gymnasium.spaces.Discrete(2)

    def __init__(self, error=None, warning=None, **others):
        if warning:
            warnings.warn(warning, DeprecationWarning, stacklevel=1)
        if error:
            raise error
        Fussy.inner(**others)

    @staticmethod
    def inner(size=1):
        if size < 0:
            raise TypeError("expected a size of 0 or more")


@pytest.fixture
def registered():
    gymnasium.register("Fussy-v1", entry_point=Fussy)
    gymnasium.register("Fussy-v3", entry_point=Fussy)
    gymnasium.register("Elsewhere-v0", entry_point="no_such_package.envs:Env")
    yield
    for name in ("Fussy-v1", "Fussy-v3", "Elsewhere-v0"):
        del gymnasium.registry[name]


def told(*args, **kwargs):
    with pytest.raises(UserError) as error:
        make_env(*args, **kwargs)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_an_unknown_id_names_the_nearest(registered):
    assert "'Hoper-v4': the nearest is Hopper-v4" in told("Hoper-v4")
    assert "the nearest is CartPole-v1" in told("cartpole-v1")
    assert "'Fussy-v2': there is Fussy-v1 and Fussy-v3" in told("Fussy-v2")
    assert "there is Circles-v0" in told("Circles")
    assert told("$%&").endswith("one that another package registers is given as package:Id-v0")


def test_an_environment_of_another_package_is_imported(registered, tmp_path, monkeypatch):
    (tmp_path / "some_package.py").write_text(
        "import gymnasium\n"
        "gymnasium.register('Added-v0', 'gymnasium.envs.classic_control:CartPoleEnv', max_episode_steps=3)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    env = make_env("some_package:Added-v0")
    assert (env.spec.id, env.spec.max_episode_steps) == ("Added-v0", 3)
    del gymnasium.registry["Added-v0"], sys.modules["some_package"]
    assert "no_such_package is missing, run pip install no-such-package" in told("no_such_package:Added-v0")
    assert "pip install highway-env, and give it as highway_env:highway-v0" in told("highway-v0")


def test_a_missing_extra_is_named(registered):
    missing = gymnasium.error.DependencyNotInstalled(
        "Box2D is not installed, you can install it by run `pip install swig` followed by "
        '`pip install "gymnasium[box2d]"`'
    )
    assert told("Fussy-v3", {"error": missing}).endswith(
        'everything installed that Fussy-v3 needs: run pip install swig, then pip install "gymnasium[box2d]"'
    )
    absent = ModuleNotFoundError("No module named 'mujoco'", name="mujoco.bindings")
    assert 'mujoco.bindings is missing, run pip install "gymnasium[mujoco]"' in told("Fussy-v3", {"error": absent})
    assert "no_such_package is missing, run pip install no-such-package" in told("Elsewhere-v0")
    assert "gymnasium-robotics" in told("Hopper-v2")


def test_a_kwarg_that_it_does_not_take_is_named(registered):
    assert told("Driving-v0", {"tusk": "turn"}) == (
        "expected kwargs that Driving-v0 takes, task, max_episode_steps, got 'tusk'"
    )
    assert "takes, error, warning, max_episode_steps, got 'weight'" in told("Fussy-v3", {"weight": 2})
    assert "turn, pass, got 'overtake'" in told("Driving-v0", {"task": "overtake"})
    with pytest.raises(TypeError, match="size of 0 or more"):  # not a mistake in the names
        make_env("Fussy-v3", {"size": -1})
    assert make_env("Driving-v0", {"task": "pass", "max_episode_steps": 7}).spec.max_episode_steps == 7


def test_demonstrations_of_another_environment_are_refused():
    circles = expert_demonstrations("Circles-v0", trajectories=2)
    assert make_env("Circles-v0", demonstrations=circles).spec.id == "Circles-v0"
    assert "observations of shape (4,) each" in told("CartPole-v1", demonstrations=circles)
    assert "the keys image, state" in told("Driving-v0", demonstrations=circles)
    wrong = dataclasses.replace(circles, actions=np.zeros((200, 3), np.float32))
    assert "actions of shape (2,) each" in told("Circles-v0", demonstrations=wrong)


def test_older_mujoco_environments_are_made_quietly(tmp_path, monkeypatch, capfd):
    """Warnings are errors here; MuJoCo writes its own to the console and to MUJOCO_LOG.TXT."""
    monkeypatch.chdir(tmp_path)
    env = make_env("HalfCheetah-v4")
    env.reset(seed=0)
    env.close()
    assert capfd.readouterr() == ("", "") and not list(tmp_path.iterdir())


def test_other_messages_are_kept(registered, capfd):
    with pytest.raises(DeprecationWarning, match="Fussy is going to change"):
        make_env("Fussy-v3", {"warning": "Fussy is going to change"})
    import mujoco

    before = mujoco.get_mju_user_warning()
    with making._total_mass_unmentioned(True):
        heard = mujoco.get_mju_user_warning()
        heard("compiler attribute 'settotalmass' is deprecated")
        heard("the simulation is unstable")
    assert capfd.readouterr().err == "MuJoCo: the simulation is unstable\n"
    assert mujoco.get_mju_user_warning() is before


def test_box2d_is_imported_although_its_wrapper_warns():
    """As an error, its warning at import would crash the process."""
    env = make_env("CarRacing-v3")
    assert env.observation_space.shape == (96, 96, 3)


@pytest.mark.parametrize("processes", [False, True])
def test_a_vector_of_environments_is_seeded_and_monitored(processes):
    envs = vector_env(
        "Driving-v0", {"task": "pass", "max_episode_steps": 2}, environments=2, seed=5, processes=processes
    )
    assert isinstance(envs, SubprocVecEnv if processes else DummyVecEnv)
    seen = envs.reset()
    for i in range(2):
        alone = make_env("Driving-v0", {"task": "pass"})
        expected, _ = alone.reset(seed=5 + i)
        np.testing.assert_array_equal(seen["image"][i], expected["image"])
    actions = np.zeros((2, 2), np.float32)
    first = envs.step(actions)[1]
    _, second, done, infos = envs.step(actions)
    envs.close()
    assert done.all()
    for i in range(2):
        assert infos[i]["episode"]["l"] == 2 and infos[i]["TimeLimit.truncated"]
        assert infos[i]["episode"]["r"] == pytest.approx(first[i] + second[i], rel=1e-5)


def test_a_vector_is_refused_here_and_not_in_a_process():
    with pytest.raises(UserError, match="there is Circles-v0"):
        vector_env("Circles-v1", seed=0, environments=2, processes=True)
    with pytest.raises(UserError, match="1 environment or more, got 0"):
        vector_env("Circles-v0", seed=0, environments=0)
