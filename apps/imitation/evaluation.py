"""What a policy is worth in its environment: returns of whole episodes, how sure they are, and a film of one.

Episodes of several environments side by side are shared out beforehand: taking whichever end first would prefer short
ones. Actions are deterministic unless asked otherwise, as in the tables of GAIL (50 episodes).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gymnasium
import imageio.v3 as imageio
import numpy as np
from jaxtyping import Float64, Int64
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from core_models.errors import UserError
from core_models.files import atomic

from .codes import Coded, CodedVecEnv, shows_code
from .demonstrations.recording import Policy, RandomPolicy, play
from .environments.making import Maker, make_env, name_of, vector_env
from .learners import InfoGAIL
from .statistics import bootstrap, interquartile_mean

SIDE_BY_SIDE = 10
"""Environments that an evaluation runs at once, so that the policy sees batches."""
RANDOM_EPISODES = 100
"""Of the random policy that returns are measured from."""

NO_FFMPEG = "expected ffmpeg for a film in .mp4: pip install imageio-ffmpeg, or write a .gif"


@dataclass(frozen=True, eq=False)
class Returns:
    """What the episodes of an evaluation brought."""

    values: Float64[np.ndarray, " episodes"]
    lengths: Int64[np.ndarray, " episodes"]
    """Steps of each [env steps]."""
    shared: int = 1
    """How many parts of equal length begin their episodes alike: those of the codes of one policy."""

    def summary(self) -> dict[str, Any]:
        """Returns the figures that a summary holds, as plain values."""
        starts = self.values.reshape(self.shared, -1)
        several = starts.shape[1] > 1  # one start says nothing of how much they differ
        return {
            "episodes": len(self.values),
            "mean": float(self.values.mean()),
            "standard_deviation": float(self.values.std()),
            "interval": list(bootstrap(starts)) if several else None,
            "interquartile_mean": interquartile_mean(self.values),
            "interquartile_mean_interval": list(bootstrap(starts, interquartile_mean)) if several else None,
            "least": float(self.values.min()),
            "most": float(self.values.max()),
            "episode_length": float(self.lengths.mean()),
        }


def fraction_of_expert(value: float, random: float, expert: float) -> float:
    """Returns how much of the way from a random policy to the expert a return is.

    Example:
        >>> fraction_of_expert(-100.0, random=-200.0, expert=-75.0)
        0.8
    """
    return (value - random) / (expert - random)


def returns_of(
    policy: Policy,
    env_id: Maker | gymnasium.Env | VecEnv,
    kwargs: dict[str, Any] | None = None,
    *,
    episodes: int = 50,
    seed: int = 0,
    deterministic: bool = True,
    wrap: Callable[[VecEnv], VecEnv] | None = None,
    code: int | None = None,
) -> Returns:
    """Returns what a policy gets in whole episodes.

    Args:
        policy: anything with SB3's `predict`. An InfoGAIL is shown a code beside what is observed, where the
            environments, and `wrap`, show it none.
        env_id: the environment's; or its class, or a function that returns a new one: some run side by side. An
            environment, or a VecEnv, runs as it is, and is left open.
        kwargs: what it is made with, where it is not made yet.
        episodes: how many.
        seed: of the environments.
        deterministic: the likeliest actions, not drawn ones.
        wrap: put round the environments.
        code: of an InfoGAIL, the one to act by; drawn from the seed for each episode when left out.

    Raises:
        UserError: when no episode is asked for, or there is no such environment or code.
    """
    codes = _codes_of(policy, code)
    if episodes < 1:
        raise UserError(f"episodes: expected 1 or more, got {episodes}")
    envs = _environments(env_id, kwargs, min(SIDE_BY_SIDE, episodes), seed)
    wrapped = envs if wrap is None else wrap(envs)
    try:
        if codes and _is_bare(wrapped, policy, code):
            wrapped = CodedVecEnv(wrapped, codes, code, seed)
        return Returns(*play(policy, wrapped, episodes, seed=seed, deterministic=deterministic))
    finally:
        if not isinstance(env_id, gymnasium.Env | VecEnv):
            wrapped.close()


def _codes_of(policy: Policy, code: int | None) -> int:
    """Returns how many values the code of an InfoGAIL has, 0 of another policy.

    Raises:
        UserError: when a code is asked of another, or there is no such code.
    """
    codes = policy.codes if isinstance(policy, InfoGAIL) else 0
    if code is not None and not (isinstance(code, int | np.integer) and 0 <= code < codes):
        expected = f"0 to {codes - 1}" if codes else f"none, {type(policy).__name__} has no codes"
        raise UserError(f"code: expected {expected}, got {code}")
    return codes


def _is_bare(env: gymnasium.Env | VecEnv, policy: Policy, code: int | None) -> bool:
    """Says whether the code that an InfoGAIL takes is missing from an environment's observations.

    Raises:
        UserError: when it is not, and a code is asked for beside it.
    """
    assert isinstance(policy, InfoGAIL)
    if not shows_code(env.observation_space, policy.observation_space):
        return True
    if code is not None:
        raise UserError(f"code: expected none beside environments that show one themselves, got {code}")
    return False


def _environments(
    env_id: Maker | gymnasium.Env | VecEnv, kwargs: dict[str, Any] | None, number: int, seed: int
) -> VecEnv:
    """Returns what is made already as it is, and else so many new ones."""
    if isinstance(env_id, VecEnv):
        return env_id
    if isinstance(env_id, gymnasium.Env):
        own = env_id
        return DummyVecEnv([lambda: own])
    return vector_env(env_id, kwargs, environments=number, seed=seed)


def random_returns(env_id: Maker, kwargs: dict[str, Any] | None = None) -> Returns:
    """Returns what a random policy gets, by one seed: the zero of the scale."""
    envs = vector_env(env_id, kwargs, environments=1, seed=0)
    policy = RandomPolicy(envs.action_space, 0)
    envs.close()
    return returns_of(policy, env_id, kwargs, episodes=RANDOM_EPISODES, seed=0)


def film(
    policy: Policy,
    path: Path | str,
    env_id: Maker,
    kwargs: dict[str, Any] | None = None,
    *,
    seed: int = 0,
    deterministic: bool = True,
    frames: int = 500,
    every: int = 1,
    wrap: Callable[[gymnasium.Env], gymnasium.Env] | None = None,
    code: int | None = None,
) -> Path:
    """Writes an episode as a film: GIF or, where imageio has ffmpeg, MP4; by the name's suffix.

    Args:
        policy: anything with SB3's `predict`; an InfoGAIL as in `returns_of`.
        path: the file, .gif or .mp4.
        env_id: the environment's; or its class, or a function of `render_mode` that returns it.
        kwargs: likewise.
        seed: of the environment.
        deterministic: the likeliest actions.
        frames: at most.
        every: steps between frames.
        wrap: put round the environment.
        code: of an InfoGAIL, as in `returns_of`.

    Raises:
        UserError: when the environment can't be drawn here, the suffix is another, or there is no such code.
    """
    codes = _codes_of(policy, code)
    path = check_film(path)
    check_drawn(env_id, kwargs)
    env = make_env(env_id, kwargs, render_mode="rgb_array")
    env = env if wrap is None else wrap(env)
    try:
        env = Coded(env, codes, code) if codes and _is_bare(env, policy, code) else env
        pictures = _pictures(policy, env, seed, deterministic, frames, every)
    finally:
        env.close()
    rate = env.metadata.get("render_fps", 30) / every
    with atomic(path) as temporary:
        if path.suffix == ".gif":
            imageio.imwrite(temporary, np.stack(pictures), extension=".gif", duration=1000 / rate, loop=0)
        else:
            _write_mp4(temporary, pictures, rate)
    return path


def check_film(path: Path | str) -> Path:
    """Returns the path of a film to write.

    Raises:
        UserError: when its suffix is neither .gif nor .mp4, or nothing here writes .mp4.
    """
    path = Path(path)
    if path.suffix not in (".gif", ".mp4"):
        raise UserError(f"expected a film with the suffix .gif or .mp4, got {path.name}")
    if path.suffix == ".mp4" and not any(map(find_spec, ("imageio_ffmpeg", "av"))):
        raise UserError(NO_FFMPEG)
    return path


def check_drawn(env_id: Maker, kwargs: dict[str, Any] | None = None) -> None:
    """Draws an environment once, to see before the work whether it can be filmed after it.

    Raises:
        UserError: when it has no pictures, or this machine can't draw them; it says what is missing.
    """
    # SDL, behind pygame, complains on stderr where nobody has logged in on a screen
    os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.gettempdir())
    with closing(make_env(env_id, kwargs)) as probe:
        if "rgb_array" not in (probe.metadata.get("render_modes") or ()):
            raise UserError(f"{name_of(env_id)} can't be drawn: it has no render mode rgb_array")
    with closing(make_env(env_id, kwargs, render_mode="rgb_array")) as env:
        env.reset(seed=0)
        try:
            env.render()
        except Exception as error:  # whatever the library behind it raises
            raise UserError(
                f"{name_of(env_id)} can't be drawn on this machine: {type(error).__name__}: {error}; MuJoCo needs "
                "MUJOCO_GL=egl or osmesa and the library behind it"
            ) from error


def _pictures(
    policy: Policy, env: gymnasium.Env, seed: int, deterministic: bool, frames: int, every: int
) -> list[np.ndarray]:
    observation, _ = env.reset(seed=seed)
    pictures: list[np.ndarray] = []
    step, over = 0, False
    while not over and len(pictures) < frames:
        if step % every == 0:
            pictures.append(np.asarray(env.render()))
        batch = (
            {k: np.asarray(v)[None] for k, v in observation.items()}
            if isinstance(observation, dict)
            else np.asarray(observation)[None]
        )
        action, _ = policy.predict(batch, deterministic=deterministic)
        observation, _, terminated, truncated, _ = env.step(action[0])
        over = terminated or truncated
        step += 1
    return pictures


def _write_mp4(path: Path, pictures: list[np.ndarray], rate: float) -> None:
    try:
        imageio.imwrite(path, np.stack(pictures), extension=".mp4", fps=rate)
    except (ImportError, ValueError, OSError) as error:
        raise UserError(NO_FFMPEG) from error
