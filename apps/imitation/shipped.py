"""The demonstrations that come with the package, by name, each with a card."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from core_models.errors import UserError

FOLDER = Path(__file__).parent / "experts"


def names() -> list[str]:
    """Returns the names of those that there are."""
    return sorted(path.stem for path in FOLDER.glob("*.npz"))


def located(name: str) -> Path:
    """Returns the file of demonstrations behind a path or a name.

    Raises:
        UserError: when there is neither such a file nor one of that name in the package.
    """
    path = Path(name)
    if path.suffix == ".npz" or path.exists():
        if not path.is_file():
            raise UserError(f"expected a file of demonstrations, found none at {name}")
        return path
    if name in names():
        return FOLDER / f"{name}.npz"
    near = get_close_matches(name, names(), n=1, cutoff=0.3)
    hint = f"; did you mean {near[0]}?" if near else ""
    known = ", ".join(names()) or "none"
    raise UserError(f"expected a .npz file of demonstrations, or one that ships ({known}), got {name!r}{hint}")
