"""The table of InfoGAIL: whether codes come to stand for the modes of experts, one result cell a seed.

Protocol 1: demonstrations of the scripted experts, drawn from the seed, their labels taken away before any learner sees
them; episodes of the trained policy in worlds of their own, every code in each. Code accuracy is the share of episodes
whose mode is that of their code, matched at their best: `mode_evaluation.py`. Actions are drawn in Circles, where the
likeliest ones would make one path many times, and are the likeliest in Driving. Distances are fractions of the mean of
the demonstrations'. The settings in `SCENES` were chosen on seeds of 100 and more; cells have seeds from 0.

k-means, PCA, SVM and CNN tell the modes of single frames of the demonstrations, the last two from labels
(`difficulty.py`); InfoGAIL's own answer to that is its posterior's, on demonstrations that it never saw. That is the
frame accuracy, a column of its own: it says what is seen, and code accuracy what is done.

Source: Li, Song and Ermon, "InfoGAIL: interpretable imitation learning from visual demonstrations", NIPS 2017, section
5: figure 1, and the tables of accuracies and of distances with each ingredient left out.
"""

from __future__ import annotations

import inspect
import shlex
import time
from dataclasses import replace
from math import log
from pathlib import Path
from typing import Any

from stable_baselines3.common.vec_env import VecEnv

from apps.common.cells import Cell, told_to_stand, write_cell
from apps.common.machine import set_threads
from apps.common.options import at_least, known_names
from apps.common.provenance import device_words
from core_models.errors import UserError
from core_models.files import hash_of
from core_models.training.progress import Progress

from ..demonstrations import Demonstrations
from ..environments.demonstrating import expert_demonstrations
from ..environments.difficulty import Difficulty, measure_difficulty
from ..environments.making import vector_env
from ..learners import BC, GAIL, InfoGAIL, OnPolicyLearner
from ..learners.base import Learner
from ..learners.over_sb3 import OverSB3
from .mode_evaluation import (
    ModeRollout,
    See,
    frame_accuracy,
    mean_total,
    roll_out,
)
from .mode_figures import draw_modes, paths_as_text
from .mode_scenes import SCENES, Measure, Scene, return_of
from .pixel_features import Features, FeaturesVecEnv, train_features

APP, TABLE, PROTOCOL = "imitation", "infogail", "1"
EVALUATION, UNSEEN = 10_000, 20_000
"""Added to the seed: for the worlds of the evaluation, and for demonstrations that no learner sees."""
CLONING = 200
"""Epochs of behavioural cloning, over some ten thousand rows."""
LEFT_OUT: dict[str, dict[str, Any]] = {
    "InfoGAIL, no augmentation": {"augmentation": 0.0},
    "InfoGAIL, no replay": {"replay": 0},
    "InfoGAIL, no cloning": {"cloning_epochs": 0},
    "InfoGAIL, no Wasserstein critic": {"critic": "gan"},
    "InfoGAIL, no information": {"information": 0.0},
}
"""Rows that lack an ingredient."""
TOLD = {"k-means": "kmeans", "PCA": "pca", "SVM, supervised": "svm", "CNN, supervised": "cnn"}
"""Rows that tell modes from frames of the demonstrations."""
METHODS = {
    "Circles": ("BC", "GAIL", "InfoGAIL"),
    "Driving turn": (*TOLD, "BC", "GAIL", "InfoGAIL", *LEFT_OUT),
    "Driving pass": (*TOLD, "BC", "GAIL", "InfoGAIL", *LEFT_OUT),
}


def modes(
    environments: list[str] | None = None,
    methods: list[str] | None = None,
    seeds: list[int] = [0],  # noqa: B006
    steps: int | None = None,
    results: Path = Path("docs/results"),
    figures: Path | None = None,
    threads: int | None = 1,
    again: bool = False,
) -> None:
    """Fills the cells of the table of InfoGAIL that don't stand yet.

    Args:
        environments: Circles, "Driving turn", "Driving pass"; Circles when left out.
        methods: BC, GAIL, InfoGAIL; of Driving also k-means, PCA, "SVM, supervised", "CNN, supervised" and InfoGAIL
            without an ingredient, as "InfoGAIL, no replay"; all of the environment's when left out.
        seeds: One cell each.
        steps: Steps in the environment [env steps]; those of the protocol when left out.
        results: Where cells are filed.
        figures: A folder: draws there, for each environment, what the codes of the first seed do.
        threads: CPU threads.
        again: Measure again what stands.
    """
    set_threads(threads)
    if not seeds:
        raise UserError("--seeds: expected one or more, got none")
    at_least(0, seeds=min(seeds))
    at_least(1, steps=steps)
    shared: dict[tuple[str, int], Features] = {}
    frames: dict[tuple[str, int], tuple[Difficulty, float]] = {}
    for title in known_names("environments", environments or ["Circles"], SCENES):
        known = dict.fromkeys(METHODS[title])
        for seed in seeds:
            for method in known_names("methods", methods or list(known), known):
                if method in TOLD:
                    _told(title, method, seed, results, again, frames)
                else:
                    _acted(title, method, seed, steps, results, again, shared)
        if figures is not None:
            scene = SCENES[title]
            path = figures / f"{title.lower().replace(' ', '_')}_modes.png"
            draw_modes(path, title, scene.env_id, scene.kwargs, scene.codes, results, scene.measures[0].column, seeds)
            print(path, flush=True)


