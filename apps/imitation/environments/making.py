"""How an environment is made from its id: with clear words where it can't be, quietly where it can.

Three messages are kept from the console, and from turning into errors where warnings are errors. Two ask for what must
not be done: gymnasium's, that a `-v4` environment is out of date (demonstrations recorded in v4 don't fit v5, which
observes other numbers), and MuJoCo's, that the `settotalmass` in gymnasium's own half_cheetah.xml is (MuJoCo writes it
to a file in the working directory too). The third is of SWIG, when Box2D is imported.
"""

from __future__ import annotations

import difflib
import inspect
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec, load_env_creator
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import SubprocVecEnv, VecEnv

from apps.common.importing import working_folder_importable
from apps.imitation.demonstrations import Demonstrations
from apps.imitation.demonstrations.checking import check_spaces
from apps.imitation.demonstrations.identity import plain_id
from core_models.errors import UserError

from .side_by_side import SideBySide

EXTRAS = {"box2d": "gymnasium[box2d]", "mujoco": "gymnasium[mujoco]", "pygame": "gymnasium[classic-control]"}
"""What to install for a module that is missing, where the two are not called alike."""
OTHERS = {
    "ALE/": ("ale-py", "ale_py"),
    "Adroit": ("gymnasium-robotics", "gymnasium_robotics"),
    "Fetch": ("gymnasium-robotics", "gymnasium_robotics"),
    "MiniGrid": ("minigrid", "minigrid"),
    "highway": ("highway-env", "highway_env"),
}
"""Well-known environments that other packages register: the beginning of their ids, what to install and to import."""

Maker = str | Callable[..., gymnasium.Env[Any, Any]]
"""A gymnasium id, or what returns a new environment at each call: its class, or a function."""


def make_env(
    env_id: Maker,
    kwargs: Mapping[str, Any] | None = None,
    *,
    render_mode: str | None = None,
    demonstrations: Demonstrations | None = None,
) -> gymnasium.Env[Any, Any]:
    """Returns a new environment, with the time limit that it is registered with.

    Args:
        env_id: its gymnasium id; `package:Id-v0` imports the package that registers it first. Or its class, or a
            function that returns it: these put no time limit round it but their own.
        kwargs: what its constructor is given, or, by an id, `max_episode_steps`.
        render_mode: for instance `rgb_array`; given to a class or a function too.
        demonstrations: held against its spaces, where given.

    Raises:
        UserError: when there is no such environment, something that it needs is not installed, it doesn't take these
            kwargs, or the demonstrations are of an environment with other spaces.
    """
    given = dict(kwargs or {}) | ({} if render_mode is None else {"render_mode": render_mode})
    env = _registered(env_id, given) if isinstance(env_id, str) else env_id(**given)
    if demonstrations is not None:
        try:
            check_spaces(demonstrations, env.observation_space, env.action_space, name_of(env_id))
        except UserError:
            env.close()
            raise
    return env


def name_of(env_id: Maker) -> str:
    """Returns what messages call an environment: its id without the package, or the name of its class or function."""
    return plain_id(env_id) if isinstance(env_id, str) else getattr(env_id, "__name__", type(env_id).__name__)


def _registered(env_id: str, given: dict[str, Any]) -> gymnasium.Env[Any, Any]:
    spec = _spec(env_id)
    try:
        with _quiet(spec):
            env: gymnasium.Env[Any, Any] = gymnasium.make(spec.id, disable_env_checker=True, **given)
    except TypeError as error:
        unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if not unknown or unknown.group(1) not in given:
            raise
        raise _unknown_kwarg(spec, unknown.group(1)) from error
    except (ImportError, gymnasium.error.DependencyNotInstalled) as error:
        raise UserError(f"expected everything installed that {spec.id} needs: {_what_to_install(error)}") from error
    return env


