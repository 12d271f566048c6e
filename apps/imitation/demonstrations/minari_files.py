"""Demonstrations from and to Minari data sets on this machine; nothing is downloaded.

Minari (Farama, the standard format of offline data for gymnasium) keeps an episode as T actions, T rewards, T pairs of
flags and T + 1 observations, the last of which is seen after the last action. An episode that neither flag ends was cut
off by whoever wrote it: its last step is a time limit's, not an end that the environment chose.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.envs.registration import EnvSpec

from core_models.errors import UserError
from core_models.files import atomic_folder

from .checking import check_spaces
from .consistency import single_precision
from .data import Demonstrations, Observations
from .identity import identity_of, imports_nothing

ID = r"(?:[\w-]+/)*[\w-]+-v\d+"
"""A data set's name: folders, the name itself, and a version."""
OURS = "genapps_environment"
"""Beside Minari's own metadata: the environment's id and arguments, where gymnasium can't write its record of them."""
UNREADABLE = (OSError, KeyError, ValueError, TypeError, AssertionError, RuntimeError, NotImplementedError)
"""What minari and h5py raise for a damaged data set."""


def datasets_folder() -> Path:
    """Returns where Minari keeps data sets: $MINARI_DATASETS_PATH, else ~/.minari/datasets."""
    given = os.environ.get("MINARI_DATASETS_PATH")
    return Path(given) if given else Path.home() / ".minari" / "datasets"


def read_minari(
    source: Path | str, *, trajectories: int | None = None, environment: str | None = None
) -> Demonstrations:
    """Reads a Minari data set.

    Numbers with a fraction are kept in float32. Codes come from `infos["code"]` where it is there.

    Args:
        source: the name of a data set in `datasets_folder()` (`D4RL/pen/expert-v2`), or the path of its folder.
        trajectories: how many episodes, from the first on; all where None.
        environment: the gymnasium id, for data sets that don't say it.

    Raises:
        UserError: when minari isn't installed, the data set isn't there or is damaged, or its observations or actions
            are neither an array nor a dict of them.
    """
    minari = _minari()
    folder = _folder_of(source)
    _check_metadata(folder)
    try:
        data = minari.MinariDataset(folder)
        count = int(data.total_episodes) if trajectories is None else min(trajectories, int(data.total_episodes))
        if trajectories is not None and not 1 <= trajectories <= int(data.total_episodes):
            raise UserError(f"{source}: expected 1 to {data.total_episodes} episodes, got {trajectories}")
        episodes = list(data.iterate_episodes(range(count)))
        metadata = data.storage.metadata
        spec = data.spec.env_spec
    except UserError:
        raise
    except ImportError as error:
        raise UserError(f"{source}: {error}") from error
    except UNREADABLE as error:
        raise UserError(f"{source}: expected a whole Minari data set ({error}): fetch it again") from error
    if not episodes:
        raise UserError(f"{source}: expected episodes, got none")
    name, kwargs = _said(metadata) if spec is None else identity_of(spec)
    if environment not in (None, name):
        name, kwargs = environment or "", {}
    if not name:
        raise UserError(f"{source}: expected the gymnasium id of its environment, found none: give --environment")
    try:
        return _of_episodes(episodes, name, kwargs, _card(metadata))
    except UserError as error:
        raise UserError(f"{source}: {error}") from error


def write_minari(
    demonstrations: Demonstrations,
    name: str,
    *,
    folder: Path | str | None = None,
    author: str | None = None,
    environment: str | None = None,
) -> Path:
    """Writes a Minari data set, whole or not at all, and returns its folder.

    Images are kept as they are, not as JPEG.

    Args:
        demonstrations: complete trajectories.
        name: of the data set: `folders/name-v0`.
        folder: where data sets are kept; `datasets_folder()` where None.
        author: who is named as the author.
        environment: the gymnasium id, where it is another than the demonstrations say.

    Raises:
        UserError: when minari isn't installed, rows were left out, the environment can't be made or has other spaces,
            its id names a module to import and wasn't given here, or there is such a data set already.
    """
    # imported here: that module takes demonstrations, from this package
    from ..environments.making import make_env

    minari = _minari()
    if not re.fullmatch(ID, name):
        raise UserError(f"expected a data set's name as Minari has them, e.g. CartPole/expert-v0, got {name!r}")
    if demonstrations.subsample > 1:
        raise UserError(
            f"expected complete trajectories, as Minari keeps them, got one row in {demonstrations.subsample}: export "
            "demonstrations that are not subsampled"
        )
    made = environment or imports_nothing(demonstrations.environment)
    with closing(make_env(made, demonstrations.environment_kwargs)) as env:
        spaces, spec = (env.observation_space, env.action_space), env.spec
    check_spaces(demonstrations, *spaces, made)
    target = (Path(folder).resolve() if folder is not None else datasets_folder()) / name
    if target.exists():
        raise UserError(f"expected a new data set, {target} is there already: choose another name or version")
    storage_class = minari.dataset.minari_storage.MinariStorage
    with atomic_folder(target) as temporary:
        storage = storage_class.new(temporary / "data", *spaces, _in_json(spec), jpeg_encoding=False)
        metadata: dict[str, Any] = {"dataset_id": name, "minari_version": minari.__version__}
        metadata[OURS] = {"id": made, "kwargs": demonstrations.environment_kwargs}
        if author:
            metadata["author"] = {author}
        if demonstrations.card:
            metadata["description"] = json.dumps(demonstrations.card)
        storage.update_metadata(metadata)
        storage.update_episodes(_episodes(demonstrations))
    return target


def _minari() -> Any:
    try:
        import minari
        import minari.dataset.minari_storage
    except ImportError as error:
        raise UserError(
            "expected minari, which reads and writes its data sets, found none: pip install 'genapps[minari]'"
        ) from error
    return minari