def _told(
    title: str, method: str, seed: int, results: Path, again: bool,
    shared: dict[tuple[str, int], tuple[Difficulty, float]],
) -> None:  # fmt: skip
    """Fills the cell of what tells modes from frames: all four of an environment and a seed are measured at once."""
    scene = SCENES[title]
    measure = scene.frames
    assert measure is not None  # only such a scene has these rows
    config = {"environment": scene.env_id, "kwargs": scene.kwargs, "trajectories": scene.trajectories, "method": method}
    if not again and _stand(results, method, (measure,), seed, config):
        return
    if (title, seed) not in shared:
        start = time.monotonic()
        measured = measure_difficulty(_demonstrations(scene, seed), seed=seed)
        shared[title, seed] = (measured, time.monotonic() - start)
    found, seconds = shared[title, seed]
    value = 100 * getattr(found, TOLD[method])
    _write(results, title, method, seed, config, [(measure, value)], seconds, None, {"frames": found.frames})


def _acted(
    title: str, method: str, seed: int, steps: int | None, results: Path, again: bool,
    shared: dict[tuple[str, int], Features],
) -> None:  # fmt: skip
    """Fills the cells of a learner."""
    scene = SCENES[title]
    expert = _demonstrations(scene, seed)
    unlabelled = replace(expert, codes=None)
    budget = 0 if method == "BC" else steps or scene.steps
    kind, settings = settings_of(scene, method)
    config = {
        "environment": scene.env_id, "kwargs": scene.kwargs, "trajectories": scene.trajectories, "steps": budget,
        "environments": scene.environments, "learner": kind.__name__, "settings": default_settings(kind) | settings,
        "features": scene.features, "each": scene.each, "deterministic": scene.deterministic,
    }  # fmt: skip
    # before its first iteration a posterior has learnt nothing
    frames = scene.frames if kind is InfoGAIL and budget else None
    columns = scene.measures if frames is None else (*scene.measures, frames)
    if not again and _stand(results, method, columns, seed, config):
        return
    start = time.monotonic()
    learner, features = trained(scene, method, unlabelled, seed, steps=budget, features=shared.get((title, seed)))
    if features is not None:
        shared[title, seed] = features
    seconds = time.monotonic() - start
    see: See | None = None if features is None else features.of
    rollouts = roll_out(
        learner, scene.env_id, scene.kwargs, codes=scene.codes, each=scene.each, seed=seed + EVALUATION,
        deterministic=scene.deterministic, see=see,
    )  # fmt: skip
    values = [(measure, measure.of(rollouts, expert)) for measure in scene.measures if measure.of is not None]
    extra: dict[str, Any] = {
        "steps": learner.num_timesteps, "settings": config, "expert": return_of(expert),
        "return": mean_total(rollouts),
        "modes": {str(code): _counts(rollouts, code) for code in range(scene.codes)},
    }  # fmt: skip
    if isinstance(learner, InfoGAIL):
        unseen = _demonstrations(scene, seed + UNSEEN)
        told = frame_accuracy(learner, unseen if features is None else features.encoded(unseen))
        extra["frame_accuracy"] = told
        values += [] if frames is None else [(frames, 100 * told)]
    _write(results, title, method, seed, config, values, seconds, budget, extra, paths_as_text(rollouts))


def settings_of(scene: Scene, method: str) -> tuple[type[OverSB3], dict[str, Any]]:
    """Returns a row's learner, and its arguments that are not those of its constructor.

    In Driving behavioural cloning has a code too, a random one: it is InfoGAIL before its first iteration.
    """
    if method == "GAIL":
        return GAIL, scene.gail
    if method == "BC" and scene.features is None:
        return BC, {}
    return InfoGAIL, {**scene.info_gail, **LEFT_OUT.get(method, {})}


def default_settings(kind: type[Learner]) -> dict[str, Any]:
    """Returns the defaults of a learner's constructor, without the seed and what cells were hashed without."""
    found: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        if issubclass(base, Learner) and "__init__" in vars(base):
            found |= {n: p.default for n, p in inspect.signature(base).parameters.items() if p.default is not p.empty}
    left_out = ("seed", "tensorboard_log", "verbose", "policy_kwargs", "clip_actions")
    return {name: value for name, value in found.items() if name not in left_out}


