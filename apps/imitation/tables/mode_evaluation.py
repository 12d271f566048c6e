"""What the codes of a policy do in an environment of ours: its rollouts by code, and how these are judged.

The code of a rollout is compared with the mode that is seen in it: by the share of rollouts whose mode is that of
their code, once modes are matched to codes at their best, and by the normalised mutual information of the two. A
policy without a code is judged alike: its rollouts carry the codes that another would have been given. Labels of the
demonstrations are looked at nowhere but in `frame_accuracy`, which judges a posterior on them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from core_models.errors import UserError
from core_models.seeding import seeded

from ..codes import one_hot, with_code
from ..demonstrations import Demonstrations
from ..demonstrations.recording import Policy
from ..environments import circles, driving
from ..environments.experts import ScriptedDriver
from ..environments.making import make_env
from ..environments.modes import matched_accuracy
from ..learners import InfoGAIL

See = Callable[[Any], Any]
"""Makes of a batch of observations what a policy takes: the features of images."""


class ModeRollout(NamedTuple):
    """An episode and the code that it was driven by."""

    code: int
    path: Float[np.ndarray, "places 2"]
    """Positions in the plane; of Driving the progress along the road and the place across it [m]."""
    mode: int | None
    """The mode that is seen in it; None for none."""
    total: float
    """Its return: of Driving the distance [m]."""


def roll_out(
    policy: Policy,
    env_id: str,
    kwargs: dict[str, Any] | None = None,
    *,
    codes: int,
    each: int,
    seed: int,
    deterministic: bool,
    see: See | None = None,
) -> list[ModeRollout]:
    """Returns episodes of a policy, codes in turn; every code is driven in the same worlds.

    Args:
        policy: anything with SB3's `predict`; one of InfoGAIL is given the code.
        env_id: `Circles-v0` or `Driving-v0`.
        kwargs: its own.
        codes: how many values the code takes.
        each: episodes of each code.
        seed: of the first world, those after it being larger by one each, and of the actions that are drawn.
        deterministic: the likeliest actions, not drawn ones.
        see: what images are made into before the policy sees them.

    Raises:
        UserError: when the environment is none whose modes can be judged, or no episode is asked for.
    """
    if env_id not in ("Circles-v0", "Driving-v0"):
        raise UserError(f"expected an environment whose modes can be judged, Circles-v0 or Driving-v0, got {env_id!r}")
    if each < 1:
        raise UserError(f"expected 1 episode of each code or more, got {each}")
    given = np.arange(codes * each) % codes
    envs = [make_env(env_id, kwargs) for _ in given]
    begun = [env.reset(seed=seed + i // codes) for i, env in enumerate(envs)]
    observations, infos = [seen for seen, _ in begun], [[info] for _, info in begun]
    paths = [[_place(env_id, seen, info)] for seen, info in begun]
    totals, going = np.zeros(len(envs)), list(range(len(envs)))
    with seeded(seed):
        while going:
            batch = _stack([observations[i] for i in going])
            batch = batch if see is None else see(batch)
            if isinstance(policy, InfoGAIL):
                batch = with_code(batch, one_hot(given[going], codes))
            actions, _ = policy.predict(batch, deterministic=deterministic)
            after = []
            for i, action in zip(going, actions, strict=True):
                observations[i], reward, terminated, truncated, info = envs[i].step(action)
                totals[i] += float(reward)
                infos[i].append(info)
                paths[i].append(_place(env_id, observations[i], info))
                if not (terminated or truncated):
                    after.append(i)
            going = after
    for env in envs:
        env.close()
    found = zip(given, paths, infos, totals, strict=True)
    return [_judged(env_id, int(code), path, told, total) for code, path, told, total in found]


def expert_rollouts(
    env_id: str, kwargs: dict[str, Any] | None = None, *, codes: int, each: int, seed: int
) -> list[ModeRollout]:
    """Returns the same of the scripted experts, who are told the code.

    Args:
        env_id: `Circles-v0` or `Driving-v0`.
        kwargs: its own.
        codes: how many modes.
        each: episodes of each.
        seed: of worlds and hands.
    """
    found = []
    env = make_env(env_id, kwargs)
    for i in range(codes * each):
        code, hand = i % codes, np.random.default_rng((seed, i))
        seen, info = env.reset(seed=seed + i // codes)
        path, infos, total, over = [_place(env_id, seen, info)], [info], 0.0, False
        own: Any = env.unwrapped
        driver = ScriptedDriver(own.task, code, hand) if env_id == "Driving-v0" else None
        while not over:
            if driver is not None:
                action = driver.act(own.road, own.car)
            else:
                action = circles.circle_expert(seen, np.array(code), hand.standard_normal())
            seen, reward, terminated, truncated, info = env.step(action)
            path.append(_place(env_id, seen, info))
            infos.append(info)
            total, over = total + float(reward), terminated or truncated
        found.append(_judged(env_id, code, path, infos, total))
    env.close()
    return found


def code_accuracy(rollouts: Sequence[ModeRollout]) -> float:
    """Returns the share of rollouts whose mode is that of their code, the two matched at their best; chance is 1 / n.

    Example:
        >>> paths = np.zeros((2, 2))
        >>> code_accuracy([ModeRollout(c, paths, m, 0.0) for c, m in ((0, 1), (0, 1), (1, 0), (1, None))])
        0.75
    """
    return matched_accuracy([rollout.mode for rollout in rollouts], np.array([rollout.code for rollout in rollouts]))


def mutual_information(rollouts: Sequence[ModeRollout]) -> float:
    """Returns the normalised mutual information of codes and modes, from 0 to 1; to follow no mode is a mode here."""
    from sklearn.metrics import normalized_mutual_info_score

    modes = [-1 if rollout.mode is None else rollout.mode for rollout in rollouts]
    return float(normalized_mutual_info_score([rollout.code for rollout in rollouts], modes))


def radial_error(rollouts: Sequence[ModeRollout]) -> float:
    """Returns the mean distance of paths in Circles from the circle that each of them is nearest to."""
    return float(np.mean([circles.radial_errors(rollout.path).min() for rollout in rollouts]))


def mean_total(rollouts: Sequence[ModeRollout]) -> float:
    """Returns the mean return: of Driving the distance [m]."""
    return float(np.mean([rollout.total for rollout in rollouts]))


@torch.no_grad()
def frame_accuracy(learner: InfoGAIL, labelled: Demonstrations) -> float:
    """Returns the share of labelled rows whose mode is the code that Q finds likeliest, matched at their best.

    This is how k-means and the classifiers of `difficulty.py` are judged too.

    Args:
        learner: whose Q.
        labelled: rows as the learner was given them, with the modes of their trajectories.
    """
    assert labelled.codes is not None and isinstance(labelled.observations, np.ndarray)
    observations, actions = torch.as_tensor(labelled.observations), learner.as_judged(torch.as_tensor(labelled.actions))
    told = learner.judges.posterior(observations, actions).argmax(1).numpy()
    return matched_accuracy(told, labelled.codes[labelled.trajectory_of_rows()])


def _place(env_id: str, observation: Any, info: dict[str, Any]) -> tuple[float, float]:
    if env_id == "Driving-v0":
        return float(info["progress"]), float(info["lateral"])
    x, y = circles.positions_of(observation)
    return float(x), float(y)


def _judged(
    env_id: str, code: int, path: list[tuple[float, float]], infos: list[dict[str, Any]], total: float
) -> ModeRollout:
    places = np.array(path)
    mode = driving.evaluate_mode(infos) if env_id == "Driving-v0" else circles.evaluate_mode(places)
    return ModeRollout(code, places, mode, float(total))


def _stack(observations: list[Any]) -> Any:
    if isinstance(observations[0], dict):
        return {key: np.stack([seen[key] for seen in observations]) for key in observations[0]}
    return np.stack(observations)
