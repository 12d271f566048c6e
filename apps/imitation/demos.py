"""`genapps imitation demos`: demonstrations recorded, imported, exported and looked at."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from gymnasium import Space

from apps.common.machine import find_device, set_threads
from apps.common.options import at_least
from apps.common.provenance import command_line, commit
from core_models.errors import UserError
from core_models.files import require_new

from .demonstrations import Demonstrations, Policy, RandomPolicy, check_spaces, read_minari, record, write_minari
from .demonstrations.identity import imports_nothing
from .demonstrations.saved_policy import Algorithm, algorithm_of, check_policy, load_policy
from .demonstrations.summary import summary, summary_text
from .environments.demonstrating import expert_demonstrations
from .environments.making import make_env
from .shipped import card, located, names
from .trained import POLICY

RANDOM, EXPERT = "random", "expert"


def record_demos(
    policy: str,
    environment: str,
    out: Path,
    algorithm: Algorithm | None = None,
    environment_kwargs: dict[str, Any] | None = None,
    trajectories: int = 10,
    deterministic: bool = False,
    subsample: int = 1,
    codes: bool = True,
    seed: int = 0,
    device: str = "cpu",
    threads: int | None = None,
) -> None:
    """Runs a policy for whole episodes and writes what it saw and did, with a card: who, return, seed, command.

    Args:
        policy: A policy saved by stable-baselines3 (.zip), or a run folder that holds one; the word random; or the word
            expert, the scripted one of Circles-v0, Driving-v0 (--environment_kwargs.task turn or pass) or CarRacing-v3.
            Opening a zip runs code that it holds: open only your own, or those of somebody you trust. A
            vec_normalize.pkl beside it is not read, since it is a pickle: save the policy with its normalisation
            inside, as genapps does.
        environment: The gymnasium id, e.g. CartPole-v1.
        out: The .npz to write.
        algorithm: Which algorithm saved the policy, trpo, ppo or sac; found in the file when left out.
        environment_kwargs: What the environment is made with, e.g. {use_contact_forces: true}.
        trajectories: Episodes to record.
        deterministic: Take the likeliest action instead of drawing one.
        subsample: Keep one row in so many of each trajectory, from a random offset.
        codes: Keep the mode of each trajectory where the environment's info says it.
        seed: Of the environment, the policy's draws, and the offsets of --subsample.
        device: Where the policy runs: auto, cpu, cuda or cuda:N.
        threads: CPU threads.
    """
    set_threads(threads)
    at_least(0, seed=seed)
    at_least(1, subsample=subsample)
    _check_out(out)
    if (Path(policy) / POLICY).is_file():  # a run folder
        policy = str(Path(policy) / POLICY)
    with closing(make_env(environment, environment_kwargs)) as env:
        actor: Policy | None
        if policy == RANDOM:
            who, actor = "random actions", RandomPolicy(env.action_space, seed)
        elif policy == EXPERT:
            who, actor = "scripted experts", None
        else:
            known = algorithm_of(policy)
            if algorithm is not None and known is not None and algorithm != known:
                raise UserError(f"--algorithm: expected {known}, which saved {policy}, got {algorithm}: leave it out")
            algorithm = algorithm or known or "trpo"
            model = load_policy(policy, algorithm, device=str(find_device(device)))
            check_policy(model, env, environment)
            who, actor = f"{algorithm.upper()}, {Path(policy).name}", model
        if actor is None:
            others = [name for name in environment_kwargs or {} if name != "task"]
            if others:
                raise UserError(
                    f"--environment_kwargs: expected none but the task of Driving-v0 for the scripted experts, got "
                    f"{', '.join(others)}"
                )
            task = (environment_kwargs or {}).get("task", "turn" if environment == "Driving-v0" else None)
            demonstrations = expert_demonstrations(environment, task, trajectories, seed=seed)
        else:
            demonstrations = record(
                actor, env, trajectories, seed=seed, deterministic=deterministic, environment=environment,
                environment_kwargs=environment_kwargs or {}, progress=True,
            )  # fmt: skip
        spaces = env.observation_space, env.action_space
    card = {
        "who": who,
        **demonstrations.return_figures(),
        "episodes": trajectories,
        "deterministic": deterministic,
        "seed": seed,
        "command": command_line(),
        "commit": commit(),
    }
    demonstrations = replace(demonstrations, card=card, codes=demonstrations.codes if codes else None)
    demonstrations = demonstrations.subsampled(subsample, seed=seed)
    demonstrations.save(out)
    print(summary_text(summary(demonstrations, *spaces)))
    print(f"wrote {out}")


def import_demos(
    minari: str,
    out: Path,
    environment: str | None = None,
    trajectories: int | None = None,
    subsample: int = 1,
    codes: bool = True,
    seed: int = 0,
) -> None:
    """Makes a .npz of a Minari data set on this machine; nothing is downloaded.

    Needs minari: pip install 'genapps[minari]'.

    Args:
        minari: A data set by name, in $MINARI_DATASETS_PATH or else ~/.minari/datasets, or by the path of its folder.
        out: The .npz to write.
        environment: The gymnasium id, for a data set that doesn't say it.
        trajectories: How many episodes, from the first on; all where left out.
        subsample: Keep one row in so many of each trajectory, from a random offset.
        codes: Keep the mode of each trajectory where its infos say it.
        seed: Of the offsets of --subsample.
    """
    _check_out(out)
    at_least(1, subsample=subsample)
    at_least(0, seed=seed)
    demonstrations = read_minari(minari, trajectories=trajectories, environment=environment)
    card = {**demonstrations.card, "imported_by": command_line()}
    demonstrations = replace(demonstrations, card=card, codes=demonstrations.codes if codes else None)
    demonstrations = demonstrations.subsampled(subsample, seed=seed)
    demonstrations.save(out)
    print(summary_text(summary(demonstrations)))
    print(f"wrote {out}")


def export_demos(
    demonstrations: str,
    minari: str | None = None,
    out: Path | None = None,
    folder: Path | None = None,
    author: str | None = None,
    environment: str | None = None,
    trajectories: int | None = None,
    subsample: int = 1,
    codes: bool = True,
    seed: int = 0,
) -> None:
    """Writes demonstrations as a Minari data set, or some of them as another .npz.

    Args:
        demonstrations: The .npz to read, or the name of one that ships: see `demos list`.
        minari: Name of the Minari data set to write, e.g. CartPole/expert-v0; needs pip install 'genapps[minari]'.
        out: The .npz to write, instead or as well.
        folder: Where Minari data sets are kept; $MINARI_DATASETS_PATH or else ~/.minari/datasets where left out.
        author: Who is named as the author of the Minari data set.
        environment: The gymnasium id that the Minari data set is to name, where it is another than the file says.
        trajectories: How many, from the first on; all where left out.
        subsample: Keep one row in so many of each trajectory, from a random offset; not with --minari.
        codes: Keep the modes of the trajectories, where they are known.
        seed: Of the offsets of --subsample.
    """
    if minari is None and out is None:
        raise UserError("expected --minari NAME or --out FILE, got neither: say where to write")
    if out is not None:
        _check_out(out)
    chosen = _chosen(demonstrations, trajectories, subsample, seed)
    chosen = chosen if codes else replace(chosen, codes=None)
    if minari is not None:
        print(f"wrote {write_minari(chosen, minari, folder=folder, author=author, environment=environment)}")
    if out is not None:
        figures = {**chosen.return_figures(), "episodes": chosen.trajectories}
        replace(chosen, card={**chosen.card, **figures, "exported_by": command_line()}).save(out)
        print(f"wrote {out}")


def inspect_demos(
    demonstrations: str,
    environment: str | None = None,
    environment_kwargs: dict[str, Any] | None = None,
    trajectories: int | None = None,
    subsample: int = 1,
    seed: int = 0,
    as_json: bool = False,
) -> None:
    """Checks demonstrations and says what is in them: sizes, returns, codes, where they come from, what looks odd.

    They are held against the spaces of their environment, or of another one that is named.

    Args:
        demonstrations: The .npz to read, or the name of one that ships: see `demos list`.
        environment: Another environment's gymnasium id.
        environment_kwargs: What it is made with.
        trajectories: How many to look at, from the first on; all where left out.
        subsample: Look at one row in so many of each trajectory only, from a random offset.
        seed: Of the offsets of --subsample.
        as_json: Print JSON.
    """
    chosen = _chosen(demonstrations, trajectories, subsample, seed)
    name = environment or chosen.environment
    checked = f"they fit the spaces of {name}"
    spaces: tuple[Space[Any] | None, Space[Any] | None] = None, None
    try:
        if environment is None:
            env = make_env(imports_nothing(name), chosen.environment_kwargs)
        else:
            env = make_env(name, environment_kwargs)
    except UserError as error:
        if environment is not None:
            raise
        checked = f"not against the spaces of {name}: {error}"
    else:
        with closing(env):
            spaces = env.observation_space, env.action_space
        try:
            check_spaces(chosen, env.observation_space, env.action_space, name)
        except UserError as error:
            raise UserError(f"{demonstrations}: {error}") from error
    found = summary(chosen, *spaces)
    if as_json:
        print(json.dumps({**found, "checked": checked}, indent=2))
    else:
        print(summary_text(found))
        print(f"checked: {checked}")


def list_demos(as_json: bool = False) -> None:
    """Says which demonstrations ship with the package; each is named like its environment.

    Their names stand for their files: --demonstrations CartPole-v1.

    Args:
        as_json: Print their cards, as JSON.
    """
    cards = {name: card(name) for name in names()}
    if as_json:
        print(json.dumps(cards, indent=2))
        return
    print(f"{'name':<16} {'trajectories':>12} {'steps':>8} {'return':>20}  expert")
    for name, own in cards.items():
        told = f"{own['mean_return']:.1f} ± {own['std_return']:.1f}"
        print(f"{name:<16} {own['trajectories']:>12} {own['steps']:>8,} {told:>20}  {own['who']}")


def _chosen(name: str, trajectories: int | None, subsample: int, seed: int) -> Demonstrations:
    at_least(0, seed=seed)
    demonstrations = Demonstrations.load(located(name))
    if trajectories is not None:
        demonstrations = demonstrations.take(trajectories)
    return demonstrations.subsampled(subsample, seed=seed)


def _check_out(out: Path) -> None:
    """Refuses before the work what could not be written after it."""
    if out.suffix != ".npz":
        raise UserError(f"--out: expected a file name that ends in .npz, got {out}")
    require_new(out)
