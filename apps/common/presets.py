"""Presets: the YAML files of `configs/`, found by name from anywhere (`--config semi_supervised/m2`)."""

from __future__ import annotations

from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path

from core_models.errors import UserError

from .provenance import ROOT


def presets_folder() -> Path:
    """Returns the folder that holds the presets: `apps/presets` of a wheel, `configs` of a checkout."""
    shipped = Path(str(files("apps") / "presets"))
    # Beside site-packages/apps, a folder "configs" would be somebody else's: only a checkout has a pyproject.toml.
    if not shipped.is_dir() and (ROOT / "pyproject.toml").is_file():
        return ROOT / "configs"
    return shipped


def preset_names() -> list[str]:
    """Returns every preset's name, e.g. "semi_supervised/m2"."""
    folder = presets_folder()
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))


def find_config(name: str) -> Path:
    """Returns the configuration file that the user means: a file of theirs, else a preset.

    Raises:
        UserError: when there is neither; it names the closest presets.
    """
    own = Path(name).expanduser()
    if own.is_file():
        return own
    names = preset_names()
    preset = name.removesuffix(".yaml").removeprefix("configs/")
    if preset in names:
        return presets_folder() / f"{preset}.yaml"
    # "m2" alone, or "semi_supervised/m1m2", should lead to the right one
    last = {known.rsplit("/", 1)[-1]: known for known in names}
    close = get_close_matches(preset, names, n=3, cutoff=0.5)
    close += [last[found] for found in get_close_matches(preset.rsplit("/", 1)[-1], last, n=3, cutoff=0.6)]
    known = ", ".join(dict.fromkeys(close)) or ", ".join(names) or "none"
    what = "closest presets" if close else "presets"
    raise UserError(f"--config: expected a file or a preset's name, got {name!r}, which is neither; {what}: {known}")