def vector_env(
    env_id: Maker,
    kwargs: Mapping[str, Any] | None = None,
    *,
    environments: int = 1,
    seed: int,
    processes: bool = False,
    demonstrations: Demonstrations | None = None,
) -> VecEnv:
    """Returns several new environments side by side, as stable-baselines3 takes them, each in a Monitor.

    Args:
        env_id: as in `make_env`.
        kwargs: likewise.
        environments: how many.
        seed: of the first at its next reset; that of the others is larger by one each.
        processes: whether each runs in a process of its own. The numbers are the same; it is worth it where a step
            takes more than about a millisecond. A script then needs its `if __name__ == "__main__":`.
        demonstrations: as in `make_env`.

    Raises:
        UserError: as `make_env`, or when fewer than one environment is asked for.
    """
    if environments < 1:
        raise UserError(f"expected 1 environment or more, got {environments}")
    # made here once, in any case: an error in another process ends as a broken pipe
    first = make_env(env_id, kwargs, demonstrations=demonstrations)
    make = partial(_monitored, env_id, dict(kwargs or {}))
    envs: VecEnv
    if processes:
        first.close()
        envs = SubprocVecEnv([make] * environments)
    else:
        envs = SideBySide([lambda: Monitor(first), *([make] * (environments - 1))])
    envs.seed(seed)
    return envs


def _monitored(env_id: Maker, kwargs: dict[str, Any]) -> gymnasium.Env[Any, Any]:
    return Monitor(make_env(env_id, kwargs))


def _spec(env_id: str) -> EnvSpec:
    package, _, name = env_id.rpartition(":")
    if package:
        working_folder_importable()
        try:
            __import__(package)
        except ImportError as error:
            raise UserError(f"expected the package of {env_id}: {_what_to_install(error)}") from error
    if name in gymnasium.registry:
        return gymnasium.registry[name]
    raise UserError(f"expected the id of a gymnasium environment, got {env_id!r}: {_nearest(name)}")


def _nearest(name: str) -> str:
    base = re.sub(r"-v\d+$", "", name)
    versions = sorted(own.id for own in gymnasium.registry.values() if own.id.rpartition("-v")[0] == base)
    if versions:
        return f"there is {' and '.join(versions)}"
    for beginning, (package, module) in OTHERS.items():
        if name.startswith(beginning):
            return f"pip install {package}, and give it as {module}:{name}"
    lower = {own.lower(): own for own in sorted(gymnasium.registry)}
    close = difflib.get_close_matches(name.lower(), lower, n=1)
    nearest = f"the nearest is {lower[close[0]]}; " if close else ""
    return f"{nearest}one that another package registers is given as package:Id-v0"


def _what_to_install(error: Exception) -> str:
    told = re.findall(r"pip install [\"']?[\w\-\[\],.=<>]+[\"']?", str(error))
    if told:
        return f"run {', then '.join(told)}"
    missing = getattr(error, "name", None)
    if isinstance(error, ModuleNotFoundError) and missing:
        top = missing.split(".")[0]
        return f"the module {missing} is missing, run pip install {_quoted(EXTRAS.get(top.lower(), top))}"
    return " ".join(str(error).split())


def _quoted(package: str) -> str:
    # shells take brackets for patterns
    return f'"{package}"' if "[" in package else package.replace("_", "-")


def _parameters(spec: EnvSpec) -> Mapping[str, inspect.Parameter]:
    creator = spec.entry_point if callable(spec.entry_point) else load_env_creator(str(spec.entry_point))
    return inspect.signature(creator).parameters


def _unknown_kwarg(spec: EnvSpec, name: str) -> UserError:
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    taken = [own.name for own in _parameters(spec).values() if own.kind in kinds and own.name != "render_mode"]
    return UserError(f"expected kwargs that {spec.id} takes, {', '.join([*taken, 'max_episode_steps'])}, got {name!r}")


@contextmanager
def _quiet(spec: EnvSpec) -> Iterator[None]:
    """Drops the three messages that the module's docstring names, and no other."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".*environment \S+ is out of date", DeprecationWarning)
        # Box2D's wrapper has no way to hand an error on while it is imported: it crashes the process instead
        warnings.filterwarnings("ignore", r"builtin type swig\w+ has no __module__", DeprecationWarning)
        with _total_mass_unmentioned("mujoco" in str(spec.entry_point)):
            yield


@contextmanager
def _total_mass_unmentioned(used: bool) -> Iterator[None]:
    try:
        import mujoco
    except ImportError:
        used = False
    if not used:
        yield
        return
    before = mujoco.get_mju_user_warning() if hasattr(mujoco, "get_mju_user_warning") else None

    def heard(message: str) -> None:
        if "settotalmass" in message:
            return
        if before is not None:
            before(message)
        else:
            print(f"MuJoCo: {message}", file=sys.stderr)

    mujoco.set_mju_user_warning(heard)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(before)
