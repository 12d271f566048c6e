"""The demonstrations that come with the package, by name, each with a card.

They are of experts trained here by the presets of configs/imitation, and named like their environments. A card says
who acted, how the expert was trained and what it was worth, how it was recorded, and the checksum of the file.
`python -m apps.imitation.shipped` puts a recorded file among them and writes its card.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from apps.common.cli import run_cli
from core_models.errors import UserError, suggestion
from core_models.files import read_json, write_atomic, write_json

from .demonstrations import Demonstrations
from .environments.demonstrating import ENVIRONMENTS

FOLDER = Path(__file__).parent / "experts"
LIBRARIES = {"ppo": "stable-baselines3", "sac": "stable-baselines3", "trpo": "sb3-contrib"}
"""What an expert's algorithm is of."""
LICENCE = "MIT"


def names() -> list[str]:
    """Returns the names of those that there are."""
    return sorted(path.stem for path in FOLDER.glob("*.npz"))


def located(name: str) -> Path:
    """Returns the file of demonstrations behind a path or a name.

    A name that ships wins over a file called the same, which is still to be had as `./NAME.npz`: what a name stands for
    doesn't depend on the working directory.

    Raises:
        UserError: when there is neither such a file nor one of that name in the package.
    """
    path = Path(name)
    if path.suffix != ".npz" and name in names():
        return FOLDER / f"{name}.npz"
    if path.suffix == ".npz" or path.exists():
        if not path.is_file():
            raise UserError(f"expected a file of demonstrations, found none at {name}")
        return path
    if name in ENVIRONMENTS:
        raise UserError(
            f"expected a .npz file of demonstrations; those of {name} don't ship, its expert is scripted: genapps "
            f"imitation demos record --policy expert --environment {name} --out {name}.npz"
        )
    known = ", ".join(names()) or "none"
    hint = suggestion(name, names())
    raise UserError(f"expected a .npz file of demonstrations, or one that ships ({known}), got {name!r}{hint}")


def card(name: str) -> dict[str, Any]:
    """Returns what is to be known of demonstrations that ship.

    Raises:
        UserError: when none of that name ships.
    """
    if name not in names():
        raise UserError(f"expected demonstrations that ship ({', '.join(names()) or 'none'}), got {name!r}")
    found: dict[str, Any] = read_json(FOLDER / f"{name}.json")
    return found


def checksum(path: Path) -> str:
    """Returns the SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def ship(expert: Path, demonstrations: Path, folder: Path = FOLDER) -> None:
    """Puts recorded demonstrations among those that ship, with their card.

    Args:
        expert: The .json that `expert` wrote beside the policy.
        demonstrations: The .npz that `demos record` wrote of it.
        folder: Where those that ship lie.
    """
    made, trained = Demonstrations.load(demonstrations), read_json(expert)
    same = (made.environment, made.environment_kwargs) == (trained["environment"], trained["environment_kwargs"])
    if not same:
        raise UserError(
            f"expected demonstrations of the expert's environment, {trained['environment']} "
            f"{trained['environment_kwargs']}, got {made.environment} {made.environment_kwargs}: record that expert"
        )
    algorithm, own = trained["algorithm"], ("commit", "command", "deterministic", "seed")
    library = LIBRARIES[algorithm]
    target = folder / f"{made.environment}.npz"
    write_atomic(target, demonstrations.read_bytes())
    write_json(
        target.with_suffix(".json"),
        {
            "environment": made.environment,
            "environment_kwargs": made.environment_kwargs,
            "who": f"{algorithm.upper()} of {library}, {trained['steps']:,} steps",
            "trajectories": made.trajectories,
            "steps": int(made.steps.sum()),
            **made.return_figures(),
            "least_return": float(made.needed("returns", "a card tells").min()),
            **{key: made.card[key] for key in own},
            "expert": {key: value for key, value in trained.items() if not key.startswith("environment")},
            "versions": {name: version(name) for name in ("gymnasium", "mujoco", library)},
            "sha256": checksum(target),
            "licence": LICENCE,
        },
    )
    print(f"wrote {target} and its card")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit status."""
    return run_cli(ship, prog="python -m apps.imitation.shipped", argv=argv)


if __name__ == "__main__":
    sys.exit(main())