def _folder_of(source: Path | str) -> Path:
    """Returns the folder in which a data set's numbers lie."""
    for place in (Path(source), datasets_folder() / source):
        for folder in (place / "data", place):
            if (folder / "metadata.json").is_file():
                return folder
    raise UserError(
        f"expected a Minari data set, found none at {source} nor in {datasets_folder()}: give its folder, or set "
        "MINARI_DATASETS_PATH (nothing is downloaded)"
    )


def _in_json(spec: EnvSpec | None) -> EnvSpec | None:
    """Returns a record of an environment if it can be written: one registered by a class, not its name, can't be."""
    try:
        if spec is not None:
            spec.to_json()
    except (TypeError, ValueError):
        return None
    return spec


def _said(metadata: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    ours = metadata.get(OURS)
    if isinstance(ours, dict) and isinstance(ours.get("id"), str) and isinstance(ours.get("kwargs"), dict):
        return ours["id"], ours["kwargs"]
    return "", {}


def _check_metadata(folder: Path) -> None:
    """Refuses a data set without spaces: minari would make its environment, and so run what the file names."""
    try:
        metadata = json.loads((folder / "metadata.json").read_text())
        spaces = {"observation_space", "action_space"} <= set(metadata)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{folder}: expected a Minari data set ({error}): fetch it again") from error
    if not spaces:
        raise UserError(f"{folder}: expected a Minari data set that says its spaces, found none: write it again")


def _of_episodes(episodes: list[Any], environment: str, kwargs: dict[str, Any], card: dict[str, Any]) -> Demonstrations:
    for i, episode in enumerate(episodes):
        for part in _arrays(f"observations of episode {i}", episode.observations):
            if len(part) != len(episode) + 1:
                raise UserError(
                    f"expected one more observation than the {len(episode)} steps of episode {i}, got {len(part)}"
                )
        _arrays(f"actions of episode {i}", episode.actions, keys=False)
    codes = [_code(i, episode.infos, len(episode)) for i, episode in enumerate(episodes)]
    return Demonstrations(
        observations=_joined([episode.observations for episode in episodes], slice(None, -1)),
        actions=single_precision(np.concatenate([episode.actions for episode in episodes])),
        rewards=np.concatenate([episode.rewards for episode in episodes]),
        lengths=np.array([len(episode) for episode in episodes]),
        returns=np.array([np.sum(episode.rewards, dtype=np.float64) for episode in episodes]),
        terminated=np.array([bool(np.any(episode.terminations[-1:])) for episode in episodes]),
        final_observations=_joined([episode.observations for episode in episodes], slice(-1, None)),
        environment=environment,
        environment_kwargs=kwargs,
        codes=None if None in codes else np.array(codes),
        card=card,
    )


def _arrays(name: str, value: Any, keys: bool = True) -> list[np.ndarray]:
    parts = list(value.values()) if isinstance(value, dict) and keys else [value]
    if not all(isinstance(part, np.ndarray) for part in parts):
        kinds = ", ".join(sorted({type(part).__name__ for part in parts}))
        raise UserError(f"expected an array{' or a dict of arrays' if keys else ''} in the {name}, got {kinds}")
    return parts


def _code(i: int, infos: Any, steps: int) -> int | None:
    """Returns the code that an episode's infos hold, None where there is none or it changes."""
    found = infos.get("code") if isinstance(infos, dict) else None
    if found is None or not len(found) or np.asarray(found).dtype.kind not in "iu" or np.ptp(found):
        return None
    return int(found[0])


def _joined(observations: list[Observations], rows: slice) -> Observations:
    first = observations[0]
    if isinstance(first, dict):
        return {key: single_precision(np.concatenate([own[key][rows] for own in observations])) for key in first}
    return single_precision(np.concatenate([np.asarray(own)[rows] for own in observations]))


def _card(metadata: dict[str, Any]) -> dict[str, Any]:
    """Returns what a data set says of itself: a card of ours, which is kept as the description, and the rest."""
    card: dict[str, Any] = {}
    for key in ("description", "algorithm_name", "author", "code_permalink"):
        if value := metadata.get(key):
            card[key] = ", ".join(sorted(value)) if isinstance(value, set) else str(value)
    try:
        ours = json.loads(card.get("description", ""))
    except ValueError:
        ours = None
    if isinstance(ours, dict):
        del card["description"]
        card = {**ours, **card}
    return {**card, "minari": metadata["dataset_id"]}


def _episodes(demonstrations: Demonstrations) -> Iterator[Any]:
    from minari.data_collector import EpisodeBuffer

    wants = "Minari keeps with each episode"
    rewards, terminated = demonstrations.needed("rewards", wants), demonstrations.needed("terminated", wants)
    seen, final = demonstrations.observations, demonstrations.needed("final_observations", wants)
    for i, (start, length) in enumerate(zip(demonstrations.row_starts(), demonstrations.lengths, strict=True)):
        rows = slice(start, start + length)
        observations: Observations
        if isinstance(seen, dict) and isinstance(final, dict):
            observations = {key: np.concatenate([seen[key][rows], final[key][i : i + 1]]) for key in seen}
        else:
            observations = np.concatenate([np.asarray(seen)[rows], np.asarray(final)[i : i + 1]])
        last = np.arange(length) == length - 1
        code = None if demonstrations.codes is None else {"code": np.full(length + 1, demonstrations.codes[i])}
        yield EpisodeBuffer(
            observations=observations,
            actions=demonstrations.actions[rows],
            rewards=rewards[rows],
            terminations=last & terminated[i],
            truncations=last & ~terminated[i],
            infos=code,
        )