def trained(
    scene: Scene,
    method: str,
    demonstrations: Demonstrations,
    seed: int,
    *,
    steps: int,
    features: Features | None = None,
) -> tuple[OverSB3, Features | None]:
    """Returns the learner of a row, trained, and the features that it sees images through.

    GAIL begins with behavioural cloning, as InfoGAIL does, by BC's own settings; its reward is the discriminator's.

    Args:
        scene: where.
        method: the row.
        demonstrations: of the scene's experts.
        seed: of weights, draws and environments.
        steps: [env steps].
        features: those of another row of the scene and the seed, which are the same.
    """
    env: VecEnv = vector_env(scene.env_id, scene.kwargs, environments=scene.environments, seed=seed)
    if features is None and scene.features is not None:
        roads = vector_env(scene.env_id, scene.kwargs, environments=scene.environments, seed=seed)
        features = train_features(demonstrations, roads, seed=seed, **scene.features)
        roads.close()
    if features is not None:
        env, demonstrations = FeaturesVecEnv(env, features), features.encoded(demonstrations)
    kind, settings = settings_of(scene, method)
    drawn = {"clip_actions": False} if issubclass(kind, OnPolicyLearner) else {}  # as the cells that stand were made
    learner = kind(env, demonstrations, seed=seed, **{**drawn, **settings})
    if isinstance(learner, BC):
        learner.learn(epochs=CLONING)
    elif isinstance(learner, GAIL):
        cloned = BC(env, demonstrations, seed=seed, hidden=learner.hidden).learn(epochs=CLONING)
        learner.policy.load_state_dict(cloned.policy.state_dict())
        if spread := scene.info_gail.get("spread"):
            learner.policy.log_std.data.clamp_(min=log(spread))
    if isinstance(learner, OnPolicyLearner) and steps:
        with Progress(f"{method}, seed {seed}", steps) as bar:

            def shown(made: OnPolicyLearner) -> None:
                done = min(made.num_timesteps, steps)
                bar.update(done, _words(made.history[-1]), last=done >= steps)

            learner.learn(steps, after_iteration=shown)
    env.close()
    return learner, features


def _words(record: dict[str, float]) -> str:
    parts = [f"return {record['true_return']:.1f}"] if "true_return" in record else []
    parts += [f"Q right on {record['posterior_accuracy']:.0f} %"] if "posterior_accuracy" in record else []
    return ", ".join(parts)


def _demonstrations(scene: Scene, seed: int) -> Demonstrations:
    return expert_demonstrations(scene.env_id, scene.task, scene.trajectories, seed=seed)


def _counts(rollouts: list[ModeRollout], code: int) -> dict[str, int]:
    modes_seen = [str(rollout.mode) for rollout in rollouts if rollout.code == code]
    return {mode: modes_seen.count(mode) for mode in sorted(set(modes_seen))}


def _place(method: str, measure: Measure, seed: int) -> dict[str, Any]:
    return {"app": APP, "table": TABLE, "row": method, "column": measure.column, "draw": seed}


def _stand(results: Path, method: str, measures: tuple[Measure, ...], seed: int, config: dict[str, Any]) -> bool:
    """Returns whether nothing is to be measured: all cells stand, or some of other settings, which aren't replaced."""
    missing, known = 0, hash_of(config)
    for measure in measures:
        place, words = _place(method, measure, seed), f"{method}, {measure.column}, seed {seed}"
        cell = told_to_stand(results, words, **place, config_hash=known, protocol=PROTOCOL)
        if cell is not None and not cell.is_of(known, PROTOCOL):
            return True
        missing += cell is None
    return missing == 0


def _write(
    results: Path, title: str, method: str, seed: int, config: dict[str, Any], values: list[tuple[Measure, float]],
    seconds: float, steps: int | None, extra: dict[str, Any], paths: list[str] | None = None,
) -> None:  # fmt: skip
    options = {"environments": f'["{title}"]', "methods": f'["{method}"]', "seeds": f"[{seed}]"}
    options |= {"steps": str(steps)} if steps else {}
    command = " ".join(["genapps imitation modes", *(f"--{name} {shlex.quote(t)}" for name, t in options.items())])
    for i, (measure, value) in enumerate(values):
        # the paths that figures are drawn from stand once
        more = {"paths": paths} if paths is not None and i == 0 else {}
        write_cell(
            results,
            Cell(
                **_place(method, measure, seed), value=value, unit=measure.unit, better=measure.better, seed=seed,
                config_hash=hash_of(config), protocol=PROTOCOL, device=device_words("cpu"), seconds=seconds,
                command=command, extra={**extra, **more},
            ),
        )  # fmt: skip
    told = ", ".join(f"{measure.column} {value:.3f}" for measure, value in values)
    print(f"{method}, seed {seed}: {told}, {seconds:.0f} s", flush=True)
